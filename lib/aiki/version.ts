/** What is behind a version of a workflow: its definition, the core's workflows that it makes, and the ids of its runs. */

import { toMs } from "../core/duration.ts";
import { PerdureError, RunConflictError } from "../core/errors.ts";
import { canonicalHash } from "../core/hash.ts";
import { attempt, checkChoice, checkKeys, shorten } from "../core/options.ts";
import type { Schema, StartOptions } from "../core/types.ts";
import type { Event } from "../define/waits.ts";
import { workflow as coreWorkflow, type Startable, type Workflow } from "../define/workflow.ts";
import { WorkflowRunReferenceConflictError } from "./errors.ts";
import { type Options, referenceOf, type Trigger } from "./options.ts";
import { type RetryStrategy, toRetry } from "./retry.ts";
import { type AnyRun, makeRun, type RunHost } from "./run.ts";
import { checks } from "./schema.ts";

/** A version as it was defined, whatever its form. */
export interface VersionDefinition {
  readonly name: string;
  readonly version: string;
  readonly handler: (run: AnyRun, input: any) => unknown;
  readonly events: Record<string, Event<any>>;
  readonly schema: { readonly input?: Schema<any> | undefined; readonly output?: Schema<any> | undefined } | undefined;
  readonly retry: RetryStrategy | undefined;
  readonly repeat: "again" | "cached" | undefined;
  readonly replay: "strict" | "flexible" | undefined;
}

export type Core = Workflow<[input?: any], any>;

/** A definition with the options that `.with()` set. */
export interface Internals {
  readonly definition: VersionDefinition;
  readonly options: Options;
  /** The core's workflow for starts: of one name and version with that which a worker makes. */
  readonly core: Core;
}

export const VERSION: unique symbol = Symbol.for("perdure.aiki.version.1");

/** What is behind a version. Throws PERDURE_OPTION for anything else; `where` begins its text. */
export function internalsOf(given: unknown, where: string): Internals {
  const internals = attempt(() => (given as { [VERSION]?: Internals } | null | undefined)?.[VERSION]);
  if (internals) return internals;
  const text = `${where} needs a version of a workflow, such as workflow({ name }).v("1.0.0", { handler }), not ${shorten(given)}`;
  throw new PerdureError("PERDURE_OPTION", text);
}

/** The core's workflow; `host` is the worker that executes its runs. */
export function toWorkflow(definition: VersionDefinition, host: RunHost | null): Core {
  const { name, version, retry, repeat, replay, schema } = definition;
  const options = {
    name,
    version,
    ...checks(schema, `workflow "${name}"`),
    ...(retry === undefined ? {} : { retry: toRetry(retry) }),
    ...(repeat === undefined ? {} : { repeat }),
    ...(replay === undefined ? {} : { replay }),
  };
  return coreWorkflow(options, async (input?: any) => {
    return definition.handler(makeRun(host!, definition.events, input), input);
  });
}

/** A copy of the core's workflow with the options of `.with()`; `pool` is that of the parent. */
export function configured({ definition, options, core }: Internals, pool?: string): Startable<[input?: any], any> {
  const where = `workflow "${definition.name}"`;
  const reference = referenceOf(options, where);
  const queue = (options.pool ?? options.shard ?? pool) as string | undefined;
  const given: StartOptions = {
    ...(reference && { id: runId(definition, reference.id), onConflict: reference.conflictPolicy }),
    ...(queue === undefined ? {} : { queue }),
    ...(options.retry === undefined ? {} : { retry: toRetry(options.retry as RetryStrategy) }),
    ...delayOf(options.trigger as Trigger | undefined, where),
  };
  return core.with(given);
}

function delayOf(trigger: Trigger | undefined, where: string): StartOptions {
  if (trigger === undefined) return {};
  const what = `trigger of ${where}`;
  const given = checkKeys(trigger as Trigger & { delay?: unknown }, ["type", "delay", "delayMs"], what);
  if (checkChoice(given.type, ["immediate", "delayed"], `type of ${what}`) === "immediate") return {};
  const delay = (given as Trigger & { type: "delayed" }).delay ?? (given as { delayMs?: number }).delayMs;
  return { delay: toMs(delay!, `delay of ${what}`) };
}

/** The longest id of a run, in bytes. */
const LONGEST = 255;

/** The run of a reference: one for each name, version and reference. What is too long goes by its hash. */
export function runId({ name, version }: Pick<VersionDefinition, "name" | "version">, reference: unknown): string {
  if (typeof reference !== "string" || reference === "") {
    const text = `a reference id of workflow "${name}" must be a string that is not empty, not ${shorten(reference)}`;
    throw new PerdureError("PERDURE_NAME", text);
  }
  const id = `${escaped(name)}:${escaped(version)}:${reference}`;
  // No other id begins so: these have no colon.
  return Buffer.byteLength(id) <= LONGEST ? id : `#${canonicalHash([name, version, reference])}`;
}

// Otherwise "a:b" of version "c" and "a" of version "b:c" would share their runs.
const escaped = (part: string): string => part.replaceAll("%", "%25").replaceAll(":", "%3A");

/** The error of a start in this layer's words. */
export function startError({ options }: Pick<Internals, "options">, error: unknown): unknown {
  if (!(error instanceof RunConflictError)) return error;
  const reference = referenceOf(options, "a start");
  return reference ? new WorkflowRunReferenceConflictError(reference.id, error) : error;
}

/** The input as the core's arguments: without one there is none, so that undefined and nothing are the same. */
export const toArguments = (input: unknown): [input?: unknown] => (input === undefined ? [] : [input]);
