/** Workers: each an engine that executes the runs of its workflows. */
import { randomUUID } from "node:crypto";
import { type Duration, toMs } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkArray, checkInteger, checkKeys, checkName } from "../core/options.ts";
import type { Perdure } from "../perdure.ts";
import { type Client, type ClientCore, coreOf, type Stoppable } from "./client.ts";
import type { AnyVersion, Workflow } from "./forms.ts";
import { type Options, type OptionsOf, withOptions } from "./options.ts";
import type { RunHost } from "./run.ts";
import { type Internals, toWorkflow } from "./version.ts";
import { versionsOf } from "./workflow.ts";

/** How a worker works. */
export interface WorkerConfig {
  /** Runs in work at once at most; a suspended run does not count. Default 100. */
  maxConcurrentWorkflowRuns?: number | undefined;
  /** How long attempts in flight may take at `stop()`. Default 30s. */
  gracefulShutdownTimeoutMs?: number | undefined;
  /** Taken and not used: how often to look, and how claims are kept, is the engine's own business. */
  workflowRun?: unknown;
}

/** Options of a worker. `config` or, in older forms, `opts`, or its keys beside the others. */
export interface WorkerOptions extends WorkerConfig {
  workflows?: readonly (AnyVersion | Workflow<any>)[] | undefined;
  id?: string | undefined;
  name?: string | undefined;
  config?: WorkerConfig | undefined;
  opts?: WorkerConfig | undefined;
  /** Taken and not used: runs are found in the database. */
  subscriber?: unknown;
  workflowRunSubscriber?: unknown;
}

/** Options of a worker's start, by their paths. */
export interface WorkerPaths {
  /** It takes the runs of these pools only. Without: those that name none. */
  pools: readonly string[];
  /** The older name of `pools`. */
  shards: readonly string[];
  reference: { id: string } | string;
  "reference.id": string;
}

/** A worker at work. It can be awaited: then it has been launched, or throws what is wrong. */
export interface WorkerHandle {
  readonly id: string;
  /** Takes nothing new, lets attempts in flight end, and hands back what is left. */
  stop(): Promise<void>;
}

/** A worker as it was defined; each start makes another. */
export interface Worker {
  with(): Worker;
  with(options: OptionsOf<WorkerPaths>): Worker;
  with<P extends keyof WorkerPaths>(path: P, value: WorkerPaths[P]): Worker;
  opt<P extends keyof WorkerPaths>(path: P, value: WorkerPaths[P]): Worker;
  start(client: Client<any>): WorkerHandle & Promise<WorkerHandle>;
  /** The older name of `start`. */
  spawn(client: Client<any>): WorkerHandle & Promise<WorkerHandle>;
}

/** A worker in the oldest form, with its client and a registry. */
export interface RegistryWorker {
  readonly id: string;
  readonly registry: { add(workflow: AnyVersion | Workflow<any>): void };
  start(): Promise<void>;
  stop(): Promise<void>;
}

const CONFIG = ["maxConcurrentWorkflowRuns", "gracefulShutdownTimeoutMs", "workflowRun"];
const KEYS = [...CONFIG, "workflows", "id", "name", "config", "opts", "subscriber", "workflowRunSubscriber"];

/**
 * A worker. Several may work on one database, in one process or many.
 *
 * @throws PERDURE_OPTION, PERDURE_NAME.
 * @example
 * const handle = await worker({ workflows: [orderV1], config: { maxConcurrentWorkflowRuns: 10 } }).start(aiki);
 * await handle.stop();
 */
export function worker(options: WorkerOptions): Worker;
export function worker(client: Client<any>, options?: WorkerOptions): RegistryWorker;
export function worker(first: WorkerOptions | Client<any>, second?: WorkerOptions): Worker | RegistryWorker {
  if (first === undefined)
    throw new PerdureError("PERDURE_OPTION", "worker() needs workflows: worker({ workflows: [orderV1] })");
  const core = attempt(() => coreOf(first as Client<any>));
  return core ? withRegistry(core, second ?? {}) : configured(check(first as WorkerOptions), {});
}

