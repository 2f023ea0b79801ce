/** What the Aiki layer itself does: how its words map on the core's, and each difference that its page lists. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import { z } from "zod";
import {
  client,
  event,
  NonRetryableError,
  RunFailedError,
  ScheduleConflictError,
  SchemaValidationError,
  schedule,
  TaskFailedError,
  task,
  type WorkflowVersion,
  worker,
  workflow,
} from "../../lib/aiki/index.ts";
import { comesTo, DAY, ground, outputOf } from "../support/aiki.ts";
import { eventually } from "../support/eventually.ts";
import { gate, rejection } from "../support/gate.ts";
import { shaky } from "./member.ts";

/** A version that takes nothing and returns text. */
type Plain = WorkflowVersion<void, string, null, Record<never, never>>;

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

test("a task whose process is killed in its last try runs again in another, and completed ones do not", async (t) => {
  const { client, url, schema } = await ground(t);
  const member = fork(`${ROOT}dist/test/aiki/member.js`, ["member", url, schema], {
    env: { ...process.env, NODE_OPTIONS: "" },
    execArgv: [],
  });
  t.teardown(() => void member.kill("SIGKILL"));
  const tries: string[] = [];
  const shakyV1 = shaky(async (what) => void tries.push(what));
  const aiki = client();
  const handle = await shakyV1.start(aiki, "o-1");
  for (let said = ""; said !== "second 2"; ) [said] = (await once(member, "message")) as [string];
  member.kill("SIGKILL");
  await worker({ workflows: [shakyV1] }).start(aiki);
  t.equal(await outputOf(handle), "o-1 in try 2");
  t.same(tries, ["second 2"]);
});

test("a divergence stalls the run and says where; with replay flexible it goes on", async (t) => {
  const { client, advance } = await ground(t);
  const ran: string[] = [];
  const say = task({ name: "say", handler: async (what: string) => void ran.push(what) });
  let deployed = false;
  const [strictV1, flexibleV1] = (["strict", "flexible"] as const).map((replay) =>
    workflow({ name: replay }).v("1.0.0", {
      replay,
      async handler(run) {
        if (deployed) await say.start(run, `${replay} new`);
        await say.start(run, `${replay} old`);
        await run.sleep({ days: 1 });
        return "done";
      },
    }),
  ) as [Plain, Plain];
  const aiki = client();
  const before = await worker({ workflows: [strictV1, flexibleV1] }).start(aiki);
  const handles = [await strictV1.start(aiki), await flexibleV1.start(aiki)] as const;
  for (const handle of handles) await comesTo(handle, "sleeping");
  await before.stop();
  deployed = true;
  await worker({ workflows: [strictV1, flexibleV1] }).start(aiki);
  await advance(DAY);
  t.equal(await outputOf(handles[1]), "done");
  await comesTo(handles[0], "stalled");
  await handles[0].refresh();
  t.match(handles[0].run.state, { status: "stalled", reason: /say/ });
  t.match(await handles[0].waitForStatus("failed", { timeout: 10 }), { success: false, cause: "timeout" });
  t.same(ran, ["strict old", "flexible old", "flexible new"]);
});

test("what a task throws is the cause of its TaskFailedError, live and on replay, and a NonRetryableError ends its tries", async (t) => {
  const { client } = await ground(t);
  class Declined extends Error {}
  let tries = 0;
  const charge = task({
    name: "charge",
    retry: { type: "fixed", maxAttempts: 3, delayMs: 0 },
    async handler(how: "declined" | "for good") {
      tries += 1;
      throw how === "declined" ? new Declined("no money") : new NonRetryableError("no account");
    },
  });
  const seen: unknown[] = [];
  const chargingV1 = workflow({ name: "charging" }).v("1.0.0", {
    async handler(run, how: "declined" | "for good") {
      try {
        await charge.start(run, how);
      } catch (error) {
        await run.sleep(1);
        if (!(error instanceof TaskFailedError)) throw error;
        const { message, attempts, reason, cause, taskId } = error;
        seen.push([message, attempts, reason, cause instanceof Declined, taskId]);
        return reason;
      }
      return "";
    },
  });
  const uncaughtV1 = workflow({ name: "uncaught" }).v("1.0.0", { handler: (run) => charge.start(run, "declined") });
  const aiki = client({ errors: [Declined] });
  await worker({ workflows: [chargingV1, uncaughtV1] }).start(aiki);
  t.equal(await outputOf(await chargingV1.start(aiki, "declined")), "no money");
  t.match(seen[0], ['task "charge" failed in try 3: no money', 3, "no money", true, String]);
  t.equal(await outputOf(await chargingV1.start(aiki, "for good")), "no account");
  t.match(seen.at(-1), [String, 1, "no account", false, String]);
  t.equal(tries, 4);
  const failed = await (await uncaughtV1.start(aiki)).waitForStatus("failed");
  t.match(failed, { success: true, state: { cause: "task", taskId: String, error: { attempts: 3 } } });
});

