/** The nouns, before any code. No other file defines one of these words anew. */
import type { Duration } from "./duration.ts";
import type { RunLog } from "./logging.ts";
import type { Source } from "./place.ts";
import type { Retry, RetryPlan } from "./retry.ts";
import type { RunState } from "./states.ts";

/** A schema of any library that speaks Standard Schema (https://standardschema.dev): zod, valibot, arktype and others. */
export interface Schema<Output = unknown, Input = unknown> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}
declare const sends: unique symbol;
/** What is sent, where it differs from what is received: a schema in between may change it. */
export interface Sends<S> {
  /** @internal known to the compiler alone */
  readonly [sends]?: S;
}
/** What a function whose first argument a schema checks is called with. A schema that does not say what it takes takes what it returns. */
export type Checked<Input, Output, Rest extends unknown[]> = unknown extends Input
  ? [input: Output, ...rest: Rest]
  : undefined extends Input
    ? [input?: Input, ...rest: Rest]
    : [input: Input, ...rest: Rest];
export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };
export interface SchemaIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** Any function that a definition wraps. */
export type AnyFunction = (...args: never[]) => unknown;

/** What a step's reference does when it meets another input. */
export interface Reference {
  readonly id: string;
  readonly onConflict: "error" | "return_existing";
}

/** A step as it was defined: a function whose result is recorded once per call. */
export interface StepDefinition extends Partial<Source> {
  readonly kind: "step" | "transaction";
  readonly name: string;
  readonly fn: (...args: unknown[]) => unknown;
  readonly plan: RetryPlan;
  readonly timeoutMs: number | null;
  readonly onCrash: "retry" | "fail";
  readonly input: Schema | undefined;
  readonly output: Schema | undefined;
  readonly reference: Reference | null;
  /** False for `runStep`: its function is new at every call, and its arguments are hidden in a closure. */
  readonly addressByArguments: boolean;
}

/** A workflow as it was defined: a durable function with a name and a version. */
export interface WorkflowDefinition extends Source {
  readonly name: string;
  readonly version: string;
  readonly fn: (...args: unknown[]) => unknown;
  readonly plan: RetryPlan;
  readonly timeoutMs: number | null;
  readonly queue: string;
  readonly replay: "strict" | "flexible";
  readonly repeat: "again" | "cached";
  readonly input: Schema | undefined;
  readonly output: Schema | undefined;
}

/** What `.with()` sets for the runs that are started from a copy of a workflow. */
export interface StartOptions {
  /** The run's id, unique in the schema while the run is kept. Default: a random UUID. */
  id?: string | undefined;
  /** What to do when the id is taken by another workflow or other input. Default `"error"`. */
  onConflict?: "error" | "return_existing" | undefined;
  /** The queue that the run lines up in. Default: the workflow's. */
  queue?: string | undefined;
  /** −32768 to 32767, lower first. Default 0. */
  priority?: number | undefined;
  /** Start that much later, by the database's clock. */
  delay?: Duration | undefined;
  /** Start at that instant, by the database's clock; at once when it is past. */
  startAt?: Date | undefined;
  /** Retry policy of this run's workflow. Default: the workflow's. `shouldRetry` cannot travel with a run. */
  retry?: Retry | undefined;
  /** How long this run may take from its first claim, waits included. Default: the workflow's. */
  timeout?: Duration | undefined;
  /** Labels to find the run by: at most 50, of 1 to 255 bytes each. */
  tags?: readonly string[] | undefined;
  /** Of a child: it is not cancelled with its parent, and its time is its own. Default false. */
  detached?: boolean | undefined;
}

/** What a schedule does when its last run is unfinished at the next slot. */
export type Overlap = "skip" | "allow" | "cancel_previous";

/** What a schedule does about slots that came while nobody was there. */
export type CatchUp = "latest" | "none" | "all";

/** A schedule as it was defined: a workflow that is started again and again. */
export interface ScheduleDefinition {
  readonly name: string;
  readonly timing: { readonly cron: string; readonly timezone: string } | { readonly everyMs: number };
  readonly overlap: Overlap;
  readonly catchUp: CatchUp;
  readonly workflow: WorkflowDefinition;
  readonly options: StartOptions;
  readonly args: unknown[];
}

/** An event as it was defined. */
export interface EventDefinition {
  readonly name: string;
  readonly schema: Schema | undefined;
}

/** A value or a stream as it was defined. */
export interface PublicationDefinition {
  readonly kind: "value" | "stream";
  readonly name: string;
}

/** An event as a wait returns it. */
export interface Received<T> {
  /** What was sent, as the event's schema returned it; from SQL, and without a schema, the JSON as it was given. */
  readonly data: T;
  /** The event's id, unique in the schema. */
  readonly id: string;
  /** When it was sent, by the database's clock. */
  readonly sentAt: Date;
  /** The sender's reference, where one was given. */
  readonly reference?: string;
}

/** What a sleep returns. */
export interface Slept {
  /** True when `wake()` ended the sleep early. */
  readonly woken: boolean;
}

/** What `currentRun()` returns inside a workflow. `Context` is what the engine's option `context` makes; null without it. */
export interface RunInfo<Context = unknown> {
  readonly id: string;
  readonly workflow: string;
  readonly version: string;
  /** The queue that it lines up in. */
  readonly queue: string;
  /** 1 for the first attempt of the workflow, +1 for every retry of the whole. */
  readonly attempt: number;
  /** Aborted when the run is cancelled, or when this process lost its claim. */
  readonly signal: AbortSignal;
  /** The slot of the schedule that started this run; null: no schedule did, or it was triggered. */
  readonly scheduledFor: Date | null;
  /**
   * The engine's logger, bound to this run, and inside a step to its try: silent while the body replays, so a line is written once. The
   * default logger shows warnings and errors only: give `logger: console` to see all.
   */
  readonly log: RunLog;
  /** What the engine's option `context` made for this execution of the run; null: there is no such option. Not recorded. */
  readonly context: Context;
}