interface Checked {
  readonly id: string | undefined;
  readonly workflows: readonly Internals[];
  readonly concurrency: number | undefined;
  readonly timeout: Duration | undefined;
}

function check(given: WorkerOptions): Checked {
  const where = "worker()";
  const options = checkKeys(given, KEYS, where);
  const [config, opts] = [options.config, options.opts].map((each) =>
    checkKeys(each ?? {}, CONFIG, `config of ${where}`),
  );
  const all: WorkerConfig = { ...options, ...opts, ...config };
  const { maxConcurrentWorkflowRuns: concurrency, gracefulShutdownTimeoutMs: timeout } = all;
  if (concurrency !== undefined) checkInteger(concurrency, `maxConcurrentWorkflowRuns of ${where}`, 1, 10_000);
  if (timeout !== undefined) toMs(timeout, `gracefulShutdownTimeoutMs of ${where}`);
  const id = options.id ?? options.name;
  return {
    id: id === undefined ? undefined : checkName(id, `id of ${where}`),
    workflows: versionsOf(checkArray(options.workflows ?? [], `workflows of ${where}`), where),
    concurrency,
    timeout,
  };
}

function configured(checked: Checked, options: Options): Worker {
  const configure = (...given: unknown[]): Worker => configured(checked, withOptions(options, given, "worker"));
  const pools = checkArray((options.pools ?? options.shards ?? []) as string[], "pools of worker()");
  const start = (client: Client<any>) => launch(coreOf(client), checked, pools);
  return { with: configure, opt: configure, start, spawn: start };
}

function launch(client: ClientCore, checked: Checked, pools: readonly string[]): WorkerHandle & Promise<WorkerHandle> {
  const { workflows, concurrency, timeout, id = randomUUID() } = checked;
  if (workflows.length === 0)
    throw new PerdureError("PERDURE_OPTION", "worker() needs workflows; without any it has no work");
  const host: { perdure?: Perdure } = {};
  const perdure = client.engine({
    ...client.context,
    workflows: workflows.map(({ definition }) => toWorkflow(definition, host as RunHost)),
    worker: {
      ...(concurrency === undefined ? {} : { concurrency }),
      queues: pools.length > 0 ? [...pools] : ["default"],
    },
  });
  host.perdure = perdure;
  const self: Stoppable = {
    stop: async () => {
      await perdure.shutdown({ timeout });
      await client.leave(self);
    },
  };
  client.join(self);
  const handle: WorkerHandle = { id, stop: self.stop };
  const launched = perdure.launch().then(
    () => handle,
    async (error: unknown) => {
      client.log.error(`perdure: worker "${id}" could not be started`, error);
      await client.leave(self);
      throw error;
    },
  );
  // Who does not await it has it in the log.
  launched.catch(() => {});
  return Object.assign(launched, handle);
}

function withRegistry(client: ClientCore, options: WorkerOptions): RegistryWorker {
  const checked = check(options);
  const workflows = [...checked.workflows];
  const id = checked.id ?? randomUUID();
  let running: (WorkerHandle & Promise<WorkerHandle>) | undefined;
  return {
    id,
    registry: {
      add: (workflow) => {
        if (!running) workflows.push(...versionsOf([workflow], "registry.add()"));
        else throw new PerdureError("PERDURE_STATE", `worker "${id}" has been started; add workflows before start()`);
      },
    },
    start: async () => {
      const started = running ?? launch(client, { ...checked, id, workflows }, []);
      running = started;
      try {
        await started;
      } catch (error) {
        // It may be started again.
        if (running === started) running = undefined;
        throw error;
      }
    },
    stop: async () => {
      const stopped = running;
      await stopped?.stop();
      if (running === stopped) running = undefined;
    },
  };
}
