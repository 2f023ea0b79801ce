/** The launched engines of this process: how a workflow or a transaction called outside finds the engine to run on. */
import { PerdureError } from "./errors.ts";
import type { StartOptions, StepDefinition, WorkflowDefinition } from "./types.ts";

/** What a definition may ask of a launched engine. */
export interface Launched {
  serves(definition: WorkflowDefinition): boolean;
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

/** The one launched engine, or the one for which `fits` is true. Throws PERDURE_STATE when none or several are. */
export function theEngine(what: string, fits?: (engine: Launched) => boolean): Launched {
  const found = fits ? [...engines].filter(fits) : [...engines];
  if (found.length === 1) return found[0]!;
  const none = fits ? "no launched engine registers it" : "no engine is launched";
  const why = found.length ? `${found.length} launched engines could run it` : none;
  const help = fits
    ? "start it with perdure.start(…) on the engine that you mean"
    : "call it from a workflow, or while one engine is launched";
  throw new PerdureError("PERDURE_STATE", `${what} was called outside a workflow, but ${why}; ${help}`);
}

/** Warns of, or refuses, a step called outside a workflow, where a launched engine was told to. */
export function checkOutside(what: string): void {
  for (const engine of engines) {
    const message = `${what} was called outside a workflow, so nothing is recorded: call it from a workflow's function, and await what leads to it, or set \`outside\` to "call"`;
    if (engine.outside === "refuse") throw new PerdureError("PERDURE_CONTEXT", message);
    if (engine.outside === "warn") engine.warn(message);
  }
}

/** The name under which a workflow's version is registered. */
export function registeredName(workflow: string, version: string): string {
  return JSON.stringify([workflow, version]);
}
