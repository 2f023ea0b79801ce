/** The public surface as it is promised: each call inside a workflow, outside of it and in SQL once, by its names, and the shape of what it returns. */
import pg from "pg";
import { test } from "tap";
import * as codecs from "../lib/codec/index.ts";
import {
  currentRun,
  currentStep,
  durable,
  event,
  NonRetryableError,
  named,
  now,
  Perdure,
  patched,
  RunCancelledError,
  RunConflictError,
  RunFailedError,
  RunFinishedError,
  race,
  random,
  runStep,
  schedule,
  sleep,
  sleepUntil,
  start,
  step,
  stream,
  TimeoutError,
  transaction,
  uuid,
  value,
  workflow,
} from "../lib/index.ts";
import { bench } from "./support/engine.ts";
import { eventually } from "./support/eventually.ts";
import { reaches, rejection } from "./support/gate.ts";

test("perdure/codec has two codecs, and whatever has their form is one", async (t) => {
  t.same(Object.keys(codecs).sort(), ["compression", "encryption"]);
  const reversing: codecs.Codec = {
    name: "reversing",
    encode: (data, { run, slot, before }) => ({
      data: data.toReversed(),
      note: `${run !== ""} ${slot !== ""} ${before}`,
    }),
    decode: ({ data }) => data.toReversed(),
  };
  const echo = workflow("echo", async (text: string) => text);
  const { perdure, sql } = await bench(t, { workflows: [echo], codec: reversing });
  t.equal(await (await perdure.start(echo, "abc")).result(patient), "abc");
  t.match((await sql("select args from :SCHEMA.input"))[0].args, { codec: ["reversing:true true "] });
});

const patient = { timeout: "20s" } as const;
const go = event<string>("go");

test("the program that a reader sees first runs as it stands, sent to from TypeScript and from SQL", async (t) => {
  const createOrder = step("create-order", async (_orderId: string) => {});
  const reserve = {
    name: "reserve-inventory",
    retry: { type: "exponential", maxAttempts: 5, baseDelay: "1s" },
  } as const;
  const reserveInventory = step(reserve, async (_orderId: string) => {});
  const fulfillOrder = step("fulfill-order", async (_orderId: string) => "fulfilled");
  const releaseInventory = step("release-inventory", async (_orderId: string) => "released");
  const paymentReceived = event<{ amount: number }>("payment-received");
  const processOrder = workflow("process-order", async (orderId: string) => {
    await createOrder(orderId);
    await reserveInventory(orderId);
    const payment = await paymentReceived.wait({ timeout: { minutes: 30 } });
    if (payment) return fulfillOrder(orderId);
    return releaseInventory(orderId);
  });
  const { perdure, sql } = await bench(t, { workflows: [processOrder] });
  const run = await perdure.start(processOrder.with({ id: "order-42" }), "order-42");
  await perdure.send("order-42", paymentReceived, { amount: 99 });
  t.equal(await run.result(patient), "fulfilled");
  await perdure.start(processOrder.with({ id: "order-43" }), "order-43");
  await sql(`select :SCHEMA.send_event('order-43', 'payment-received', '{"amount": 99}')`);
  t.equal(await perdure.get(processOrder, "order-43").result(patient), "fulfilled");
});

