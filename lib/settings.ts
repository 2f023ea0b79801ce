/** The options of an engine, checked at the door. */
import { readFileSync } from "node:fs";
import { constants, hostname } from "node:os";
import { dirname, join } from "node:path";
import type { ErrorClass } from "./core/codec.ts";
import { checkCodecs } from "./core/codecs.ts";
import { type Duration, toMs } from "./core/duration.ts";
import { PerdureError } from "./core/errors.ts";
import { type EngineLog, engineLog } from "./core/logging.ts";
import {
  attempt,
  checkArray,
  checkBoolean,
  checkChoice,
  checkInteger,
  checkKeys,
  checkName,
  checkSchemaName,
  nearest,
  shorten,
} from "./core/options.ts";
import { SEAM } from "./core/seam.ts";
import type { Codec } from "./core/stored-place.ts";
import type { Logger, RunInfo, ScheduleDefinition, WorkflowDefinition } from "./core/types.ts";
import type { DatabaseOption } from "./db/database-option.ts";
import { isRegistered, registry } from "./define/registry.ts";
import { type Schedule, scheduleOf } from "./define/schedule.ts";
import type { ServiceInstance, Workflow } from "./define/workflow.ts";

/** How this process works on runs. */
export interface WorkerSettings {
  /** Runs in work at once at most; a suspended run does not count. Default 100. */
  concurrency?: number | undefined;
  /**
   * Suspended runs that stay in memory at most, and go on without a replay: those suspended last. Default 1000; 0: none. They are fewer where they
   * were handed much, more than some 64 MiB together.
   */
  warm?: number | undefined;
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
  /** The workflows that this process starts and works on: functions, and instances of classes whose methods are decorated. */
  workflows?: readonly (Workflow<any, any> | ServiceInstance)[] | undefined;
  /** `false`: this process starts, sends and waits, but works on nothing, or only on what `drain()` is told to. */
  worker?: WorkerSettings | false | undefined;
  /** Error classes of your own that keep their class on replay. */
  errors?: readonly ErrorClass[] | undefined;
  /**
   * What encrypts or compresses values before they are stored: a codec of `perdure/codec` or of your own, or several in the order in which they are
   * applied. Default: none. Every process of the schema needs the same.
   *
   * @example codec: [compression(), encryption({ keys: { "2026-11": key }, current: "2026-11", hashKey })]
   */
  codec?: Codec | readonly Codec[] | undefined;
  /**
   * Where the engine and `currentRun().log` write: a logger of pino's, bunyan's or winston's shape gets fields, one of console's a prefix.
   * Default: console, warnings and errors only.
   */
  logger?: Logger | undefined;
  /**
   * Makes what `currentRun().context` is: called before the body begins and whenever it is replayed, and never recorded; a suspended run that
   * stays in memory keeps its own. When it
   * throws, nothing of the run is lost and no attempt used: it is tried again after 1 s, then 2 s, 4 s and so on up to a minute.
   */
  context?: ((run: RunInfo) => unknown) | undefined;
  /**
   * Development: names the line where a workflow's body reads the clock, draws at random, waits for a timer or uses the network outside a
   * step, and sets the default of `outside` to `"warn"`. Replaces the functions concerned while such an engine is launched. Default: true
   * only where NODE_ENV is "development".
   */
  strict?: boolean | undefined;
  /** Whether `launch()` migrates the schema. Default true; with false it refuses a schema that is not up to date. */
  migrate?: boolean | undefined;
  /** How long a silent worker keeps its runs. Default 30s; shorter finds hangs sooner, beats more often. At least 1s. */
  lease?: Duration | undefined;
  /**
   * Whether this process holds an advisory lock in a session of its own, which tells others within half a second that it is gone. Default true.
   * `false`: only its silence tells, so its runs go on elsewhere after `lease`; for a pooler in transaction mode without a direct connection
   * beside it, together with `notify: false`.
   */
  sessionLock?: boolean | undefined;
  /**
   * How long a run is kept after its end, with its result and history; then it is deleted, and its id is free again. At least 1s, or `"forever"`.
   * Unfinished runs stay whatever their age, and runs that another started, or waits for, as long as that one. It counts for the whole schema: the
   * last launch that says so wins, and one that leaves it out changes nothing. Default: 30d until a launch has said otherwise.
   */
  retention?: Duration | "forever" | undefined;
  /** `false`: no LISTEN and no NOTIFY; everything passes by polling, only later. Default true. */
  notify?: boolean | undefined;
  /** What a step called outside a workflow does: `"call"` (default), `"warn"` or `"refuse"`. */
  outside?: "call" | "warn" | "refuse" | undefined;
  /**
   * The schedules that this application declares: at launch they are made, changed, and those that are not given any more removed; those made by
   * `schedules.put` and other applications' are left alone. The last launch wins. Left out: nothing is changed; `[]`: all of this application's are removed.
   */
  schedules?: readonly Schedule[] | undefined;
  /** Names the program whose code declares `schedules`. Default: the name in the nearest package.json from the main script up, else `"default"`. */
  application?: string | undefined;
  /** Signals on which this engine shuts down, within 30 s, and by which the process ends after. Default: none. */
  shutdownOn?: readonly NodeJS.Signals[] | undefined;
}

