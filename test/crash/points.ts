/**
 * A run of the workflow that uses everything, made to fail at a chosen statement between its process and Postgres; and what must hold of it
 * afterwards, whatever failed.
 */
import { isDeepStrictEqual } from "node:util";
import type { Test } from "tap";
import { type Crew, crew, type Member } from "../support/crew.ts";
import { INVARIANTS } from "../support/engine.ts";
import { type Failure, type Point, StatementProxy } from "../support/wire.ts";
import { EFFECTS, PLAIN, RESULT } from "./everything.ts";

const OPTIONS = { workflows: ["everything", "small", "heard", "hopeless", "last"] };
/** A go that takes longer hangs. */
const PATIENCE_MS = 60_000;
/** Steps that may be in work when a process dies: those of a Promise.all, or the parent's and a child's. */
const WIDTH = 3;

/** What one go has shown. */
export interface Go {
  readonly run: string;
  /** The statements that its process has sent, from the start on. */
  readonly seen: readonly Point[];
  /** Whether the failure took place. */
  readonly hit: boolean;
  readonly violations: readonly string[];
}

interface Seat {
  readonly member: Member;
  readonly proxy: StatementProxy;
}

/** A schema of its own, a process at work in it, and another that waits for that one's death. */
export class Lane {
  readonly #crew: Crew;
  #seat: Seat;
  #next: Promise<Seat>;
  readonly #proxies: StatementProxy[];
  #count = 0;

  private constructor(made: Crew, seat: Seat, next: Promise<Seat>, proxies: StatementProxy[]) {
    this.#crew = made;
    this.#seat = seat;
    this.#next = next;
    this.#proxies = proxies;
  }

  static async open(t: Pick<Test, "teardown">): Promise<Lane> {
    const proxies: StatementProxy[] = [];
    t.teardown(() => Promise.all(proxies.map((proxy) => proxy.close())));
    const made = await crew(t);
    await made.sql(INVARIANTS);
    const seat = await recruit(made, proxies);
    await seat.member.call("launch");
    return new Lane(made, seat, recruit(made, proxies), proxies);
  }