test("inside a workflow each call gives what is promised", async (t) => {
  const child = workflow("child", async (n: number) => n * 2);
  const broken = workflow("broken", async () => {
    throw new NonRetryableError("no");
  });
  const inStep = step("in-step", async () => {
    const { name, attempt, signal, idempotencyKey } = currentStep();
    return [name, attempt, signal instanceof AbortSignal, typeof idempotencyKey];
  });
  const tx = transaction("tx", async (client) => [
    currentStep().tx === client,
    (await client.query("select 1 as one")).rows,
  ]);
  const all = workflow({ name: "all", version: "7", timeout: { hours: 1 } }, async () => {
    const { id, workflow: name, version, queue, attempt, signal, log, context } = currentRun();
    const run = [id, name, version, queue, attempt, signal.aborted, typeof log.info, context];
    const slept = [await sleep("1ms"), await sleep("named", 1), await sleepUntil(new Date(0))];
    const received = await go.wait();
    const none = await go.wait({ timeout: 1 });
    const handle = await start(child, 21);
    const won = await race({ go, handle, late: { minutes: 30 } });
    const timer = await race({ go, late: 1 });
    const direct = await child(1);
    const failed = await broken().catch((error) => [error instanceof RunFailedError, error.cause.message]);
    const drawn = [now() instanceof Date, uuid().length, random() < 1, patched("change")];
    const looped: string[] = [];
    for await (const { data } of go) {
      looped.push(data);
      if (looped.length === 2) break;
    }
    const steps = [await runStep("anonymous", () => 1), await inStep(), await tx()];
    return { run, slept, received, none, won, timer, direct, failed, drawn, looped, steps };
  });
  const { perdure } = await bench(t, { workflows: [all, child, broken] });
  const run = await perdure.start(all.with({ id: "all" }));
  await run.send(go, "first", { reference: "r" });
  await eventually(
    async () =>
      (await run.history()).filter(({ kind, outcome }) => kind === "race" && outcome !== "waiting").length === 2,
    20_000,
  );
  await run.send(go, "second");
  await run.send(go, "third");
  const result = await run.result(patient);
  t.match(result.received, { data: "first", id: String, sentAt: Date, reference: "r" });
  t.same(
    { ...result, received: null },
    {
      run: ["all", "all", "7", "default", 1, false, "function", null],
      slept: [{ woken: false }, { woken: false }, { woken: false }],
      received: null,
      none: null,
      won: { winner: "handle", value: 42 },
      timer: { winner: "late", value: null },
      direct: 2,
      failed: [true, "no"],
      drawn: [true, 36, true, true],
      looped: ["second", "third"],
      steps: [1, ["in-step", 1, true, "string"], [true, [{ one: 1 }]]],
    },
  );
});

test("as decorators, the three make methods durable; named() and durable() give instances a name and their methods a value", async (t) => {
  class Checkout {
    readonly #rate: number;
    constructor(rate: number) {
      this.#rate = rate;
    }
    @step({ retry: { type: "never" } })
    async price(cents: number): Promise<number> {
      return cents * this.#rate;
    }
    @transaction()
    async book(cents: number): Promise<number> {
      return (await currentStep().tx!.query("select $1::int + 1 as cents", [cents])).rows[0].cents;
    }
    @workflow({ version: "2" })
    async process(cents: number): Promise<[string, number]> {
      return [currentRun().workflow, await this.book(await this.price(cents))];
    }
  }
  const [checkout, eu] = [new Checkout(2), named("eu", new Checkout(3))];
  const { perdure } = await bench(t, { workflows: [checkout, eu] });
  t.same(await checkout.process(10), ["Checkout.process", 21]);
  const run = await perdure.start(durable(eu.process).with({ id: "eu-1" }), 10);
  t.same(await run.result(patient), ["eu.process", 31]);
});

