/** Claims may exist that nobody in this process knows of, after an answer was lost: they are handed back, in turn with the batches that bring new ones. */
import type { Flusher } from "../db/flusher.ts";

/** A lost session may commit its last batch after we have looked: so often it is looked again, at heartbeats. */
const TIMES = 3;

export interface RecountOptions {
  readonly flusher: Pick<Flusher, "write">;
  /** The runs that this process knows it holds. */
  readonly keys: () => string[];
}

export class Recount {
  readonly #options: RecountOptions;
  #left = 0;

  constructor(options: RecountOptions) {
    this.#options = options;
  }

  /** An answer was lost: looks now, and some times more. */
  begin(): void {
    this.#left = TIMES;
    this.now();
  }

  /** A heartbeat got through. A claim that reached the server late, after all looks, shows as a run too many; so does one that is being answered. */
  beat(holds: number): void {
    if (this.#left === 0 && holds <= this.#options.keys().length) return;
    this.#left = Math.max(0, this.#left - 1);
    this.now();
  }

  /** Hands back what nobody here knows of. */
  now(): void {
    const { flusher, keys } = this.#options;
    // What a stranger's transaction holds is tried again at the next heartbeat, for as long as it takes.
    const heard = ({ held }: { readonly held: number }): void => {
      if (held > 0) this.#left = Math.max(this.#left, 1);
    };
    void flusher
      .write("handBack", { keep: keys })
      .then(heard)
      .catch(() => {});
  }
}
