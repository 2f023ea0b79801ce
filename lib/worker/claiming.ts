/** Asks the database for runs: when there may be work, for as many as there are free slots. */
import type { Flusher } from "../db/flusher.ts";
import type { LoadedRow } from "../db/writes.ts";
import type { Slots } from "./slots.ts";

/** Runs claimed at once at most: each brings its history along. */
const MOST_PER_CLAIM = 200;
/** Of many slots half are filled at once: while the database claims for one half, this process works on the other. */
const MANY_SLOTS = 32;

export interface ClaimingOptions {
  readonly concurrency: number;
  readonly flusher: Pick<Flusher, "put">;
  readonly slots: Slots;
  /** From which number on suspended runs are in memory. */
  readonly warmFrom: () => number;
  /** Nothing is taken any more, or for a while. */
  readonly closed: () => boolean;
  readonly onLoaded: (loaded: readonly LoadedRow[]) => void;
  /** A claim has been answered, and what it held is free again. */
  readonly onAnswered: () => void;
  readonly onTrouble: (error: unknown) => void;
}

/** A claim, and the slots that are kept for it. */
interface Claimant {
  asks: number;
}

export class Claiming {
  readonly #options: ClaimingOptions;
  readonly #most: number;
  readonly #many: boolean;
  /** Not sent yet: it will see whatever comes until then. */
  #waiting: Claimant | null = null;
  /** Sent, and not answered. */
  readonly #sent = new Set<Claimant>();
  /** Something came that a claim on its way may not have seen. */
  #again = false;
  /** More is claimable than there were slots for. */
  #backlog = false;

  constructor(options: ClaimingOptions) {
    this.#options = options;
    const { concurrency } = options;
    this.#many = concurrency > MANY_SLOTS;
    this.#most = Math.min(this.#many ? Math.ceil(concurrency / 2) : concurrency, MOST_PER_CLAIM);
  }

  /** No claim is on its way. */
  get idle(): boolean {
    return this.#waiting === null && this.#sent.size === 0;
  }

  /** More is claimable than there are slots for. */
  get backlog(): boolean {
    return this.#backlog;
  }

  /** A slot is free that no known work will fill; one that a claim holds counts. */
  get hungry(): boolean {
    if (this.#backlog || this.#options.closed()) return false;
    return this.#options.slots.free > 0 || [...this.#sent].some(({ asks }) => asks > 0);
  }

  get #free(): number {
    return this.#options.closed() ? 0 : this.#options.slots.free;
  }

  /** There may be work. */
  poke(): void {
    if (this.#waiting) return;
    if (this.#free > 0) this.#claim();
    // The claim on its way holds slots, and may leave some.
    else if (this.#sent.size > 0) this.#again = true;
    // The next slot that is free asks.
    else this.#backlog = true;
  }

  /** A slot is free: more is asked for where more is known of. */
  fill(): void {
    if ((this.#backlog || this.#again) && this.#free > 0) this.poke();
  }

  /** There is more, whatever the claims on their way answer. */
  askAgain(): void {
    this.#again = true;
  }

  #claim(): void {
    const claimant: Claimant = { asks: 0 };
    this.#waiting = claimant;
    this.#again = false;
    // Asked when the batch is sent: slots that become free until then count, and a claim that is issued again asks again.
    const limit = (): number => {
      if (this.#waiting === claimant) this.#waiting = null;
      this.#sent.add(claimant);
      return this.#ask(claimant, this.#most);
    };
    const { flusher, warmFrom, onLoaded, onTrouble } = this.#options;
    flusher.put(
      "claim",
      { limit, warmFrom },
      {
        // What is left behind is claimed while this process works on what it has.
        prompt: this.#many && this.#backlog,
        onAside: () => {},
        resolve: ({ loaded }) => {
          this.#over(claimant);
          this.#backlog = loaded[0]?.backlog ?? false;
          onLoaded(loaded);
          this.#next();
        },
        reject: (error) => {
          this.#over(claimant);
          // Not at once again: the next poll tries.
          this.#backlog = false;
          this.#again = false;
          onTrouble(error);
          this.#next();
        },
      },
    );
  }

  /** Keeps so many free slots for a claim, in place of those it asked for before. */
  #ask(claimant: Claimant, most: number): number {
    const { slots } = this.#options;
    slots.release(claimant.asks);
    claimant.asks = Math.min(this.#free, most);
    slots.reserve(claimant.asks);
    return claimant.asks;
  }

  #over(claimant: Claimant): void {
    this.#ask(claimant, 0);
    if (this.#waiting === claimant) this.#waiting = null;
    this.#sent.delete(claimant);
  }

  #next(): void {
    if (this.#again || this.#backlog) {
      this.#again = false;
      this.poke();
    }
    this.#options.onAnswered();
  }
}
