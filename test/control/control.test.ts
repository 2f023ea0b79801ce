/** Control from outside: pause, resume, retry, fork, and what each refuses. */
import { test } from "tap";
import { event, RunFailedError, sleep, start, step, workflow } from "../../lib/index.ts";
import { bench, coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const patient = { timeout: PATIENCE_MS };
const go = event<string>("go");

test("a pause during a step keeps its result, begins no further step, and resume goes on after it", async (t) => {
  const inside = gate();
  const let_go = gate();
  const calls: string[] = [];
  const first = step("first", async () => {
    calls.push("first");
    inside.open();
    await let_go.opened;
    return 1;
  });
  const second = step("second", async () => {
    calls.push("second");
    return 2;
  });
  const flow = workflow("flow", async () => (await first()) + (await second()));
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await inside.opened;
  await run.pause();
  t.equal((await run.status()).state, "running", "the attempt in flight goes on");
  let_go.open();
  await reaches(run, "paused");
  t.same(calls, ["first"]);
  t.equal((await b.sql("select from :SCHEMA.checkpoint")).length, 1);
  await run.pause();
  await run.resume();
  t.equal(await run.result(patient), 3);
  t.same(calls, ["first", "second"]);
});

test("a pause that is taken back while a step runs leaves nothing behind", async (t) => {
  const inside = gate();
  const let_go = gate();
  const first = step("first", async () => {
    inside.open();
    await let_go.opened;
  });
  const second = step("second", async () => "done");
  const flow = workflow("flow", async () => {
    await first();
    return second();
  });
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await inside.opened;
  await run.pause();
  await run.resume();
  let_go.open();
  t.equal(await run.result(patient), "done");
});

test("timers and mail go on counting while a run is paused, and are honoured after resume", async (t) => {
  const flow = workflow("flow", async () => {
    const slept = sleep("1h");
    const { data } = await go.wait();
    await slept;
    return data;
  });
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await reaches(run, "suspended");
  await run.pause();
  t.match(await run.status(), { state: "paused", waitingFor: null });
  await run.send(go, "mail");
  await b.advance(3_600_000);
  t.equal((await run.status()).state, "paused");
  await run.resume();
  t.equal(await run.result(patient), "mail");
});

test("a pending run is paused as it is: a delayed start keeps its time and does not begin at it", async (t) => {
  const flow = workflow("flow", async () => "ran");
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow.with({ delay: "1h" }));
  await run.pause();
  await b.advance(1_800_000);
  await run.resume();
  t.match(await run.status(), { state: "pending", waitingFor: "start" });
  await run.pause();
  await b.advance(3_600_000);
  t.equal((await run.status()).state, "paused");
  await run.resume();
  t.equal(await run.result(patient), "ran");
});

test("a paused run may be cancelled", async (t) => {
  const flow = workflow("flow", async () => go.wait());
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await reaches(run, "suspended");
  await run.pause();
  await run.cancel("over");
  t.equal((await run.status()).state, "cancelled");
});

test("a failed run is retried from what failed; what else is recorded stays", async (t) => {
  let broken = true;
  const calls: string[] = [];
  const good = step("good", async () => calls.push("good"));
  const bad = step("bad", async () => {
    calls.push("bad");
    if (broken) throw new Error("not yet");
    return "well";
  });
  const flow = workflow("flow", async () => {
    await good();
    return bad();
  });
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  t.ok((await rejection(run.result(patient))).error instanceof RunFailedError);
  broken = false;
  await run.retry();
  t.equal(await run.result(patient), "well");
  t.same(calls, ["good", "bad", "bad"]);
  t.equal((await run.status()).attempt, 2);
});

test("a failure of the body's own is retried too, also after another retry", async (t) => {
  let times = 0;
  const one = step("one", async () => 1);
  const flow = workflow("flow", async () => {
    const n = await one();
    times += 1;
    if (times < 3) throw new Error(`time ${times}`);
    return n;
  });
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await rejection(run.result(patient));
  await run.retry();
  t.match((await rejection(run.result(patient))).message, /time 2/);
  await run.retry();
  t.equal(await run.result(patient), 1);
});

test("a blocked run is retried: strictly it blocks again, flexibly it goes on", async (t) => {
  let old = true;
  const a = step("a", async () => "a");
  const c = step("c", async () => "c");
  const flow = workflow("flow", async () => {
    const first = old ? await a() : await c();
    await go.wait();
    return first;
  });
  const b = await coldBench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await reaches(run, "suspended");
  old = false;
  await run.send(go, "on");
  await reaches(run, "blocked");
  await run.retry();
  await reaches(run, "blocked");
  await run.retry({ replay: "flexible" });
  t.equal(await run.result(patient), "c");
});

test("fork makes a new run with the history up to a step, which runs again", async (t) => {
  const calls: string[] = [];
  const make = (name: string) => step(name, async (n: number) => calls.push(`${name} ${n}`));
  const [one, two, three] = [make("one"), make("two"), make("three")];
  const child = workflow("child", async () => "grown");
  const flow = workflow("flow", async (n: number) => {
    await one(n);
    const handle = await start(child);
    await two(n);
    await three(n);
    return handle.result();
  });
  const b = await bench(t, { workflows: [flow, child] });
  const run = await b.perdure.start(flow, 7);
  t.equal(await run.result(patient), "grown");
  const forked = await run.fork({ from: "two" });
  t.not(forked.id, run.id);
  t.equal(await forked.result(patient), "grown");
  t.same(calls, ["one 7", "two 7", "three 7", "two 7", "three 7"]);
  t.equal((await b.sql("select from :SCHEMA.run where workflow = 'child'")).length, 1, "the child is shared");
  const slot = (await b.sql("select slot from :SCHEMA.steps where run_id = $1 and name = 'three'", [run.id]))[0].slot;
  const again = await run.fork({ from: slot, id: "mine" });
  t.equal(again.id, "mine");
  await again.result(patient);
  t.same(calls.slice(5), ["three 7"]);
  t.match(await rejection(run.fork({ from: "tow" })), { code: "PERDURE_NOT_FOUND", message: /did you mean "two"\?/ });
  t.match(await rejection(run.fork({ from: "two", id: "mine" })), { code: "PERDURE_CONFLICT" });
  t.match(await rejection(b.perdure.get("none").fork({ from: "two" })), { code: "PERDURE_NOT_FOUND" });
});

test("a command that the state does not allow says from where, to what, and what is allowed", async (t) => {
  const flow = workflow("flow", async () => 1);
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow.with({ id: "done" }));
  await run.result(patient);
  const said = async (promise: Promise<unknown>) => (await rejection(promise)).message;
  t.equal(
    await said(run.pause()),
    'run "done" is completed, so it cannot be paused; only a pending, running or suspended run can',
  );
  t.equal(await said(run.resume()), 'run "done" is completed, so it cannot be resumed; only a paused run can');
  t.equal(
    await said(run.retry()),
    'run "done" is completed, so it cannot be retried; only a failed or blocked run can',
  );
  t.match(await said(run.cancel()), /is completed, so it cannot be cancelled/);
  for (const verb of ["pause", "resume", "retry", "wake", "cancel"] as const) {
    t.match(await rejection(b.perdure.get("nobody")[verb]()), {
      code: "PERDURE_NOT_FOUND",
      message: /there is no run "nobody"/,
    });
  }
  await eventually(async () => true);
});
