/** The workflows of an engine: functions, and the methods of instances. Two of one name are refused, with both places. */
import { otherInstance, registeredName } from "../core/engines.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkArray, nearest, shorten } from "../core/options.ts";
import { placeText, type Stack } from "../core/place.ts";
import type { StartOptions, WorkflowDefinition } from "../core/types.ts";
import { broughtBy } from "./instances.ts";
import { instanceText, type Member, memberOf } from "./member.ts";
import { internalsOf, notAWorkflow } from "./workflow.ts";

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

/** What is to be started, and how. */
export interface Startee {
  readonly definition: WorkflowDefinition;
  readonly options: StartOptions;
}

/** The workflow that a start is given, by itself or by its name. `works`: its process works on what it starts. */
export function findWorkflow(
  workflow: unknown,
  workflows: ReadonlyMap<string, WorkflowDefinition>,
  works: boolean,
): Startee {
  const internals = internalsOf(workflow);
  // A pure client starts what others work on.
  const foreign = !works && workflows.size === 0;
  if (internals) {
    if (foreign || isRegistered(internals.definition, workflows)) return internals;
    throw unknownWorkflow(internals.definition.name, workflows);
  }
  if (typeof workflow !== "string") {
    throw notAWorkflow("start() needs a workflow made by workflow(), or the name of one", workflow);
  }
  const definition = [...workflows.values()].findLast(({ name }) => name === workflow);
  if (definition) return { definition, options: {} };
  if (!foreign) throw unknownWorkflow(workflow, workflows);
  const text = `start() cannot know workflow ${shorten(workflow)}, as this engine registers none; pass the workflow itself in place of its name`;
  throw new PerdureError("PERDURE_UNKNOWN_WORKFLOW", text);
}

function unknownWorkflow(name: string, workflows: ReadonlyMap<string, WorkflowDefinition>): PerdureError {
  const known = [...workflows.values()].map((workflow) => workflow.name);
  const meant = nearest(name, known);
  const help = meant && meant !== name ? `did you mean "${meant}"?` : "add it to `workflows` of new Perdure()";
  return new PerdureError(
    "PERDURE_UNKNOWN_WORKFLOW",
    `workflow ${shorten(name)} is not registered in this engine; ${help}`,
  );
}

function workflowIn(value: unknown, where: string): WorkflowDefinition {
  const internals = internalsOf(value);
  if (!internals) {
    const isClass = typeof value === "function" && /^class\b/.test(Function.prototype.toString.call(value));
    const name = isClass ? attempt(() => value.name) : undefined;
    const what =
      typeof name === "string"
        ? `class ${name}; pass an instance of it: new ${name}(…)`
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
