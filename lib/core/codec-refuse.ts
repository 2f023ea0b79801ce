/** The texts of a refusal: where the value stands (`$.items[3].price`), what is wrong with it, and what to do. */

import { inspect, types } from "node:util";
import { brandOf, classNameOf } from "./codec-kinds.ts";
import { PerdureError } from "./errors.ts";
import { attempt } from "./options.ts";

/** What a message opens with, such as `input of workflow "order"`: a text, or what makes it once there is a message. */
export type What = string | { toString(): string };

/** One step down from a container to what it holds. */
export type PathStep = string | number | { entry: string };

/** A problem and its fix, as they stand in the message. */
export interface Refusal {
  problem: string;
  fix: string;
  cause?: unknown;
}

const MAX_PATH = 160;

/** `$.items[3]["a b"].get("k")`; the middle of a long path is left out. */
export function renderPath(steps: readonly PathStep[]): string {
  const path = `$${steps.map(renderStep).join("")}`;
  return path.length <= MAX_PATH ? path : `${path.slice(0, 80)}…${path.slice(-60)}`;
}

function renderStep(step: PathStep): string {
  if (typeof step === "number") return `[${step}]`;
  if (typeof step === "object") return `.${step.entry}`;
  return /^[A-Za-z_$][\w$]*$/.test(step) ? `.${step}` : `[${shorten(JSON.stringify(step), 60)}]`;
}

/** The step to a map's value: by its key where that can be read, otherwise by its position. */
export function mapStep(key: unknown, index: number): PathStep {
  const readable = typeof key === "string" || typeof key === "number" || typeof key === "boolean";
  return { entry: readable ? `get(${shorten(JSON.stringify(key), 60)})` : `value(${index})` };
}

/** Thrown where the walk stands; put into words where it began, because wording takes stack. */
export class Refused {
  readonly path: readonly PathStep[];
  readonly refusal: () => Refusal;

  constructor(path: readonly PathStep[], refusal: Refusal | (() => Refusal)) {
    this.path = path;
    this.refusal = typeof refusal === "function" ? refusal : () => refusal;
  }
}

export function isStackOverflow(error: unknown): boolean {
  return error instanceof RangeError && error.message.includes("call stack");
}

/** The error that `encode` throws. */
export function refuse(what: What, steps: readonly PathStep[], refusal: Refusal): PerdureError {
  const options = "cause" in refusal ? { cause: refusal.cause } : undefined;
  const text = `${what}: cannot store ${renderPath(steps)}: ${refusal.problem}; ${refusal.fix}`;
  return new PerdureError("PERDURE_SERIALIZE", text, options);
}

/** Why a function, a symbol or an object without a kind cannot be stored. */
export function refusalOf(value: unknown): Refusal {
  if (typeof value === "function") return { problem: "function", fix: "pass data, not code" };
  if (typeof value === "symbol") return { problem: "symbol", fix: "pass a string" };
  if (types.isPromise(value)) return { problem: "Promise", fix: "await it first" };
  const className = classNameOf(Object.getPrototypeOf(value));
  const name = className === "" || className === "Object" ? brandOf(value as object) : className;
  if (types.isBoxedPrimitive(value)) return { problem: `${name} object`, fix: "pass the primitive" };
  return { problem: `instance of ${name}`, fix: "pass a plain object" };
}

/** Why something could not even be read. */
export function refusalOfThrow(error: unknown): Refusal {
  return { problem: `reading it threw ${describe(error)}`, fix: "pass plain data", cause: error };
}

/** A short text of any value; never throws. */
export function describe(value: unknown): string {
  try {
    return shorten(
      value instanceof Error ? `${value.name}: ${value.message}` : inspect(value, { depth: 0, breakLength: Infinity }),
      100,
    );
  } catch {
    return typeof value;
  }
}

/** What a thrown value says, in at most 1,000 characters; never throws. */
export function said(thrown: unknown): string {
  const message = attempt(() => (thrown instanceof Error ? thrown.message : thrown));
  return typeof message === "string" ? shorten(message, 1000) : describe(thrown);
}

function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`;
}
