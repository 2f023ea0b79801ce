/** Tells of tries that have run for a second, so that a person sees what is running: one timer for all of them, as few last that long. */

const LONG_MS = 1000;

export class Lasting {
  /** By when each is to be told of, in the order in which they began. */
  readonly #running = new Map<() => void, number>();
  #timer: NodeJS.Timeout | undefined;

  /** Calls `tell` in a second. Returns what calls it off. */
  watch(tell: () => void): () => void {
    this.#running.set(tell, performance.now() + LONG_MS);
    this.#timer ??= this.#arm(LONG_MS);
    return () => this.#running.delete(tell);
  }

  #arm(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#ring(), ms).unref();
  }

  #ring(): void {
    this.#timer = undefined;
    for (const [tell, due] of this.#running) {
      const left = due - performance.now();
      if (left > 0) {
        this.#timer = this.#arm(left);
        return;
      }
      this.#running.delete(tell);
      tell();
    }
  }
}
