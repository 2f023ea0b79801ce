/** The options of an engine, checked at the door. */
import { hostname } from "node:os";
import type { ErrorClass } from "./core/codec.ts";
import { type Duration, toMs } from "./core/duration.ts";
import { registeredName } from "./core/engines.ts";
import { PerdureError } from "./core/errors.ts";
import { checkChoice, checkInteger, checkKeys, checkName, checkSchemaName, shorten } from "./core/options.ts";
import type { Logger, WorkflowDefinition } from "./core/types.ts";
import type { DatabaseOption } from "./db/database-option.ts";
import { internalsOf, type Workflow } from "./define/workflow.ts";

/** How this process works on runs. */
export interface WorkerSettings {
  /** Runs in work at once at most; a suspended run does not count. Default 100. */
  concurrency?: number;
  /** The queues to serve. Default: "default" and those that the registered workflows name. */
  queues?: string[];
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
  /** `false`: this process starts, sends and waits, but works on nothing. */
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

export function checkOptions(options: PerdureOptions): Settings {
  checkKeys(options, KEYS, WHERE);
  const workflows = registry(options.workflows ?? []);
  const worker = options.worker ?? {};
  if (worker !== false) checkKeys(worker, ["concurrency", "queues"], `worker of ${WHERE}`);
  const leaseMs = toMs(options.lease ?? "30s", `lease of ${WHERE}`);
  if (leaseMs < 1000)
    throw new PerdureError("PERDURE_OPTION", `lease of ${WHERE} must be at least 1s, not ${leaseMs} ms`);
  return {
    database: options.database,
    schema: checkSchemaName(options.schema ?? "perdure"),
    listenUrl: options.listenUrl,
    workflows,
    concurrency: worker === false ? 0 : checkInteger(worker.concurrency ?? 100, `concurrency of ${WHERE}`, 1, 10_000),
    queues: worker === false ? [] : queuesOf(worker.queues, workflows),
    errors: options.errors ?? [],
    logger: options.logger ?? quietConsole,
    migrate: options.migrate ?? true,
    leaseMs,
    notify: options.notify ?? true,
    outside: checkChoice(options.outside ?? "call", ["call", "warn", "refuse"], `outside of ${WHERE}`),
    shutdownOn: options.shutdownOn ?? [],
    name: `${hostname()}:${process.pid}`,
  };
}

function registry(given: readonly unknown[]): Map<string, WorkflowDefinition> {
  if (!Array.isArray(given))
    throw new PerdureError("PERDURE_OPTION", `workflows of ${WHERE} must be an array, not ${shorten(given)}`);
  const workflows = new Map<string, WorkflowDefinition>();
  for (const value of given) {
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
  if (given) return given.map((queue) => checkName(queue, `queue in worker of ${WHERE}`));
  return [...new Set(["default", ...[...workflows.values()].map((definition) => definition.queue)])];
}

const quietConsole: Logger = {
  debug: () => {},
  info: () => {},
  warn: (message, ...details) => console.warn(message, ...details),
  error: (message, ...details) => console.error(message, ...details),
};