test("outside, an engine and a handle have each verb, and return what is promised", async (t) => {
  const status = value<string>("status");
  const lines = stream<number>("lines");
  let down = true;
  const charge = step("charge", async () => {
    if (down) throw new Error("down");
  });
  const order = workflow("order", async (_id: string) => {
    await status.set("begun");
    for (const n of [0, 1, 2]) await lines.write(n);
    await lines.close();
    await sleep("1h");
    await go.wait();
    await charge();
    return "done";
  });
  const b = await bench(t, { workflows: [order], application: "contract" });
  const { perdure } = b;
  const configured = order.with({
    id: "o-1",
    queue: "default",
    priority: 5,
    tags: ["t"],
    timeout: "1d",
    retry: { type: "never" },
  });
  const run = await perdure.start(configured, "o-1");
  t.equal(run.id, "o-1");
  t.equal((await perdure.start(configured, "o-1")).id, "o-1", "equal input");
  t.ok((await rejection(perdure.start(configured, "o-2"))).error instanceof RunConflictError);
  t.equal((await perdure.start(configured.with({ onConflict: "return_existing" }), "o-2")).id, "o-1");
  await eventually(async () => (await run.status()).waitingFor === "sleep", 20_000);
  t.match(await run.status(), {
    ...{
      id: "o-1",
      state: "suspended",
      waitingFor: "sleep",
      reason: null,
      workflow: "order",
      version: "1",
      attempt: 1,
    },
    ...{ queue: "default", priority: 5, tags: ["t"], createdAt: Date, startedAt: Date, finishedAt: null, due: Date },
  });
  t.equal(await run.get(status), "begun");
  const read: number[] = [];
  for await (const line of run.read(lines, { from: 1 })) read.push(line);
  t.same(read, [1, 2]);
  for await (const latest of run.watch(status)) {
    t.equal(latest, "begun");
    break;
  }
  await run.pause();
  t.equal((await run.status()).state, "paused");
  await run.resume();
  await eventually(async () => (await run.status()).waitingFor === "sleep", 20_000);
  await run.wake();
  t.ok((await rejection(run.result({ timeout: 1 }))).error instanceof TimeoutError);
  t.equal((await rejection(run.result({ signal: AbortSignal.abort(new Error("enough")) }))).message, "enough");
  t.equal(await perdure.send("o-1", go, "x", { reference: "r", ignoreFinished: true }), undefined);
  t.match(await perdure.send(["o-1", "o-9"], go, "x"), {
    sent: ["o-1"],
    failed: [{ id: "o-9", error: { code: "PERDURE_NOT_FOUND" } }],
  });
  const { error } = await rejection(run.result(patient));
  t.ok(error instanceof RunFailedError);
  t.equal(error.cause.message, "down");
  t.ok((await rejection(run.send(go, "late"))).error instanceof RunFinishedError);
  down = false;
  await run.retry({ replay: "flexible" });
  t.equal(await run.result(patient), "done");
  const history = await run.history();
  for (const entry of history) {
    t.match(entry, { slot: String, kind: String, name: String, attempts: Number, startedAt: Date, outcome: String });
    t.ok("finishedAt" in entry);
  }
  const fork = await run.fork({ from: "charge" });
  t.equal(await fork.result(patient), "done");
  const page = await perdure.list({
    ...{ workflow: order, version: "1", state: "completed", queue: "default", tags: ["t"], idPrefix: "o-" },
    ...{ createdAfter: new Date(0), createdBefore: new Date(Date.now() + 3_600_000), limit: 1, after: null },
  });
  t.same([page.runs.map(({ id }) => id), page.next], [["o-1"], null]);

  const other = await perdure.start("order", "o-3");
  await other.cancel("enough");
  const cancelled = (await rejection(other.result(patient))).error;
  t.ok(cancelled instanceof RunCancelledError);
  t.equal(cancelled.reason, "enough");
  const delayed = await perdure.start(order.with({ startAt: new Date(Date.now() + 3_600_000) }), "o-4");
  t.same(await perdure.cancel([delayed.id], { reason: "bulk" }), { done: [delayed.id], failed: [] });
  t.match(await perdure.retry({ workflow: order, state: "failed" }), { done: [], failed: [] });
});

test("in the caller's transaction, of schedules, of drain, of shutdown: each verb once", async (t) => {
  const quick = workflow("quick", async (n: number) => n);
  const b = await bench(t, { workflows: [quick], worker: false });
  const client = new pg.Client({ connectionString: b.url });
  await client.connect();
  t.teardown(() => client.end());
  const within = b.perdure.using(client);
  await client.query("begin");
  await within.start(quick.with({ id: "kept" }), 1);
  await within.start(quick.with({ id: "gone" }), 2);
  await within.send("kept", go, "x");
  await within.cancel("gone", "undone");
  await client.query("commit");
  t.match(await b.perdure.drain({ max: 10, deadline: "30s" }), { runs: 1, next: null });
  t.equal(await b.perdure.get<number>("kept").result(patient), 1);
  t.equal((await b.perdure.get("gone").status()).state, "cancelled");

  const { schedules } = b.perdure;
  await schedules.put(
    schedule("s", { cron: "0 2 * * *", timezone: "Europe/Berlin", overlap: "allow", catchUp: "none" }, quick, 3),
  );
  await schedules.put(schedule("e", { every: { hours: 1 }, overlap: "skip", catchUp: "all" }, quick, 4));
  const triggered = await schedules.trigger("s");
  await b.perdure.drain();
  t.equal(await triggered.result(patient), 3);
  await schedules.pause("s");
  t.match(await schedules.list(), [
    { name: "e", paused: false, nextAt: Date },
    { name: "s", paused: true, nextAt: null },
  ]);
  await schedules.resume("s");
  await schedules.delete("s");
  t.same(
    (await schedules.list()).map(({ name }) => name),
    ["e"],
  );

  await using engine = new Perdure({
    database: b.url,
    schema: b.schema,
    application: "c",
    schedules: [],
    lease: "10s",
    sessionLock: true,
    notify: false,
    worker: { concurrency: 1, queues: ["default"] },
    outside: "call",
    migrate: false,
    errors: [],
    workflows: [quick],
  });
  await engine.launch();
  t.match(await rejection(quick(5)), { message: /perdure\.start/ }, "two engines have it");
  await engine.shutdown({ timeout: "1s" });
});

