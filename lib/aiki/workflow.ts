/** Workflows and their versions, in the forms of all generations. */
import { PerdureError } from "../core/errors.ts";
import { checkChoice, checkKeys, checkName, checkNamed, shorten } from "../core/options.ts";
import type { Schema } from "../core/types.ts";
import { type ChildRunHandle, startChild } from "./child.ts";
import { type Client, coreOf } from "./client.ts";
import { type Argument, type Events, type Multicasters, map, multicaster, toCore } from "./event.ts";
import { findHandle, makeHandle, type WorkflowRunHandle } from "./handle.ts";
import { type OneRunPaths, type OptionsOf, type RunPaths, withOptions } from "./options.ts";
import type { RetryStrategy } from "./retry.ts";
import type { AnyRun, WorkflowRun } from "./run.ts";
import {
  configured,
  type Internals,
  internalsOf,
  runId,
  startError,
  toArguments,
  toWorkflow,
  VERSION,
  type VersionDefinition,
} from "./version.ts";

/** What a second identical call of a task gives, and what happens when the code asks for something else than is recorded. */
interface Replaying {
  /** `"again"` (default) runs it again, `"cached"` returns the first outcome. */
  repeat?: "again" | "cached" | undefined;
  /** `"strict"` (default) stalls the run, `"flexible"` goes on. */
  replay?: "strict" | "flexible" | undefined;
}

interface Common<Input, Output, E extends Events> extends Replaying {
  events?: E | undefined;
  retry?: RetryStrategy | undefined;
  /** The older place of `retry`. */
  opts?: { retry?: RetryStrategy | undefined } | undefined;
  /** Checks the input before a run is made, and the output before it is stored. */
  schema?: { input?: Schema<Input> | undefined; output?: Schema<Output> | undefined } | undefined;
}

/** A version with `handler(run, input)`. */
export interface VersionOptions<Input, Output, Context, E extends Events> extends Common<Input, Output, E> {
  handler(run: WorkflowRun<Context, E, Input>, input: Input): Promise<Output> | Output;
}

/** A version in the older form, `exec(input, run)`. */
export interface ExecOptions<Input, Output, Context, E extends Events> extends Common<Input, Output, E> {
  exec(input: Input, run: WorkflowRun<Context, E, Input>): Promise<Output> | Output;
}

/** A workflow of one version, in the oldest form. */
export interface RunOptions<Input, Output, E extends Events> extends Common<Input, Output, E> {
  name: string;
  version: string;
  run(call: { workflowRun: WorkflowRun<null, E, Input>; payload: Input }): Promise<Output> | Output;
}

/** A version configured for one particular run. */
export interface WorkflowVersionStart<Input, Output, E extends Events> {
  with(): WorkflowVersionStart<Input, Output, E>;
  with<P extends keyof (RunPaths & OneRunPaths)>(
    path: P,
    value: (RunPaths & OneRunPaths)[P],
  ): WorkflowVersionStart<Input, Output, E>;
  with(options: OptionsOf<RunPaths & OneRunPaths>): WorkflowVersionStart<Input, Output, E>;
  opt<P extends keyof (RunPaths & OneRunPaths)>(
    path: P,
    value: (RunPaths & OneRunPaths)[P],
  ): WorkflowVersionStart<Input, Output, E>;
  withOptions(options: OptionsOf<RunPaths & OneRunPaths>): WorkflowVersionStart<Input, Output, E>;
  /**
   * Starts a run; it is durable when the promise resolves. The same reference with equal input gives the existing run.
   *
   * @throws SchemaValidationError; WorkflowRunReferenceConflictError when the reference is taken by other input.
   */
  start(client: Client<any>, ...input: Argument<Input>): Promise<WorkflowRunHandle<Output, E>>;
  /** Starts a child in a workflow. */
  startAsChild(run: AnyRun, ...input: Argument<Input>): Promise<ChildRunHandle<Output, E>>;
  /** The oldest form of `start`. */
  enqueue(
    client: Client<any>,
    call: { payload: Input; idempotencyKey?: string | undefined },
  ): Promise<WorkflowRunHandle<Output, E>>;
}

