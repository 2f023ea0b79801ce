/**
 * How a pass holds its run: in work, given up, in work again. Given up, a run stays with its pass for as long as nobody else claims it: its body
 * takes it back when it goes on by itself, and a claim of this process lets it go on where it was.
 */
import type { SuspendRow } from "../db/writes.ts";
import type { Ledger } from "./ledger.ts";
import type { News } from "./ports.ts";

/** suspending: a write that gives the run up is on its way, and may not be applied. resuming: one that takes it back is. */
type State = "active" | "suspending" | "suspended" | "resuming" | "ended";

export interface HoldEvents {
  /** There is news for the run, or it is not to be paused any more: it was not given up. */
  readonly kept: () => void;
  /** `due`: its first timer, in ms since 1970; null: none. `paused`: a person lets it go on. */
  readonly gaveUp: (due: number | null, paused: boolean) => void;
  /** It is held again, and nothing is known of what came meanwhile but this. */
  readonly heldAgain: (news: News | null) => void;
}

export class Hold {
  readonly #ledger: Ledger;
  readonly #events: HoldEvents;
  #state: State = "active";
  #renewedAt = 0;
  /** A claim that came with the write that gave the run up, and is answered before it. */
  #woken: News | null = null;

  constructor(ledger: Ledger, events: HoldEvents) {
    this.#ledger = ledger;
    this.#events = events;
  }

  get active(): boolean {
    return this.#state === "active";
  }

  get suspended(): boolean {
    return this.#state === "suspended";
  }

  /** It is being given up. */
  get suspending(): boolean {
    return this.#state === "suspending";
  }

  get over(): boolean {
    return this.#state === "ended";
  }

  /** Gives the run up until there is news for it. */
  async suspend(row: Omit<SuspendRow, "run" | "epoch">): Promise<void> {
    this.#state = "suspending";
    const answer = await this.#ledger.write("suspend", row);
    if (!answer || this.over) return;
    if (answer.verdict !== "ok") this.#keep();
    else if (this.#woken) this.#renew(this.#woken);
    else this.#giveUp(answer.due_ms, false);
  }

  /** Gives the run up for a pause. */
  async rest(): Promise<void> {
    this.#state = "suspending";
    const answer = await this.#ledger.write("rest", {});
    if (!answer || this.over) return;
    if (answer.verdict === "ok") this.#giveUp(null, true);
    else this.#keep();
  }

  /** Takes the run back for the body, which went on by itself, unless somebody has claimed it. */
  async resume(): Promise<void> {
    this.#state = "resuming";
    if ((await this.#ledger.write("reclaim", {})) && !this.over) this.#renew(null);
  }

  /** Whether a claim of this epoch is the next after that of this pass, which has given the run up, or is about to. */
  awaits(epoch: number): boolean {
    return (this.suspended || this.suspending) && this.#ledger.claim.epoch + 1 === epoch;
  }

  /** The run was claimed for this pass. */
  wake(news: News): void {
    if (this.suspended) this.#renew(news);
    else this.#woken = news;
  }

  /** Begins and writes nothing more, until the run is replayed. */
  stop(): void {
    this.#state = "suspending";
  }

  end(): void {
    this.#state = "ended";
  }

  /** Whether what was asked before the run was given up, and held again since, tells nothing of it. */
  outdates(askedAt: number): boolean {
    return askedAt < this.#renewedAt;
  }

  #keep(): void {
    this.#state = "active";
    this.#events.kept();
  }

  #giveUp(due: number | null, paused: boolean): void {
    this.#state = "suspended";
    this.#events.gaveUp(due, paused);
  }

  #renew(news: News | null): void {
    this.#woken = null;
    this.#ledger.renew();
    this.#renewedAt = performance.now();
    this.#state = "active";
    // Later than the answers to all that the run wrote before it was given up.
    this.#events.heldAgain(news && { ...news, askedAt: this.#renewedAt });
  }
}
