/** Values to stored text and back. What is accepted comes back equal; everything else is refused at the call, with its path. */

import { Envelopes } from "./codec-envelope.ts";
import { type ErrorClass, ErrorClasses } from "./codec-error-classes.ts";
import { smallerForms } from "./codec-fallback.ts";
import { packText } from "./codec-pack.ts";
import { describe, renderPath, type What } from "./codec-refuse.ts";
import { biggestPath } from "./codec-size.ts";
import { Snapshot } from "./codec-snapshot.ts";
import { PerdureError } from "./errors.ts";

export type { ErrorClass } from "./codec-error-classes.ts";

/** Whether a text is what SQL brought in: plain JSON that no schema has checked. */
export const isFromSql = (text: string): boolean => text.startsWith('{"from":"sql",');

export interface ValueCodecOptions {
  /** The largest stored text of one value, in bytes of UTF-8. Default 1 MiB; larger values cost memory in every replay. */
  limit?: number;
  /** Error classes that come back as themselves, so that `instanceof` holds after a replay. */
  errors?: readonly ErrorClass[];
  /** Told once of each error class that is met and is not registered. Default: nobody. */
  warn?: (message: string) => void;
}

const UNDEFINED = '{"json":null,"meta":{"values":["undefined"],"v":1}}';
const ONE_MEBIBYTE = 1_048_576;

/** A primitive that JSON brings back as it is. */
function isJson(value: unknown): boolean {
  if (typeof value === "number") return Number.isFinite(value) && !Object.is(value, -0);
  return value === null || typeof value === "string" || typeof value === "boolean";
}

/**
 * The codec of one engine. The text is superjson's envelope, `{"json": …, "meta": …}`; without `meta` it is plain JSON,
 * as SQL writes it, with a tag that says so.
 *
 * Accepted: plain objects, arrays, strings, numbers, booleans, null, undefined, bigint, Date, Map, Set, RegExp, URL,
 * Buffer, ArrayBuffer, typed arrays, DataView, errors, and cycles and shared references among them. An object without a
 * prototype comes back as a plain object; a view comes back with a buffer of its own, of its own size.
 */
export class ValueCodec {
  readonly #limit: number;
  readonly #classes: ErrorClasses;
  readonly #envelopes: Envelopes;

  constructor(options: ValueCodecOptions = {}) {
    this.#limit = options.limit ?? ONE_MEBIBYTE;
    this.#classes = new ErrorClasses(options.errors ?? [], options.warn ?? (() => {}));
    this.#envelopes = new Envelopes(this.#classes);
  }

  /**
   * The text to store. `what` opens the message of an error, such as `input of workflow "order"`.
   * @throws PERDURE_SERIALIZE for what cannot come back equal, PERDURE_TOO_LARGE above the limit.
   */
  encode(value: unknown, what: What): string {
    if (value === undefined) return UNDEFINED;
    if (isJson(value)) return this.#checked(`{"json":${JSON.stringify(value)}}`, what);
    const snapshot = new Snapshot(what, this.#classes);
    const copy = snapshot.take(value);
    return this.#checked(this.#stringify(copy, snapshot.plain, what), what);
  }

  /** As `encode`, of a list that is the library's own: nothing but its items is to be looked at. */
  encodeList(values: readonly unknown[], what: What): string {
    return values.every(isJson) ? this.#checked(`{"json":${JSON.stringify(values)}}`, what) : this.encode(values, what);
  }

  /**
   * The value that `encode` was given, or the plain JSON that SQL wrote.
   * @throws PERDURE_DECODE for text that this codec cannot have written.
   */
  decode(text: string, what: What): unknown {
    if (text === UNDEFINED) return undefined;
    try {
      const envelope: unknown = JSON.parse(text);
      if (typeof envelope !== "object" || envelope === null || !Object.hasOwn(envelope, "json")) {
        throw new Error('not of the form {"json": …}');
      }
      const { json, meta } = envelope as { json: unknown; meta?: unknown };
      return meta === undefined ? json : this.#envelopes.unpack(json, meta);
    } catch (cause) {
      const text = `${what}: the stored value cannot be read back: ${describe(cause)}`;
      throw new PerdureError("PERDURE_DECODE", text, { cause });
    }
  }

  /**
   * The text to store of anything that was thrown. Never throws: of a failure too large to store, first the own
   * properties go, then everything but the message.
   */
  encodeError(error: unknown, what: What): string {
    try {
      return this.encode(error, what);
    } catch (reason) {
      return this.#encodeLess(error, what, reason);
    }
  }

  /** What was thrown, as the body is to see it. Throws PERDURE_DECODE like `decode`. */
  decodeError(text: string, what: What): unknown {
    return this.decode(text, what);
  }

  /** What a live body is thrown: the same as a replay would be. */
  revive(error: unknown): unknown {
    return this.decodeError(this.encodeError(error, "error"), "error");
  }

  #stringify(copy: unknown, plain: boolean, what: What): string {
    try {
      return plain ? `{"json":${JSON.stringify(copy)}}` : packText(copy);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      if (cause.message.includes("string length")) throw this.#tooLarge("more than 512 MiB", [], what);
      const text = `${what}: cannot store $: nested too deeply for the stack that is left; flatten it`;
      throw new PerdureError("PERDURE_SERIALIZE", text, { cause });
    }
  }

  #checked(text: string, what: What): string {
    // A character is at most three bytes, so most values need no count.
    if (text.length * 3 > this.#limit) this.#measure(text, what);
    return text;
  }

  #measure(text: string, what: What): void {
    const size = Buffer.byteLength(text);
    if (size <= this.#limit) return;
    const { json } = JSON.parse(text) as { json: unknown };
    throw this.#tooLarge(`${size} bytes`, biggestPath(json), what);
  }

  #tooLarge(size: string, path: Parameters<typeof renderPath>[0], what: What): PerdureError {
    const largest = path.length > 0 ? `, most of it in ${renderPath(path)}` : "";
    const text = `${what}: the value is too large: ${size}, the limit is ${this.#limit}${largest}; store it elsewhere and pass its key`;
    return new PerdureError("PERDURE_TOO_LARGE", text);
  }

  #encodeLess(error: unknown, what: What, reason: unknown): string {
    for (const less of smallerForms(error, reason, this.#limit)) {
      try {
        return this.encode(less, what);
      } catch {
        // The next form is smaller.
      }
    }
    return '{"json":null}';
  }
}