/** A version of a workflow: start it, register it with a worker, schedule it. */
export interface WorkflowVersion<Input, Output, Context, E extends Events>
  extends Omit<WorkflowVersionStart<Input, Output, E>, "with" | "opt"> {
  readonly name: string;
  readonly versionId: string;
  readonly events: Multicasters<E>;
  with(): WorkflowVersion<Input, Output, Context, E>;
  with<P extends keyof RunPaths>(path: P, value: RunPaths[P]): WorkflowVersion<Input, Output, Context, E>;
  with<P extends keyof OneRunPaths>(path: P, value: OneRunPaths[P]): WorkflowVersionStart<Input, Output, E>;
  with(options: OptionsOf<RunPaths & OneRunPaths>): WorkflowVersionStart<Input, Output, E>;
  opt<P extends keyof RunPaths>(path: P, value: RunPaths[P]): WorkflowVersion<Input, Output, Context, E>;
  opt<P extends keyof OneRunPaths>(path: P, value: OneRunPaths[P]): WorkflowVersionStart<Input, Output, E>;
  /** @throws PERDURE_NOT_FOUND, also for a run of another workflow or version. */
  getHandleById(client: Client<any>, id: string): Promise<WorkflowRunHandle<Output, E>>;
  getHandleByReferenceId(client: Client<any>, referenceId: string): Promise<WorkflowRunHandle<Output, E>>;
}

export type AnyVersion = WorkflowVersion<any, any, any, any>;

/** A workflow, to be given versions. */
export interface Workflow<Context> {
  readonly name: string;
  /** The versions so far. */
  readonly versions: readonly AnyVersion[];
  /**
   * Adds a version. A run stays on the version that it was started with.
   *
   * @throws PERDURE_DUPLICATE for a version that is there; PERDURE_OPTION, PERDURE_NAME.
   */
  v<Input = void, Output = void, E extends Events = Record<never, never>>(
    version: string,
    options: VersionOptions<Input, Output, Context, E>,
  ): WorkflowVersion<Input, Output, Context, E>;
  v<Input = void, Output = void, E extends Events = Record<never, never>>(
    version: string,
    options: ExecOptions<Input, Output, Context, E>,
  ): WorkflowVersion<Input, Output, Context, E>;
}

/**
 * Declares a workflow. Its code must ask for the same things in every replay: the clock, randomness and the world belong into tasks.
 *
 * @throws PERDURE_OPTION, PERDURE_NAME.
 * @example
 * const greetV1 = workflow({ name: "greet" }).v("1.0.0", { async handler(run, name: string) { await sendMail.start(run, name); } });
 */
export function workflow<Context = null>(options: { name: string } & Replaying): Workflow<Context>;
export function workflow<Input = void, Output = void, E extends Events = Record<never, never>>(
  options: RunOptions<Input, Output, E>,
): WorkflowVersion<Input, Output, null, E>;
export function workflow(options: ({ name: string } & Replaying) | RunOptions<any, any, any>): unknown {
  const { options: given, where } = checkNamed(options, [...VERSION_KEYS, "name", "version"], "workflow");
  const { name, version, ...rest } = given as RunOptions<any, any, any>;
  checkName(name, "workflow name");
  if (version !== undefined || rest.run !== undefined) return makeVersion(define(name, version, rest, {}));
  const defaults = checkKeys(rest as Replaying, ["repeat", "replay"], where);
  const versions: AnyVersion[] = [];
  const v = (id: string, versionOptions: AnyForm): AnyVersion => {
    const made = makeVersion(define(name, id, versionOptions, defaults));
    if (versions.some(({ versionId }) => versionId === id)) {
      throw new PerdureError("PERDURE_DUPLICATE", `${where} has a version "${id}" already; give this one another`);
    }
    versions.push(made);
    return made;
  };
  return { name, versions, v };
}