test("a schema is checked at the start, at the send, in a task and at the end; what does not fit it is never retried", async (t) => {
  const { client, sql } = await ground(t);
  let tries = 0;
  const total = task({
    name: "total",
    retry: { type: "fixed", maxAttempts: 5, delayMs: 0 },
    schema: { output: z.object({ total: z.number() }) },
    async handler(fits: boolean) {
      tries += 1;
      return (fits ? { total: 1 } : { total: "1" }) as { total: number };
    },
  });
  const orderV1 = workflow({ name: "order" }).v("1.0.0", {
    retry: { type: "fixed", maxAttempts: 5, delayMs: 0 },
    schema: { input: z.object({ id: z.string(), fits: z.boolean().default(true) }) },
    events: { paid: event({ schema: z.object({ cents: z.coerce.number() }) }) },
    async handler(run, input) {
      const { data } = await run.events.paid.wait();
      return { ...(await total.start(run, input.fits)), ...data };
    },
  });
  const endV1 = workflow({ name: "end" }).v("1.0.0", {
    schema: { output: z.object({ n: z.number() }) },
    handler: async () => ({ n: "1" }) as unknown as { n: number },
  });
  const aiki = client();
  await worker({ workflows: [orderV1, endV1] }).start(aiki);
  const { error } = await rejection(orderV1.start(aiki, { id: 1 } as never));
  t.ok(error instanceof SchemaValidationError);
  t.match(error.issues, [{ path: "$.id", message: String }]);
  t.same(await sql("select id from :SCHEMA.run"), [], "nothing was stored");
  const order = await orderV1.start(aiki, { id: "a", fits: true });
  t.match(await rejection(order.events.paid.send({ cents: "many" } as never)), { name: "SchemaValidationError" });
  await order.events.paid.send({ cents: "5" } as never);
  t.same(await outputOf(order), { total: 1, cents: 5 });
  const wrong = await orderV1.start(aiki, { id: "a", fits: false });
  await wrong.events.paid.send({ cents: 1 });
  const failure = { success: true, state: { cause: "self", error: { name: "SchemaValidationError" } } };
  t.match(await wrong.waitForStatus("failed"), failure);
  t.equal(tries, 2);
  t.match(await (await endV1.start(aiki)).waitForStatus("failed"), failure);
});

test("a child that ends otherwise than it is waited for wakes its parent, with the state that it came to", async (t) => {
  const { client } = await ground(t);
  const childV1 = workflow({ name: "child" }).v("1.0.0", {
    events: { go: event<string>() },
    async handler(run, how: string) {
      if (how === "fail") throw new Error("broken");
      return (await run.events.go.wait()).data;
    },
  });
  const parentV1 = workflow({ name: "parent" }).v("1.0.0", {
    async handler(run) {
      const failing = await childV1.startAsChild(run, "fail");
      const cancelled = await childV1.startAsChild(run, "cancelled");
      const sent = await childV1.with("reference.id", "sent").startAsChild(run, "sent");
      await sent.pause();
      const late = await sent.waitForStatus("completed", { timeout: 1 });
      await sent.resume();
      await sent.events.go.send("by its parent");
      await cancelled.cancel("enough");
      const ends = [await failing.waitForStatus("completed"), await cancelled.waitForStatus("completed")];
      return { late, ends, sent: await sent.waitForStatus("completed"), id: sent.id };
    },
  });
  const aiki = client();
  await worker({ workflows: [parentV1, childV1] }).start(aiki);
  t.match(await outputOf(await parentV1.start(aiki)), {
    late: { success: false, cause: "timeout" },
    ends: [
      {
        success: false,
        cause: "run_terminated",
        state: { status: "failed", cause: "self", error: { message: "broken" } },
      },
      { success: false, cause: "run_terminated", state: { status: "cancelled", explanation: "enough" } },
    ],
    sent: { success: true, state: { output: "by its parent" } },
    id: "child:1.0.0:sent",
  });
});

