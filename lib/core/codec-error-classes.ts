/** Which error classes come back as themselves: the built-in ones, Perdure's own, and those that the user registered. */

import { classNameOf } from "./codec-kinds.ts";
import * as own from "./errors.ts";

/** Any class of errors, whatever its constructor takes. */
export type ErrorClass = abstract new (...args: never[]) => Error;

const BUILT_IN: readonly ErrorClass[] = [
  Error,
  TypeError,
  RangeError,
  SyntaxError,
  ReferenceError,
  URIError,
  EvalError,
  AggregateError,
  DOMException,
];

const OWN: readonly ErrorClass[] = [
  own.PerdureError,
  own.NonRetryableError,
  own.RunFailedError,
  own.RunCancelledError,
  own.RunConflictError,
  own.RunFinishedError,
  own.TimeoutError,
];

const BUILT_IN_NAMES = new Set(BUILT_IN.map((known) => known.name));

/** Names the class of an error for storage, and finds it again. */
export class ErrorClasses {
  readonly #prototypes = new Map<string, object>();
  readonly #names = new Map<object, string>();
  readonly #warned = new WeakSet<object>();
  readonly #warn: (message: string) => void;

  constructor(registered: readonly ErrorClass[], warn: (message: string) => void) {
    this.#warn = warn;
    for (const known of BUILT_IN) this.#add(known.name, known);
    for (const known of OWN) this.#add(`perdure/${known.name}`, known);
    for (const known of registered) this.#register(known);
  }

  /**
   * The stored name of the error's class, or of the nearest class that it extends and that is known. `warn`: once per unknown
   * class. Not of causes: they are often classes that nobody can import, and code seldom branches on them.
   */
  nameOf(error: object, warn: boolean): string {
    const first = Object.getPrototypeOf(error) as object | null;
    for (let proto = first; proto; proto = Object.getPrototypeOf(proto)) {
      const name = this.#names.get(proto) ?? nameInOtherCopy(error, proto);
      if (name === undefined) continue;
      if (warn && proto !== first) this.#warnOf(first!, name);
      return name;
    }
    return "Error";
  }

  /** The prototype to revive with; that of Error when the class is not registered here. */
  prototypeOf(name: string): object {
    return this.#prototypes.get(name) ?? Error.prototype;
  }

  #add(name: string, known: ErrorClass): void {
    this.#prototypes.set(name, known.prototype);
    this.#names.set(known.prototype, name);
  }

  #register(known: ErrorClass): void {
    if (typeof known !== "function" || !(known.prototype instanceof Error) || !known.name) {
      throw new own.PerdureError("PERDURE_OPTION", "errors: each entry must be a named class that extends Error");
    }
    if (this.#prototypes.has(known.name)) {
      const text = `errors: the name "${known.name}" is given twice or is built in; give the class another name`;
      throw new own.PerdureError("PERDURE_DUPLICATE", text);
    }
    this.#add(known.name, known);
  }

  #warnOf(proto: object, revivedAs: string): void {
    if (this.#warned.has(proto)) return;
    this.#warned.add(proto);
    const name = classNameOf(proto) || "(anonymous)";
    const as = revivedAs.replace("perdure/", "");
    this.#warn(
      `error class ${name} is not registered, so it comes back as ${as}; add it: new Perdure({ errors: [${name}] })`,
    );
  }
}

/** A built-in of another realm, or an error of another copy of this package, goes by its name. */
function nameInOtherCopy(error: object, proto: object): string | undefined {
  const name = classNameOf(proto);
  if (BUILT_IN_NAMES.has(name) && !(error instanceof Error)) return name;
  const isOwn = OWN.some((known) => known.name === name) && String(Reflect.get(error, "code")).startsWith("PERDURE_");
  return isOwn ? `perdure/${name}` : undefined;
}
