/** The end of a run as whoever waited for it sees it. Pure. */

import type { Ended } from "./claim.ts";
import { RunCancelledError, RunFailedError } from "./errors.ts";
import type { StoredCodec } from "./stored.ts";
import { resultOf } from "./stored-place.ts";

/** An end as its run stored it, opened: its value is the value codec's text. */
export function openEnd(end: Ended, codec: StoredCodec): Ended {
  const { id, state, value, attempt } = end;
  if (value === null) return end;
  const what = `${state === "completed" ? "result" : "error"} of run "${id}"`;
  return { ...end, value: codec.open(value, what, resultOf(id, attempt)) };
}

/** The error of a run that did not complete, from its opened end; its `cause` is what the run's code threw, revived. */
export function endError(
  { id, state, value, reason }: Pick<Ended, "id" | "state" | "value" | "reason">,
  codec: StoredCodec,
): RunCancelledError | RunFailedError {
  if (state === "cancelled") return new RunCancelledError(id, reason);
  const cause = codec.decodePlain(value!, `error of run "${id}"`);
  const message = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
  return new RunFailedError(id, `run "${id}" failed: ${message}`, { cause });
}
