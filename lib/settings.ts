/** The options of an engine, checked at the door. */
import { constants, hostname } from "node:os";
import type { ErrorClass } from "./core/codec.ts";
import { type Duration, toMs } from "./core/duration.ts";
import { registeredName } from "./core/engines.ts";
import { PerdureError } from "./core/errors.ts";
import {
  attempt,
  checkArray,
  checkBoolean,
  checkChoice,
  checkInteger,
  checkKeys,
  checkName,
  checkSchemaName,
  shorten,
} from "./core/options.ts";
import type { Logger, WorkflowDefinition } from "./core/types.ts";
import type { DatabaseOption } from "./db/database-option.ts";
import { internalsOf, type Workflow } from "./define/workflow.ts";

/** How this process works on runs. */
export interface WorkerSettings {
  /** Runs in work at once at most; a suspended run does not count. Default 100. */
  concurrency?: number | undefined;
  /** The queues to serve. Default: "default" and those that the registered workflows name. */
  queues?: string[] | undefined;
}

/** Options of `new Perdure`. */
export interface PerdureOptions {
  /** A URL, a pg config or a pg Pool. Default: DATABASE_URL; without it, outside production, an embedded Postgres under `.perdure/`. */
  database?: DatabaseOption | undefined;
  /** The schema that holds everything. Default `"perdure"`. */
  schema?: string | undefined;
  /** A direct connection for LISTEN and the heartbeat, where `database` goes through a pooler. Default: as `database`. */
  listenUrl?: string | undefined;
  /** The workflows that this process starts and works on. */
  workflows?: readonly Workflow<any, any>[] | undefined;
  /** `false`: this process starts, sends and waits, but works on nothing, or only on what `drain()` is told to. */
  worker?: WorkerSettings | false | undefined;
  /** Error classes of your own that keep their class on replay. */
  errors?: readonly ErrorClass[] | undefined;
  /** Where the engine writes its messages. Default: console, warnings and errors only. */
  logger?: Logger | undefined;
  /** Whether `launch()` migrates the schema. Default true; with false it refuses a schema that is not up to date. */
  migrate?: boolean | undefined;
  /** How long a silent worker keeps its runs. Default 30s; shorter finds hangs sooner, beats more often. At least 1s. */
  lease?: Duration | undefined;
  /** `false`: no LISTEN and no NOTIFY; everything passes by polling, only later. Default true. */
  notify?: boolean | undefined;
  /** What a step called outside a workflow does: `"call"` (default), `"warn"` or `"refuse"`. */
  outside?: "call" | "warn" | "refuse" | undefined;
  /** Signals on which this engine shuts down, and the process ends after. Default: none. */
  shutdownOn?: readonly NodeJS.Signals[] | undefined;
}

/** Checked options, defaults filled in. */
export interface Settings {
  readonly database: DatabaseOption | undefined;
  readonly schema: string;
  readonly listenUrl: string | undefined;
  readonly workflows: ReadonlyMap<string, WorkflowDefinition>;
  readonly concurrency: number;
  /** False: this process works on runs only when it is told to, by drain(). */
  readonly works: boolean;
  readonly queues: readonly string[];
  readonly errors: readonly ErrorClass[];
  readonly logger: Logger;
  readonly migrate: boolean;
  readonly leaseMs: number;
  readonly notify: boolean;
  readonly outside: "call" | "warn" | "refuse";
  readonly shutdownOn: readonly NodeJS.Signals[];
  readonly name: string;
}

const KEYS = [
  "database",
  "schema",
  "listenUrl",
  "workflows",
  "worker",
  "errors",
  "logger",
  "migrate",
  "lease",
  "notify",
  "outside",
  "shutdownOn",
];
const WHERE = "new Perdure()";

const SIGNALS: readonly string[] = Object.keys(constants.signals).filter((s) => s !== "SIGKILL" && s !== "SIGSTOP");
const LEASE = { leastMs: 1000, mostMs: 86_400_000 };

