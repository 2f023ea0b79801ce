/** A short hash of values by their content: equal values have equal hashes in every process and release, because hashes are stored. */

import * as crypto from "node:crypto";
import { errorSlots } from "./codec-errors.ts";
import { kindOf } from "./codec-kinds.ts";
import { lowerBytes } from "./codec-lowered.ts";
import {
  isStackOverflow,
  mapStep,
  type PathStep,
  type Refusal,
  Refused,
  refusalOf,
  refusalOfThrow,
  refuse,
} from "./codec-refuse.ts";
import { MAX_DEPTH } from "./codec-snapshot.ts";

/** Characters from which a part counts by its digest. Changing it changes stored hashes. */
const MERKLE = 1_024;

/**
 * 16 characters (96 bits) of base64url. The order of an object's keys does not count, nor whether equal parts are one
 * object or several, unless the value has a cycle; the order of Map entries and Set items does, and a property that is
 * undefined differs from none. An error counts by name, message and own properties, not by stack.
 * @param what Opens the message of an error.
 * @param digest Makes the hash of the canonical text, with a key for one. Default: SHA-256.
 * @throws PERDURE_SERIALIZE for functions, symbols and objects of unknown classes.
 */
export function canonicalHash(
  values: readonly unknown[],
  what: () => string = () => "arguments",
  digest: (text: string) => string = plainDigest,
): string {
  return digest(flatText(values) ?? new Canon("tree", what).textOf(values) ?? new Canon("graph", what).textOf(values)!);
}

/** The canonical text of a short list of primitives, as most arguments are; undefined for any other. */
function flatText(values: readonly unknown[]): string | undefined {
  let text = "";
  for (let index = 0; index < values.length; index++) {
    const part = primitiveText(values[index]);
    if (part === undefined) return undefined;
    text += index > 0 ? `,${part}` : part;
  }
  return text.length + 2 < MERKLE ? `[${text}]` : undefined;
}

function primitiveText(value: unknown): string | undefined {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "number":
      return Object.is(value, -0) ? "-0" : String(value);
    case "boolean":
      return value ? "true" : "false";
    case "undefined":
      return "u";
    case "bigint":
      return `${value}n`;
    default:
      return value === null ? "null" : undefined;
  }
}

const plainDigest = (text: string): string => sha256(text).slice(0, 16);

/** `crypto.hash` needs no hash object, which doubles the speed on short texts; older and other runtimes lack it. */
const sha256: (text: string) => string =
  typeof crypto.hash === "function"
    ? (text) => crypto.hash("sha256", text, "base64url")
    : (text) => crypto.createHash("sha256").update(text).digest("base64url");

class Cycle extends Error {}

/**
 * Writes the canonical text: JSON with sorted keys, and an unquoted letter before everything that JSON lacks, so that
 * no two values share a text. As a tree, shared parts are written out, long ones as their digest, so that the text
 * stays in proportion; as a graph, for values with a cycle, a second meeting is a reference.
 */
class Canon {
  readonly #isGraph: boolean;
  readonly #what: () => string;
  readonly #path: PathStep[] = [];
  readonly #open: object[] = [];
  readonly #known = new Map<object, string>();

  constructor(form: "tree" | "graph", what: () => string) {
    this.#what = what;
    this.#isGraph = form === "graph";
  }

  /** Undefined when a tree turns out to have a cycle. */
  textOf(value: unknown): string | undefined {
    try {
      return this.#value(value);
    } catch (error) {
      if (error instanceof Cycle) return undefined;
      if (error instanceof Refused) throw refuse(this.#what(), error.path, error.refusal());
      if (!isStackOverflow(error))
        throw refuse(this.#what(), this.#path.slice(0, this.#open.length), refusalOfThrow(error));
      throw refuse(this.#what(), [], { problem: "nested too deeply for the stack that is left", fix: "flatten it" });
    }
  }

  #value(value: unknown): string {
    const text = primitiveText(value);
    if (text !== undefined) return text;
    if (typeof value === "object") return this.#object(value!);
    throw this.#refuse(this.#open.length, () => refusalOf(value));
  }

  #object(value: object): string {
    const known = this.#known.get(value);
    if (known !== undefined) return known;
    if (this.#isGraph) this.#known.set(value, `&${this.#known.size}`);
    else if (this.#open.includes(value)) throw new Cycle();
    if (this.#open.length > MAX_DEPTH) {
      throw this.#refuse(MAX_DEPTH, () => ({ problem: "nested deeper than 1,000 levels", fix: "flatten it" }));
    }
    this.#open.push(value);
    const text = this.#write(value);
    this.#open.pop();
    return this.#isGraph ? text : this.#remember(value, text);
  }

  #remember(value: object, text: string): string {
    if (text.length < MERKLE) return text;
    const digest = `#${sha256(text)}`;
    this.#known.set(value, digest);
    return digest;
  }

  #write(value: object): string {
    switch (kindOf(value)) {
      case "object":
        return `{${this.#entries(value, Object.keys(value).sort())}}`;
      case "array":
        return `[${this.#list(value as unknown[])}]`;
      case "date":
        return `D${(value as Date).getTime()}`;
      case "map":
        return `M[${this.#pairs(value as Map<unknown, unknown>)}]`;
      case "set":
        return `S[${this.#list([...(value as Set<unknown>)])}]`;
      case "regexp":
        return `R${JSON.stringify(String(value))}${(value as RegExp).lastIndex || ""}`;
      case "url":
        return `L${JSON.stringify((value as URL).href)}`;
      case "binary":
        return `B${JSON.stringify(lowerBytes(value as ArrayBuffer).value)}`;
      case "error":
        return this.#error(value as Error);
      default:
        throw this.#refuse(this.#open.length - 1, () => refusalOf(value));
    }
  }

  #entries(value: object, keys: readonly string[]): string {
    let text = "";
    for (const key of keys) {
      this.#step(key);
      text += `${text && ","}${JSON.stringify(key)}:${this.#value(this.#read(value, key))}`;
    }
    return text;
  }

  #list(items: readonly unknown[]): string {
    let text = "";
    for (let index = 0; index < items.length; index++) {
      this.#step(index);
      text += `${index > 0 ? "," : ""}${this.#value(items[index])}`;
    }
    return text;
  }

  #pairs(map: Map<unknown, unknown>): string {
    let text = "";
    let index = 0;
    for (const [key, item] of map) {
      this.#step({ entry: `key(${index})` });
      text += `${text && ","}${this.#value(key)}`;
      this.#step(mapStep(key, index++));
      text += `:${this.#value(item)}`;
    }
    return text;
  }

  #error(error: Error): string {
    const slots = errorSlots(error).sort();
    return `E[${JSON.stringify(error.name)},${JSON.stringify(error.message)},{${this.#entries(error, slots)}}]`;
  }

  #read(value: object, key: string): unknown {
    try {
      return Reflect.get(value, key);
    } catch (error) {
      throw this.#refuse(this.#open.length, () => refusalOfThrow(error));
    }
  }

  /** The step from the innermost open container to the child that is next. */
  #step(step: PathStep): void {
    this.#path[this.#open.length - 1] = step;
  }

  #refuse(steps: number, refusal: () => Refusal): Refused {
    return new Refused(this.#path.slice(0, steps), refusal);
  }
}
