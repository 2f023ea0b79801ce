/** Perdure, by its public names alone. */
import { event, Perdure, runStep, sleep, step, type Workflow, workflow } from "../../../lib/index.ts";
import {
  type Adapter,
  type Client,
  type Context,
  FLOWS,
  KINDS,
  type Kind,
  oneByOne,
  otherText,
  type Teller,
} from "../adapter.ts";

const CONCURRENCY = 400;

const addOne = step("add-one", async (n: number) => n + 1);
const news = event("news");

const context: Context = {
  addOne: (n) => addOne(n),
  step: (name, work) => runStep(name, work),
  event: async () => void (await news.wait()),
  sleep: async (ms) => void (await sleep(ms)),
};

type Flows = Record<Kind, Workflow<[string], number | null>>;

/** The workflows; where nobody runs them, nobody is told. */
function flows(teller?: Teller): Flows {
  const define = (kind: Kind): [Kind, Flows[Kind]] => [
    kind,
    workflow(kind, (mark: string) => FLOWS[kind](context, mark, teller!)),
  ];
  return Object.fromEntries(KINDS.map(define)) as Flows;
}

async function connect(database: string): Promise<Client> {
  const perdure = new Perdure({ database, worker: false });
  await perdure.launch();
  const made = flows();
  return {
    startMany: (kind, count) => oneByOne(count, () => perdure.start(made[kind], "")),
    start: async (kind, mark) => void (await perdure.start(made[kind].with({ id: mark }), mark)),
    send: async (mark) => void (await perdure.send(mark, news, null)),
    close: () => perdure.shutdown(),
  };
}

export const perdure: Adapter = {
  can: ["steps", "results", "events", "sleeps"],
  setups: { default: "new Perdure({ workflows })", throughput: `worker: { concurrency: ${CONCURRENCY} }` },
  prepare: async (database) => void (await new Perdure({ database }).migrate()),
  connect,
  work: async (database, setup, teller) => {
    const made = flows(teller);
    const tuned = setup === "throughput" ? { worker: { concurrency: CONCURRENCY } } : {};
    const perdure = new Perdure({ database, workflows: Object.values(made), ...tuned });
    await perdure.launch();
    return {
      once: async () => (await perdure.start(made["one-step"], "")).result(),
      stop: () => perdure.shutdown({ timeout: "1s" }),
    };
  },
  left: "select exists (select from perdure.ready) or exists (select from perdure.run where finished_at is null) as left",
  kept: [
    ["perdure.run", { key: "t.key + g", id: otherText("id") }],
    ["perdure.ready", { run: "t.run + g" }],
    ["perdure.input", { run: "t.run + g" }],
    ["perdure.checkpoint", { run: "t.run + g" }],
    ["perdure.outcome", { run: "t.run + g" }],
  ],
};
