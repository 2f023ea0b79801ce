/** The sentence a person reads when the code asks for something else than is recorded. */

import type { Recorded } from "../core/claim.ts";
import { nearest } from "../core/options.ts";
import type { Call } from "./call.ts";

const SHOWN = 5;

/** What is recorded and was not asked for, what was asked for instead, and which of them are near. */
export function divergence(unconsumed: readonly Recorded[], held: readonly Call[]): string {
  const fresh = held.filter((call) => call.isNew);
  const names = fresh.map((call) => call.slot);
  const near = unconsumed.flatMap((recorded) => {
    const meant =
      fresh.find((call) => call.kind === recorded.kind && call.name === recorded.name)?.slot ??
      nearest(recorded.slot, names);
    return meant ? [`"${recorded.slot}" is near "${meant}"`] : [];
  });
  const changed = unconsumed.find(({ kind, name }) => fresh.some((call) => call.kind === kind && call.name === name));
  const hint = changed
    ? ` ${changed.kind} "${changed.name}" was asked for with other arguments: do they come from a clock, a random number or I/O outside of steps?`
    : "";
  return (
    `diverged: the code asked for ${list(names)}, which is new, while ${list(unconsumed.map((recorded) => recorded.slot))} ` +
    `${unconsumed.length === 1 ? "is" : "are"} recorded and ${unconsumed.length === 1 ? "was" : "were"} not asked for` +
    `${near.length > 0 ? ` (${near.slice(0, SHOWN).join("; ")})` : ""}.${hint} Nothing new was begun. Deploy code that asks for what is recorded ` +
    `(reordering and appending calls is safe; removing one, or changing its arguments, needs patched() or a new version), then retry the run`
  );
}

function list(slots: readonly string[]): string {
  const shown = slots
    .slice(0, SHOWN)
    .map((slot) => `"${slot}"`)
    .join(", ");
  return slots.length > SHOWN ? `${shown} and ${slots.length - SHOWN} more` : shown;
}
