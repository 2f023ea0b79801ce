/** What a stranger's programs found of children, values, schedules, control and SQL: each is one promise that did not hold. */
import pg from "pg";
import { test } from "tap";
import {
  currentRun,
  event,
  now,
  type Perdure,
  patched,
  random,
  runStep,
  schedule,
  step,
  transaction,
  uuid,
  workflow,
} from "../lib/index.ts";
import { coldBench } from "./support/engine.ts";
import { eventually } from "./support/eventually.ts";
import { reaches, rejection } from "./support/gate.ts";
import { freshSchema, inDatabase } from "./support/postgres.ts";

const patient = { timeout: "20s" } as const;

test("a fork repeats what the code drew before its step, the clock, uuid and random, and draws anew after it", async (t) => {
  const note = step("note", async (drawn: unknown) => drawn);
  const draw = () => [uuid(), random("dice"), now().getTime()];
  const drawing = workflow("drawing", async () => {
    const all = [];
    for (let n = 0; n < 4; n += 1) {
      all.push(await note(draw()));
      await runStep(`turn ${n}`, () => n);
    }
    return all;
  });
  const { perdure } = await coldBench(t, { workflows: [drawing] });
  const run = await perdure.start(drawing);
  const first = await run.result(patient);
  const forked = await run.fork({ from: "turn 2" });
  const second = await forked.result(patient);
  t.same(second.slice(0, 3), first.slice(0, 3));
  const again = await (await forked.fork({ from: "turn 1" })).result(patient);
  t.same(again.slice(0, 2), first.slice(0, 2), "a fork of a fork, from further back");
  const last = await (await forked.fork({ from: "turn 3" })).result(patient);
  t.same(last, second, "a fork of a fork, from further on");
  const ids = [first[3], second[3], again[2], again[3]].map((drawn) => (drawn as string[])[0]);
  t.equal(new Set(ids).size, 4, "no two of them draw the same id after the step");
});

test("a fork of a schedule's run knows the slot, and is no run of the schedule", async (t) => {
  const slotted = workflow("slotted", async () => {
    const slot = currentRun().scheduledFor?.getTime();
    await runStep(`for ${slot}`, () => 1);
    await runStep("end", () => 1);
    return slot;
  });
  const { perdure, sql } = await coldBench(t, { workflows: [slotted], application: "a" });
  await perdure.schedules.put(schedule("often", { every: "1s" }, slotted));
  await sql("update :SCHEMA.schedule set next_at = next_at - interval '1s', due_at = now()");
  const find = async () => (await perdure.list({ workflow: slotted })).runs[0]?.id;
  const id = await eventually(find, 20_000);
  await perdure.schedules.delete("often");
  const run = perdure.get<number>(id);
  const slot = await run.result(patient);
  t.ok(slot);
  const forked = await run.fork({ from: "end" });
  t.equal(await forked.result(patient), slot);
  t.same(await sql("select schedule from :SCHEMA.run where id = $1", [forked.id]), [{ schedule: null }]);
});

test("what fork cannot begin from is refused in words, and no run is made", async (t) => {
  const small = workflow("small", async () => {
    patched("by-mail");
    return runStep("only", () => 1);
  });
  const { perdure, sql } = await coldBench(t, { workflows: [small] });
  const run = await perdure.start(small);
  await run.result(patient);
  for (const [from, code] of [
    ["a\0b", "PERDURE_OPTION"],
    ["", "PERDURE_OPTION"],
    ["x".repeat(1_000_000), "PERDURE_NOT_FOUND"],
    ["patch:by-mail#0", "PERDURE_NOT_FOUND"],
  ] as const) {
    const refused = await rejection(run.fork({ from }));
    t.equal(refused.code, code, from.slice(0, 20));
    t.ok(refused.message.length < 300, refused.message);
    t.notMatch(refused.message, 'did you mean "patch:');
  }
  t.same(await sql("select count(*)::int as n from :SCHEMA.run"), [{ n: 1 }]);
});

test("a transaction that cancels its own run is rolled back and fails in words, and the run does not hang", async (t) => {
  let perdure!: Perdure;
  const undo = transaction("undo", async (tx) => {
    await tx.query(`insert into "${schema}".kept values (1)`);
    await perdure.using(tx).cancel(currentRun().id, "by itself");
  });
  const selfless = workflow("selfless", () => undo().catch((error) => error.message as string));
  const made = await coldBench(t, { workflows: [selfless] });
  const { schema, sql } = made;
  perdure = made.perdure;
  await sql("create table :SCHEMA.kept (n int)");
  t.match(await (await perdure.start(selfless)).result(patient), /ended its own run/);
  t.same(await sql("select * from :SCHEMA.kept"), []);
});

test("the session's DateStyle and the application's own type parsers change nothing that Perdure returns", async (t) => {
  const { url, schema } = await freshSchema(t);
  const parsers = [20, 21, 23, 114, 701, 1009, 1184].map((oid) => [oid, pg.types.getTypeParser(oid)] as const);
  t.teardown(() => {
    for (const [oid, parser] of parsers) pg.types.setTypeParser(oid, parser);
  });
  const odd = Object.assign(new URL(url), {
    search: "?options=-c%20datestyle%3DGerman%20-c%20extra_float_digits%3D0",
  }).href;
  const plain = workflow("plain", () => runStep("one", () => 1));
  const { perdure } = await coldBench(t, { workflows: [plain], database: odd, schema });
  for (const [oid] of parsers) pg.types.setTypeParser(oid, (text: string) => ({ text }));
  const run = await perdure.start(plain.with({ tags: ["a", "b"] }));
  t.equal(await run.result(patient), 1);
  await perdure.schedules.put(schedule("s", { every: "1h" }, plain));
  const status = await run.status();
  t.match(status, {
    attempt: 1,
    priority: 0,
    tags: ["a", "b"],
    createdAt: Date,
    startedAt: Date,
    finishedAt: Date,
    due: null,
  });
  t.ok(Math.abs(status.createdAt.getTime() - Date.now()) < 60_000);
  t.match(await perdure.list({ tags: ["a"] }), { runs: [status], next: null });
  t.match(await perdure.schedules.list(), [{ every: 3_600_000, nextAt: Date, lastSlot: null, paused: false }]);
  t.match(await run.history(), [{ name: "one", attempts: 1, startedAt: Date, finishedAt: Date }]);
});

