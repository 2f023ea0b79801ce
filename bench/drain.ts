/**
 * How fast does one process work off what another has started? Runs are started by an engine without a worker; the clock runs from
 * the call of launch() of the one that works until the last of them has finished. Beside it: the same rows claimed and written by
 * bare `pg`, two statements per 200 runs. And how fast runs are started, beside bare inserts.
 */
import type pg from "pg";
import type { Perdure } from "../lib/index.ts";
import { Bare, PLANNED } from "./support/bare.ts";
import { median, number, spread, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";
import { oneStep } from "./throughput.ts";

const RUNS = 10_000;
const ROUNDS = 3;

export async function drain(lab: Lab): Promise<void> {
  const schema = await lab.schema();
  const starter = await lab.engine(schema, { worker: false });
  const client = await lab.client({ options: PLANNED });
  const bare = new Bare(schema);
  const rates = { started: [] as number[], drained: [] as number[], bare: [] as number[], ratio: [] as number[] };
  for (let round = -1; round < ROUNDS; round += 1) {
    const count = round < 0 ? RUNS / 5 : RUNS;
    const started = await perSecond(count, () => startMany(starter, count));
    const drained = await perSecond(count, () => drainOnce(lab, schema));
    await startMany(starter, count);
    const bareDrained = await perSecond(count, () => drainBare(bare, client));
    if (round < 0) continue;
    rates.started.push(started);
    rates.drained.push(drained);
    rates.bare.push(bareDrained);
    rates.ratio.push(drained / bareDrained);
  }
  lab.print(
    table([
      ["", "runs/s", "beside it"],
      ["started, 10,000 at once, no worker", spread(rates.started), ""],
      ["drained by one process, from launch()", spread(rates.drained), ""],
      ["  bare: claimed and written in batches", spread(rates.bare), `perdure ${number(median(rates.ratio))} ×`],
    ]),
  );
}

async function perSecond(count: number, work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (count * 1000) / (performance.now() - start);
}

const startMany = (perdure: Perdure, count: number): Promise<unknown> =>
  Promise.all(Array.from({ length: count }, () => perdure.start(oneStep, 1)));

async function drainOnce(lab: Lab, schema: string): Promise<void> {
  const worker = await lab.engine(schema, { workflows: [oneStep], worker: { concurrency: 200 } });
  const left = `select exists (select from ${schema}.ready)
    or exists (select from ${schema}.worker w where ${schema}.holds_runs(w.id)) as left`;
  while ((await lab.sql(left))[0].left) await new Promise((resolve) => setTimeout(resolve, 10));
  await worker.shutdown();
}

async function drainBare(bare: Bare, client: pg.Client): Promise<void> {
  for (;;) {
    const keys = await bare.claimBatch(client, oneStep.name, 200);
    if (keys.length === 0) return;
    await bare.finishBatch(client, keys, 1);
  }
}
