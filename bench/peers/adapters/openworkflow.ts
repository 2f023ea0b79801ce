/** OpenWorkflow. Polls from 100 ms to 1 s, results every second; a signal that nobody waits for is dropped. */
import {
  type Adapter,
  type Client,
  type Context,
  eventOf,
  FLOWS,
  KINDS,
  type Kind,
  oneByOne,
  otherText,
} from "../adapter.ts";
import { load } from "../packages.ts";

const { OpenWorkflow } = await load("openworkflow");
const { BackendPostgres } = await load("openworkflow/postgres");

const CONCURRENCY = 50;

/** What a workflow is given: its input, and the steps of its run. */
interface Given {
  readonly input: { readonly mark: string };
  readonly step: any;
}

const contextOf = ({ input, step }: Given): Context => ({
  addOne: (n, at) => step.run({ name: `add-one-${at}` }, async () => n + 1),
  step: (name, work) => step.run({ name }, work),
  event: () => step.waitForSignal({ signal: eventOf(input.mark), timeout: "1h" }),
  sleep: (ms) => step.sleep("nap", `${ms}ms`),
});

async function connect(url: string): Promise<Client> {
  const backend = await BackendPostgres.connect(url, { runMigrations: false });
  const flow = new OpenWorkflow({ backend });
  const start = (name: Kind, mark: string): Promise<unknown> => flow.runWorkflow({ name }, { mark });
  return {
    startMany: (kind, count) => oneByOne(count, () => start(kind, "")),
    start: async (kind, mark) => void (await start(kind, mark)),
    send: (mark) => flow.sendSignal({ signal: eventOf(mark), data: "now" }),
    close: () => backend.stop(),
  };
}

export const openworkflow: Adapter = {
  can: ["steps", "results", "events", "sleeps"],
  setups: { default: `concurrency ${CONCURRENCY}; nothing else can be set` },
  prepare: async (url) => (await BackendPostgres.connect(url)).stop(),
  connect,
  work: async (url, _setup, teller) => {
    const backend = await BackendPostgres.connect(url, { runMigrations: false });
    const flow = new OpenWorkflow({ backend });
    const define = (name: Kind): [Kind, any] => [
      name,
      flow.defineWorkflow({ name }, (given: Given) => FLOWS[name](contextOf(given), given.input.mark, teller)),
    ];
    const made = Object.fromEntries(KINDS.map(define));
    const worker = flow.newWorker({ concurrency: CONCURRENCY });
    await worker.start();
    return {
      once: async () => (await made["one-step"].run({ mark: "" })).result(),
      stop: async () => {
        await worker.stop();
        await backend.stop();
      },
    };
  },
  left: "select exists (select from openworkflow.workflow_runs where status in ('pending', 'running')) as left",
  kept: [
    ["openworkflow.workflow_runs", { id: otherText("id") }],
    ["openworkflow.step_attempts", { id: otherText("id"), workflow_run_id: otherText("workflow_run_id") }],
  ],
};
