/** The types of workflows and their versions, in the forms of all generations. */
import type { Schema } from "../core/types.ts";
import type { ChildRunHandle } from "./child.ts";
import type { Client } from "./client.ts";
import type { Argument, Events, Multicasters, Payload } from "./event.ts";
import type { WorkflowRunHandle } from "./handle.ts";
import type { OneRunPaths, OptionsOf, RunPaths } from "./options.ts";
import type { RetryStrategy } from "./retry.ts";
import type { AnyRun, WorkflowRun } from "./run.ts";

/** What a second identical call of a task gives, and what happens when the code asks for something else than is recorded. */
export interface Replaying {
  /** `"again"` (default) runs it again, `"cached"` returns the first outcome. */
  repeat?: "again" | "cached" | undefined;
  /** `"strict"` (default) stalls the run, `"flexible"` goes on. */
  replay?: "strict" | "flexible" | undefined;
}

export interface Common<Input, Output, E extends Events> extends Replaying {
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
  enqueue(client: Client<any>, ...call: Payload<Input>): Promise<WorkflowRunHandle<Output, E>>;
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
