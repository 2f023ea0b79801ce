/** Commands that cross with a claim, a finish, a start, a crash or one another: whatever commits first, both tell the truth. */
import { test } from "tap";
import { currentStep, event, sleep, start, step, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";
import { FaultyProxy } from "../support/proxy.ts";
import { blockedIn, type Sql, stranger } from "../support/stranger.ts";

const patient = { timeout: PATIENCE_MS };
const go = event<string>("go");
const waiting = workflow("waiting", async (_n: number) => (await go.wait()).data);

/** Ends a run as its claim does, in a transaction that is still open. */
async function finishing(sql: Sql, id: string, state: "completed" | "failed", value: unknown): Promise<void> {
  const finish = `select * from :SCHEMA.finish_runs((select array_agg(key) from :SCHEMA.run where id = $1),
    (select array_agg(epoch) from :SCHEMA.run where id = $1), array[$2], array[$3], array[$4], true)`;
  await sql(finish, [id, state, JSON.stringify(value), state === "failed" ? "[]" : null]);
}

const stateOf = async ({ sql }: Bench, id: string): Promise<unknown> =>
  (await sql("select state from :SCHEMA.run where id = $1", [id]))[0]?.state;

test("a retry that crosses the failure of its run finds it whole: the error is kept, and the next end is stored", async (t) => {
  const inside = gate();
  const hold = gate();
  const flow = workflow("flow", async () => {
    inside.open();
    await hold.opened;
    return "well";
  });
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await inside.opened;
  const sql = await stranger(t, b);
  await sql("begin");
  await finishing(sql, run.id, "failed", { error: { name: "Error", message: "no" } });
  const retried = run.retry();
  await blockedIn(b, "retry_runs");
  await sql("commit");
  await retried;
  hold.open();
  t.equal(await run.result(patient), "well");
  t.equal((await b.sql("select from :SCHEMA.round")).length, 1);
  t.equal((await run.status()).attempt, 2);
});

test("a cancel that crosses the end of its run cancels nothing below it", async (t) => {
  const inside = gate();
  const hold = gate();
  const parent = workflow("parent", async () => {
    await start(waiting.with({ id: "child" }), 1);
    inside.open();
    await hold.opened;
  });
  const b = await bench(t, { workflows: [parent, waiting] });
  t.teardown(() => hold.open());
  const run = await b.perdure.start(parent.with({ id: "parent" }));
  await inside.opened;
  await reaches(b.perdure.get("child"), "suspended");
  const sql = await stranger(t, b);
  await sql("begin");
  await finishing(sql, "parent", "completed", { json: 1 });
  const cancelled = rejection(run.cancel());
  await blockedIn(b, "cancel_runs");
  await sql("commit");
  t.match(await cancelled, { code: "PERDURE_STATE", message: /run "parent" is completed/ });
  t.equal(await stateOf(b, "child"), "suspended");
});

test("a cancel that crosses the start of a child takes the child along, also when another ends in the same moment", async (t) => {
  const inside = gate();
  const hold = gate();
  const busy = workflow("busy", async () => void (await hold.opened));
  const parent = workflow("parent", async () => {
    await start(busy.with({ id: "ends" }));
    inside.open();
    await hold.opened;
  });
  const b = await bench(t, { workflows: [parent, busy, waiting] });
  t.teardown(() => hold.open());
  const run = await b.perdure.start(parent.with({ id: "parent" }));
  await inside.opened;
  await reaches(b.perdure.get("ends"), "running");
  const sql = await stranger(t, b);
  await sql("begin");
  const [{ verdict }] = (await sql(
    `select s.verdict from :SCHEMA.run p, :SCHEMA.start_runs(array['begins'], array['waiting'], array['1'], array['default'], array[0::smallint],
      array[null::float8], array[null::float8], array[null::float8], array['{"json":[1]}'], array['h'], array[null::text], array[false], array[null::text],
      array[p.key], array[p.epoch], array[false], array[null::text], array[null::float8], array[false], null, array[]::text[], array[]::text[], array[]::text[],
      true) s where p.id = 'parent'`,
  )) as [{ verdict: string }];
  t.equal(verdict, "created");
  await finishing(sql, "ends", "completed", { json: 1 });
  const cancelled = run.cancel("enough");
  await blockedIn(b, "cancel_runs");
  await sql("commit");
  await cancelled;
  t.equal(await stateOf(b, "ends"), "completed");
  t.equal(await stateOf(b, "begins"), "cancelled");
  t.equal(await stateOf(b, "parent"), "cancelled");
});

test("a command that meets a deadlock is carried out all the same", async (t) => {
  const family = workflow("family", async () => waiting.with({ id: "child" })(1));
  const b = await bench(t, { workflows: [family, waiting] });
  const run = await b.perdure.start(family.with({ id: "parent" }));
  await reaches(b.perdure.get("child"), "suspended");
  await reaches(run, "suspended");
  const sql = await stranger(t, b);
  // Patient: it is the command's transaction that the server gives up.
  await sql("begin");
  await sql("set local deadlock_timeout = '60s'");
  await sql("select from :SCHEMA.run where id = 'child' for no key update");
  const cancelled = run.cancel("enough");
  await blockedIn(b, "cancel_runs");
  await sql("select from :SCHEMA.run where id = 'parent' for no key update");
  await sql("commit");
  await cancelled;
  t.equal(await stateOf(b, "child"), "cancelled");
  t.equal(await stateOf(b, "parent"), "cancelled");
});

test("a wake that crosses the beginning of a sleep ends it, also when the sleep is written twice because an answer was lost", async (t) => {
  const inside = gate();
  const hold = gate();
  const flow = workflow("flow", async () => {
    inside.open();
    await hold.opened;
    return sleep("1h");
  });
  const b = await bench(t, { workflows: [flow] });
  t.teardown(() => hold.open());
  const run = await b.perdure.start(flow);
  await inside.opened;
  const sql = await stranger(t, b);
  await sql("begin");
  await sql(`select * from :SCHEMA.run r, :SCHEMA.begin_waits(array[r.key], array[r.epoch], array['sleep:#0'], array[1], array['sleep'],
    array['["sleep:"]'], array[3600000::float8], array[null::float8], array[0], true)`);
  const woken = run.wake();
  await blockedIn(b, "wake_runs");
  await sql("commit");
  await woken;
  hold.open();
  t.same(await run.result(patient), { woken: true });
});

test("a run whose step waits for its next try is paused at once, tries nothing meanwhile, and keeps its count", async (t) => {
  const attempts: number[] = [];
  const weak = step({ name: "weak", retry: { type: "fixed", maxAttempts: 3, delay: "1h" } }, async () => {
    attempts.push(currentStep().attempt);
    if (attempts.length < 3) throw new Error("no luck");
    return "well";
  });
  const hold = gate();
  const beside = step("beside", async () => hold.opened);
  const flow = workflow("flow", async () => (await Promise.all([weak(), beside()]))[0]);
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await eventually(async () => (await b.sql("select from :SCHEMA.wait where kind = 'retry'")).length === 1);
  // Both in one statement: the look that finds the pause finds the timer due.
  await b.sql(`with due as (update :SCHEMA.wait set due = due - interval '2h', started_at = started_at - interval '2h')
    select * from :SCHEMA.pause_runs(array['${run.id}'])`);
  t.equal((await run.status()).state, "running", "the step beside it goes on");
  hold.open();
  await reaches(run, "paused");
  t.same(attempts, [1]);
  await run.resume();
  await eventually(() => attempts.length === 2);
  await reaches(run, "suspended");
  await run.pause();
  t.equal((await run.status()).state, "paused");
  await b.advance(3_600_000);
  await run.resume();
  t.equal(await run.result(patient), "well");
  t.same(attempts, [1, 2, 3]);
});

test("a run that is to be paused when its process dies is paused, not lost, and goes on after resume", async (t) => {
  const inside = gate();
  const hold = gate();
  let times = 0;
  const first = step("first", async () => {
    times += 1;
    inside.open();
    if (times === 1) await hold.opened;
    return times;
  });
  const flow = workflow("flow", async () => first());
  const b = await bench(t, { workflows: [flow], worker: false });
  const proxy = await FaultyProxy.open({ host: new URL(b.url).hostname, port: Number(new URL(b.url).port) });
  const database = Object.assign(new URL(b.url), { port: `${proxy.port}` }).href;
  const dying = await b.another({ database, worker: {} });
  t.teardown(() => proxy.close());
  t.teardown(() => hold.open());
  const run = await dying.start(flow.with({ id: "run" }));
  await inside.opened;
  const seen = b.perdure.get(flow, run.id);
  await seen.pause();
  proxy.mode = "refuse";
  proxy.cut();
  const heir = await b.another({ worker: {} });
  await reaches(seen, "paused");
  await seen.resume();
  t.equal(await heir.get(flow, run.id).result(patient), 2);
});

test("a pause that crosses the suspension of its run pauses it, whichever commits first", async (t) => {
  const flow = workflow("flow", async (_n: number) => (await go.wait()).data);
  const b = await bench(t, { workflows: [flow] });
  const another = await b.another();
  const ids = Array.from({ length: 200 }, (_, n) => `run ${n}`);
  await Promise.all(
    ids.map(async (id, n) => {
      await b.perdure.start(flow.with({ id }), n);
      await another.get(id).pause();
    }),
  );
  await eventually(
    async () => (await b.sql("select from :SCHEMA.run where state <> 'paused'")).length === 0,
    PATIENCE_MS,
  );
  await b.perdure.send(ids, go, "on");
  t.equal((await b.sql("select from :SCHEMA.run where state = 'paused'")).length, ids.length);
  await Promise.all(ids.map((id) => another.get(id).resume()));
  for (const id of ids) t.equal(await b.perdure.get(flow, id).result(patient), "on");
});
