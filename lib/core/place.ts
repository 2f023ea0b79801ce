/** Where in the user's code something was written, for errors that name two places. One frame, and no text before somebody asks. */
import { attempt } from "./options.ts";

/** A place in the code. */
export interface Place {
  readonly stack?: string;
}

/** The place that called `called`. */
export function placeOf(called: (...args: never[]) => unknown): Place {
  const place: Place = {};
  const limit = Error.stackTraceLimit;
  // Where the intrinsics are frozen, more frames are taken than are read.
  attempt(() => {
    Error.stackTraceLimit = 1;
  });
  attempt(() => Error.captureStackTrace(place, called));
  attempt(() => {
    Error.stackTraceLimit = limit;
  });
  return place;
}

/** The place as a text begins with it: ` at /app/order.ts:12`; empty where it is not known. */
export function placeText(place: Place): string {
  const frame = attempt(() => /^\s*at (?:.*\()?(.+?:\d+)(?::\d+)?\)?$/m.exec(place.stack ?? "")?.[1]);
  return frame === undefined ? "" : ` at ${frame.replace(/^file:\/\/(?=\/)/, "")}`;
}
