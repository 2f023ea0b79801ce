/** How the values of one run are bound to it, and how the arguments of its calls are hashed. Pure. */

import type { Claim } from "../core/claim.ts";
import type { StoredCodec } from "../core/stored.ts";
import { type Ancestors, ancestorsOf, type Place, placeIn, slotIn } from "../core/stored-place.ts";
import type { History } from "./history.ts";

export class Binding {
  readonly #run: string;
  readonly #attempt: number;
  readonly #ancestors: Ancestors;
  readonly #codec: StoredCodec;
  readonly #keyed: boolean | undefined;

  constructor(claim: Pick<Claim, "id" | "attempt" | "fork">, codec: StoredCodec, history: History) {
    this.#run = claim.id;
    this.#attempt = claim.attempt;
    this.#ancestors = ancestorsOf(claim.fork);
    this.#codec = codec;
    this.#keyed = codec.hasKey ? (history.isKeyed ?? codec.writesKeyed) : undefined;
  }

  /** Where the outcome of a slot is stored. */
  placeOf(slot: string, attempt = this.#attempt): Place {
    return placeIn(this.#run, slotIn(slot, attempt), this.#ancestors);
  }

  /** The hash of arguments: with a key, or without, as the run began. */
  hash(values: readonly unknown[], what: () => string): string {
    return this.#codec.hash(values, what, this.#keyed);
  }
}
