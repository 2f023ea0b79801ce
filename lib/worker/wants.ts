/** What this process wants to hear of, as the database knows it: senders hint only at what somebody wants. */
import type { Wanted } from "../db/store.ts";

export interface WantsOptions {
  readonly write: (wanted: Wanted) => Promise<void>;
  /** Whether there is a slot that no known work will fill. */
  readonly isHungry: () => boolean;
  /** What came before the database knew was not hinted at: looks for it. */
  readonly onKnown: () => void;
}

/** Changes of the load settle before they are written. */
const SETTLE_MS = 20;
/** Who waits for a result will often wait for another, and who reads goes on reading. */
const WANT_ON_MS = 5000;

/** A want that comes and goes. */
interface Passing {
  wanted: boolean;
  over: NodeJS.Timeout | undefined;
}

export class Wants {
  readonly #options: WantsOptions;
  readonly #watching: Passing = { wanted: false, over: undefined };
  readonly #reading: Passing = { wanted: false, over: undefined };
  /** Undefined: a write is under way, or has failed. */
  #known: Wanted | undefined = { hungry: false, watching: false, reading: false };
  #turn: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: WantsOptions) {
    this.#options = options;
  }

  /** A slot was filled, or is free again. */
  loadChanged(): void {
    if (this.#stopped || this.#options.isHungry() === this.#known?.hungry) return;
    this.#timer ??= setTimeout(() => void this.settle(), SETTLE_MS);
  }

  /** Somebody waits for ends that others must tell. Resolves when the database knows. */
  async watch(watching: boolean): Promise<void> {
    await this.#want(this.#watching, watching);
  }

  /** Somebody reads what others publish. Resolves when the database knows: true, if it did not know before. */
  read(reading: boolean): Promise<boolean> {
    return this.#want(this.#reading, reading);
  }

  async #want(passing: Passing, wanted: boolean): Promise<boolean> {
    clearTimeout(passing.over);
    if (wanted) {
      passing.wanted = true;
      return this.settle();
    }
    if (this.#stopped || !passing.wanted) return false;
    passing.over = setTimeout(() => {
      passing.wanted = false;
      void this.settle();
    }, WANT_ON_MS);
    passing.over.unref();
    return false;
  }

  /** Writes what has changed, one write at a time. After one that failed the next change writes again. True: the database did not know it. */
  settle(): Promise<boolean> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const turn = this.#turn.then(() => this.#settle());
    this.#turn = turn;
    return turn;
  }

  async #settle(): Promise<boolean> {
    const before = this.#known;
    const reading = this.#reading.wanted;
    // Readers end with the run.
    const wanted = { hungry: this.#options.isHungry(), watching: this.#watching.wanted || reading, reading };
    if (this.#stopped || (before && same(wanted, before))) return false;
    this.#known = undefined;
    try {
      await this.#options.write(wanted);
      this.#known = wanted;
      if (wanted.hungry && !before?.hungry) this.#options.onKnown();
      return true;
    } catch {
      return false;
    }
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#watching.over);
    clearTimeout(this.#reading.over);
  }
}

const same = (a: Wanted, b: Wanted): boolean =>
  a.hungry === b.hungry && a.watching === b.watching && a.reading === b.reading;