const FUNCTIONS = {
  start_run: ["workflow", "args", "id", "version", "queue", "priority", "delay", "on_conflict"],
  send_event: ["run_id", "event", "data", "reference"],
  cancel_run: ["run_id", "reason"],
  pause_run: ["run_id"],
  resume_run: ["run_id"],
  wake_run: ["run_id"],
};
const RETURNS = {
  start_run: "text",
  send_event: "boolean",
  cancel_run: "boolean",
  pause_run: "void",
  resume_run: "void",
  wake_run: "void",
};
const VIEWS = {
  runs: "id workflow version state waiting_for reason queue priority attempt parent_id created_at started_at finished_at",
  steps: "run_id slot kind name attempts started_at finished_at",
  events: "id run_id name reference sent_at consumed_by",
  codecs: "codec kind stored in_use",
  schedules: "name application cron timezone workflow version next_at last_slot paused",
  queues: "queue running suspended workers",
  workers: "id name started_at beat_at",
  timeline: "run_id no at what kind name slot attempt",
};

test("SQL has the same verbs by name, each once, and the views with their columns", async (t) => {
  const waiter = workflow("waiter", async (a: number, b: string) => {
    await sleep("1h");
    return [a, b, (await go.wait()).data];
  });
  const { perdure, sql } = await bench(t, { workflows: [waiter] });
  const shapes = Object.fromEntries(
    (
      await sql(
        `select p.proname, p.proargnames, p.prorettype::regtype::text as returns from pg_proc p
          where p.pronamespace = (select c.relnamespace from pg_class c where c.oid = ':SCHEMA.run'::regclass) and p.proname = any($1)`,
        [Object.keys(FUNCTIONS)],
      )
    ).map((row) => [row.proname, row]),
  );
  for (const [name, args] of Object.entries(FUNCTIONS)) {
    t.same(shapes[name]?.proargnames, args, name);
    t.equal(shapes[name]?.returns, RETURNS[name as keyof typeof RETURNS], name);
  }
  const [{ start_run: id }] = await sql(
    `select :SCHEMA.start_run(workflow => 'waiter', args => '[1, "b"]', id => 'sql-1', version => '1', queue => 'default', priority => -3,
      delay => interval '1 millisecond', on_conflict => 'error')`,
  );
  t.equal(id, "sql-1");
  const run = perdure.get(waiter, id);
  await eventually(async () => (await run.status()).waitingFor === "sleep", 20_000);
  await sql("select :SCHEMA.pause_run(run_id => 'sql-1')");
  await reaches(run, "paused");
  await sql("select :SCHEMA.resume_run(run_id => 'sql-1')");
  await eventually(async () => (await run.status()).waitingFor === "sleep", 20_000);
  await sql("select :SCHEMA.wake_run(run_id => 'sql-1')");
  const send = `select :SCHEMA.send_event(run_id => 'sql-1', event => 'go', data => '"x"', reference => 'r') as sent`;
  t.same([await sql(send), await run.result(patient)], [[{ sent: true }], [1, "b", "x"]]);
  t.same(await sql("select :SCHEMA.cancel_run(run_id => 'sql-1', reason => 'late') as done"), [{ done: false }]);
  for (const [view, columns] of Object.entries(VIEWS)) {
    await t.resolves(sql(`select ${columns.replaceAll(" ", ", ")} from :SCHEMA.${view}`), view);
  }
});
