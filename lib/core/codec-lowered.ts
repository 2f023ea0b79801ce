/** Values that superjson cannot hold, lowered to JSON under custom tags: bytes, odd keys, shared references, errors, a RegExp in use. */

import { brandOf, classNameOf } from "./codec-kinds.ts";

/** The tags of our own, as they stand in `meta.values` as `["custom", tag]`. */
export const LOWERED_TAGS = ["bytes", "object", "ref", "Error", "regexp"] as const;

export type LoweredTag = (typeof LOWERED_TAGS)[number];

/** The lowered form of a value: an array or a plain object, to be stored under the tag. */
export class Lowered {
  readonly tag: LoweredTag;
  readonly value: object;

  constructor(tag: LoweredTag, value: object) {
    this.tag = tag;
    this.value = value;
  }
}

/** Stands in a decoded value where an object that was met before belongs: the number is its place in the order of the walk. */
export class Ref {
  readonly index: number;

  constructor(stored: unknown) {
    const index: unknown = Array.isArray(stored) ? stored[0] : undefined;
    if (!Number.isSafeInteger(index)) throw new Error("a reference is not a number");
    this.index = index as number;
  }
}

type ViewClass = new (buffer: ArrayBuffer) => ArrayBufferView;

// Looked up by name, not listed: Float16Array exists on newer engines only.
const VIEWS = new Map<string, ViewClass>(
  "Int8Array Uint8Array Uint8ClampedArray Int16Array Uint16Array Int32Array Uint32Array Float16Array Float32Array Float64Array BigInt64Array BigUint64Array DataView"
    .split(" ")
    .flatMap((name) => {
      const view = (globalThis as unknown as Record<string, ViewClass | undefined>)[name];
      return view ? [[name, view]] : [];
    }),
);

/** A Buffer, typed array, DataView or ArrayBuffer as `{ type, base64 }`. Only the part that the view shows is kept. */
export function lowerBytes(value: ArrayBuffer | ArrayBufferView): Lowered {
  const isView = ArrayBuffer.isView(value);
  const type = classNameOf(Object.getPrototypeOf(value)) === "Buffer" ? "Buffer" : brandOf(value);
  const bytes = isView ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : Buffer.from(value);
  return new Lowered("bytes", { type, base64: bytes.toString("base64") });
}

export function raiseBytes(stored: unknown): unknown {
  const { type, base64 } = stored as { type: unknown; base64: unknown };
  if (typeof base64 !== "string") throw new Error("bytes are not a base64 string");
  const bytes = Buffer.from(base64, "base64");
  if (type === "Buffer") return bytes;
  const buffer = new Uint8Array(bytes).buffer;
  if (type === "ArrayBuffer") return buffer;
  const view = VIEWS.get(String(type));
  if (!view) throw new Error(`unknown type of bytes ${JSON.stringify(type)}`);
  return new view(buffer);
}

/** An object with a key that superjson refuses, from its entries. No key is ever assigned. */
export function raiseObject(stored: unknown): unknown {
  const object = {};
  for (const [key, value] of stored as [string, unknown][]) {
    if (typeof key !== "string") throw new Error("a key is not a string");
    Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
  }
  return object;
}

/** superjson's own form has no place for `lastIndex`. */
export function lowerRegExp(value: RegExp): RegExp | Lowered {
  const { source, flags, lastIndex } = value;
  return lastIndex === 0 ? new RegExp(source, flags) : new Lowered("regexp", { source, flags, lastIndex });
}

export function raiseRegExp(stored: unknown): unknown {
  const { source, flags, lastIndex } = stored as { source: string; flags: string; lastIndex: number };
  const value = new RegExp(source, flags);
  value.lastIndex = lastIndex;
  return value;
}
