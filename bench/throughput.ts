/**
 * How many runs and steps per second does one process bring from start to finish, beside the same rows written by bare `pg`?
 * Timed from the first start until the last run in flight has finished and its result is known.
 */
import { type Perdure, step, type Workflow, workflow } from "../lib/index.ts";
import { Bare, PLANNED } from "./support/bare.ts";
import { type Contender, compare, type Figure, keepBusy, median, number, spread, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";

const IN_FLIGHT = 200;
const ROUNDS = 5;
const MS = 1000;

const addOne = step("add-one", async (n: number) => n + 1);
export const oneStep = workflow("one-step", async (n: number) => addOne(n));
export const tenSteps = workflow("ten-steps", async (n: number) => {
  let sum = n;
  for (let at = 0; at < 10; at += 1) sum = await addOne(sum);
  return sum;
});

export async function throughput(lab: Lab): Promise<void> {
  const perdure = await lab.engine(await lab.schema(), {
    workflows: [oneStep, tenSteps],
    worker: { concurrency: IN_FLIGHT },
  });
  const bare = await bareContenders(lab);
  const figures = await compare(
    [
      runs("one step, 1 in flight", perdure, oneStep, 1),
      bare.single("one step, 1 in flight: bare, singly", 1, 1),
      runs("one step, 200 in flight", perdure, oneStep, IN_FLIGHT),
      bare.single("one step, 200 in flight: bare, singly", IN_FLIGHT, 1),
      bare.batch("one step, 200 in flight: bare, in batches", 1),
      runs("ten steps, 1 in flight", perdure, tenSteps, 1),
      bare.single("ten steps, 1 in flight: bare, singly", 1, 10),
      runs("ten steps, 200 in flight", perdure, tenSteps, IN_FLIGHT),
      bare.single("ten steps, 200 in flight: bare, singly", IN_FLIGHT, 10),
      bare.batch("ten steps, 200 in flight: bare, in batches", 10),
    ],
    ROUNDS,
    MS,
  );
  lab.print(report(figures));
}

function runs(name: string, perdure: Perdure, flow: Workflow<[number], number>, width: number): Contender {
  return { name, run: (ms) => keepBusy(width, ms, async () => (await perdure.start(flow, 1)).result()) };
}

/** Singly: up to 32 connections, more than which nothing is gained. In batches: two connections take turns with half of the runs each. */
async function bareContenders(lab: Lab) {
  const bare = new Bare(await lab.schema());
  const clients = await Promise.all(Array.from({ length: 32 }, () => lab.client({ options: PLANNED })));
  return {
    single: (name: string, width: number, steps: number): Contender => ({
      name,
      run: async (ms) => {
        const used = clients.slice(0, width);
        const counts = await Promise.all(used.map((client) => keepBusy(1, ms, () => bare.single(client, steps))));
        return counts.reduce((a, b) => a + b);
      },
    }),
    batch: (name: string, steps: number): Contender => ({
      name,
      run: async (ms) => {
        const lane = (client: (typeof clients)[0]) => keepBusy(1, ms, () => bare.batch(client, IN_FLIGHT / 2, steps));
        const counts = await Promise.all(clients.slice(0, 2).map(lane));
        return (counts.reduce((a, b) => a + b) * IN_FLIGHT) / 2;
      },
    }),
  };
}

function report(figures: readonly Figure[]): string {
  const rows = figures.map((figure) => {
    const [group] = figure.name.split(":");
    const base = figures.find(({ name }) => name === group)!;
    const steps = group!.startsWith("ten") ? 10 : 1;
    const ratio = figure === base ? "" : `perdure ${number(ratioOf(base, figure))} ×`;
    const name = figure === base ? group! : `  ${figure.name.slice(group!.length + 2)}`;
    return [name, spread(figure.rates), number(median(figure.rates) * steps), number(median(figure.cpu)), ratio];
  });
  return table([["", "runs/s", "steps/s", "process CPU, µs/run", "beside it"], ...rows]);
}

/** The median of the rounds' ratios: what slowed a round slowed both. */
function ratioOf(a: Figure, b: Figure): number {
  return median(a.rates.map((rate, round) => rate / b.rates[round]!));
}
