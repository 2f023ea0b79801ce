/** An error as stored fields, and back: message, stack, cause, own properties; never a reason why a failure cannot be recorded. */

import type { ErrorClasses } from "./codec-error-classes.ts";

/** What is stored of an error. `code` is lifted out of `props`, so that SQL finds it. */
export interface ErrorFields {
  class: string;
  name: string;
  message: string;
  stack?: string;
  code?: string | number;
  cause?: unknown;
  errors?: unknown;
  props?: Record<string, unknown>;
  truncated?: true;
}

/** Takes over one nested value; `dropped` when it cannot be stored. */
export type TakeSlot = (value: unknown, key: string) => unknown;

export const DROPPED = Symbol("dropped");

const MAX_TEXT = 65_536;
const SPECIAL = new Set(["message", "stack", "__proto__", "constructor", "prototype"]);

/** The own keys whose values travel with an error, in the one order that encoder and decoder share. */
export function errorSlots(error: object): string[] {
  const keys = Object.keys(error).filter((key) => !SPECIAL.has(key));
  const hidden = ["cause", "errors"].filter((key) => Object.hasOwn(error, key) && !keys.includes(key));
  return [...hidden, ...keys];
}

/** The stored form of an error. Its slots are read once each. `warn`: whether to warn of a class that is not registered. */
export function errorToFields(error: object, classes: ErrorClasses, warn: boolean, take: TakeSlot): ErrorFields {
  const message = textOf(error, "message") ?? "";
  const stack = textOf(error, "stack");
  const fields: ErrorFields = {
    class: classes.nameOf(error, warn),
    name: truncate(textOf(error, "name") ?? "Error"),
    message: truncate(message),
  };
  if (stack !== undefined) fields.stack = truncate(stack);
  if (message.length > MAX_TEXT || (stack?.length ?? 0) > MAX_TEXT) fields.truncated = true;
  addSlots(fields, error, take);
  return fields;
}

function addSlots(fields: ErrorFields, error: object, take: TakeSlot): void {
  const props: Record<string, unknown> = {};
  for (const key of errorSlots(error)) {
    const isHidden = !Object.prototype.propertyIsEnumerable.call(error, key);
    const value = read(error, key);
    const taken = value === DROPPED ? DROPPED : take(value, key);
    if (taken === DROPPED) continue;
    if (isHidden && (key === "cause" || key === "errors")) fields[key] = taken;
    else if (key === "code" && (typeof taken === "string" || Number.isInteger(taken))) fields.code = taken as string;
    else props[key] = taken;
  }
  if (Object.keys(props).length > 0) fields.props = props;
}

/** The error that stored fields describe. Its class's constructor does not run. */
export function errorFromFields(stored: unknown, classes: ErrorClasses): Error {
  const fields = stored as ErrorFields;
  for (const key of ["class", "name", "message"] as const) {
    if (typeof fields[key] !== "string") throw new Error(`the ${key} of an error is not a string`);
  }
  const error = create(fields, classes);
  define(error, "stack", typeof fields.stack === "string" ? fields.stack : `${fields.name}: ${fields.message}`, false);
  if (Object.hasOwn(fields, "cause")) define(error, "cause", fields.cause, false);
  if (Object.hasOwn(fields, "errors")) define(error, "errors", fields.errors, false);
  if (fields.code !== undefined) define(error, "code", fields.code, true);
  for (const [key, value] of Object.entries(fields.props ?? {})) {
    if (!SPECIAL.has(key)) define(error, key, value, true);
  }
  if (error.name !== fields.name && !Object.hasOwn(error, "name")) define(error, "name", fields.name, false);
  return error;
}

function create(fields: ErrorFields, classes: ErrorClasses): Error {
  if (fields.class === "DOMException") return new DOMException(fields.message, fields.name);
  const error = new Error(fields.message);
  return Object.setPrototypeOf(error, classes.prototypeOf(fields.class)) as Error;
}

function define(error: Error, key: string, value: unknown, enumerable: boolean): void {
  Object.defineProperty(error, key, { value, enumerable, writable: true, configurable: true });
}

function read(error: object, key: string): unknown {
  try {
    return Reflect.get(error, key);
  } catch {
    return DROPPED;
  }
}

/** A property as text; undefined when it is missing or cannot be read. */
export function textOf(error: object, key: string): string | undefined {
  const value = read(error, key);
  if (value === DROPPED || value === undefined || value === null) return undefined;
  try {
    return typeof value === "string" ? value : String(value);
  } catch {
    return undefined;
  }
}

/** At most 64 Ki characters, saying how many there were. */
function truncate(text: string): string {
  return text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}… [truncated, ${text.length} characters]`;
}
