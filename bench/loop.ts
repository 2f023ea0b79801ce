/**
 * What does a turn of a loop over events cost? A run takes 1,000, 2,000 and 4,000 events, one after the other, each sent when the run waits
 * for it: time and commits a turn, with the run in memory between two turns and replayed at each. Then how soon a body goes on.
 */
import { event, type Perdure, workflow } from "../lib/index.ts";
import { median, number, percentiles, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";

const LENGTHS = [1000, 2000, 4000];
/** Replayed at each turn, a loop takes time by the square of its length. */
const COLD_LENGTHS = [250, 500, 1000];
const WAKES = 300;

const item = event<number>("item");
/** Tells how many turns the run has made. */
let turn: ((n: number) => void) | undefined;
const loop = workflow("loop", async (count: number) => {
  for (let n = 0; n < count; n += 1) {
    const { data } = await item.wait();
    turn?.(data);
  }
});

export async function loops(lab: Lab): Promise<void> {
  const [warm, cold] = [await engine(lab, 1000), await engine(lab, 0)];
  const rows = [["one loop", "s", "ms/turn", "commits/turn"]];
  for (const length of LENGTHS) rows.push(await timed(lab, warm, `${length} turns, warm`, length));
  for (const length of COLD_LENGTHS) rows.push(await timed(lab, cold, `${length} turns, replayed`, length));
  lab.print(table(rows));
  const times = { warm: [] as number[], cold: [] as number[] };
  const [inMemory, replayed] = [await warm.start(loop, WAKES + 20), await cold.start(loop, WAKES + 20)];
  for (let n = -20; n < WAKES; n += 1) {
    // In turn, so that both see the same machine.
    const ms = { warm: await wake(warm, inMemory.id, n), cold: await wake(cold, replayed.id, n) };
    if (n < 0) continue;
    times.warm.push(ms.warm);
    times.cold.push(ms.cold);
  }
  lab.print(
    table([
      ["send → body goes on, ms: p50 / p95 / p99", ""],
      ["warm", percentiles(times.warm)],
      [`replayed, up to ${WAKES} turns`, percentiles(times.cold)],
      ["warm ÷ replayed", number(median(times.warm) / median(times.cold))],
    ]),
  );
}

const engine = async (lab: Lab, warm: number): Promise<Perdure> =>
  lab.engine(await lab.schema(), { workflows: [loop], worker: { warm } });

async function timed(lab: Lab, perdure: Perdure, name: string, length: number): Promise<string[]> {
  const run = await perdure.start(loop, length);
  await suspended(perdure, run.id);
  const before = await commits(lab);
  const start = performance.now();
  for (let n = 0; n < length; n += 1) await turned(perdure, run.id, n);
  const seconds = (performance.now() - start) / 1000;
  await run.result();
  const made = (await commits(lab)) - before;
  return [name, number(seconds), number((seconds * 1000) / length), number(made / length)];
}

/** Sends one event, and waits for the turn that takes it. */
async function turned(perdure: Perdure, id: string, n: number): Promise<void> {
  const there = new Promise<void>((resolve) => {
    turn = (got) => {
      if (got === n) resolve();
    };
  });
  await perdure.send(id, item, n);
  await there;
}

/** How long from the send to the body, of a run that is suspended. */
async function wake(perdure: Perdure, id: string, n: number): Promise<number> {
  await suspended(perdure, id);
  const start = performance.now();
  await turned(perdure, id, n);
  return performance.now() - start;
}

async function suspended(perdure: Perdure, id: string): Promise<void> {
  while ((await perdure.get(id).status()).state !== "suspended") await new Promise((resolve) => setTimeout(resolve, 1));
}

/** Of this database: what else happens in it counts too, so that the figures are for a quiet one. */
async function commits(lab: Lab): Promise<number> {
  // A session tells of its commits at most once a second.
  await new Promise((resolve) => setTimeout(resolve, 1200));
  const [row] = await lab.sql(
    "select xact_commit::float8 as n from pg_stat_database where datname = current_database()",
  );
  return row.n;
}
