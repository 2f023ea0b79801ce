/** Forks of runs with a past: retried, running, failed, parallel, with children unfinished, accepted as they diverged. */
import { test } from "tap";
import { event, start, step, uuid, workflow } from "../../lib/index.ts";
import { bench, coldBench } from "../support/engine.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const patient = { timeout: PATIENCE_MS };
const go = event<string>("go");

test("a fork of a retried run knows what was set aside: what only the failed attempt asked for is not missed", async (t) => {
  const calls: string[] = [];
  let broken = true;
  const make = (name: string) => step(name, async () => calls.push(name));
  const [before, cleanup, after] = [make("before"), make("cleanup"), make("after")];
  const charge = step("charge", async () => {
    calls.push("charge");
    if (broken) throw new Error("declined");
  });
  const flow = workflow("flow", async () => {
    await before();
    try {
      await charge();
    } catch (error) {
      await cleanup();
      broken = false;
      throw error;
    }
    await after();
    return "done";
  });
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow.with({ retry: { type: "fixed", maxAttempts: 2, delay: 1 } }));
  t.equal(await run.result(patient), "done");
  t.same(calls, ["before", "charge", "cleanup", "charge", "after"]);
  const forked = await run.fork({ from: "after" });
  t.equal(await forked.result(patient), "done");
  t.same(calls.splice(0), ["before", "charge", "cleanup", "charge", "after", "after"]);
  const again = await forked.fork({ from: "after" });
  t.equal(await again.result(patient), "done");
  t.same(calls.splice(0), ["after"], "a fork of a fork");
  const first = await run.fork({ from: "before" });
  t.equal(await first.result(patient), "done");
  t.same(calls.splice(0), ["before", "charge", "after"], "from before the failure, nothing of it is left");
  t.equal((await first.status()).attempt, 1);
});

test("a fork from within a Promise.all runs again what was recorded after it, and keeps what was before", async (t) => {
  const calls: string[] = [];
  const gates = { a: gate(), b: gate(), c: gate() };
  const one = step("one", async (name: "a" | "b" | "c") => {
    calls.push(name);
    await gates[name].opened;
    return name;
  });
  const flow = workflow("flow", async () => Promise.all([one("a"), one("b"), one("c")]));
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  for (const name of ["c", "b", "a"] as const) {
    gates[name].open();
    const slots = () => b.sql("select slot from :SCHEMA.steps where outcome = 'completed' order by finished_at");
    while ((await slots()).length < ["c", "b", "a"].indexOf(name) + 1) await Promise.resolve();
  }
  t.same(await run.result(patient), ["a", "b", "c"]);
  const [{ slot }] = (await b.sql("select slot from :SCHEMA.steps order by finished_at offset 1 limit 1")) as [
    { slot: string },
  ];
  calls.length = 0;
  t.same(await (await run.fork({ from: slot })).result(patient), ["a", "b", "c"]);
  t.same(calls.toSorted(), ["a", "b"]);
});

test("a run that is still in work is forked, with children unfinished: both hear of their end", async (t) => {
  const inside = gate();
  const hold = gate();
  const calls: string[] = [];
  const first = step("first", async () => calls.push("first"));
  const slow = step("slow", async () => {
    calls.push("slow");
    inside.open();
    await hold.opened;
  });
  const child = workflow("child", async () => (await go.wait()).data);
  const flow = workflow("flow", async () => {
    const handle = await start(child);
    await first();
    await slow();
    return handle.result();
  });
  const b = await bench(t, { workflows: [flow, child] });
  t.teardown(() => hold.open());
  const run = await b.perdure.start(flow);
  await inside.opened;
  t.match(await rejection(run.fork({ from: "slow" })), { code: "PERDURE_NOT_FOUND" }, "nothing of it is recorded");
  const forked = await run.fork({ from: "first" });
  hold.open();
  await Promise.all([reaches(run, "suspended"), reaches(forked, "suspended")]);
  const [{ id }] = (await b.sql("select id from :SCHEMA.run where workflow = 'child'")) as [{ id: string }];
  await b.perdure.send(id, go, "grown");
  t.same(await Promise.all([run.result(patient), forked.result(patient)]), ["grown", "grown"]);
  t.same(calls, ["first", "slow", "first", "slow"]);
});

test("a failed run is forked from the step that failed; a run that was accepted as it diverged stays accepted", async (t) => {
  let deployed = "old";
  let broken = true;
  const called = step("called", async (code: string) => code);
  const weak = step("weak", async () => {
    if (broken) throw new Error("broken");
    return "well";
  });
  const flow = workflow("flow", async () => {
    await called(deployed);
    await go.wait();
    return weak();
  });
  const b = await coldBench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await reaches(run, "suspended");
  deployed = "new";
  await run.send(go, "on");
  await reaches(run, "blocked");
  await run.retry({ replay: "flexible" });
  t.match(await rejection(run.result(patient)), { code: "PERDURE_FAILED", message: /broken/ });
  broken = false;
  t.equal(await (await run.fork({ from: "weak" })).result(patient), "well");
  await run.cancel().catch(() => {});
  t.match((await run.status()).state, "failed", "the old run stays as it is");
});

test("a fork of a fork that went back further draws what its own line drew, each part as it was drawn", async (t) => {
  const mark = step("mark", async (n: number) => n);
  const flow = workflow("flow", async () => {
    const drawn: string[] = [];
    for (let n = 0; n < 4; n += 1) {
      await mark(n);
      drawn.push(uuid());
    }
    return drawn;
  });
  const { perdure } = await bench(t, { workflows: [flow] });
  const run = await perdure.start(flow);
  const a = await run.result(patient);
  const slots = (await run.history()).map(({ slot }) => slot);
  const late = await run.fork({ from: slots[3]! });
  t.same((await late.result(patient)).slice(0, 2), a.slice(0, 2));
  const early = await late.fork({ from: slots[2]! });
  const c = await early.result(patient);
  t.equal(c[0], a[0]);
  t.not(c[1], a[1]);
  const last = await early.fork({ from: slots[3]! });
  t.same((await last.result(patient)).slice(0, 2), c.slice(0, 2));
  const whole = await last.fork({ from: slots[0]! });
  t.not((await whole.result(patient))[0], a[0], "nothing was drawn before its first step");
});
