/** The process whose memory is measured: makes so many runs wait for an event, tells what each keeps here, then works off a long run. */
import { event, Perdure, step, workflow } from "../lib/index.ts";
import { countStatements, perSecond } from "./support/statements.ts";

const CHUNK = 100;
const news = event("news");
const addOne = step("add-one", async (n: number) => n + 1);
let arrived: (() => void) | undefined;

const waiting = workflow("waiting", async (_n: number) => news.wait());
const long = workflow("long", async (steps: number) => {
  for (let at = 0; at < steps; at += CHUNK) {
    await Promise.all(Array.from({ length: Math.min(CHUNK, steps - at) }, (_, i) => addOne(at + i)));
  }
  await news.wait();
  arrived?.();
});

const suspended = (perdure: Perdure, id: string): Promise<boolean> =>
  perdure
    .get(id)
    .status()
    .then(({ state }) => state === "suspended");

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function makeWait(perdure: Perdure, from: number, count: number): Promise<void> {
  for (let at = from; at < from + count; at += 500) {
    const ids = Array.from({ length: 500 }, (_, i) => `waiting-${at + i}`);
    await Promise.all(ids.map((id, i) => perdure.start(waiting.with({ id }), at + i)));
    await Promise.all([ids[0]!, ids.at(-1)!].map((id) => until(() => suspended(perdure, id))));
  }
  // The last to be claimed is not always the last to wait.
  await new Promise((resolve) => setTimeout(resolve, 1000));
}

async function held(): Promise<{ heap: number; rss: number }> {
  for (let at = 0; at < 5; at += 1) {
    globalThis.gc!();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heap: heapUsed + external, rss };
}

/** Runs up to the wait after so many steps, then resumes: how long each takes, and how much memory the resumption at most. */
async function longRun(
  perdure: Perdure,
  steps: number,
): Promise<{ steps: number; run: number; resume: number; peak: number }> {
  const id = `long-${steps}`;
  const start = performance.now();
  await perdure.start(long.with({ id }), steps);
  await until(() => suspended(perdure, id));
  const run = performance.now() - start;
  const { heap } = await held();
  let peak = 0;
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().heapUsed - heap);
  }, 20);
  const sent = performance.now();
  const there = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  await perdure.send(id, news);
  await there;
  clearInterval(watch);
  return { steps, run, resume: performance.now() - sent, peak };
}

if (process.send) {
  const [database, schema, runs] = process.argv.slice(2) as [string, string, string];
  const counter = countStatements();
  const perdure = new Perdure({ database, schema, workflows: [waiting, long], worker: { concurrency: 200, warm: 0 } });
  await perdure.launch();
  await makeWait(perdure, 0, 2000);
  const before = await held();
  await makeWait(perdure, 2000, Number(runs));
  const after = await held();
  const { statements } = await perSecond(counter, 5);
  const longRuns = [];
  for (const steps of [2500, 5000, 10_000, 100_000]) longRuns.push(await longRun(perdure, steps));
  process.send({
    bytes: (after.heap - before.heap) / Number(runs),
    rss: (after.rss - before.rss) / Number(runs),
    statements,
    longRuns,
  });
  await perdure.shutdown();
  process.disconnect();
}
