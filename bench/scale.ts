/**
 * Does what has gathered in the tables slow the work? The drain of 10,000 runs by one process with an empty schema, beside 200,000 pending
 * runs of a workflow that it does not serve, before 200,000 that it does, beside 1,000,000 finished runs, and beside 200,000 suspended
 * ones with a timer. Takes minutes; asked by name only.
 */
import { setTimeout as pause } from "node:timers/promises";
import { median, number, spread, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";
import { oneStep } from "./throughput.ts";

const RUNS = 10_000;
const ROUNDS = 5;

const COLUMNS = "id, workflow, version, queue, priority, state, ready_at, due, topics, created_at, finished_at";
const LATER = "now() + g * interval '1 second' + interval '1 day'";
const AMONG: Readonly<Record<string, string>> = {
  "an empty schema": "",
  "200,000 pending, not served here":
    "'other', '1', 'default', 0, 'pending', now(), null::timestamptz, null::text[], now(), null::timestamptz from generate_series(1, 200000) g",
  "200,000 pending, served after these":
    "'one-step', '1', 'default', 9, 'pending', now(), null::timestamptz, null::text[], now(), null::timestamptz from generate_series(1, 200000) g",
  "200,000 suspended with a timer": `'one-step', '1', 'default', 0, 'suspended', null::timestamptz, ${LATER}, array['sleep:'], now(), null::timestamptz from generate_series(1, 200000) g`,
  "1,000,000 finished":
    "'one-step', '1', 'default', 0, 'completed', null::timestamptz, null::timestamptz, null::text[], now(), now() from generate_series(1, 1000000) g",
};

export async function scale(lab: Lab): Promise<void> {
  const schemas: [string, string][] = [];
  for (const [name, rows] of Object.entries(AMONG)) schemas.push([name, await filled(lab, rows)]);
  const rates = new Map<string, number[]>(schemas.map(([name]) => [name, []]));
  for (let round = -1; round < ROUNDS; round += 1) {
    // Each round begins with another.
    for (let turn = 0; turn < schemas.length; turn += 1) {
      const [name, schema] = schemas[(turn + round + 1) % schemas.length]!;
      const rate = await drainSome(lab, schema);
      if (round >= 0) rates.get(name)!.push(rate);
    }
  }
  const [[, empty]] = [...rates] as [[string, number[]]];
  const rows = [...rates].map(([name, of]) => {
    const ratios = of.map((rate, round) => rate / empty[round]!);
    return [name, spread(of), `${number(median(ratios))} ×`];
  });
  lab.print(table([["drained among", "runs/s", "of an empty schema's"], ...rows]));
}

/** A schema with these runs in it, each with its input and, where it has finished, a checkpoint and an outcome. */
async function filled(lab: Lab, rows: string): Promise<string> {
  const schema = await lab.schema();
  if (rows) await lab.sql(`insert into ${schema}.run (${COLUMNS}) select gen_random_uuid(), ${rows}`);
  await lab.sql(
    `insert into ${schema}.ready select workflow, version, queue, priority, ready_at, key, 0 from ${schema}.run where ready_at is not null`,
  );
  await lab.sql(`insert into ${schema}.input (run, args, hash) select key, '{"json":[1]}', 'h' from ${schema}.run`);
  await lab.sql(
    `insert into ${schema}.outcome (run, value) select key, '{"json":2}' from ${schema}.run where finished_at is not null`,
  );
  await lab.sql(`insert into ${schema}.checkpoint
    select key, 'step:one#0', 1, 1, 'step', 'one', 'completed', '{"json":2}', null, 1, 1, now(), now() from ${schema}.run where finished_at is not null`);
  for (const name of ["run", "ready", "input", "outcome", "checkpoint"])
    await lab.sql(`vacuum analyze ${schema}.${name}`);
  return schema;
}

async function drainSome(lab: Lab, schema: string): Promise<number> {
  const starter = await lab.engine(schema, { worker: false });
  await Promise.all(Array.from({ length: RUNS }, () => starter.start(oneStep, 1)));
  await starter.shutdown();
  const left = `select exists (select from ${schema}.ready where workflow = 'one-step' and version = '1' and queue = 'default' and priority = 0) as left`;
  const start = performance.now();
  const worker = await lab.engine(schema, { workflows: [oneStep], worker: { concurrency: 200 } });
  while ((await lab.sql(left))[0].left) await pause(10);
  const rate = (RUNS * 1000) / (performance.now() - start);
  await worker.shutdown();
  return rate;
}
