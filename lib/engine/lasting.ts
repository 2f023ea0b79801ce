/** Tells of tries that have run for a second, so that a person sees what is running: one timer for all of them, as few last that long. */

const LONG_TICKS = 4;
const TICK_MS = 250;

/** A try, which is its own place among those that run: a table would cost each try an entry, and the process the growing of it. */
export interface Lasts {
  /** It has run for a second, or up to a tick more. */
  lasts(): void;
  /** In which tick it began; null: it does not run. */
  since: number | null;
  earlier: Lasts | null;
  later: Lasts | null;
}

export class Lasting {
  /** In the order in which they began. */
  #first: Lasts | null = null;
  #last: Lasts | null = null;
  #tick = 0;
  #timer: NodeJS.Timeout | undefined;

  watch(one: Lasts): void {
    one.since = this.#tick;
    one.earlier = this.#last;
    if (this.#last) this.#last.later = one;
    else this.#first = one;
    this.#last = one;
    this.#timer ??= this.#arm();
  }

  leave(one: Lasts): void {
    if (one.since === null) return;
    const { earlier, later } = one;
    if (earlier) earlier.later = later;
    else this.#first = later;
    if (later) later.earlier = earlier;
    else this.#last = earlier;
    one.since = null;
    one.earlier = null;
    one.later = null;
  }

  #arm(): NodeJS.Timeout {
    return setTimeout(() => this.#ring(), TICK_MS).unref();
  }

  #ring(): void {
    this.#tick += 1;
    // One more than that many, as it may have begun late in its first.
    for (let one = this.#first; one && this.#tick - one.since! > LONG_TICKS; one = this.#first) {
      this.leave(one);
      one.lasts();
    }
    this.#timer = this.#first ? this.#arm() : undefined;
  }
}
