/** The workflows of an engine: functions, and the methods of instances. Two of one name are refused, with both places. */
import { otherInstance, registeredName } from "../core/engines.ts";
import { PerdureError } from "../core/errors.ts";
import { checkArray, shorten } from "../core/options.ts";
import { placeText, type Stack } from "../core/place.ts";
import type { WorkflowDefinition } from "../core/types.ts";
import { broughtBy } from "./instances.ts";
import { instanceText, type Member, memberOf } from "./member.ts";
import { internalsOf } from "./workflow.ts";

/** What has a name in an engine. */
interface Owned {
  /** What is wrong where another has it too. */
  readonly what: string;
  readonly place: Stack;
  /** Of a method: its instance. */
  readonly instance: object | undefined;
  readonly member: Member | undefined;
}

/** The workflows by name and version. Throws PERDURE_OPTION for what is neither a workflow nor such an instance; PERDURE_DUPLICATE. */
export function registry(given: readonly unknown[], where: string): Map<string, WorkflowDefinition> {
  const workflows = new Map<string, WorkflowDefinition>();
  const owned = new Map<string, Owned>();
  const add = (definition: WorkflowDefinition, member: Member | undefined): void => {
    const { name, version, fn, instance, place } = definition;
    const key = registeredName(name, version);
    const one = { what: `two workflows named "${name}" have version "${version}"`, instance, member, place };
    if (workflows.has(key) && workflows.get(key)!.fn !== fn) throw twice(owned.get(key)!, one);
    workflows.set(key, definition);
    owned.set(key, one);
  };
  const addStep = (instance: object, member: Member, name: string): void => {
    const one = { what: `two steps are named "${name}"`, instance, member, place: member.place };
    const other = owned.get(name);
    // A name that was given may be shared, as functions may share it: two instances of one class would be mistaken for each other.
    const shared = member.hasName && other?.member !== member;
    if (other && other.instance !== instance && !shared) throw twice(other, one);
    owned.set(name, one);
  };
  for (const value of checkArray(given, `workflows of ${where}`)) {
    if (typeof value !== "object" || value === null) add(workflowIn(value, where), memberOf(value));
    else {
      for (const { member, name, workflow } of broughtBy(value, `workflows of ${where}`)) {
        if (workflow) add(internalsOf(workflow)!.definition, member);
        else addStep(value, member, name);
      }
    }
  }
  return workflows;
}

/** Whether a workflow is in a registry. Throws PERDURE_UNKNOWN_WORKFLOW when there is another instance's of that name. */
export function isRegistered(
  definition: WorkflowDefinition,
  workflows: ReadonlyMap<string, WorkflowDefinition>,
): boolean {
  const found = workflows.get(registeredName(definition.name, definition.version));
  if (found && definition.instance && found.instance !== definition.instance) throw otherInstance(definition);
  return found !== undefined;
}

function workflowIn(value: unknown, where: string): WorkflowDefinition {
  const internals = internalsOf(value);
  if (!internals) {
    const isClass = typeof value === "function" && /^class\b/.test(Function.prototype.toString.call(value));
    const what = isClass
      ? `class ${value.name}; pass an instance of it: new ${value.name}(…)`
      : `${shorten(value)}, which workflow() did not make`;
    throw new PerdureError("PERDURE_OPTION", `workflows of ${where} holds ${what}`);
  }
  const { definition, options } = internals;
  if (options.id === undefined && options.delay === undefined && options.startAt === undefined) return definition;
  const text = `workflows of ${where} holds a copy of workflow "${definition.name}" that names one particular run; pass the workflow itself`;
  throw new PerdureError("PERDURE_OPTION", text);
}

function twice(one: Owned, other: Owned): PerdureError {
  const sides = [one, other].map(({ instance, place }) =>
    instance ? instanceText(instance, place) : `a function${placeText(place)}`,
  );
  const help =
    one.instance && other.instance && one.instance !== other.instance
      ? 'give one of the instances a name of its own: named("…", instance)'
      : "give one another name or version";
  const text = `${one.what}: ${sides.join(", and ")}; ${help}`;
  return new PerdureError("PERDURE_DUPLICATE", text);
}
