/**
 * A decorated method of a class: a getter on the prototype that holds it gives each instance a bound function of its own, and the plain
 * method where a more derived class calls `super`. Members are found by MEMBER, so that two copies of the package agree.
 */
import { scope } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkName } from "../core/options.ts";
import { placeText, type Stack } from "../core/place.ts";
import type { AnyFunction } from "../core/types.ts";

export type Kind = "step" | "transaction" | "workflow";

/** What one of the three makes of a method. */
export interface Maker<T> {
  readonly kind: Kind;
  /** The options that it knows. */
  readonly known: readonly string[];
  /** Checks the options, and makes what is the same for every instance. */
  readonly define: (options: any, method: AnyFunction, place: Stack) => T;
  /** The bound function of an instance. `finish` gives its name, which is fixed from then on. */
  readonly bind: (template: T, instance: object, finish: () => string) => AnyFunction;
}

/** A decorated method, as the instances of its class have it. */
export interface Member {
  readonly kind: Kind;
  readonly key: string;
  /** True where the decorator was given a name. */
  readonly hasName: boolean;
  /** Where it was decorated. */
  readonly place: Stack;
  /** Gives the getter its place on the prototype that holds the method. */
  settle(prototype: object): void;
  /** What an instance has under the member's key. */
  boundTo(instance: object): AnyFunction;
  /** Its name on an instance, as the database has it. */
  nameOn(instance: object): string;
  /** Names an instance. Throws PERDURE_STATE when it has a name. */
  nameInstance(instance: object, name: string, place: Stack): void;
}

/** A member, as its decorator sees it. */
export interface NewMember extends Member {
  /** What stands in the class until its prototype is known, and is given where no instance is at hand. */
  readonly unbound: AnyFunction;
  /** Looks among an instance's prototypes for the one that holds the method. */
  find(instance: object): void;
}

const MEMBER = Symbol.for("perdure.member.1");

/** The member behind a function; undefined: there is none. */
export function memberOf(given: unknown): Member | undefined {
  return typeof given === "function" ? (given as { [MEMBER]?: Member })[MEMBER] : undefined;
}

/** Makes the member for a method. */
export function makeMember<T>(
  maker: Maker<T>,
  options: { readonly name?: string | undefined },
  method: AnyFunction,
  key: string,
  place: Stack,
): NewMember {
  const { kind } = maker;
  const template = maker.define({ ...options, name: options.name ?? key }, method, place);
  const given = new WeakMap<object, AnyFunction>();
  let home: object | undefined;

  const bind = (instance: object): AnyFunction => {
    const bound = maker.bind(template, instance, () => member.nameOn(instance));
    Object.defineProperty(bound, "name", { value: key, configurable: true });
    Object.defineProperty(bound, "length", { value: method.length, configurable: true });
    return Object.assign(bound, { [MEMBER]: member });
  };
  /** What `super` calls: a part of the step, or of the workflow, that the override is. */
  const asPart = function (this: object, ...args: never[]): unknown {
    const here = scope.getStore();
    if (!here || here.step || kind === "workflow") return Reflect.apply(method, this, args);
    const text = `super.${key}() of class ${classOf(home!)} was called in a workflow's own function, where it would run again on every replay; call it from a method ${key} of class ${classOf(this)} that has a @${kind}() of its own`;
    throw new PerdureError("PERDURE_CONTEXT", text);
  };
  const boundTo = (instance: object): AnyFunction => {
    let bound = given.get(instance);
    if (!bound) {
      if (!home) member.find(instance);
      bound = isOverridden(instance, key, home!) ? asPart : bind(instance);
      given.set(instance, bound);
    }
    return bound;
  };
  const unbound = function (this: unknown, ...args: never[]): unknown {
    if (isInstance(this, home)) return Reflect.apply(boundTo(this), this, args);
    const text = `${kind} "${key}"${home ? ` of class ${classOf(home)}` : ""} was called without its instance; call it as a method of one`;
    throw new PerdureError("PERDURE_CONTEXT", text);
  };
  const member: NewMember = {
    kind,
    key,
    hasName: options.name !== undefined,
    place,
    unbound,
    boundTo,
    settle: (prototype) => {
      home = prototype;
      const get = function (this: unknown): AnyFunction {
        return isInstance(this, home) ? boundTo(this) : unbound;
      };
      // As with any method, what is assigned becomes the object's own.
      const set = function (this: object, value: unknown): void {
        Object.defineProperty(this, key, { value, writable: true, enumerable: true, configurable: true });
      };
      mark(get, member);
      Object.defineProperty(prototype, key, { get, set, enumerable: false, configurable: true });
    },
    find: (instance) => {
      if (home) return;
      const holds = (at: object): boolean => Object.getOwnPropertyDescriptor(at, key)?.value === unbound;
      const found = prototypesOf(instance).find(holds);
      if (found) return member.settle(found);
      const text = `@${kind}() on ${classOf(instance)}.${key}${placeText(place)} stands below another decorator, which replaced the method; put it on top`;
      throw new PerdureError("PERDURE_OPTION", text);
    },
    nameOn: (instance) => nameOf(instance, key, options.name),
    nameInstance,
  };
  mark(unbound, member);
  return member;
}

