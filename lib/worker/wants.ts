/** What this process wants to hear of, as the database knows it: senders hint only at what somebody wants. */

export interface WantsOptions {
  readonly write: (hungry: boolean, watching: boolean) => Promise<void>;
  /** Whether there is a slot that no known work will fill. */
  readonly isHungry: () => boolean;
  /** What came before the database knew was not hinted at: looks for it. */
  readonly onKnown: () => void;
}

/** Changes of the load settle before they are written. */
const SETTLE_MS = 20;
/** Who waits for a result will often wait for another. */
const WATCH_ON_MS = 5000;

export class Wants {
  readonly #options: WantsOptions;
  #known = { hungry: false, watching: false };
  #watching = false;
  #timer: NodeJS.Timeout | undefined;
  #unwatch: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: WantsOptions) {
    this.#options = options;
  }

  /** A slot was filled, or is free again. */
  loadChanged(): void {
    if (this.#stopped || this.#options.isHungry() === this.#known.hungry) return;
    this.#timer ??= setTimeout(() => void this.settle(), SETTLE_MS);
  }

  /** Somebody waits for ends that others must tell. Resolves when the database knows. */
  async watch(watching: boolean): Promise<void> {
    clearTimeout(this.#unwatch);
    if (watching) {
      this.#watching = true;
      await this.settle();
    } else if (!this.#stopped) {
      this.#unwatch = setTimeout(() => {
        this.#watching = false;
        void this.settle();
      }, WATCH_ON_MS);
      this.#unwatch.unref();
    }
  }

  /** Writes what has changed. After a write that failed the next change, or the next poll, writes. */
  async settle(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const wanted = { hungry: this.#options.isHungry(), watching: this.#watching };
    const { hungry, watching } = this.#known;
    if (this.#stopped || (wanted.hungry === hungry && wanted.watching === watching)) return;
    this.#known = wanted;
    try {
      await this.#options.write(wanted.hungry, wanted.watching);
      if (wanted.hungry && !hungry) this.#options.onKnown();
    } catch {
      this.#known = { hungry, watching };
    }
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#unwatch);
  }
}
