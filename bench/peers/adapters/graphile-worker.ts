/** Graphile Worker: jobs without steps, results or events. LISTEN/NOTIFY; what has finished is deleted. */
import { EventEmitter } from "node:events";
import { type Adapter, type Client, type Context, FLOWS, KINDS, type Setup } from "../adapter.ts";
import { load } from "../packages.ts";

const { Logger, makeWorkerUtils, run } = await load("graphile-worker");

const logger = new Logger(() => () => {});
/** As the performance page of its documentation has it. */
const BATCHED = {
  concurrentJobs: 24,
  maxPoolSize: 25,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};
const PRESETS: Readonly<Partial<Record<Setup, object>>> = {
  default: { concurrentJobs: 10 },
  throughput: BATCHED,
  latency: { concurrentJobs: 10, localQueue: { size: 11 } },
  recovery: { concurrentJobs: 10 },
};
const BATCH = 1000;

/** A job has no steps: what it does is done by the time that it ends. */
const context: Context = {
  addOne: async (n) => n + 1,
  step: (_name, work) => work(),
  event: () => Promise.reject(new Error("a job waits for no event")),
  sleep: () => Promise.reject(new Error("a job does not sleep")),
};

async function connect(connectionString: string): Promise<Client> {
  const utils = await makeWorkerUtils({ connectionString, logger });
  const startMany = async (kind: string, count: number): Promise<void> => {
    for (let left = count; left > 0; left -= BATCH) {
      await utils.addJobs(
        Array.from({ length: Math.min(BATCH, left) }, () => ({ identifier: kind, payload: { mark: "" } })),
      );
    }
  };
  return {
    startMany,
    start: async (kind, mark) => void (await utils.addJob(kind, { mark })),
    send: () => Promise.reject(new Error("a job waits for no event")),
    close: async () => utils.release(),
  };
}

export const graphileWorker: Adapter = {
  can: [],
  setups: {
    default: "concurrentJobs 10",
    throughput: "concurrentJobs 24, a pool of 25, localQueue 500, completeJobBatchDelay 0",
    latency: "concurrentJobs 10, localQueue 11",
  },
  prepare: async (connectionString) => {
    const utils = await makeWorkerUtils({ connectionString, logger });
    await utils.migrate();
    await utils.release();
  },
  connect,
  work: async (connectionString, setup, teller) => {
    const task = (kind: (typeof KINDS)[number]) => async (payload: any) =>
      void (await FLOWS[kind](context, payload.mark, teller));
    const runner = await run({
      preset: { worker: { connectionString, ...PRESETS[setup] } },
      taskList: Object.fromEntries(KINDS.map((kind) => [kind, task(kind)])),
      noHandleSignals: true,
      logger,
      events: new EventEmitter(),
    });
    return {
      once: () => Promise.reject(new Error("a job has no result")),
      stop: () => runner.stop(),
    };
  },
  left: "select exists (select from graphile_worker._private_jobs) as left",
};
