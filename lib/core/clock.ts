/** The database's clock as this process knows it: the last instant it was told, carried on by the monotonic timer. A hint for timers and for the order of what is written; what is due, the database decides. */
export class DatabaseClock {
  #offset = 0;
  #known = false;
  #last = 0;

  /** Takes note of an instant that an answer brought, in ms since 1970. */
  observe(instant: number): void {
    const offset = instant - performance.now();
    // An answer is late, never early: the greatest offset is the nearest. A clock set back is followed once it is clear.
    if (!this.#known || offset > this.#offset || this.#offset - offset > 1000) this.#offset = offset;
    this.#known = true;
  }

  /** Ms since 1970, never less than before. */
  now(): number {
    const instant = this.#known ? performance.now() + this.#offset : Date.now();
    this.#last = Math.max(this.#last, instant);
    return this.#last;
  }
}