/** Checked options, defaults filled in. */
export interface Settings {
  readonly database: DatabaseOption | undefined;
  readonly schema: string;
  readonly listenUrl: string | undefined;
  readonly workflows: ReadonlyMap<string, WorkflowDefinition>;
  readonly concurrency: number;
  /** How many suspended runs stay in memory. */
  readonly warm: number;
  /** False: this process works on runs only when it is told to, by drain(). */
  readonly works: boolean;
  readonly queues: readonly string[];
  readonly errors: readonly ErrorClass[];
  readonly codecs: readonly Codec[];
  readonly logger: EngineLog;
  readonly makeContext: ((run: RunInfo) => unknown) | null;
  readonly strict: boolean;
  readonly migrate: boolean;
  readonly leaseMs: number;
  readonly sessionLock: boolean;
  /** How long ended runs are kept; Infinity: for ever. Null: as others have said. */
  readonly retentionMs: number | null;
  readonly notify: boolean;
  readonly outside: "call" | "warn" | "refuse";
  /** Null: no reconciliation. */
  readonly schedules: readonly ScheduleDefinition[] | null;
  readonly application: string;
  readonly shutdownOn: readonly NodeJS.Signals[];
  readonly name: string;
  /** What tests put in, a Seam of seam.ts; applications compile without the types that it needs. */
  readonly seam: unknown;
}

const KEYS = [
  "database",
  "schema",
  "listenUrl",
  "workflows",
  "worker",
  "errors",
  "codec",
  "logger",
  "context",
  "strict",
  "migrate",
  "lease",
  "sessionLock",
  "retention",
  "notify",
  "outside",
  "schedules",
  "application",
  "shutdownOn",
];
const WHERE = "new Perdure()";

const SIGNALS: readonly string[] = Object.keys(constants.signals).filter((s) => s !== "SIGKILL" && s !== "SIGSTOP");
const LEASE = { leastMs: 1000, mostMs: 86_400_000 };

export function checkOptions(given: PerdureOptions): Settings {
  const options = checkKeys(given, KEYS, WHERE);
  const { schema = "perdure", errors = [], migrate = true, notify = true, shutdownOn = [], retention } = options;
  const { strict = process.env.NODE_ENV === "development" } = options;
  const { outside = strict === true ? "warn" : "call" } = options;
  const workflows = registry(options.workflows ?? [], WHERE);
  const worker = workerOf(options.worker, workflows);
  return {
    database: options.database,
    schema: checkSchemaName(schema),
    listenUrl: options.listenUrl === undefined ? undefined : checkUrl(options.listenUrl),
    workflows,
    ...worker,
    errors: checkArray(errors, `errors of ${WHERE}`).map(checkErrorClass),
    codecs: options.codec === undefined ? [] : checkCodecs(options.codec, `codec of ${WHERE}`),
    logger: engineLog(options.logger === undefined ? quietConsole : checkLogger(options.logger)),
    makeContext: options.context === undefined ? null : checkContext(options.context),
    strict: checkBoolean(strict, `option "strict" of ${WHERE}`),
    migrate: checkBoolean(migrate, `option "migrate" of ${WHERE}`),
    leaseMs: checkLease(options.lease ?? "30s"),
    sessionLock: checkBoolean(options.sessionLock ?? true, `option "sessionLock" of ${WHERE}`),
    retentionMs: retention === undefined ? null : checkRetention(retention),
    notify: checkBoolean(notify, `option "notify" of ${WHERE}`),
    outside: checkChoice(outside, ["call", "warn", "refuse"], `outside of ${WHERE}`),
    schedules: options.schedules === undefined ? null : schedulesOf(options.schedules, workflows, worker.works),
    application: applicationOf(options),
    shutdownOn: checkArray(shutdownOn, `shutdownOn of ${WHERE}`).map(checkSignal),
    name: `${hostname()}:${process.pid}`,
    seam: (options as { readonly [SEAM]?: unknown })[SEAM] ?? null,
  };
}