test("an event goes to any number of runs by id or reference; one target that fails is thrown, of several each is reported", async (t) => {
  const { client } = await ground(t);
  const waitingV1 = workflow({ name: "waiting" }).v("1.0.0", {
    events: { go: event<number>() },
    handler: async (run) => (await run.events.go.wait()).data,
  });
  const aiki = client();
  const started = await Promise.all(
    Array.from({ length: 30 }, (_, n) => waitingV1.with("reference.id", `r-${n}`).start(aiki)),
  );
  const references = started.map((_, n) => `r-${n}`);
  const { go } = waitingV1.events;
  t.same(await go.sendByReferenceId(aiki, [...references, "none"], 7), { sentIds: references, failedIds: ["none"] });
  t.match(await rejection(go.sendByReferenceId(aiki, "none", 7)), { code: "PERDURE_NOT_FOUND" });
  t.match(await rejection(go.send(aiki, "none", 7)), { code: "PERDURE_NOT_FOUND" });
  // The first data of a reference counts.
  const once = go.with("reference.id", "e-1");
  const [first] = started;
  t.same(await once.send(aiki, first!.id, 8), { sentIds: [first!.id], failedIds: [] });
  await once.send(aiki, [first!.id], 9);
  await worker({ workflows: [waitingV1] }).start(aiki);
  t.same(new Set(await Promise.all(started.map((handle) => outputOf(handle)))), new Set([7]));
});

