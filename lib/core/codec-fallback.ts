/** What is stored of a failure that cannot be stored whole: ever less of it, until it fits. */

import { textOf } from "./codec-errors.ts";
import { describe } from "./codec-refuse.ts";
import { PerdureError } from "./errors.ts";

/** First without own properties and cause, then with less and less of message and stack. */
export function* smallerForms(thrown: unknown, reason: unknown, limit: number): Generator<Error> {
  const error = isError(thrown) ? thrown : substitute(thrown, reason);
  for (const length of [65_536, limit >> 3, 100, 0]) yield shortened(error, length);
}

function isError(thrown: unknown): thrown is Error {
  try {
    return thrown instanceof Error;
  } catch {
    return false;
  }
}

function shortened(error: Error, length: number): Error {
  const short = Object.setPrototypeOf(new Error(), Object.getPrototypeOf(error)) as Error;
  for (const key of ["message", "stack", "name"] as const) {
    const value = (textOf(error, key) ?? "").slice(0, Math.max(length, key === "name" ? 100 : 0));
    Object.defineProperty(short, key, { value, writable: true, configurable: true });
  }
  const code = textOf(error, "code");
  if (code !== undefined) Object.defineProperty(short, "code", { value: code.slice(0, 100), enumerable: true });
  return short;
}

/** For a value that is no error and cannot be stored, such as a thrown function. */
function substitute(thrown: unknown, reason: unknown): Error {
  const isTooLarge = reason instanceof PerdureError && reason.code === "PERDURE_TOO_LARGE";
  const why = isTooLarge ? "is too large" : "cannot be stored";
  const error = new Error(`a value was thrown that ${why}: ${describe(thrown)}`);
  error.name = "NonErrorThrown";
  return error;
}
