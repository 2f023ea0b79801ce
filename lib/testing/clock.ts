/** A clock that stands still until a test moves it; what is set for an instant rings when it is reached. */
import { DatabaseClock } from "../core/clock.ts";

export class TestClock extends DatabaseClock {
  #now: number;
  readonly #rings = new Set<{ readonly instant: number; readonly ring: () => void }>();

  constructor(instant: number) {
    super();
    this.#now = instant;
  }

  /** Time passed in the database is known here at once, whoever moved it. */
  override observe(instant: number): void {
    this.set(instant);
  }

  override now(): number {
    return this.#now;
  }

  override ringAt(instant: number, ring: () => void): () => void {
    // What is due does not wait for time to move.
    if (instant <= this.#now) return super.ringAt(instant, ring);
    const entry = { instant, ring };
    this.#rings.add(entry);
    return () => this.#rings.delete(entry);
  }

  /** Moves forward, and rings what is due, in its order. */
  set(instant: number): void {
    if (instant <= this.#now) return;
    this.#now = instant;
    const due = [...this.#rings].filter((entry) => entry.instant <= instant).sort((a, b) => a.instant - b.instant);
    for (const entry of due) if (this.#rings.delete(entry)) entry.ring();
  }
}
