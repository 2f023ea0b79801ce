/** Instances of classes with decorated methods: their names, and the workflows that they bring. */
import { PerdureError } from "../core/errors.ts";
import { attempt, checkName, shorten } from "../core/options.ts";
import { placeOf } from "../core/place.ts";
import { classOf, type Member, memberOf, prototypesOf } from "./member.ts";
import { internalsOf, type Workflow } from "./workflow.ts";

/**
 * Names an instance: its workflows and steps are `eu.process` in place of `Checkout.process`, and a name that a decorator was given comes
 * after it too. Needed where one engine, or one run, has several instances of a class, and where a build shortens the names of classes. Name it where
 * you make it, before its first durable use. Renaming is a change for runs in flight.
 *
 * @param name 1 to 255 bytes, with the method's name.
 * @returns The instance.
 * @throws PERDURE_NAME; PERDURE_OPTION when no method of it is decorated; PERDURE_STATE when it has another name, or was used without.
 * @example new Perdure({ workflows: [new Checkout(db), named("eu", new Checkout(dbEu))] });
 */
export function named<T extends object>(name: string, instance: T): T {
  const where = `named(${shorten(checkName(name, "name of an instance"))})`;
  const members = membersOf(instance);
  if (members.length === 0) throw undecorated(where, instance);
  const place = placeOf(named);
  for (const member of members) member.nameInstance(instance, name, place);
  return instance;
}

/**
 * A workflow method of an instance, as the workflow that it is: to be started with options, scheduled, started as a child.
 *
 * @param method A method decorated with `@workflow()`, read from its instance.
 * @throws PERDURE_OPTION for what is not decorated, or has no instance.
 * @example const run = await perdure.start(durable(checkout.process).with({ id: "order-42" }), "order-42");
 */
export function durable<A extends unknown[], R>(method: (...args: A) => Promise<R>): Workflow<A, R> {
  if (internalsOf(method)) return method as Workflow<A, R>;
  const member = attempt(() => memberOf(method));
  const text = !member
    ? `durable() needs a method decorated with @workflow(), read from its instance, as in durable(checkout.process); it was given ${shorten(method)}`
    : member.kind === "workflow"
      ? `durable() was given method ${member.key} without its instance; read it from one, as in durable(checkout.${member.key})`
      : `durable() needs a workflow, and method ${member.key} is a ${member.kind}; call it in a workflow, as it stands`;
  throw new PerdureError("PERDURE_OPTION", text);
}

/** What an instance brings to an engine. */
export interface Brought {
  readonly member: Member;
  readonly name: string;
  /** The workflow; undefined: it is a step. */
  readonly workflow: Workflow<any, any> | undefined;
}

/** The decorated methods of an instance. Throws PERDURE_OPTION when there are none, or one was overridden by a method that is not decorated. */
export function broughtBy(instance: object, where: string): Brought[] {
  const members = membersOf(instance);
  if (members.length === 0) throw undecorated(where, instance);
  return members.map((member) => {
    const bound = member.boundTo(instance);
    const workflow = internalsOf(bound) ? (bound as Workflow<any, any>) : undefined;
    return { member, name: member.nameOn(instance), workflow };
  });
}

/** The decorated methods of an instance, that of the most derived class of each name. */
function membersOf(instance: unknown): Member[] {
  const found = new Map<string, Member>();
  const plain = new Set<string>();
  if (typeof instance !== "object" || instance === null) return [];
  for (const prototype of attempt(() => prototypesOf(instance)) ?? []) {
    for (const [key, descriptor] of attempt(() => Object.entries(Object.getOwnPropertyDescriptors(prototype))) ?? []) {
      const member = memberOf(descriptor.get) ?? memberOf(descriptor.value);
      if (!member) plain.add(key);
      else if (plain.has(key) && !found.has(key)) throw overridden(instance, member, prototype);
      else if (!found.has(key)) found.set(key, member);
      // An instance that no constructor made.
      if (member && !descriptor.get) member.settle(prototype);
    }
  }
  return [...found.values()];
}

function overridden(instance: object, { kind, key }: Member, by: object): PerdureError {
  const text = `class ${classOf(instance)} has a method ${key} of its own, not decorated, in place of the ${kind} of class ${classOf(by)}: it would run again on every replay. Put @${kind}() on it, or give it another name`;
  return new PerdureError("PERDURE_OPTION", text);
}

function undecorated(where: string, instance: unknown): PerdureError {
  const what = attempt(() => typeof instance === "object" && instance !== null && classOf(instance)) || "";
  const given = what && what !== "Object" ? `an instance of ${what}` : shorten(instance);
  const text = `${where}: ${given} has no method that is decorated with @workflow(), @step() or @transaction()`;
  return new PerdureError("PERDURE_OPTION", text);
}
