/** Tells of tries that have run for a second, so that a person sees what is running: one timer for all of them, as few last that long. */

const LONG_MS = 1000;

export interface Lasts {
  /** It has run for a second. */
  lasts(): void;
}

export class Lasting {
  /** By when each is to be told, in the order in which they began. */
  readonly #running = new Map<Lasts, number>();
  #timer: NodeJS.Timeout | undefined;

  watch(one: Lasts): void {
    this.#running.set(one, performance.now() + LONG_MS);
    this.#timer ??= this.#arm(LONG_MS);
  }

  leave(one: Lasts): void {
    this.#running.delete(one);
  }

  #arm(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#ring(), ms).unref();
  }

  #ring(): void {
    this.#timer = undefined;
    for (const [one, due] of this.#running) {
      const left = due - performance.now();
      if (left > 0) {
        this.#timer = this.#arm(left);
        return;
      }
      this.#running.delete(one);
      one.lasts();
    }
  }
}
