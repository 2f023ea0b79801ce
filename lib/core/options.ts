/** What users hand in, checked at the door: option keys, names and whole numbers, each refused in words that say what to write instead. */
import { inspect } from "node:util";
import { PerdureError } from "./errors.ts";

const SHOWN = 60;
const NAME_RULE = "1 to 255 bytes of UTF-8 text without control characters, lone surrogates or blanks at its ends";
const SCHEMA_RULE = "1 to 63 bytes of UTF-8 text without control characters or lone surrogates, not beginning with pg_";
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

/** A value as an error message shows it: strings quoted, what is invisible escaped, at most 60 characters, then `…`. */
export function shorten(value: unknown): string {
  if (typeof value === "string") {
    const shown = clip(value, /["\\]/);
    return `"${shown.text}"${shown.cut ? "…" : ""}`;
  }
  const shown = clip(inspected(value));
  return shown.text + (shown.cut ? "…" : "");
}

function inspected(value: unknown): string {
  try {
    return inspect(value, { depth: 1, breakLength: Infinity, maxArrayLength: 5, customInspect: false });
  } catch {
    return `a value of type ${typeof value} that cannot be shown`;
  }
}

// Whole escapes only: `"\u00` would show a value that was never given.
function clip(text: string, quoted?: RegExp): { text: string; cut: boolean } {
  let shown = "";
  for (const char of text) {
    const next = UNSEEN.test(char) ? escapeUnseen(char) : quoted?.test(char) ? `\\${char}` : char;
    if (shown.length + next.length > SHOWN) return { text: shown, cut: true };
    shown += next;
  }
  return { text: shown, cut: false };
}

function escapeUnseen(char: string): string {
  const json = JSON.stringify(char).slice(1, -1);
  if (json !== char) return json;
  const hex = char.codePointAt(0)!.toString(16);
  return hex.length > 4 ? `\\u{${hex}}` : `\\u${hex.padStart(4, "0")}`;
}

/**
 * The candidate that `word` was probably meant to be, the first of several equally near, or undefined when none is near:
 * at most half of the longer word differs, or one is the beginning or end of the other. Case does not count.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: { candidate: string; edits: number } | undefined;
  for (const candidate of candidates) {
    const longer = Math.max(word.length, candidate.length);
    if (longer > 255) continue;
    const edits = editsBetween(word.toLowerCase(), candidate.toLowerCase());
    if (edits <= longer / 2 && edits < (best?.edits ?? Infinity)) best = { candidate, edits };
  }
  return best?.candidate;
}

function editsBetween(a: string, b: string): number {
  const [short, long] = a.length < b.length ? [a, b] : [b, a];
  const isAffix = short.length >= 3 && (long.startsWith(short) || long.endsWith(short));
  return isAffix ? Math.min(1.5, distance(a, b)) : distance(a, b);
}

// Optimal string alignment: Levenshtein's distance, with a swap of two neighbours as one edit. F. Damerau, "A technique for
// computer detection and correction of spelling errors", CACM 7(3), 1964; L. Boytsov, "Indexing methods for approximate
// dictionary searching", ACM JEA 16, 2011.
function distance(a: string, b: string): number {
  let older: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const differs = a[i - 1] === b[j - 1] ? 0 : 1;
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row.push(
        Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + differs, swapped ? older[j - 2]! + 1 : Infinity),
      );
    }
    [older, above] = [above, row];
  }
  return above[b.length]!;
}

/** True for `{…}` and `Object.create(null)` of any realm; false for arrays, dates and instances of classes. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * A copy of the options that were given, read once, so that what is checked is what is used. `where` is whose options they
 * are: `step "reserve"`. Throws PERDURE_OPTION when `given` is no plain object or has a key that is not in `known`, whatever
 * its value.
 */
export function checkKeys<T>(given: T, known: readonly string[], where: string): T {
  const options = copyOf(given, where);
  const unknown = Object.keys(options as object).find((key) => !known.includes(key));
  if (unknown === undefined) return options;
  const meant = nearest(unknown, known);
  const help = meant ? `did you mean "${meant}"?` : `it takes ${known.join(", ") || "no options"}`;
  throw new PerdureError("PERDURE_OPTION", `unknown option ${shorten(unknown)} of ${where}; ${help}`);
}

/** The options of a definition that takes a name, or options with a name: `kind` is "step". The same as checkKeys, and where they stand. */
export function checkNamed<T extends { name: unknown }>(
  given: string | T,
  known: readonly string[],
  kind: string,
): { readonly options: T; readonly where: string } {
  if (typeof given === "function") {
    throw new PerdureError(
      "PERDURE_OPTION",
      `${kind}() begins with a name, or options with a name, not ${shorten(given)}`,
    );
  }
  const options = typeof given === "string" ? ({ name: given } as T) : copyOf(given, kind);
  const where = `${kind} ${shorten(options.name)}`;
  return { options: checkKeys(options, known, where), where };
}

function copyOf<T>(given: T, where: string): T {
  let copy: T | undefined;
  try {
    if (isPlainObject(given)) copy = { ...given };
  } catch (cause) {
    const text = `options of ${where} cannot be read, as ${inspected(cause).split("\n")[0]} was thrown; pass a plain object`;
    throw new PerdureError("PERDURE_OPTION", text, { cause });
  }
  if (copy) return copy;
  throw new PerdureError("PERDURE_OPTION", `options of ${where} must be a plain object, not ${shorten(given)}`);
}

/** A copy of the array that was given. Throws PERDURE_OPTION, beginning with `what`. */
export function checkArray<T>(value: readonly T[], what: string): T[] {
  let items: T[] | undefined;
  try {
    if (Array.isArray(value)) items = [...(value as T[])];
  } catch {
    // It is refused below.
  }
  if (items) return items;
  throw new PerdureError("PERDURE_OPTION", `${what} must be an array, not ${shorten(value)}`);
}

/** Whether it is an array: a Proxy that was revoked refuses even that to be asked. */
export const isArray = (value: unknown): value is unknown[] => attempt(() => Array.isArray(value)) ?? false;

/** Returns `value` if it is true or false. Throws PERDURE_OPTION, beginning with `what`. */
export function checkBoolean(value: boolean, what: string): boolean {
  if (typeof value === "boolean") return value;
  throw new PerdureError("PERDURE_OPTION", `${what} must be true or false, not ${shorten(value)}`);
}

/** The signal, if it is an AbortSignal or left out. */
export function checkSignal(signal: unknown, where: string): AbortSignal | undefined {
  if (signal === undefined || attempt(() => signal instanceof AbortSignal)) return signal as AbortSignal | undefined;
  throw new PerdureError("PERDURE_OPTION", `signal of ${where} must be an AbortSignal, not ${shorten(signal)}`);
}

/** What `read` gives, or undefined where the value at hand refuses to be read: a Proxy, a getter. */
export function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/**
 * Returns `value` if it can be a name or an id: 1 to 255 bytes of UTF-8 text without control characters, lone surrogates or
 * blanks at its ends. `what` begins the message: `step name`. Throws PERDURE_NAME.
 */
export function checkName(value: unknown, what: string): string {
  return checkText(value, what, `it must be ${NAME_RULE}`, (text, bytes) => {
    if (text !== "" && text.trim() === "") return "is only blanks";
    return textProblem(text, bytes, 255) ?? (text === text.trim() ? undefined : "begins or ends with a blank");
  });
}

/**
 * Returns `value` if Postgres takes it, quoted, as the name of a schema: 1 to 63 bytes without control characters, not
 * beginning with `pg_`. Upper case, blanks and dots are allowed. Throws PERDURE_NAME.
 */
export function checkSchemaName(value: unknown): string {
  return checkText(value, "schema name", `it must be ${SCHEMA_RULE}`, (text, bytes) => {
    const problem = textProblem(text, bytes, 63);
    if (problem) return problem;
    if (text.startsWith("pg_")) return "begins with pg_, which Postgres keeps for itself";
    return text.includes("$perdure$") ? "contains $perdure$, which ends the bodies of our functions" : undefined;
  });
}

type Judge = (text: string, bytes: number) => string | undefined;

function checkText(value: unknown, what: string, rule: string, judge: Judge): string {
  if (typeof value !== "string") {
    throw new PerdureError("PERDURE_NAME", `${what} must be a string, not ${shorten(value)}; ${rule}`);
  }
  const bytes = Buffer.byteLength(value);
  const problem = judge(value, bytes);
  if (problem === undefined) return value;
  const size = bytes === 1 ? "1 byte" : `${bytes} bytes`;
  throw new PerdureError("PERDURE_NAME", `${what} ${shorten(value)} (${size}) ${problem}; ${rule}`);
}

function textProblem(text: string, bytes: number, limit: number): string | undefined {
  if (bytes === 0) return "is empty";
  if (/\p{Cc}/u.test(text)) return "contains a control character";
  if (/\p{Cs}/u.test(text)) return "contains a lone surrogate";
  return bytes > limit ? "is too long" : undefined;
}

/** Returns `value` if it is a whole number from `min` to `max`, both included. Throws PERDURE_OPTION, beginning with `what`. */
export function checkInteger(value: unknown, what: string, min: number, max: number): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max) return value;
  const range = max >= Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  throw new PerdureError("PERDURE_OPTION", `${what} must be a whole number ${range}, not ${shorten(value)}`);
}

