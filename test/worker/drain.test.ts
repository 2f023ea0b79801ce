/** drain(): what is due is worked off, and then it returns; for hosts that run for a while only. */
import { test } from "tap";
import { currentStep, event, runStep, sleep, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const go = event("go");
const double = workflow("double", async (n: number) => n * 2);
const parent = workflow("parent", async (n: number) => {
  const doubled = await double(n);
  await sleep("1h");
  await go.wait();
  return doubled;
});
const patient = { timeout: PATIENCE_MS };

test("an engine that does not work takes nothing by itself, and drains what is due when it is told to", async (t) => {
  const b = await bench(t, { workflows: [parent, double], worker: false });
  const run = await b.perdure.start(parent, 4);
  const others = await Promise.all([1, 2, 3].map((n) => b.perdure.start(double, n)));
  t.equal((await run.status()).state, "pending");
  const first = await b.perdure.drain();
  t.same(await Promise.all(others.map((other) => other.result(patient))), [2, 4, 6]);
  t.match(await run.status(), { state: "suspended", waitingFor: "sleep" });
  t.ok(first.runs >= 5, "a run, its child, and three others");
  t.ok(first.next!.getTime() > Date.now() + 3_000_000, "the sleep is the next timer");
  t.match(await b.perdure.drain(), { runs: 0 }, "nothing is due");
  await b.advance(3_600_000);
  await run.send(go, null);
  t.match(await b.perdure.drain(), { next: null });
  t.equal(await run.result(patient), 8);
});

test("at most so many runs are taken, and the next drain goes on", async (t) => {
  const b = await bench(t, { workflows: [double], worker: false });
  const runs = await Promise.all(Array.from({ length: 10 }, (_, n) => b.perdure.start(double, n)));
  t.match(await b.perdure.drain({ max: 4 }), { runs: 4 });
  const states = (await Promise.all(runs.map((run) => run.status()))).map(({ state }) => state);
  t.equal(states.filter((state) => state === "completed").length, 4);
  t.match(await b.perdure.drain(), { runs: 6, next: null });
});

test("after the deadline no step begins; the one in flight is recorded, and the run is free for others at once", async (t) => {
  const inside = gate();
  const end = gate();
  const calls: string[] = [];
  const first = step("first", async () => {
    calls.push("first");
    inside.open();
    await end.opened;
  });
  const second = step("second", async () => calls.push("second"));
  const flow = workflow("flow", async () => {
    await first();
    await second();
  });
  const b = await bench(t, { workflows: [flow], worker: false });
  const run = await b.perdure.start(flow);
  const draining = b.perdure.drain({ deadline: 50 });
  await inside.opened;
  setTimeout(end.open, 100);
  await draining;
  await reaches(run, "pending");
  t.same(calls, ["first"]);
  const { rows } = { rows: await b.sql("select worker, crashes from :SCHEMA.run") };
  t.same(rows, [{ worker: null, crashes: 0 }]);
  await b.perdure.drain();
  await run.result(patient);
  t.same(calls, ["first", "second"]);
});

test("drains that are asked for together go one after the other, and find what is left", async (t) => {
  const b = await bench(t, { workflows: [double], worker: false });
  await Promise.all(Array.from({ length: 20 }, (_, n) => b.perdure.start(double, n)));
  const drained = await Promise.all([b.perdure.drain({ max: 5 }), b.perdure.drain(), b.perdure.drain()]);
  t.same(
    drained.map(({ runs }) => runs),
    [5, 15, 0],
  );
});

test("a drain that waits for another one no longer than its deadline takes up nothing, and the next one goes on", async (t) => {
  const [inside, end] = [gate(), gate()];
  const held = workflow("held", () =>
    runStep("hold", () => {
      inside.open();
      return end.opened;
    }),
  );
  const b = await bench(t, { workflows: [held, double], worker: false });
  await b.perdure.start(held);
  const first = b.perdure.drain();
  await inside.opened;
  const run = await b.perdure.start(double, 1);
  // Some timers fire a moment early: such a drain must not take part in the first one's work either.
  for (let deadline = 1; deadline <= 40; deadline++) t.match(await b.perdure.drain({ deadline }), { runs: 0 });
  t.match(await b.perdure.drain({ deadline: new Date(0) }), { runs: 0 });
  const last = b.perdure.drain();
  end.open();
  t.ok((await first).runs >= 1);
  await last;
  t.equal((await run.status()).state, "completed");
});

test("a drain that a shutdown ends early returns, or says that the engine was shut down", async (t) => {
  const inside = gate();
  const held = workflow("held", () =>
    runStep("hold", async () => {
      inside.open();
      await new Promise((done) => currentStep().signal.addEventListener("abort", done));
    }),
  );
  const b = await bench(t, { workflows: [held], worker: false });
  await b.perdure.start(held);
  const drained = b.perdure.drain().then(
    () => "PERDURE_STATE",
    (error) => error.code,
  );
  await inside.opened;
  await b.perdure.shutdown({ timeout: 50 });
  t.equal(await drained, "PERDURE_STATE");
});

test("an engine that works drains too: it returns when nothing is due any more", async (t) => {
  const b = await bench(t, { workflows: [double] });
  const runs = await Promise.all(Array.from({ length: 20 }, (_, n) => b.perdure.start(double, n)));
  await b.perdure.drain();
  const states = await Promise.all(runs.map((run) => run.status()));
  t.ok(states.every(({ state }) => state === "completed"));
});

test("what drain cannot be told is refused by name", async (t) => {
  const b = await bench(t, { workflows: [double], worker: false });
  t.match((await rejection(b.perdure.drain({ max: 0 }))).message, /max of drain\(\)/);
  t.match((await rejection(b.perdure.drain({ deadline: "soon" as never }))).message, /deadline of drain\(\)/);
  t.match((await rejection(b.perdure.drain({ limit: 1 } as never))).message, /did you mean|limit/);
});
