/** The slots of a process: what finds none free is taken up when one is. */
import { test } from "tap";
import { start, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { PATIENCE_MS } from "../support/gate.ts";

/** Behind a few polls, which come every three seconds. */
const ROUNDS = 10;
const SLOW_MS = 10_000;

test("a run that finds no slot free is taken up as soon as one is, and not at the next poll", async (t) => {
  const short = workflow("short", async (_n: number) => {});
  const { perdure } = await bench(t, { workflows: [short], worker: { concurrency: 1 } });
  const begun = performance.now();
  for (let round = 0; round < ROUNDS; round += 1) {
    const runs = await Promise.all([1, 2, 3].map((n) => perdure.start(short, n)));
    await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })));
  }
  t.ok(performance.now() - begun < SLOW_MS, `${Math.round(performance.now() - begun)} ms`);
});

test("children beyond the free slots are taken up as soon as one is free, and not at the next poll", async (t) => {
  const short = workflow("short", async (_n: number) => {});
  const parent = workflow("parent", async () => {
    const children = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => start(short, n)));
    await Promise.all(children.map((child) => child.result()));
  });
  const { perdure } = await bench(t, { workflows: [parent, short], worker: { concurrency: 4 } });
  const begun = performance.now();
  for (let round = 0; round < ROUNDS; round += 1) {
    await (await perdure.start(parent)).result({ timeout: PATIENCE_MS });
  }
  t.ok(performance.now() - begun < SLOW_MS, `${Math.round(performance.now() - begun)} ms`);
});