/** What `currentStep()` returns inside a step. */
export interface StepInfo {
  readonly name: string;
  /** 1 for the first try, +1 for every retry. A try that a crash cut short keeps its number. */
  readonly attempt: number;
  /** Aborted at the step's timeout, when the run is cancelled, or when this process lost its claim. */
  readonly signal: AbortSignal;
  /** The same across retries and crashes, different for every call: made for external APIs. */
  readonly idempotencyKey: string;
  /** The pg client of a transaction step's own transaction. Undefined in a plain step. */
  readonly tx: TransactionClient | undefined;
}

/** The part of a pg client that a transaction step is given. It is a whole one: for an ORM, or for more of it, type `tx` as `pg.PoolClient`. */
export interface TransactionClient {
  /** Runs one statement in the transaction, with its parameters `$1`, `$2`, … */
  query(text: string, values?: unknown[]): Promise<{ rows: any[]; rowCount: number | null }>;
  query(config: {
    text: string;
    values?: unknown[];
    [option: string]: unknown;
  }): Promise<{ rows: any[]; rowCount: number | null }>;
}

/** A client in a transaction of the caller's: a pg client, or what an adapter of `perdure/adapters` makes of an ORM's transaction. */
export interface CallerClient {
  /** Runs one statement with its parameters `$1`, `$2`, … */
  query(text: string, values: unknown[]): Promise<{ rows: any[] }>;
}

/** Where an engine writes its own messages: console, pino, bunyan, winston and what is shaped as they are. */
export interface Logger {
  /** What helps to follow the engine; silent by default. */
  debug(message: string, ...details: unknown[]): void;
  /** What an engine did in the usual course; silent by default. */
  info(message: string, ...details: unknown[]): void;
  /** What works, but should not stay so. */
  warn(message: string, ...details: unknown[]): void;
  /** What a person has to look at. */
  error(message: string, ...details: unknown[]): void;
}

/** A run as it is seen from outside. */
export interface RunStatus {
  readonly id: string;
  readonly workflow: string;
  readonly version: string;
  readonly state: RunState;
  /** What a suspended run waits for, or `start` for a delayed one. */
  readonly waitingFor: "sleep" | "event" | "child" | "retry" | "several" | "start" | null;
  /** Why it is blocked, was cancelled, or waits to begin; `unserved`: no process that is alive serves it; `pausing`; or which child of it is blocked. */
  readonly reason: string | null;
  readonly queue: string;
  readonly priority: number;
  readonly attempt: number;
  /** The run that started it as a child. */
  readonly parentId: string | null;
  readonly tags: readonly string[];
  readonly createdAt: Date;
  /** When a worker first took it. */
  readonly startedAt: Date | null;
  /** When it completed, failed or was cancelled. */
  readonly finishedAt: Date | null;
  /** When its next timer ends what it waits for: a sleep, a timeout, the next try, a delayed start. */
  readonly due: Date | null;
}

/** A try at a step that failed. */
export interface FailedTry {
  /** 1 for the first. */
  readonly attempt: number;
  /** When the try began, by the database's clock. */
  readonly startedAt: Date;
  /** When it failed. */
  readonly failedAt: Date;
  /** What it threw, revived. */
  readonly error: unknown;
}

/** One slot in the history of a run: a call and what it came to. */
export interface HistoryEntry {
  /** The call's key in its run: what it asks for, and the how-manieth such call it is. */
  readonly slot: string;
  /** `attempt`: an attempt of the whole workflow that failed and was followed by another. */
  readonly kind: CallKind | "attempt";
  readonly name: string;
  /** How often a step was tried. */
  readonly attempts: number;
  /** The attempt of the workflow that it belongs to: 1 for the first. */
  readonly runAttempt: number;
  /** True: a failure that a retry of the workflow set aside. */
  readonly setAside: boolean;
  /** When the call was made, by the database's clock. */
  readonly startedAt: Date;
  /** Null while it is open. */
  readonly finishedAt: Date | null;
  /** `waiting`: for the clock, an event, a child or its next try. `running`: a step that has run for a second or more. */
  readonly outcome: "completed" | "failed" | "timeout" | "waiting" | "running";
  /** What the body was given. */
  readonly value?: unknown;
  /** What was thrown into the body, revived. */
  readonly error?: unknown;
  /** The tries of a step that failed, in order. */
  readonly errors: readonly FailedTry[];
  /** Set where a stored value or error cannot be read back, in place of it. */
  readonly unreadable?: Error;
}

/** Which runs: all that is given has to fit. */
export interface RunFilter {
  /** A workflow, or the name of one: all its versions. */
  workflow?: string | AnyFunction | undefined;
  /** Only this version. */
  version?: string | undefined;
  /** One state, or several. */
  state?: RunState | readonly RunState[] | undefined;
  /** Only runs of this queue. */
  queue?: string | undefined;
  /** All of these. */
  tags?: readonly string[] | undefined;
  /** What the ids begin with. */
  idPrefix?: string | undefined;
  /** Made at that instant or later. */
  createdAfter?: Date | undefined;
  /** Made before that instant. */
  createdBefore?: Date | undefined;
}

/** What a slot is for. */
export type CallKind =
  | "step"
  | "transaction"
  | "sleep"
  | "event"
  | "start"
  | "child"
  | "race"
  | "value"
  | "stream"
  | "patch";
