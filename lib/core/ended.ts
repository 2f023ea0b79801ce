/** The end of a run as whoever waited for it sees it. Pure. */
import type { ValueCodec } from "./codec.ts";
import { RunCancelledError, RunFailedError } from "./errors.ts";
import type { Ended } from "./types.ts";

/** The error of a run that did not complete; its `cause` is what the run's code threw, revived. */
export function endError({ id, state, value, reason }: Ended, codec: ValueCodec): RunCancelledError | RunFailedError {
  if (state === "cancelled") return new RunCancelledError(id, reason);
  const cause = codec.decodeError(value!, `error of run "${id}"`);
  const message = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
  return new RunFailedError(id, `run "${id}" failed: ${message}`, { cause });
}
