/** From an error that escaped a body back to the slots whose failure it carries. Pure. */
import { attempt } from "../core/options.ts";

export class Escaped {
  /** Weak: a body that catches error after error does not keep them all. */
  #ofErrors: WeakMap<object, string[]> | undefined;
  /** Of what is no object: few throw such. */
  #ofOthers: Map<unknown, string[]> | undefined;

  /** The body was thrown this error, for the failure of a slot. */
  threw(error: unknown, slot: string): void {
    const slots = this.#of(error);
    if (slots) {
      slots.push(slot);
    } else if (isObject(error)) {
      this.#ofErrors ??= new WeakMap();
      this.#ofErrors.set(error, [slot]);
    } else {
      this.#ofOthers ??= new Map();
      this.#ofOthers.set(error, [slot]);
    }
  }

  #of(error: unknown): string[] | undefined {
    return isObject(error) ? this.#ofErrors?.get(error) : this.#ofOthers?.get(error);
  }

  /** The slots that an error carries: itself, in its cause, in its errors. */
  slotsOf(error: unknown, seen = new Set<unknown>()): string[] {
    if (seen.has(error)) return [];
    seen.add(error);
    const own = this.#of(error) ?? [];
    if (!isObject(error)) return own;
    const within = attempt(() => carriedBy(error)) ?? [];
    return [...own, ...within.flatMap((inner) => this.slotsOf(inner, seen))];
  }
}

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

/** Throws what a hostile Proxy or accessor throws. */
function carriedBy({ cause, errors }: { cause?: unknown; errors?: unknown }): unknown[] {
  return [...(cause === undefined ? [] : [cause]), ...(Array.isArray(errors) ? errors : [])];
}
