/** pg-boss: jobs without steps or events. Polls, or is told by NOTIFY; what has finished is kept for days. */
import { type Adapter, type Client, type Context, FLOWS, type Kind, otherUuid, type Setup } from "../adapter.ts";
import { load } from "../packages.ts";

const { PgBoss } = await load("pg-boss");

const QUEUE = "bench";
const WORKS: Readonly<Partial<Record<Setup, object>>> = {
  default: { localConcurrency: 10 },
  throughput: { batchSize: 1000, localConcurrency: 2, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 },
  latency: { localConcurrency: 10 },
  recovery: { localConcurrency: 10 },
};
const BATCH = 1000;

interface Job {
  readonly data: { readonly kind: Kind; readonly mark: string };
}

/** A job has no steps: what it does is done by the time that it ends. */
const context: Context = {
  addOne: async (n) => n + 1,
  step: (_name, work) => work(),
  event: () => Promise.reject(new Error("a job waits for no event")),
  sleep: () => Promise.reject(new Error("a job does not sleep")),
};

/** An instance; upkeep that only a tuned recovery needs is as seldom as it comes. */
function boss(connectionString: string, setup: Setup): any {
  const told = setup === "latency" ? { useListenNotify: true } : {};
  const watchful = setup === "recovery" ? { superviseIntervalSeconds: 1, monitorIntervalSeconds: 1 } : {};
  const made = new PgBoss({ connectionString, ...told, ...watchful });
  made.on("error", (error: Error) => process.stderr.write(`pg-boss: ${error.message}\n`));
  return made;
}

async function connect(url: string): Promise<Client> {
  const made = boss(url, "default");
  await made.start();
  const startMany = async (kind: Kind, count: number): Promise<void> => {
    for (let left = count; left > 0; left -= BATCH) {
      await made.insert(
        QUEUE,
        Array.from({ length: Math.min(BATCH, left) }, () => ({ data: { kind, mark: "" } })),
      );
    }
  };
  return {
    startMany,
    start: async (kind, mark) => void (await made.send(QUEUE, { kind, mark })),
    send: () => Promise.reject(new Error("a job waits for no event")),
    close: () => made.stop({ graceful: false }),
  };
}

export const pgBoss: Adapter = {
  can: [],
  setups: {
    default: "batchSize 1, localConcurrency 10 (its own is 1), polls every 2 s",
    throughput: "batchSize 1000, localConcurrency 2, burstWhenBatchFull, polls every 0.5 s",
    latency: "useListenNotify and a queue with notify, localConcurrency 10",
    recovery: "heartbeatSeconds 10 (the least), supervised every second",
  },
  prepare: async (url, setup) => {
    const made = boss(url, setup);
    await made.start();
    const queue = setup === "latency" ? { notify: true } : setup === "recovery" ? { heartbeatSeconds: 10 } : {};
    await made.createQueue(QUEUE, queue);
    await made.stop({ graceful: false });
  },
  connect,
  work: async (url, setup, teller) => {
    const made = boss(url, setup);
    await made.start();
    const one = ({ data }: Job): Promise<unknown> => FLOWS[data.kind](context, data.mark, teller);
    await made.work(QUEUE, WORKS[setup], async (jobs: Job[]) => void (await Promise.all(jobs.map(one))));
    return {
      once: () => Promise.reject(new Error("a job has no result")),
      stop: () => made.stop({ graceful: false }),
    };
  },
  left: "select exists (select from pgboss.job where state in ('created', 'retry', 'active')) as left",
  kept: [["pgboss.job", { id: otherUuid("id") }]],
};
