/**
 * How fast are runs started, and what do hints cost? By a process without a worker, while an idle one elsewhere wants to hear of work,
 * and with notify off; beside the same rows inserted by bare `pg`, as many in a commit on each of two connections.
 */
import { workflow } from "../lib/index.ts";
import { Bare, PLANNED } from "./support/bare.ts";
import { compare, keepBusy, median, number, spread, table } from "./support/figures.ts";
import { type Lab, message } from "./support/lab.ts";

const IN_FLIGHT = 500;
const ROUNDS = 5;
const MS = 1000;

const unserved = workflow("unserved", async (n: number) => n);

export async function starts(lab: Lab): Promise<void> {
  const figures = await compare([await hinted(lab), await unhinted(lab), await bare(lab)], ROUNDS, MS);
  const [, silent, inserts] = figures;
  const rows = figures.map(({ name, rates, cpu }) => {
    const beside = (of: readonly number[]): string => (of === rates ? "" : `${number(ratio(rates, of))} ×`);
    return [name, spread(rates), number(median(cpu)), beside(silent!.rates), beside(inserts!.rates)];
  });
  lab.print(table([["", "runs/s", "process CPU, µs/run", "of notify: false", "of bare inserts"], ...rows]));
}

const ratio = (a: readonly number[], b: readonly number[]): number => median(a.map((rate, at) => rate / b[at]!));

/** Another process is idle: it hears of every batch, and finds nothing that it serves. */
async function hinted(lab: Lab) {
  const schema = await lab.schema();
  await message(lab.fork("worker-process.js", [schema]));
  const perdure = await lab.engine(schema, { worker: false });
  return {
    name: "started, an idle process is hinted",
    run: (ms: number) => keepBusy(IN_FLIGHT, ms, () => perdure.start(unserved, 1)),
  };
}

async function unhinted(lab: Lab) {
  const perdure = await lab.engine(await lab.schema(), { worker: false, notify: false });
  return {
    name: "started, notify: false",
    run: (ms: number) => keepBusy(IN_FLIGHT, ms, () => perdure.start(unserved, 1)),
  };
}

async function bare(lab: Lab) {
  const rows = new Bare(await lab.schema());
  const clients = await Promise.all([lab.client({ options: PLANNED }), lab.client({ options: PLANNED })]);
  const batch = IN_FLIGHT / clients.length;
  return {
    name: "inserted by bare pg",
    run: async (ms: number) => {
      const counts = await Promise.all(clients.map((one) => keepBusy(1, ms, () => rows.insertBatch(one, batch))));
      return counts.reduce((sum, count) => sum + count, 0) * batch;
    },
  };
}
