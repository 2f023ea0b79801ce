/** The launched engines of this process: how a workflow or a transaction called outside finds the engine to run on. */
import { PerdureError } from "./errors.ts";
import type { StartOptions, StepDefinition, WorkflowDefinition } from "./types.ts";

/** What a definition may ask of a launched engine. */
export interface Launched {
  /** What it registers under the name and the version of a workflow. */
  registered(definition: WorkflowDefinition): WorkflowDefinition | undefined;
  /** Starts a run, waits for it and returns its result. */
  call(definition: WorkflowDefinition, options: StartOptions, args: unknown[]): Promise<unknown>;
  /** Runs a transaction step in a transaction of its own, with no checkpoint. */
  transact(definition: StepDefinition, args: unknown[]): Promise<unknown>;
  /** What a step called outside a workflow does. */
  readonly outside: "call" | "warn" | "refuse";
  readonly warn: (message: string) => void;
}

const KEY = Symbol.for("perdure.engines.1");
const global = globalThis as { [KEY]?: Set<Launched> };
global[KEY] ??= new Set<Launched>();

/** Under Symbol.for, so that two copies of the package agree. */
export const engines: Set<Launched> = global[KEY];

/** The one launched engine, or the one that serves `workflow`. Throws PERDURE_STATE when none or several do. */
export function theEngine(what: string, workflow?: WorkflowDefinition): Launched {
  const found = workflow ? [...engines].filter((engine) => serves(engine, workflow)) : [...engines];
  if (found.length === 1) return found[0]!;
  const text = `${what} was called outside a workflow, but`;
  if (found.length === 0 && workflow?.instance) {
    throw new PerdureError("PERDURE_STATE", `${text} ${registerText(workflow)}`);
  }
  const none = workflow ? "no launched engine registers it" : "no engine is launched";
  const why = found.length ? `${found.length} launched engines could run it` : none;
  const help = workflow
    ? "start it with perdure.start(…) on the engine that you mean"
    : "call it from a workflow, or while one engine is launched";
  throw new PerdureError("PERDURE_STATE", `${text} ${why}; ${help}`);
}

const serves = (engine: Launched, workflow: WorkflowDefinition): boolean =>
  engine.registered(workflow)?.fn === workflow.fn;

/** What to do about an instance that no engine knows. */
function registerText({ instance }: WorkflowDefinition): string {
  return `this instance of ${instance!.constructor.name} is registered in no launched engine; add it to \`workflows\` of new Perdure() and launch that`;
}

/**
 * Throws PERDURE_UNKNOWN_WORKFLOW when another instance is registered under the name of this one's method: the run would get that one as its `this`.
 */
export function checkInstance(workflow: WorkflowDefinition): void {
  if (!workflow.instance || [...engines].some((engine) => serves(engine, workflow))) return;
  if ([...engines].some((engine) => engine.registered(workflow))) throw otherInstance(workflow);
}

/** Another instance is registered under the name. */
export function otherInstance({ name, instance }: WorkflowDefinition): PerdureError {
  const text = `workflow "${name}" belongs to another instance of ${instance!.constructor.name} than the one that is registered; register this one too, with a name: named("…", instance)`;
  return new PerdureError("PERDURE_UNKNOWN_WORKFLOW", text);
}

/** Warns of, or refuses, a step called outside a workflow, where a launched engine was told to. */
export function checkOutside(what: string): void {
  for (const engine of engines) {
    const message = `${what} was called outside a workflow, so nothing is recorded: call it from a workflow's function, and await what leads to it, or set \`outside\` to "call"`;
    if (engine.outside === "refuse") throw new PerdureError("PERDURE_CONTEXT", message);
    if (engine.outside === "warn") engine.warn(message);
  }
}

/** The name under which a workflow's version is registered. No name has a line break. */
export function registeredName(workflow: string, version: string): string {
  return `${workflow}\n${version}`;
}