const VERSION_KEYS = ["handler", "exec", "run", "events", "retry", "opts", "schema", "repeat", "replay"];

type AnyForm = Common<any, any, any> & { handler?: Handler; exec?: Handler; run?: (call: any) => unknown };
type Handler = (first: any, second: any) => unknown;

function define(name: string, version: string, options: AnyForm, defaults: Replaying): Internals {
  const where = `workflow "${name}" ${shorten(version)}`;
  const given = checkKeys(options, VERSION_KEYS, where);
  const { handler, exec, run, schema } = given;
  const fn = handler ?? exec ?? run;
  if (typeof fn !== "function")
    throw new PerdureError("PERDURE_OPTION", `${where} needs a handler, not ${shorten(fn)}`);
  const { repeat = defaults.repeat, replay = defaults.replay } = given;
  const definition: VersionDefinition = {
    name,
    version: checkName(version, `version of workflow "${name}"`),
    // Called on the options, so that `this` is what it was.
    handler: handler
      ? (workflowRun, input) => options.handler!(workflowRun, input)
      : exec
        ? (workflowRun, input) => options.exec!(input, workflowRun)
        : (workflowRun, payload) => options.run!({ workflowRun, payload }),
    events: toCore(given.events ?? {}),
    schema: schema === undefined ? undefined : checkKeys(schema, ["input", "output"], `schema of ${where}`),
    retry: given.retry ?? checkKeys(given.opts ?? {}, ["retry"], `opts of ${where}`).retry,
    repeat:
      repeat === undefined
        ? undefined
        : checkChoice<"again" | "cached">(repeat, ["again", "cached"], `repeat of ${where}`),
    replay:
      replay === undefined
        ? undefined
        : checkChoice<"strict" | "flexible">(replay, ["strict", "flexible"], `replay of ${where}`),
  };
  return { definition, options: {}, core: toWorkflow(definition, null) };
}

function makeVersion(internals: Internals): AnyVersion {
  const { definition, options } = internals;
  const { name, version, events } = definition;
  const configure = (...given: unknown[]) => makeVersion({ ...internals, options: withOptions(options, given, "run") });
  const idOf = (reference: unknown): string => runId(definition, reference);
  const made: AnyVersion & { [VERSION]: Internals } = {
    name,
    versionId: version,
    events: map(events, (event) => multicaster(event, idOf)),
    with: configure as AnyVersion["with"],
    opt: configure,
    withOptions: configure,
    start: (client, ...[input]) => start(client, internals, input),
    startAsChild: (run, ...[input]) => startChild(run, internals, input),
    enqueue: (client, call) => {
      const where = `enqueue() of workflow "${name}"`;
      const { payload, idempotencyKey } = checkKeys(call, ["payload", "idempotencyKey"], where);
      return made.with({ ...(idempotencyKey === undefined ? {} : { idempotencyKey }) }).start(client, payload);
    },
    getHandleById: async (client, id) => findHandle(id, definition, coreOf(client)),
    getHandleByReferenceId: async (client, reference) => findHandle(idOf(reference), definition, coreOf(client)),
    [VERSION]: internals,
  };
  return made;
}

async function start(client: Client<any>, internals: Internals, input: unknown): Promise<WorkflowRunHandle<any, any>> {
  const core = coreOf(client);
  const startable = configured(internals);
  const run = await core
    .use((perdure) => perdure.start(startable, ...toArguments(input)))
    .catch((error: unknown) => Promise.reject(startError(internals, error)));
  const { trigger } = internals.options as { trigger?: { type: string } };
  const status = trigger?.type === "delayed" ? "scheduled" : "queued";
  return makeHandle(run.id, internals.definition, core, { status });
}

/** The versions that a worker is given: versions, or workflows with all of theirs. */
export function versionsOf(given: readonly unknown[], where: string): Internals[] {
  return given.flatMap((each) => {
    const { versions } = (each ?? {}) as Partial<Workflow<any>>;
    return (Array.isArray(versions) ? versions : [each]).map((version) => internalsOf(version, where));
  });
}
