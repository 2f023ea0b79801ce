/** How many answers in a row must tell of a clock set back before it is believed: a single one may just be late. */
const TOLD_BACK = 3;
/** By how much an answer must be behind to tell of that, in ms. */
const SET_BACK_MS = 1000;
// A longer timer would fire at once.
const LONGEST = 2 ** 31 - 1;

/** The database's clock as this process knows it: the last instant it was told, carried on by the monotonic timer. A hint for timers and for the order of what is written; what is due, the database decides. */
export class DatabaseClock {
  #offset = Number.NEGATIVE_INFINITY;
  #back: number[] = [];
  #last = 0;

  /** Takes note of an instant that an answer brought, in ms since 1970. */
  observe(instant: number): void {
    const offset = instant - performance.now();
    // An answer is late, never early: the greatest offset is the nearest.
    if (this.#offset - offset > SET_BACK_MS) this.#back.push(offset);
    else this.#back = [];
    if (this.#back.length === TOLD_BACK) this.#offset = Math.max(...this.#back.splice(0));
    else this.#offset = Math.max(this.#offset, offset);
  }

  /** Ms since 1970, never less than before. Until the database has been heard it is this machine's time, of which nothing is kept: that may be hours off. */
  now(): number {
    if (this.#offset === Number.NEGATIVE_INFINITY) return Date.now();
    this.#last = Math.max(this.#last, performance.now() + this.#offset);
    return this.#last;
  }

  /** Calls `ring` once, at an instant or a little later. Returns what calls it off. */
  ringAt(instant: number, ring: () => void): () => void {
    // A whole millisecond more: timers count in those, and too early is a look for nothing.
    const length = Math.min(Math.max(0, instant - this.now()) + 1, LONGEST);
    const timer = setTimeout(ring, length);
    timer.unref();
    return () => clearTimeout(timer);
  }
}
