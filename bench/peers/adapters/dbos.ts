/** DBOS Transact. Its queues poll; messages are told by NOTIFY. A workflow that waits stays in memory. */
import {
  type Adapter,
  type Client,
  type Context,
  FLOWS,
  KINDS,
  type Kind,
  oneByOne,
  otherText,
  type Setup,
} from "../adapter.ts";
import { load } from "../packages.ts";

const { DBOS, DBOSClient } = await load("@dbos-inc/dbos-sdk");

const QUEUE = "bench";
const TOPIC = "news";
const POOL = 20;
const CONFIG = { name: "bench", applicationVersion: "1", logLevel: "error" };
const HOUR_S = 3600;
const QUEUES: Readonly<Record<Setup, object>> = {
  default: {},
  recovery: {},
  throughput: { minPollingIntervalMs: 20, workerConcurrency: 200 },
  latency: { minPollingIntervalMs: 10 },
  waiting: { minPollingIntervalMs: 20 },
};

const context: Context = {
  addOne: (n, at) => DBOS.runStep(async () => n + 1, { name: `add-one-${at}` }),
  step: (name, work) => DBOS.runStep(work, { name }),
  event: async () => void (await DBOS.recv(TOPIC, { timeoutSeconds: HOUR_S })),
  sleep: (ms) => DBOS.sleep(ms),
};

async function connect(systemDatabaseUrl: string): Promise<Client> {
  const client = await DBOSClient.create({ systemDatabaseUrl, systemDatabasePoolSize: POOL });
  const start = (kind: Kind, mark: string, more = {}): Promise<unknown> =>
    client.enqueue({ queueName: QUEUE, workflowName: kind, ...more }, mark);
  return {
    startMany: (kind, count) => oneByOne(count, () => start(kind, "")),
    start: async (kind, mark) => void (await start(kind, mark, { workflowID: mark })),
    send: (mark) => client.send(mark, "now", TOPIC),
    close: () => client.destroy(),
  };
}

export const dbos: Adapter = {
  can: ["steps", "results", "events", "sleeps"],
  setups: {
    default: "registerQueue without options: polls every second",
    throughput: `minPollingIntervalMs 20, workerConcurrency 200, a pool of ${POOL}`,
    latency: `minPollingIntervalMs 10, a pool of ${POOL}`,
    waiting: "as for throughput, without workerConcurrency: a workflow that waits takes a place",
    recovery: "a process restarted under the same executorID",
  },
  restarts: true,
  prepare: async (systemDatabaseUrl) => {
    DBOS.setConfig({ ...CONFIG, systemDatabaseUrl });
    await DBOS.launch();
    await DBOS.shutdown();
  },
  connect,
  work: async (systemDatabaseUrl, setup, teller) => {
    const pool = setup === "default" || setup === "recovery" ? {} : { systemDatabasePoolSize: POOL };
    const executorID = setup === "recovery" ? "the-one" : `executor-${process.pid}`;
    DBOS.setConfig({
      name: "bench",
      systemDatabaseUrl,
      applicationVersion: "1",
      executorID,
      logLevel: "error",
      ...pool,
    });
    const define = (kind: Kind): [Kind, any] => [
      kind,
      DBOS.registerWorkflow((mark: string) => FLOWS[kind](context, mark, teller), { name: kind }),
    ];
    const made = Object.fromEntries(KINDS.map(define));
    await DBOS.launch();
    await DBOS.registerQueue(QUEUE, QUEUES[setup]);
    return {
      once: async () => (await DBOS.startWorkflow(made["one-step"])("")).getResult(),
      stop: () => DBOS.shutdown(),
    };
  },
  left: "select exists (select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING')) as left",
  kept: ["workflow_status", "workflow_input", "operation_outputs", "workflow_output"].map(
    (table) => [`dbos.${table}`, { workflow_uuid: otherText("workflow_uuid") }] as const,
  ),
};
