/** One timer for the earliest of many instants on the database's clock. A hint to look: what is due, the database says. */
import type { DatabaseClock } from "../core/clock.ts";

export class Alarm {
  readonly #clock: DatabaseClock;
  readonly #ring: () => void;
  #callOff: (() => void) | null = null;
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
    this.#callOff = this.#clock.ringAt(instant, () => {
      this.clear();
      this.#ring();
    });
  }

  clear(): void {
    this.#callOff?.();
    this.#callOff = null;
    this.#instant = Infinity;
  }
}