function mark(fn: AnyFunction, member: Member): void {
  Object.defineProperty(fn, MEMBER, { value: member });
}

/** The name of the class that an instance or a prototype belongs to; empty: it has none. */
export function classOf(of: object): string {
  const name = attempt(() => (typeof of.constructor === "function" ? of.constructor.name : ""));
  return typeof name === "string" ? name : "";
}

/** The prototypes of an object, the nearest first. */
export function prototypesOf(instance: object): object[] {
  const found: object[] = [];
  for (let at: unknown = Object.getPrototypeOf(instance); at; at = Object.getPrototypeOf(at)) found.push(at as object);
  return found;
}

/** Whether a class more derived than `home` has a method of that name: it reaches this one by `super`, as a part of its own. */
function isOverridden(instance: object, key: string, home: object): boolean {
  const prototypes = prototypesOf(instance);
  return prototypes.slice(0, prototypes.indexOf(home)).some((at) => Object.hasOwn(at, key));
}

/** False for prototypes, which tools read too, and for what has nothing to do with the class. */
function isInstance(value: unknown, home: object | undefined): value is object {
  if (typeof value !== "object" || value === null) return false;
  if (home && !Object.prototype.isPrototypeOf.call(home, value)) return false;
  const own = Object.getOwnPropertyDescriptor(value, "constructor")?.value as { prototype?: unknown } | undefined;
  return own?.prototype !== value;
}

interface Identity {
  readonly label: string;
  /** Where it was given; undefined: it is the class's. */
  readonly place: Stack | undefined;
}

/** What an instance is called: fixed by `named()`, or by the first durable use. */
const identities = new WeakMap<object, Identity>();

function nameOf(instance: object, key: string, given: string | undefined): string {
  const { label, place } = identities.get(instance) ?? { label: classOf(instance), place: undefined };
  identities.set(instance, { label, place });
  const own = given ?? key;
  if (given !== undefined && !place) return checkName(given, "name");
  if (label !== "") return checkName(`${label}.${own}`, `name of method ${own}`);
  const text = `method ${key} belongs to a class without a name; give the decorator a \`name\`, or the instance one: named("…", instance)`;
  throw new PerdureError("PERDURE_NAME", text);
}

/** An instance, as errors about two of them name it: where it got its name, or else where the method is decorated. */
export function instanceText(instance: object, place: Stack): string {
  return `an instance of class ${classOf(instance)}${placeText(identities.get(instance)?.place ?? place)}`;
}

function nameInstance(instance: object, name: string, place: Stack): void {
  const before = identities.get(instance);
  if (!before) return void identities.set(instance, { label: name, place });
  if (before.place && before.label === name) return;
  const why = before.place
    ? `has the name "${before.label}"${placeText(before.place) && `, given${placeText(before.place)}`}`
    : `was used as "${before.label}" before; name it where you make it`;
  throw new PerdureError("PERDURE_STATE", `named("${name}"): this instance of ${classOf(instance)} ${why}`);
}
