/** One timer for the earliest of many instants on the database's clock. A hint to look: what is due, the database says. */
import type { DatabaseClock } from "../core/clock.ts";

// A longer timer would fire at once.
const LONGEST = 2 ** 31 - 1;

export class Alarm {
  readonly #clock: DatabaseClock;
  readonly #ring: () => void;
  #timer: NodeJS.Timeout | null = null;
  #instant = Infinity;

  constructor(clock: DatabaseClock, ring: () => void) {
    this.#clock = clock;
    this.#ring = ring;
  }

  /** Rings at an instant, in ms since 1970, unless it rings before. */
  at(instant: number): void {
    if (instant >= this.#instant) return;
    this.clear();
    this.#instant = instant;
    // A whole millisecond more: timers count in those, and too early is a look for nothing.
    const length = Math.min(Math.max(0, instant - this.#clock.now()) + 1, LONGEST);
    this.#timer = setTimeout(() => {
      this.clear();
      this.#ring();
    }, length);
    this.#timer.unref();
  }

  clear(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    this.#instant = Infinity;
  }
}
