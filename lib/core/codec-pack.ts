/** A snapshot as superjson's envelope. Written here, not by superjson: one light frame per level, no regular expression near the end of the stack. */

import { Lowered, type LoweredTag } from "./codec-lowered.ts";

type Tag = string | readonly ["custom", LoweredTag];
interface Children {
  [path: string]: Tree;
}

/** What superjson keeps in `meta.values`: `[tag]`, `[tag, children]`, or children alone. */
type Tree = readonly [Tag] | readonly [Tag, Children] | Children;

interface Packed {
  json: unknown;
  tree: Tree | undefined;
}

/** The text of the envelope of what `Snapshot` made, byte for byte as superjson writes what it can write. */
export function packText(snapshot: unknown): string {
  const { json, tree } = pack(snapshot);
  return JSON.stringify(tree ? { json, meta: { values: tree, v: 1 } } : { json });
}

function pack(value: unknown): Packed {
  if (typeof value !== "object" || value === null) return packPrimitive(value);
  if (value instanceof Date) return { json: value.toISOString(), tree: ["Date"] };
  if (value instanceof RegExp) return { json: String(value), tree: ["regexp"] };
  if (value instanceof URL) return { json: value.href, tree: ["URL"] };
  const tag = tagOf(value);
  const source = (value instanceof Lowered ? value.value : tag ? [...(value as Set<unknown>)] : value) as Record<
    string,
    unknown
  >;
  const json = (Array.isArray(source) ? [] : {}) as Record<string, unknown>;
  let children: Children | undefined;
  for (const key of Object.keys(source)) {
    const packed = pack(source[key]);
    json[key] = packed.json;
    if (packed.tree) children = addTree(children ?? {}, key, packed.tree);
  }
  return { json, tree: tag ? (children ? [tag, children] : [tag]) : children };
}

function packPrimitive(value: unknown): Packed {
  if (value === undefined) return { json: null, tree: ["undefined"] };
  if (typeof value === "bigint") return { json: value.toString(), tree: ["bigint"] };
  if (typeof value !== "number") return { json: value, tree: undefined };
  if (Object.is(value, -0)) return { json: "-0", tree: ["number"] };
  return Number.isFinite(value) ? { json: value, tree: undefined } : { json: String(value), tree: ["number"] };
}

function tagOf(value: object): Tag | undefined {
  if (value instanceof Map) return "map";
  if (value instanceof Set) return "set";
  return value instanceof Lowered ? ["custom", value.tag] : undefined;
}

/** Children without a tag of their own are reached by a longer path: `"a.b"`. */
function addTree(children: Children, key: string, tree: Tree): Children {
  const path = escapeKey(key);
  if (Array.isArray(tree)) children[path] = tree as Tree;
  else for (const [rest, subtree] of Object.entries(tree as Children)) children[`${path}.${rest}`] = subtree;
  return children;
}

function escapeKey(key: string): string {
  return key.includes("\\") || key.includes(".") ? key.replaceAll("\\", "\\\\").replaceAll(".", "\\.") : key;
}