test("an event has its key as its name, and a run of a reference the id name:version:reference", async (t) => {
  const { client, sql } = await ground(t);
  const orderV1 = workflow({ name: "shop:order" }).v("1.0.0", {
    events: { paymentReceived: event<{ amount: number }>() },
    handler: async (run) => (await run.events.paymentReceived.wait()).data,
  });
  const aiki = client();
  await worker({ workflows: [orderV1] }).start(aiki);
  const order = await orderV1.with("reference.id", "a:1").start(aiki);
  t.equal(order.id, "shop%3Aorder:1.0.0:a:1");
  await sql(`select :SCHEMA.send_event('shop%3Aorder:1.0.0:a:1', 'paymentReceived', '{"amount": 5}')`);
  t.same(await outputOf(order), { amount: 5 });
  const long = "x".repeat(300);
  const handle = await orderV1.with("reference.id", long).start(aiki);
  t.match(handle.id, /^#.{16}$/);
  t.equal((await orderV1.getHandleByReferenceId(aiki, long)).id, handle.id);
});

test("a handle is found by id and by reference, only of its own workflow and version", async (t) => {
  const { client } = await ground(t);
  const order = workflow({ name: "order" });
  const [v1, v2] = ["1.0.0", "2.0.0"].map((version) => order.v(version, { handler: async () => version })) as [
    Plain,
    Plain,
  ];
  const aiki = client();
  const started = await v1
    .with("reference.id", "r")
    .with("trigger", { type: "delayed", delay: { days: 1 } })
    .start(aiki);
  t.equal(started.run.state.status, "scheduled");
  t.match((await v1.getHandleById(aiki, started.id)).run, { id: started.id, state: { status: "scheduled" } });
  t.equal((await v1.getHandleByReferenceId(aiki, "r")).id, started.id);
  const wrong = [
    () => v2.getHandleById(aiki, started.id),
    () => v2.getHandleByReferenceId(aiki, "r"),
    () => v1.getHandleById(aiki, "x"),
  ];
  for (const find of wrong) t.match(await rejection(find()), { code: "PERDURE_NOT_FOUND" });
});

test("waitForStatus gives the state, or says whether the run ended otherwise, time ran out or the signal was aborted", async (t) => {
  const { client } = await ground(t);
  const waitingV1 = workflow({ name: "waiting" }).v("1.0.0", {
    handler: async (run, _n: number) => void (await run.sleep("nap", { days: 1 })),
  });
  const aiki = client();
  await worker({ workflows: [waitingV1] }).start(aiki);
  const handle = await waitingV1.start(aiki, 1);
  const { signal } = new AbortController();
  t.same(await handle.waitForStatus("completed", { timeout: 1, interval: { seconds: 5 }, signal }), {
    success: false,
    cause: "timeout",
  });
  t.same(await handle.waitForStatus("completed", { signal: AbortSignal.abort() }), {
    success: false,
    cause: "aborted",
  });
  const later = new AbortController();
  const aborted = handle.waitForStatus("completed", { signal: later.signal });
  later.abort();
  t.same(await aborted, { success: false, cause: "aborted" });
  await handle.cancel("enough");
  const state = { status: "cancelled", explanation: "enough" };
  t.same(await handle.waitForStatus("cancelled"), { success: true, state });
  t.same(await handle.waitForStatus("completed"), { success: false, cause: "run_terminated", state });
  t.match(await rejection(handle.waitForStatus("done" as never)), { code: "PERDURE_OPTION" });
  t.match(await rejection(handle.pause()), { code: "PERDURE_STATE", message: /cancelled/ });
  t.match(await rejection(handle.waitForCompletion()), { name: "RunCancelledError" });
});

test("a run is paused in any state that is not an end, goes on where it was, and is woken early by either name", async (t) => {
  const { client } = await ground(t);
  const nappingV1 = workflow({ name: "napping" }).v("1.0.0", {
    handler: async (run) => [await run.sleep("first", { days: 1 }), await run.sleep({ days: 1 })],
  });
  const aiki = client();
  await worker({ workflows: [nappingV1] }).start(aiki);
  const handle = await nappingV1.start(aiki);
  await comesTo(handle, "sleeping");
  await handle.pause();
  await comesTo(handle, "paused");
  await handle.resume();
  await comesTo(handle, "sleeping");
  await handle.wakeup();
  await eventually(() => handle.awake().then(() => true), 20_000);
  t.same(await outputOf(handle), [{ cancelled: true }, { cancelled: true }]);
  t.match(await rejection(handle.wakeup()), { code: "PERDURE_STATE" });
});

test("a task has a signal, its attempt and an idempotency key, and is aborted when its run is cancelled", async (t) => {
  const { client } = await ground(t);
  const begun = gate();
  const stopped = gate();
  const long = task({
    name: "long",
    async handler(_input: string, { signal, attempt, idempotencyKey }) {
      t.match([attempt, idempotencyKey], [1, String]);
      signal.addEventListener("abort", stopped.open);
      begun.open();
      await stopped.opened;
    },
  });
  const longV1 = workflow({ name: "long" }).v("1.0.0", { handler: (run) => long.start(run, "x") });
  const aiki = client();
  await worker({ workflows: [longV1] }).start(aiki);
  const handle = await longV1.start(aiki);
  await begun.opened;
  await handle.cancel();
  await stopped.opened;
  t.match(await handle.waitForStatus("cancelled"), { success: true });
});

test("a wait inside try and catch never shows as an error, however often the run is suspended", async (t) => {
  const { client, advance } = await ground(t);
  const caught: unknown[] = [];
  const patientV1 = workflow({ name: "patient" }).v("1.0.0", {
    events: { go: event() },
    async handler(run) {
      try {
        await run.sleep({ days: 1 });
        await Promise.all([run.events.go.wait(), run.sleep({ days: 1 })]);
      } catch (error) {
        caught.push(error);
      } finally {
        caught.push("finally");
      }
      return "done";
    },
  });
  const aiki = client();
  await worker({ workflows: [patientV1] }).start(aiki);
  const handle = await patientV1.start(aiki);
  await comesTo(handle, "sleeping");
  await advance(DAY);
  await handle.events.go.send();
  await eventually(async () => {
    await advance(DAY);
    return (await handle.getState()).status === "completed";
  }, 20_000);
  t.same(caught, ["finally"]);
});

test("a task or a child that nobody awaited fails the run and is named", async (t) => {
  const { client } = await ground(t);
  const lost = task({ name: "lost", handler: async () => {} });
  const childV1 = workflow({ name: "child" }).v("1.0.0", { handler: async () => {} });
  const [carelessV1, heartlessV1] = [
    workflow({ name: "careless" }).v("1.0.0", { handler: async (run) => void lost.start(run) }),
    workflow({ name: "heartless" }).v("1.0.0", { handler: async (run) => void childV1.startAsChild(run) }),
  ];
  const aiki = client();
  await worker({ workflows: [carelessV1!, heartlessV1!, childV1] }).start(aiki);
  for (const [version, name] of [
    [carelessV1!, /"lost"/],
    [heartlessV1!, /"child"/],
  ] as const) {
    const failed = await (await version.start(aiki)).waitForStatus("failed");
    t.match(failed, { success: true, state: { error: { code: "PERDURE_FLOATING", message: name } } });
  }
});

test("dates, maps, sets, bigints and undefined travel as inputs, outputs and data", async (t) => {
  const { client } = await ground(t);
  const echo = task({ name: "echo", handler: async (value: Map<string, unknown>) => value });
  const echoV1 = workflow({ name: "echo" }).v("1.0.0", {
    events: { more: event<Date>() },
    async handler(run, value: Map<string, unknown>) {
      const { data } = await run.events.more.wait();
      return { back: await echo.start(run, value), data };
    },
  });
  const value = new Map<string, unknown>([
    ["when", new Date(0)],
    ["set", new Set([1n])],
    ["none", undefined],
  ]);
  const aiki = client();
  await worker({ workflows: [echoV1] }).start(aiki);
  const handle = await echoV1.start(aiki, value);
  await handle.events.more.send(new Date(1));
  t.strictSame(await outputOf(handle), { back: value, data: new Date(1) });
});

test("the context is made anew for every execution; where it cannot be made the run is tried again, and no attempt is used", async (t) => {
  const { client, advance, lines } = await ground(t);
  let made = 0;
  const contextV1 = workflow<{ made: number; of: string }>({ name: "context" }).v("1.0.0", {
    async handler(run) {
      const { id, name, versionId, attempts } = run;
      run.logger.child({ part: 1 }).info("awake", { n: 2 });
      const before = run.context.made;
      await run.sleep({ days: 1 });
      return { facts: [id, name, versionId, attempts], of: run.context.of, before, now: run.context.made };
    },
  });
  const aiki = client({
    context: async ({ id }) => {
      made += 1;
      if (made === 1) throw new Error("no context");
      return { made, of: id };
    },
  });
  await worker({ workflows: [contextV1] }).start(aiki);
  const handle = await contextV1.start(aiki);
  await comesTo(handle, "sleeping");
  const first = made;
  await advance(DAY);
  const output = await outputOf(handle);
  t.same(output.facts, [handle.id, "context", "1.0.0", 1]);
  t.equal(output.of, handle.id);
  t.ok(first >= 2 && output.now > 1);
  t.equal(lines.filter((line) => line.includes("awake")).length, 1, "silent during replay");
});

test("a pool's runs are taken only by a worker of the pool, and children stay in their parent's", async (t) => {
  const { client, sql } = await ground(t);
  const childV1 = workflow<string>({ name: "child" }).v("1.0.0", {
    async handler(run) {
      await run.sleep(1);
      return run.context;
    },
  });
  const parentV1 = workflow<string>({ name: "parent" }).v("1.0.0", {
    async handler(run) {
      await run.sleep(1);
      const child = await childV1.startAsChild(run);
      return [run.context, await child.waitForStatus("completed")];
    },
  });
  const workflows = [parentV1, childV1];
  const plain = client({ context: () => "plain" });
  await worker({ workflows }).start(plain);
  const gpu = await parentV1.with("pool", "gpu").start(plain);
  const tpu = await parentV1.with("shard", "tpu").start(plain);
  const any = await parentV1.start(plain);
  t.match(await outputOf(any), ["plain", { state: { output: "plain" } }]);
  t.same(await sql("select distinct state from :SCHEMA.run where queue <> 'default'"), [{ state: "pending" }]);
  const pools = worker({ workflows }).with("pools", ["gpu", "tpu"]);
  await pools.start(client({ context: () => "pools" }));
  for (const handle of [gpu, tpu]) t.match(await outputOf(handle), ["pools", { state: { output: "pools" } }]);
  t.same(await sql("select queue, count(*)::int as n from :SCHEMA.run group by 1 order by 1"), [
    { queue: "default", n: 2 },
    { queue: "gpu", n: 2 },
    { queue: "tpu", n: 2 },
  ]);
});

test("a schedule is the same when it is activated again, and another under its reference is a conflict, kept or replaced", async (t) => {
  const { client, sql } = await ground(t);
  const reportV1 = workflow({ name: "report" }).v("1.0.0", { handler: async (_run, tenant: number) => void tenant });
  const aiki = client();
  const nightly = schedule({ type: "cron", expression: "0 2 * * *", timezone: "Europe/Berlin" });
  const named = nightly.with("reference.id", "nightly");
  const names = async () => (await sql("select name from :SCHEMA.schedules order by 1")).map(({ name }) => name);
  const first = await named.activate(aiki, reportV1, 1);
  await first.pause();
  t.equal((await named.activate(aiki, reportV1, 1)).id, first.id);
  t.same(await sql("select paused, overlap, catch_up from :SCHEMA.schedules"), [
    { paused: false, overlap: "skip", catch_up: "latest" },
  ]);
  const { error } = await rejection(named.activate(aiki, reportV1, 2));
  t.ok(error instanceof ScheduleConflictError);
  const kept = await named.with("reference.conflictPolicy", "return_existing").activate(aiki, reportV1, 2);
  t.equal(kept.id, first.id);
  const replaced = await named.with("reference.conflictPolicy", "upsert").activate(aiki, reportV1, 2);
  t.same(await names(), [replaced.id]);
  const unnamed = await Promise.all([1, 1, 2].map((tenant) => nightly.activate(aiki, reportV1, tenant)));
  t.equal(new Set(unnamed.map(({ id }) => id)).size, 2);
  t.equal((await names()).length, 3);
  await replaced.delete();
  for (const wrong of [
    schedule({ type: "cron", expression: "0 25 * * *" }),
    schedule({ type: "cron", expression: "0 2 * * *", timezone: "Mars/Base" }),
    schedule({ type: "interval", every: 1 }),
  ]) {
    t.match(await rejection(wrong.activate(aiki, reportV1, 1)), { code: "PERDURE_OPTION" });
  }
});

test("a client rests with its last worker and comes back when it is used; a closed one says so", async (t) => {
  const { client, sql } = await ground(t);
  const echoV1 = workflow({ name: "echo" }).v("1.0.0", { handler: async (_run, text: string) => text });
  const others = async () =>
    (await sql("select count(*)::int as n from :SCHEMA.worker where dead_at is null"))[0].n as number;
  const idle = await others();
  const aiki = client();
  t.equal(await others(), idle, "nothing is connected yet");
  const started = worker({ workflows: [echoV1] }).start(aiki);
  t.type(started.id, "string");
  const handle = await echoV1.start(aiki, "a");
  t.equal(await outputOf(handle), "a");
  await started.stop();
  await started.stop();
  t.equal(await others(), idle);
  t.equal((await handle.getState()).status, "completed");
  await worker({ workflows: [echoV1] }).spawn(aiki);
  t.equal(await outputOf(await echoV1.start(aiki, "b")), "b");
  await aiki.close();
  t.equal(await others(), idle);
  t.match(await rejection(echoV1.start(aiki, "c")), { code: "PERDURE_STATE", message: /closed/ });
  t.throws(() => worker({ workflows: [echoV1] }).start(aiki), { code: "PERDURE_STATE" });
});

test("a worker that cannot be started says why to who awaits it, and in the log", async (t) => {
  const { lines, client } = await ground(t);
  const echoV1 = workflow({ name: "echo" }).v("1.0.0", { handler: async () => {} });
  const aiki = client({ database: "postgres://nobody:wrong@127.0.0.1:1/none" });
  const handle = worker({ workflows: [echoV1] }).start(aiki);
  await eventually(() => lines.some((line) => line.includes("could not be started")));
  t.match(await rejection(handle), { code: "PERDURE_CONNECTION" });
  t.match(await rejection(echoV1.start(aiki)), { code: "PERDURE_CONNECTION" });
  await handle.stop();
});

test("an output that failed is thrown by waitForCompletion, with what the handler threw as its cause", async (t) => {
  const { client } = await ground(t);
  const brokenV1 = workflow({ name: "broken" }).v("1.0.0", {
    async handler() {
      throw new RangeError("too many");
    },
  });
  const aiki = client();
  await worker({ workflows: [brokenV1] }).start(aiki);
  const { error } = await rejection((await brokenV1.start(aiki)).waitForCompletion());
  t.ok(error instanceof RunFailedError && error.cause instanceof RangeError);
});

test("options that are wrong are named where they are given, and nothing is done", async (t) => {
  const { client: connected } = await ground(t);
  const v1 = workflow({ name: "w" }).v("1.0.0", { handler: async (_run, _text: string) => {} });
  const say = task({ name: "say", handler: async (_text: string) => {} });
  const wrong: [() => unknown, RegExp][] = [
    [() => workflow({ nam: "w" } as never), /unknown option "nam".*did you mean "name"/],
    [() => workflow({ id: "w" } as never), /unknown option "id"/],
    [() => workflow({ name: "w", handler: async () => {} } as never), /unknown option "handler"/],
    [() => workflow({ name: "w" }).v("1", {} as never), /workflow "w" "1" needs a handler/],
    [() => workflow({ name: "w" }).v("1", { handler() {}, event: {} } as never), /did you mean "events"/],
    [() => task({ name: "t" } as never), /task "t" needs a handler/],
    [() => task({ name: "t", handler() {}, retry: { type: "fixed", maxAttempts: 3, delayMS: 1 } } as never), /delayMS/],
    [() => say.with("referenc.id" as never, "x" as never), /unknown option "referenc.id".*did you mean "reference.id"/],
    [() => v1.with({ pol: "gpu" } as never), /did you mean "pool"/],
    [() => worker({ workflows: [say] } as never), /needs a version of a workflow/],
    [() => worker({ workflows: [v1], config: { maxConcurrent: 1 } } as never), /maxConcurrent/],
    [() => worker({}).start(connected()), /needs workflows/],
    [() => worker({ workflows: [v1] }).start({} as never), /a client made by client\(\) is needed/],
    [() => schedule({ type: "hourly" } as never), /type of schedule\(\)/],
    [() => event({ shema: 1 } as never), /did you mean "schema"/],
    [() => client({ databse: "x" } as never), /databse.*did you mean "database"/],
    [() => client("postgres://x" as never), /options of client\(\)/],
    [() => say.start({} as never, "x"), /needs the run that the handler was given/],
  ];
  for (const [given, text] of wrong) t.throws(given, { code: "PERDURE_OPTION", message: text });
  const order = workflow({ name: "order" });
  order.v("1.0.0", { handler: async () => {} });
  t.throws(() => order.v("1.0.0", { handler: async () => {} }), { code: "PERDURE_DUPLICATE", message: /1\.0\.0/ });
  const refused = [
    v1.with("trigger", { type: "later" } as never),
    v1.with("trigger", { type: "delayed" } as never),
    v1.with("reference", { id: "x", conflictPolicy: "replace" } as never),
  ];
  for (const one of refused) t.match(await rejection(one.start(connected(), "x")), { code: "PERDURE_OPTION" });
  t.match(await rejection(v1.with("reference.id", "").start(connected(), "x")), { code: /PERDURE_(NAME|OPTION)/ });
});

test("the entry point has the names of all generations, and no others", async (t) => {
  const names = Object.keys(await import("perdure/aiki"));
  const functions = "client createAiki createClient database event race schedule server task worker workflow".split(
    " ",
  );
  const unused =
    "inMemoryQueue inMemoryTimerPriorityQueue redisPublisher redisSubscriber redisTimerPriorityQueue".split(" ");
  const own = "ScheduleConflictError SchemaValidationError TaskFailedError WorkflowRunReferenceConflictError".split(
    " ",
  );
  const core = ["NonRetryableError", "RunCancelledError", "RunFailedError", "RunFinishedError"];
  t.same(names.sort(), [...functions, ...unused, ...own, ...core].sort());
});

test("every difference that the layer's page lists is held by a test of the name that stands there", (t) => {
  const page = readFileSync(`${ROOT}lib/aiki/README.md`, "utf8");
  const listed = page.split("\n").filter((line) => line.startsWith("- "));
  const sources = readdirSync(`${ROOT}test/aiki`)
    .filter((file) => file.endsWith(".test.ts"))
    .map((file) => readFileSync(`${ROOT}test/aiki/${file}`, "utf8"))
    .join("\n");
  const unheld = listed.filter((line) => {
    const name = /\*\((.+)\)\*$/.exec(line)?.[1];
    return name === undefined || !sources.includes(`test(${JSON.stringify(name)}`);
  });
  t.same(unheld, []);
  t.ok(listed.length >= 20);
  t.end();
});