/** The value if it is one of `choices`. Throws PERDURE_OPTION with the nearest. */
export function checkChoice<T extends string>(value: T, choices: readonly T[], what: string): T {
  if (choices.includes(value)) return value;
  const meant = typeof value === "string" ? nearest(value, choices) : undefined;
  const help = meant ? `did you mean "${meant}"?` : `it must be one of ${choices.map((c) => `"${c}"`).join(", ")}`;
  throw new PerdureError("PERDURE_OPTION", `${what} cannot be ${shorten(value)}; ${help}`);
}

/** Throws PERDURE_OPTION unless `value` is a Date that Postgres can hold. */
export function checkInstant(value: unknown, what: string): Date {
  const instant = attempt(() => (value instanceof Date ? new Date(value.getTime()) : undefined));
  const year = instant?.getUTCFullYear() ?? Number.NaN;
  if (instant && year >= 1 && year <= 9999) return instant;
  throw new PerdureError(
    "PERDURE_OPTION",
    `${what} must be a valid Date of the years 1 to 9999, not ${shorten(value)}`,
  );
}

/** More than a person reads. */
const MAX_REASON = 1000;

/** Throws PERDURE_OPTION unless `reason` is text that can be stored. */
export function checkReason(reason: unknown, where: string): string | null {
  if (reason === undefined) return null;
  if (typeof reason === "string" && reason.length <= MAX_REASON && !reason.includes("\0")) return reason;
  const rule = `must be a string of at most ${MAX_REASON} characters without NUL`;
  throw new PerdureError("PERDURE_OPTION", `reason of ${where} ${rule}, not ${shorten(reason)}`);
}