test("runs that a stranger's transaction holds keep no other schedule from its slots", async (t) => {
  const hangs = workflow("hangs", () => event("never").wait());
  const quick = workflow("quick", async () => {});
  const { perdure, sql, url, schema } = await coldBench(t, { workflows: [hangs, quick], notify: false });
  const held = ["a", "b", "c", "d", "e"].map((name) => `held-${name}`);
  for (const name of held) {
    await perdure.schedules.put(schedule(name, { every: "1h", overlap: "cancel_previous" }, hangs));
    await reaches(await perdure.schedules.trigger(name), "suspended");
  }
  await perdure.schedules.put(schedule("tick", { every: "1h" }, quick));
  const ticks = async () => (await perdure.list({ idPrefix: "tick@" })).runs.length;
  const due = `update :SCHEMA.schedule set next_at = s.slot, due_at = s.slot
    from (select date_trunc('second', now()) - $2::int * interval '1 second' as slot) s where name = any($1)`;
  await inDatabase(url, async (stranger) => {
    await stranger.query(`begin; select from "${schema}".run where workflow = 'hangs' for update`);
    await sql(due, [[...held, "tick"], 10]);
    await eventually(async () => (await ticks()) === 1, 20_000);
    await sql(due, [["tick"], 5]);
    await eventually(async () => (await ticks()) === 2, 20_000);
    const waiting = (await perdure.schedules.list({ prefix: "held-" })).filter(({ trouble }) => trouble === null);
    t.ok(waiting.length > 0, "it did not wait for all that wait");
    await stranger.query("rollback");
  });
});

test("SQL takes no name that TypeScript could not ask for, and no null role", async (t) => {
  const plain = workflow("plain", async () => {});
  const { perdure, sql } = await coldBench(t, { workflows: [plain], worker: false });
  await perdure.start(plain.with({ id: "run" }));
  for (const name of ["a\u00a0", "\ufeffa", "a\u3000", "\u2028a", " a", "a\n"]) {
    t.match(await rejection(sql("select :SCHEMA.start_run('plain', id => $1)", [name])), { code: "PD005" });
    t.match(await rejection(sql("select :SCHEMA.send_event('run', $1)", [name])), { code: "PD005" });
    t.throws(() => perdure.get(name), { code: "PERDURE_NAME" });
    t.throws(() => event(name), { code: "PERDURE_NAME" });
  }
  t.match(await rejection(sql("select :SCHEMA.grant_to(null, 'sender')")), { code: "PD005" });
  t.equal((await perdure.list()).runs.length, 1);
});

test("schedules are found by a beginning that ends with a blank, and one that cannot be stored is named", async (t) => {
  const plain = workflow("plain", async (_given: unknown) => {});
  const { perdure } = await coldBench(t, { workflows: [plain], worker: false });
  await perdure.schedules.put(schedule("tenant 1", { every: "1h" }, plain, 1));
  t.match(await perdure.schedules.list({ prefix: "tenant " }), [{ name: "tenant 1" }]);
  t.match(await rejection(perdure.schedules.list({ prefix: 1 as never })), { code: "PERDURE_OPTION" });
  for (const [given, code] of [
    [() => 1, "PERDURE_SERIALIZE"],
    ["x".repeat(2 ** 20), "PERDURE_TOO_LARGE"],
  ] as const) {
    const refused = await rejection(perdure.schedules.put(schedule("tenant 2", { every: "1h" }, plain, given)));
    t.match(refused, { code, message: /schedule "tenant 2"/ });
  }
  t.equal((await perdure.schedules.list()).length, 1);
});

test("an event that is sent again with its reference is dropped without an error though the run has finished since", async (t) => {
  const go = event<number>("go");
  const once = workflow("once", async () => (await go.wait()).data);
  const { perdure, sql, url } = await coldBench(t, { workflows: [once] });
  const run = await perdure.start(once.with({ id: "once" }));
  await run.send(go, 1, { reference: "delivery-1" });
  t.equal(await run.result(patient), 1);
  await run.send(go, 1, { reference: "delivery-1" });
  t.same(await perdure.send(["once"], go, 1, { reference: "delivery-1" }), { sent: ["once"], failed: [] });
  t.same(await sql("select :SCHEMA.send_event('once', 'go', '1', 'delivery-1') as sent"), [{ sent: false }]);
  await inDatabase(url, async (client) => {
    await client.query("begin");
    await perdure.using(client).send("once", go, 1, { reference: "delivery-1" });
    await client.query("commit");
  });
  t.match(await rejection(run.send(go, 1, { reference: "delivery-2" })), { code: "PERDURE_FINISHED" });
  t.match(await rejection(run.send(event<number>("other"), 1, { reference: "delivery-1" })), {
    code: "PERDURE_FINISHED",
  });
  t.same(await sql("select count(*)::int as n from :SCHEMA.mail"), [{ n: 1 }]);
});