  /** One run. `point`: where it fails; null: nowhere. */
  async go(point: Point | null, failure: Failure): Promise<Go> {
    this.#count += 1;
    const run = `go-${this.#count}`;
    const { member, proxy } = this.#seat;
    proxy.arm(point, failure, {
      kill: () => member.end("SIGKILL"),
      terminate: (pid) => this.#crew.sql("select pg_terminate_backend($1, 5000)", [pid]),
    });
    const result = await within(this.#play(run), `run "${run}" does not come to its end`);
    proxy.disarm();
    await proxy.over;
    const violations = [...differences(result), ...(await this.#violations(run, member.alive))];
    return { run, seen: [...proxy.seen], hit: proxy.hit, violations };
  }

  /** Asks until it is told: the next process, when this one has died. */
  async #play(run: string): Promise<unknown> {
    for (;;) {
      const { member } = this.#seat;
      try {
        return await member.call("play", run);
      } catch (error) {
        if (member.alive) {
          if (/ECONN|terminat|PERDURE_DATABASE|connect/i.test(String(error))) continue;
          return error;
        }
        await this.#replace();
      }
    }
  }

  async #replace(): Promise<void> {
    this.#seat = await this.#next;
    this.#next = recruit(this.#crew, this.#proxies);
    await this.#seat.member.call("launch");
  }

  /** What does not hold of a run, by the database and by what its steps have left there. `lived`: its process is alive. */
  async #violations(run: string, lived: boolean): Promise<string[]> {
    const found: string[] = [];
    const sql = this.#crew.sql;
    const count = (names: readonly string[]): Record<string, number> => {
      const counts: Record<string, number> = {};
      for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
      return counts;
    };
    const effects = (await sql("select step from :SCHEMA.ledger where run = $1 order by step", [run])).map(
      (r) => r.step,
    );
    if (!isDeepStrictEqual(effects, EFFECTS)) found.push(`the transactions' effects are ${effects.join(", ")}`);
    const entered = count((await this.#crew.journal(run)).map(({ step }) => step));
    let again = 0;
    for (const name of new Set([...Object.keys(entered), ...Object.keys(PLAIN)])) {
      const more = (entered[name] ?? 0) - (PLAIN[name] ?? 0);
      if (more < 0 || more > 1) found.push(`step "${name}" ran ${entered[name] ?? 0} times instead of ${PLAIN[name]}`);
      again += more;
    }
    if (again > (lived ? 0 : WIDTH)) found.push(`${again} steps ran again`);
    const rows = await sql(CHECKS, [run]);
    for (const { what, found: is, wanted } of rows)
      if (is !== wanted) found.push(`${what}: ${is} instead of ${wanted}`);
    return found;
  }
}

/** What is left of a run and of those below it, and what should be. */
const CHECKS = `
  with family as (select * from :SCHEMA.run r where r.id = $1 or r.id like $1 || '/%' or r.parent in (select key from :SCHEMA.run where id = $1)),
  self as (select * from family where id = $1)
  select * from (values
    ('runs', (select string_agg(workflow || ' ' || state, ', ' order by workflow, state) from family),
      'everything completed, heard cancelled, heard completed, heard completed, hopeless failed, last completed, small completed, small completed, small completed'),
    ('attempts of the workflow', (select attempt::text from self), '2'),
    ('events', (select string_agg(coalesce(m.reference, '-') || ' ' || (m.slot is not null)::text, ', ' order by m.seq) from :SCHEMA.mail m join self on self.key = m.run),
      'one true, two true'),
    ('events twice in a slot', (select count(*)::text from (select from :SCHEMA.mail m join family f on f.key = m.run where m.slot is not null group by m.run, m.slot having count(*) > 1) x), '0'),
    ('mail of the others', (select count(*)::text from :SCHEMA.mail m join family f on f.key = m.run and f.id <> $1 where m.slot is not null), '2'),
    ('items', (select string_agg(coalesce(i.value #>> '{json}', 'closed'), ', ' order by i.pos) from :SCHEMA.item i join self on self.key = i.run where i.stream = 'items'), 'first, second, third, closed'),
    ('spoken', (select (count(*) > 0)::text from :SCHEMA.item i join self on self.key = i.run where i.stream = 'spoken'), 'true'),
    ('open waits', (select count(*)::text from :SCHEMA.wait w join family f on f.key = w.run where f.state = 'completed'), '0'),
    ('in ready', (select count(*)::text from :SCHEMA.ready q join family f on f.key = q.run), '0'),
    ('held', (select count(*)::text from family where worker is not null), '0'),
    ('untold', (select count(*)::text from family where untold), '0'),
    ('outcomes', (select count(*)::text from :SCHEMA.outcome o join family f on f.key = o.run), '8'),
    ('checkpoints of no claim', (select count(*)::text from :SCHEMA.checkpoint c join family f on f.key = c.run where c.epoch not between 1 and f.epoch), '0')
  ) as checks(what, found, wanted)`;

async function recruit(made: Crew, proxies: StatementProxy[]): Promise<Seat> {
  const url = new URL(made.url);
  const proxy = await StatementProxy.open({ host: url.hostname, port: Number(url.port) });
  proxies.push(proxy);
  url.port = `${proxy.port}`;
  return { member: await made.recruit({ ...OPTIONS, url: url.href }), proxy };
}

function differences(result: unknown): string[] {
  if (isDeepStrictEqual(result, RESULT)) return [];
  return [`it came to ${result instanceof Error ? result.message : JSON.stringify(result)}`];
}

async function within<T>(work: Promise<T>, what: string): Promise<T | Error> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Error>((resolve) => {
    timer = setTimeout(() => resolve(new Error(`${what} within ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}
