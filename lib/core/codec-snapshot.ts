/** The one walk over a value to be stored: checks it, copies it, and learns whether JSON alone would bring it back. */

import type { ErrorClasses } from "./codec-error-classes.ts";
import { DROPPED, errorToFields } from "./codec-errors.ts";
import { isDangerousKey, kindOf } from "./codec-kinds.ts";
import { Lowered, lowerBytes, lowerRegExp } from "./codec-lowered.ts";
import {
  isStackOverflow,
  mapStep,
  type PathStep,
  type Refusal,
  Refused,
  refusalOf,
  refusalOfThrow,
  refuse,
  type What,
} from "./codec-refuse.ts";

/** Levels of nesting that are stored; the next is refused, long before any stack overflows. */
export const MAX_DEPTH = 1_000;

const LINEAR = 12;

/**
 * Copies a value into plain data. The copy shares no container with the original, has no accessor and no cycle: a
 * second meeting with an object becomes a reference. Each accessor and each Proxy is read once.
 */
export class Snapshot {
  /** True as long as JSON.stringify of the copy loses nothing. */
  plain = true;
  readonly #what: What;
  readonly #classes: ErrorClasses;
  readonly #path: PathStep[] = [];
  readonly #nodes: object[] = [];
  #places: Map<object, number> | undefined;
  /** How many errors the walk is inside of by their `cause`. */
  #causes = 0;

  constructor(what: What, classes: ErrorClasses) {
    this.#what = what;
    this.#classes = classes;
  }

  take(value: unknown): unknown {
    try {
      return this.#value(value, 0);
    } catch (error) {
      if (error instanceof Refused) throw refuse(this.#what, error.path, error.refusal());
      if (!isStackOverflow(error)) throw error;
      throw refuse(this.#what, [], { problem: "nested too deeply for the stack that is left", fix: "flatten it" });
    }
  }

  #value(value: unknown, depth: number): unknown {
    switch (typeof value) {
      case "string":
      case "boolean":
        return value;
      case "number":
        if (!Number.isFinite(value) || Object.is(value, -0)) this.plain = false;
        return value;
      case "object":
        return value === null ? null : this.#object(value, depth);
      case "undefined":
      case "bigint":
        this.plain = false;
        return value;
      default:
        throw this.#refuse(depth, () => refusalOf(value));
    }
  }

  #object(value: object, depth: number): unknown {
    const place = this.#place(value);
    if (place >= 0) return this.#special(new Lowered("ref", [place]));
    if (depth >= MAX_DEPTH) {
      throw this.#refuse(depth, { problem: "nested deeper than 1,000 levels", fix: "flatten it" });
    }
    this.#add(value);
    try {
      return this.#copy(value, depth);
    } catch (error) {
      if (error instanceof Refused || isStackOverflow(error)) throw error;
      throw this.#refuse(depth, () => refusalOfThrow(error));
    }
  }

