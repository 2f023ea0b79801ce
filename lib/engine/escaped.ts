/** From an error that escaped a body back to the slots whose failure it carries. Pure. */
import { attempt } from "../core/options.ts";

export class Escaped {
  #slots: Map<unknown, string[]> | undefined;

  /** The body was thrown this error, for the failure of a slot. */
  threw(error: unknown, slot: string): void {
    this.#slots ??= new Map();
    const slots = this.#slots.get(error);
    if (slots) slots.push(slot);
    else this.#slots.set(error, [slot]);
  }

  /** The slots that an error carries: itself, in its cause, in its errors. */
  slotsOf(error: unknown, seen = new Set<unknown>()): string[] {
    if (seen.has(error)) return [];
    seen.add(error);
    const own = this.#slots?.get(error) ?? [];
    if (typeof error !== "object" || error === null) return own;
    const within = attempt(() => carriedBy(error)) ?? [];
    return [...own, ...within.flatMap((inner) => this.slotsOf(inner, seen))];
  }
}

/** Throws what a hostile Proxy or accessor throws. */
function carriedBy({ cause, errors }: { cause?: unknown; errors?: unknown }): unknown[] {
  return [...(cause === undefined ? [] : [cause]), ...(Array.isArray(errors) ? errors : [])];
}
