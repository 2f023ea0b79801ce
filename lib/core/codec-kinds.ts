/** What sort of thing an object is, judged by its brand and its exact class, so that a subclass or a stranger is never taken for what it extends. */

import { types } from "node:util";

export type Kind = "object" | "array" | "date" | "map" | "set" | "regexp" | "url" | "binary" | "error";

/** Keys that superjson refuses, and that must never be assigned with `=`. */
export function isDangerousKey(key: string): boolean {
  return key === "__proto__" || key === "constructor" || key === "prototype";
}

/** The kind of a value that can be stored; undefined for every other object. */
export function kindOf(value: object): Kind | undefined {
  const proto = Object.getPrototypeOf(value) as object | null;
  if (proto === Object.prototype) return "object";
  if (proto === Array.prototype && Array.isArray(value)) return "array";
  if (proto === null || isForeignObjectPrototype(proto)) return "object";
  return builtInKind(value, proto);
}

function builtInKind(value: object, proto: object): Kind | undefined {
  if (types.isNativeError(value) || value instanceof Error) return "error";
  const name = classNameOf(proto);
  if (Array.isArray(value)) return name === "Array" ? "array" : undefined;
  if (types.isDate(value)) return name === "Date" ? "date" : undefined;
  if (types.isMap(value)) return name === "Map" ? "map" : undefined;
  if (types.isSet(value)) return name === "Set" ? "set" : undefined;
  if (types.isRegExp(value)) return name === "RegExp" ? "regexp" : undefined;
  if (types.isArrayBuffer(value)) return name === "ArrayBuffer" ? "binary" : undefined;
  if (ArrayBuffer.isView(value)) return name === "Buffer" || name === brandOf(value) ? "binary" : undefined;
  return proto === URL.prototype ? "url" : undefined;
}

/** `Object.prototype` of another realm, as in a `vm` context or under Jest. */
function isForeignObjectPrototype(proto: object): boolean {
  return (
    Object.getPrototypeOf(proto) === null && Object.hasOwn(proto, "isPrototypeOf") && classNameOf(proto) === "Object"
  );
}

/** The name that the class of a prototype gives itself; "" when it has none. */
export function classNameOf(proto: object | null): string {
  if (!proto || !Object.hasOwn(proto, "constructor")) return "";
  const name: unknown = (proto.constructor as { name?: unknown } | undefined)?.name;
  return typeof name === "string" ? name : "";
}

/** `Uint8Array`, `DataView` …: what the engine calls it, whatever its class. */
export function brandOf(value: object): string {
  return Object.prototype.toString.call(value).slice(8, -1);
}