export function checkOptions(given: PerdureOptions): Settings {
  const options = checkKeys(given, KEYS, WHERE);
  const { schema = "perdure", errors = [], migrate = true, notify = true, outside = "call", shutdownOn = [] } = options;
  const workflows = registry(options.workflows ?? []);
  const worker = workerOf(options.worker, workflows);
  return {
    database: options.database,
    schema: checkSchemaName(schema),
    listenUrl: options.listenUrl === undefined ? undefined : checkUrl(options.listenUrl),
    workflows,
    ...worker,
    errors: checkArray(errors, `errors of ${WHERE}`).map(checkErrorClass),
    logger: options.logger === undefined ? quietConsole : checkLogger(options.logger),
    migrate: checkBoolean(migrate, `option "migrate" of ${WHERE}`),
    leaseMs: checkLease(options.lease ?? "30s"),
    notify: checkBoolean(notify, `option "notify" of ${WHERE}`),
    outside: checkChoice(outside, ["call", "warn", "refuse"], `outside of ${WHERE}`),
    shutdownOn: checkArray(shutdownOn, `shutdownOn of ${WHERE}`).map(checkSignal),
    name: `${hostname()}:${process.pid}`,
  };
}

function workerOf(
  given: PerdureOptions["worker"],
  workflows: ReadonlyMap<string, WorkflowDefinition>,
): Pick<Settings, "concurrency" | "works" | "queues"> {
  const { concurrency = 100, queues } = checkKeys(given || {}, ["concurrency", "queues"], `worker of ${WHERE}`);
  return {
    works: given !== false,
    concurrency: checkInteger(concurrency, `concurrency of ${WHERE}`, 1, 10_000),
    queues: queuesOf(queues, workflows),
  };
}

function checkLease(lease: Duration): number {
  const ms = toMs(lease, `lease of ${WHERE}`);
  if (ms >= LEASE.leastMs && ms <= LEASE.mostMs) return ms;
  throw new PerdureError("PERDURE_OPTION", `lease of ${WHERE} must be from 1s to 1d, not ${shorten(lease)}`);
}

function checkUrl(url: unknown): string {
  if (typeof url === "string" && /^(postgres(ql)?|socket):|^\//.test(url)) return url;
  // What was given may hold a password.
  throw new PerdureError(
    "PERDURE_OPTION",
    `listenUrl of ${WHERE} must be a Postgres URL such as postgres://user:password@host:5432/app`,
  );
}

function checkErrorClass(value: ErrorClass): ErrorClass {
  if (attempt(() => value.prototype instanceof Error)) return value;
  throw new PerdureError(
    "PERDURE_OPTION",
    `errors of ${WHERE} holds ${shorten(value)}, which is no class that extends Error`,
  );
}

function checkLogger(logger: Logger): Logger {
  const methods = ["debug", "info", "warn", "error"] as const;
  if (attempt(() => methods.every((method) => typeof logger[method] === "function"))) return logger;
  throw new PerdureError(
    "PERDURE_OPTION",
    `logger of ${WHERE} must have the functions ${methods.join(", ")}, as console has; it is ${shorten(logger)}`,
  );
}

function checkSignal(signal: NodeJS.Signals): NodeJS.Signals {
  return checkChoice(signal, SIGNALS as NodeJS.Signals[], `a signal in shutdownOn of ${WHERE}`);
}

function registry(given: readonly unknown[]): Map<string, WorkflowDefinition> {
  const workflows = new Map<string, WorkflowDefinition>();
  for (const value of checkArray(given, `workflows of ${WHERE}`)) {
    const internals = internalsOf(value);
    if (!internals)
      throw new PerdureError(
        "PERDURE_OPTION",
        `workflows of ${WHERE} holds ${shorten(value)}, which workflow() did not make`,
      );
    const { definition, options } = internals;
    const { name, version } = definition;
    if (options.id !== undefined || options.delay !== undefined || options.startAt !== undefined) {
      throw new PerdureError(
        "PERDURE_OPTION",
        `workflows of ${WHERE} holds a copy of workflow "${name}" that names one particular run; pass the workflow itself`,
      );
    }
    const key = registeredName(name, version);
    const other = workflows.get(key);
    if (other && other.fn !== definition.fn) {
      throw new PerdureError(
        "PERDURE_DUPLICATE",
        `two workflows named "${name}" have version "${version}"; give one another name or version`,
      );
    }
    workflows.set(key, definition);
  }
  return workflows;
}

function queuesOf(given: readonly string[] | undefined, workflows: ReadonlyMap<string, WorkflowDefinition>): string[] {
  if (given !== undefined)
    return checkArray(given, `queues in worker of ${WHERE}`).map((queue) =>
      checkName(queue, `queue in worker of ${WHERE}`),
    );
  return [...new Set(["default", ...[...workflows.values()].map((definition) => definition.queue)])];
}

const quietConsole: Logger = {
  debug: () => {},
  info: () => {},
  warn: (message, ...details) => console.warn(message, ...details),
  error: (message, ...details) => console.error(message, ...details),
};
