/** Timers for instants on the database's clock. A hint to look: what is due, the database says. */
import type { DatabaseClock } from "../core/clock.ts";

/** One timer for the earliest of many instants. */
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

/** The timers of a pass: few passes need one, and most of those end before it rings. */
export class PassAlarms {
  readonly #clock: DatabaseClock;
  readonly #ring: () => void;
  #waits: Alarm | undefined;
  #limit: Alarm | undefined;

  constructor(clock: DatabaseClock, ring: () => void) {
    this.#clock = clock;
    this.#ring = ring;
  }

  /** Something that the run waits for is due. */
  wait(instant: number): void {
    this.#waits ??= new Alarm(this.#clock, this.#ring);
    this.#waits.at(instant);
  }

  /** The time of the workflow is over. */
  limit(instant: number): void {
    this.#limit ??= new Alarm(this.#clock, this.#ring);
    this.#limit.at(instant);
  }

  clear(): void {
    this.#waits?.clear();
    this.#limit?.clear();
  }
}
