/** Absurd. Its package lacks its SQL file, so it takes part where ABSURD_SQL says where that is. It polls for everything. */
import { readFile } from "node:fs/promises";
import pg from "pg";
import {
  type Adapter,
  type Client,
  type Context,
  eventOf,
  FLOWS,
  KINDS,
  oneByOne,
  otherUuid,
  type Setup,
} from "../adapter.ts";
import { load } from "../packages.ts";

const { Absurd } = await load("absurd-sdk");

const QUEUE = "bench";
const CONCURRENCY = 50;
const WORKERS: Readonly<Partial<Record<Setup, object>>> = {
  default: { concurrency: CONCURRENCY },
  throughput: { concurrency: CONCURRENCY, pollInterval: 0.01 },
  latency: { concurrency: CONCURRENCY, pollInterval: 0.01 },
  recovery: { concurrency: CONCURRENCY, claimTimeout: 5 },
};
/** More than a connection for each of some of its slots gains nothing. */
const POOL = 20;
const silent = { log: () => {}, info: () => {}, warn: () => {}, error: () => {} };

const contextOf = (task: any, mark: string): Context => ({
  addOne: (n, at) => task.step(`add-one-${at}`, async () => n + 1),
  step: (name, work) =>
    task.step(name, async () => {
      await work();
      return null;
    }),
  event: () => task.awaitEvent(eventOf(mark)),
  sleep: (ms) => task.sleepFor("nap", ms / 1000),
});

/** A client with a pool of its own. */
function open(connectionString: string): { app: any; close(): Promise<void> } {
  const pool = new pg.Pool({ connectionString, max: POOL });
  pool.on("error", () => {});
  const app = new Absurd({ db: pool, queueName: QUEUE, log: silent });
  return {
    app,
    close: async () => {
      await app.close();
      await pool.end();
    },
  };
}

async function prepare(url: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  await client.query(await readFile(process.env.ABSURD_SQL!, "utf8"));
  await client.end();
  const { app, close } = open(url);
  await app.createQueue(QUEUE);
  await close();
}

async function connect(url: string): Promise<Client> {
  const { app, close } = open(url);
  const start = (kind: string, mark: string): Promise<unknown> => app.spawn(kind, { mark }, { queue: QUEUE });
  return {
    startMany: (kind, count) => oneByOne(count, () => start(kind, "")),
    start: async (kind, mark) => void (await start(kind, mark)),
    send: (mark) => app.emitEvent(eventOf(mark), "now"),
    close,
  };
}

export const absurd: Adapter = {
  can: ["steps", "results", "events", "sleeps"],
  setups: {
    default: `concurrency ${CONCURRENCY} (its own is 1), pollInterval 0.25 s, claimTimeout 120 s`,
    throughput: `concurrency ${CONCURRENCY}, pollInterval 0.01 s, a pool of ${POOL}`,
    latency: `concurrency ${CONCURRENCY}, pollInterval 0.01 s`,
    recovery: "claimTimeout 5 s: a longer step must send heartbeats",
  },
  prepare,
  connect,
  work: async (url, setup, teller) => {
    const { app, close } = open(url);
    for (const name of KINDS) {
      app.registerTask({ name }, ({ mark }: { mark: string }, task: unknown) =>
        FLOWS[name](contextOf(task, mark), mark, teller),
      );
    }
    await app.startWorker(WORKERS[setup]);
    return {
      once: async () => {
        const { taskID } = await app.spawn("one-step", { mark: "" });
        return app.awaitTaskResult(taskID);
      },
      stop: close,
    };
  },
  left: `select exists (select from absurd.r_${QUEUE} where state in ('pending', 'running', 'sleeping')) as left`,
  kept: [
    [`absurd.t_${QUEUE}`, { task_id: otherUuid("task_id"), last_attempt_run: otherUuid("last_attempt_run") }],
    [`absurd.r_${QUEUE}`, { run_id: otherUuid("run_id"), task_id: otherUuid("task_id") }],
    [`absurd.c_${QUEUE}`, { task_id: otherUuid("task_id"), owner_run_id: otherUuid("owner_run_id") }],
  ],
};
