/** Looking at runs in work: what the database has for them that this process does not know. */
import type { DatabaseClock } from "../core/clock.ts";
import { toEnded, toMails } from "../db/loaded.ts";
import type { Store } from "../db/store.ts";
import type { LoadedRow } from "../db/writes.ts";
import type { Pass } from "../engine/pass.ts";
import type { News, Rung } from "../engine/ports.ts";
import { toNews } from "./news.ts";

export class Looks {
  readonly #store: Store;
  readonly #clock: DatabaseClock;

  constructor(store: Store, clock: DatabaseClock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** What is new for each of these, in one statement. */
  async look(passes: readonly Pass[]): Promise<News[]> {
    const claims = passes.map((pass) => pass.ledger.claim);
    const askedAt = performance.now();
    const rows = await this.#store.look(
      claims.map((c) => c.run),
      claims.map((c) => c.epoch),
      passes.map((pass) => pass.mailbox.last),
    );
    const byRun = new Map(rows.map((row) => [row.run, row]));
    if (rows[0]) this.#clock.observe(rows[0].now_ms);
    return claims.map((claim) => toNews(byRun.get(claim.run), askedAt, this.#clock.now()));
  }

  /** What a claim says of a run that is in memory. It was made after all that the run has written. */
  newsOf({ mail, unread, ended, now_ms, news }: LoadedRow): News {
    this.#clock.observe(now_ms);
    const [due, next] = JSON.parse(news!) as [[string, Rung][] | null, number | null];
    return {
      askedAt: performance.now(),
      now: now_ms,
      held: true,
      pausing: false,
      mail,
      unread: toMails(unread),
      due: new Map(due ?? []),
      ended: toEnded(ended),
      next: next === null ? null : this.#clock.now() + next,
    };
  }
}