  #copy(value: object, depth: number): unknown {
    switch (kindOf(value)) {
      case "object":
        return this.#plainObject(value as Record<string, unknown>, depth);
      case "array":
        return this.#array(value as unknown[], depth);
      case "date":
        return this.#date(value as Date, depth);
      case "map":
        return this.#map(value as Map<unknown, unknown>, depth);
      case "set":
        return this.#set(value as Set<unknown>, depth);
      case "regexp":
        this.#refuseExtras(value, "a RegExp", depth);
        return this.#special(lowerRegExp(value as RegExp));
      case "url":
        return this.#special(new URL((value as URL).href));
      case "binary":
        return this.#special(lowerBytes(value as ArrayBuffer));
      case "error":
        return this.#error(value, depth);
      default:
        throw this.#refuse(depth, () => refusalOf(value));
    }
  }

  #plainObject(value: Record<string, unknown>, depth: number): unknown {
    this.#refuseSymbols(value, depth);
    const copy = this.#read(value, depth);
    let isOdd = false;
    for (const key of Object.keys(copy)) {
      if (isDangerousKey(key)) isOdd = true;
      const child = copy[key];
      if (typeof child === "string") continue;
      this.#path[depth] = key;
      const taken = this.#value(child, depth + 1);
      if (taken !== child) copy[key] = taken;
    }
    return isOdd ? this.#special(new Lowered("object", Object.entries(copy))) : copy;
  }

  /** Each property, read once. A spread is the fastest such read, but cannot say which property threw. */
  #read(value: Record<string, unknown>, depth: number): Record<string, unknown> {
    try {
      return { ...value };
    } catch (error) {
      throw this.#refuse(depth, () => refusalOfThrow(error), throwingKey(value));
    }
  }

  #array(value: unknown[], depth: number): unknown {
    const copy = new Array<unknown>(value.length);
    for (let index = 0; index < copy.length; index++) {
      this.#path[depth] = index;
      copy[index] = this.#item(value, index, depth);
    }
    if (Object.keys(value).length !== copy.length) this.#refuseExtras(value, "an array", depth, copy.length);
    return copy;
  }

  #item(array: unknown[], index: number, depth: number): unknown {
    let child: unknown;
    try {
      child = array[index];
    } catch (error) {
      throw this.#refuse(depth + 1, () => refusalOfThrow(error));
    }
    if (child === undefined && !(index in array)) {
      throw this.#refuse(depth + 1, { problem: "hole in a sparse array", fix: "fill it with null or undefined" });
    }
    return typeof child === "string" ? child : this.#value(child, depth + 1);
  }

  #date(value: Date, depth: number): unknown {
    this.#refuseExtras(value, "a Date", depth);
    const time = Date.prototype.getTime.call(value);
    if (Number.isNaN(time)) throw this.#refuse(depth, { problem: "invalid Date", fix: "check it before you pass it" });
    return this.#special(new Date(time));
  }

  #map(value: Map<unknown, unknown>, depth: number): unknown {
    this.#refuseExtras(value, "a Map", depth);
    const copy = new Map<unknown, unknown>();
    for (const [key, item] of Map.prototype.entries.call(value)) {
      this.#path[depth] = { entry: `key(${copy.size})` };
      const taken = this.#value(key, depth + 1);
      this.#path[depth] = mapStep(key, copy.size);
      copy.set(taken, this.#value(item, depth + 1));
    }
    return this.#special(copy);
  }

  #set(value: Set<unknown>, depth: number): unknown {
    this.#refuseExtras(value, "a Set", depth);
    const copy = new Set<unknown>();
    for (const item of Set.prototype.values.call(value)) {
      this.#path[depth] = { entry: `item(${copy.size})` };
      copy.add(this.#value(item, depth + 1));
    }
    return this.#special(copy);
  }

  #error(error: object, depth: number): unknown {
    const outer = this.#causes;
    const fields = errorToFields(error, this.#classes, outer === 0, (value, key) => {
      this.#path[depth] = key;
      this.#causes = outer + (key === "cause" ? 1 : 0);
      return this.#valueOrDropped(value, depth + 1);
    });
    this.#causes = outer;
    return this.#special(new Lowered("Error", fields));
  }

  /** An error is stored without what cannot be stored of it; the numbering of shared objects goes on as if it had not been met. */
  #valueOrDropped(value: unknown, depth: number): unknown {
    const count = this.#nodes.length;
    try {
      return this.#value(value, depth);
    } catch (error) {
      if (!(error instanceof Refused || isStackOverflow(error))) throw error;
      for (const node of this.#nodes.splice(count)) this.#places?.delete(node);
      return DROPPED;
    }
  }

  #special<T>(value: T): T {
    this.plain = false;
    return value;
  }

  /** Where an object was met before; -1 for the first meeting. */
  #place(value: object): number {
    if (this.#places) return this.#places.get(value) ?? -1;
    return this.#nodes.indexOf(value);
  }

  #add(value: object): void {
    const place = this.#nodes.push(value) - 1;
    if (this.#places) this.#places.set(value, place);
    else if (place >= LINEAR) this.#places = new Map(this.#nodes.map((node, index) => [node, index]));
  }

  #refuseSymbols(value: object, depth: number): void {
    const symbols = Object.getOwnPropertySymbols(value);
    if (symbols.length === 0) return;
    const visible = symbols.filter((symbol) => Object.prototype.propertyIsEnumerable.call(value, symbol)).map(String);
    const own = visible.map((symbol) => /^Symbol\(perdure\.(\w+)/.exec(symbol)?.[1]).find(Boolean);
    if (own) throw this.#refuse(depth, { problem: `${own} of Perdure`, fix: "pass its name, its id or what it gives" });
    if (visible[0]) throw this.#refuse(depth, { problem: `symbol key ${visible[0]}`, fix: "use a string key" });
    // `Math`, a module's namespace, `arguments`: objects that are more than their properties.
    if (Object.prototype.toString.call(value) !== "[object Object]") throw this.#refuse(depth, () => refusalOf(value));
  }

  #refuseExtras(value: object, type: string, depth: number, items = 0): void {
    const extra = Object.keys(value)[items];
    if (extra !== undefined) {
      throw this.#refuse(depth, { problem: `extra property "${extra}" of ${type}`, fix: "pass a plain object" });
    }
    if (items === 0) this.#refuseSymbols(value, depth);
  }

  #refuse(depth: number, refusal: Refusal | (() => Refusal), key?: string): Refused {
    const path = this.#path.slice(0, depth);
    return new Refused(key === undefined ? path : [...path, key], refusal);
  }
}

/** Looks for the property again: only after a failure, to name it. */
function throwingKey(value: Record<string, unknown>): string | undefined {
  try {
    return Object.keys(value).find((key) => doesThrow(() => value[key]));
  } catch {
    return undefined;
  }
}

function doesThrow(read: () => unknown): boolean {
  try {
    read();
    return false;
  } catch {
    return true;
  }
}
