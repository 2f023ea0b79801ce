/** Puts shared and cyclic references back: numbers the objects of a decoded value in the order of the encoder's walk, then fills each Ref. */

import { errorSlots } from "./codec-errors.ts";
import { Ref } from "./codec-lowered.ts";

/** The value with every Ref replaced by the object that it names. Works in place. */
export function resolveRefs(value: unknown): unknown {
  const nodes: object[] = [];
  collect(value, nodes);
  const resolve = (child: unknown): unknown => {
    if (!(child instanceof Ref)) return child;
    const target = nodes[child.index];
    if (!target) throw new Error(`reference ${child.index} names nothing`);
    return target;
  };
  for (const node of nodes) fill(node, resolve);
  return resolve(value);
}

function collect(value: unknown, nodes: object[]): void {
  if (typeof value !== "object" || value === null || value instanceof Ref) return;
  nodes.push(value);
  for (const child of childrenOf(value)) collect(child, nodes);
}

function childrenOf(node: object): readonly unknown[] {
  if (Array.isArray(node)) return node;
  if (node instanceof Map) return [...node].flat();
  if (node instanceof Set) return [...node];
  if (node instanceof Error) return errorSlots(node).map((key) => Reflect.get(node, key) as unknown);
  return Object.getPrototypeOf(node) === Object.prototype ? Object.values(node) : [];
}

function fill(node: object, resolve: (child: unknown) => unknown): void {
  if (node instanceof Map) fillMap(node, resolve);
  else if (node instanceof Set) fillSet(node, resolve);
  else for (const key of node instanceof Error ? errorSlots(node) : keysOf(node)) fillKey(node, key, resolve);
}

function keysOf(node: object): string[] {
  return Array.isArray(node) || Object.getPrototypeOf(node) === Object.prototype ? Object.keys(node) : [];
}

function fillKey(node: object, key: string, resolve: (child: unknown) => unknown): void {
  const { value } = Object.getOwnPropertyDescriptor(node, key) ?? {};
  if (value instanceof Ref) Object.defineProperty(node, key, { value: resolve(value) });
}

function fillMap(map: Map<unknown, unknown>, resolve: (child: unknown) => unknown): void {
  const entries = [...map];
  if (!entries.some((entry) => entry.some((part) => part instanceof Ref))) return;
  map.clear();
  for (const [key, value] of entries) map.set(resolve(key), resolve(value));
}

function fillSet(set: Set<unknown>, resolve: (child: unknown) => unknown): void {
  const items = [...set];
  if (!items.some((item) => item instanceof Ref)) return;
  set.clear();
  for (const item of items) set.add(resolve(item));
}
