/** superjson behind a gate: its own instance with our custom tags, and a check of every tag before anything stored is built. */

import { SuperJSON } from "superjson";
import type { ErrorClasses } from "./codec-error-classes.ts";
import { errorFromFields } from "./codec-errors.ts";
import { LOWERED_TAGS, type LoweredTag, Ref, raiseBytes, raiseObject, raiseRegExp } from "./codec-lowered.ts";
import { resolveRefs } from "./codec-refs.ts";

const TAGS = new Set<unknown>(["undefined", "bigint", "Date", "regexp", "set", "map", "number", "URL", "Error"]);
const CUSTOM_TAGS = new Set<unknown>(LOWERED_TAGS);

/** Turns what an envelope holds into a value. */
export class Envelopes {
  readonly #superjson = new SuperJSON({ dedupe: false });

  constructor(classes: ErrorClasses) {
    this.#register("bytes", raiseBytes);
    this.#register("object", raiseObject);
    this.#register("ref", (stored) => new Ref(stored));
    this.#register("Error", (stored) => errorFromFields(stored, classes));
    this.#register("regexp", raiseRegExp);
  }

  /** Throws on every tag that `packText` does not write. */
  unpack(json: unknown, meta: unknown): unknown {
    const { values, v } = checkMeta(meta);
    const seen = new Set<string>();
    checkTree(values, seen);
    const value = this.#superjson.deserialize({ json, meta: { values, v } } as never, { inPlace: true });
    return seen.has("ref") ? resolveRefs(value) : value;
  }

  #register(tag: LoweredTag, raise: (stored: unknown) => unknown): void {
    // Only for reading: `packText` writes.
    const never = () => false;
    this.#superjson.registerCustom({ isApplicable: never, serialize: never, deserialize: raise } as never, tag);
  }
}

function checkMeta(meta: unknown): { values: unknown; v: 1 } {
  if (typeof meta !== "object" || meta === null) throw new Error("meta is not an object");
  const { values, v, ...rest } = meta as Record<string, unknown>;
  const [unknown] = Object.keys(rest);
  if (unknown) throw new Error(`meta has ${JSON.stringify(unknown)}, which is not understood`);
  if (v !== undefined && v !== 1) throw new Error("meta is of an unknown version");
  return { values, v: 1 };
}

/** A node is `[tag]`, `[tag, children]` or an object of children. */
function checkTree(node: unknown, seen: Set<string>): void {
  if (node === undefined || node === null) return;
  if (typeof node !== "object") throw new Error("meta.values is malformed");
  if (Array.isArray(node)) checkTag(node[0], seen);
  const children: unknown = Array.isArray(node) ? node[1] : node;
  if (children === undefined) return;
  if (typeof children !== "object" || children === null || Array.isArray(children)) {
    throw new Error("meta.values is malformed");
  }
  for (const child of Object.values(children)) checkTree(child, seen);
}

function checkTag(tag: unknown, seen: Set<string>): void {
  if (TAGS.has(tag)) return;
  if (!Array.isArray(tag) || tag[0] !== "custom" || !CUSTOM_TAGS.has(tag[1])) {
    throw new Error(`unknown tag ${JSON.stringify(tag).slice(0, 100)}`);
  }
  seen.add(tag[1] as string);
}
