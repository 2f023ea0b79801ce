/** Behind the hints: whoever is not woken looks anyway, later. */

export interface PollOptions {
  /** How often to look while hints arrive. */
  readonly everyMs: number;
  readonly look: () => Promise<void>;
}

/** Looks again and again, with jitter, one look at a time. */
export class Poll {
  readonly #options: PollOptions;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: PollOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.#look(), this.#options.everyMs * (0.75 + Math.random() / 2));
  }

  async #look(): Promise<void> {
    // A look that fails is followed by another.
    await this.#options.look().catch(() => {});
    this.start();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }
}