function workerOf(
  given: PerdureOptions["worker"],
  workflows: ReadonlyMap<string, WorkflowDefinition>,
): Pick<Settings, "concurrency" | "warm" | "works" | "queues"> {
  const {
    concurrency = 100,
    warm = 1000,
    queues,
  } = checkKeys(given || {}, ["concurrency", "warm", "queues"], `worker of ${WHERE}`);
  return {
    works: given !== false,
    concurrency: checkInteger(concurrency, `concurrency of ${WHERE}`, 1, 10_000),
    warm: checkInteger(warm, `warm in worker of ${WHERE}`, 0, 1_000_000),
    queues: queuesOf(queues, workflows),
  };
}

function schedulesOf(
  given: readonly unknown[],
  workflows: ReadonlyMap<string, WorkflowDefinition>,
  works: boolean,
): ScheduleDefinition[] {
  const schedules = checkArray(given, `schedules of ${WHERE}`).map((value) => {
    const definition = scheduleOf(value);
    if (definition) return checkServed(definition, workflows, works);
    const text = `schedules of ${WHERE} holds ${shorten(value)}, which schedule() did not make`;
    throw new PerdureError("PERDURE_OPTION", text);
  });
  const names = new Set<string>();
  for (const { name } of schedules) {
    if (names.has(name))
      throw new PerdureError("PERDURE_DUPLICATE", `two schedules are named "${name}"; give one another name`);
    names.add(name);
  }
  return schedules;
}

/** The schedule, if its workflow is registered here, or nothing is: a pure client schedules what others work on. Throws PERDURE_UNKNOWN_WORKFLOW. */
export function checkServed(
  definition: ScheduleDefinition,
  workflows: ReadonlyMap<string, WorkflowDefinition>,
  works: boolean,
): ScheduleDefinition {
  const { name, version } = definition.workflow;
  if (isRegistered(definition.workflow, workflows) || (!works && workflows.size === 0)) return definition;
  const text = `schedule "${definition.name}" starts workflow "${name}" of version "${version}", which is not registered in this engine; add it to \`workflows\` of ${WHERE}`;
  throw new PerdureError("PERDURE_UNKNOWN_WORKFLOW", text);
}

function applicationOf({ application, schedules }: PerdureOptions): string {
  if (application !== undefined) return checkName(application, `application of ${WHERE}`);
  return (schedules && attempt(() => checkName(packageName(process.argv[1] ?? ""), "package name"))) ?? "default";
}

/** The name in the nearest package.json, from a file's folder up. */
function packageName(file: string): unknown {
  for (let folder = dirname(file); ; folder = dirname(folder)) {
    const found = attempt(() => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { name?: unknown });
    if (found?.name !== undefined || folder === dirname(folder)) return found?.name;
  }
}

function checkLease(lease: Duration): number {
  const ms = toMs(lease, `lease of ${WHERE}`);
  if (ms >= LEASE.leastMs && ms <= LEASE.mostMs) return ms;
  throw new PerdureError("PERDURE_OPTION", `lease of ${WHERE} must be from 1s to 1d, not ${shorten(lease)}`);
}

function checkRetention(retention: Duration | "forever"): number {
  if (retention === "forever") return Number.POSITIVE_INFINITY;
  const what = `retention of ${WHERE}`;
  const said = typeof retention === "string" && nearest(retention, ["forever"]);
  if (said) throw new PerdureError("PERDURE_OPTION", `${what} is ${shorten(retention)}; did you mean "forever"?`);
  const ms = toMs(retention, what);
  if (ms >= 1000) return ms;
  throw new PerdureError("PERDURE_OPTION", `${what} must be at least 1s, or "forever", not ${shorten(retention)}`);
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

function checkContext(context: (run: RunInfo) => unknown): (run: RunInfo) => unknown {
  if (typeof context === "function") return context;
  const text = `context of ${WHERE} must be a function that makes the context of a run, (run) => ({ … }), not ${shorten(context)}`;
  throw new PerdureError("PERDURE_OPTION", text);
}

function checkSignal(signal: NodeJS.Signals): NodeJS.Signals {
  return checkChoice(signal, SIGNALS as NodeJS.Signals[], `a signal in shutdownOn of ${WHERE}`);
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
