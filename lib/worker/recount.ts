/** Claims that may exist and that nobody in this process knows of: they are handed back, in turn with the batches that bring new ones. */
import type { Flusher } from "../db/flusher.ts";

/** After a lost answer, so many heartbeats long it is looked for runs that nobody knows of. */
const HEARTBEATS = 3;

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

  /** An answer was lost. A lost session may commit its last batch after we have looked, so heartbeats look again. */
  begin(): void {
    this.#left = HEARTBEATS;
    this.now();
  }

  beat(): void {
    if (this.#left === 0) return;
    this.#left -= 1;
    this.now();
  }

  now(): void {
    const { flusher, keys } = this.#options;
    // What a stranger's transaction holds is tried again at the next heartbeat, for as long as it takes.
    const heard = ({ held }: { readonly held: number }): void => {
      if (held > 0) this.#left = Math.max(this.#left, 1);
    };
    void flusher.write("handBack", { keep: keys }).then(heard, () => {});
  }
}
