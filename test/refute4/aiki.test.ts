/** Attacks on the Aiki layer: what was found by trying to break it. */
import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import {
  event,
  type Logger,
  race,
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
import { rejection } from "../support/gate.ts";
import { FaultyProxy } from "../support/proxy.ts";
import { nappingV1, resumingV1 } from "./member.ts";

/** A version that takes and returns text. */
type Text = WorkflowVersion<string, string, null, Record<never, never>>;

const echo = task({ name: "echo", handler: async (value: string) => value });
const echoV1 = workflow({ name: "echo" }).v("1.0.0", { handler: async (_run, value: string) => value });
const childV1 = workflow({ name: "child" }).v("1.0.0", {
  events: { go: event<string>() },
  async handler(run, how: string) {
    if (how === "fail") throw new RangeError("no");
    return how === "wait" ? (await run.events.go.wait()).data : how;
  },
});

// ---- attacks that found nothing

test("a wait that timed out stays so, and what comes late goes to the next waits of that name in order", async (t) => {
  const { client, advance, sql } = await ground(t);
  const v1 = workflow({ name: "late" }).v("1", {
    events: { a: event<number>(), b: event() },
    async handler(run) {
      const first = await run.events.a.wait({ timeout: { minutes: 1 } });
      await run.events.b.wait();
      return [first.timeout, await run.events.a.wait({ timeout: { minutes: 1 } }), (await run.events.a.wait()).data];
    },
  });
  const aiki = client();
  await worker({ workflows: [v1] }).start(aiki);
  const run = await v1.start(aiki);
  await comesTo(run, "awaiting_event");
  await advance(61_000);
  await eventually(async () => (await sql("select id from :SCHEMA.run where topics = '{event:b}'")).length === 1);
  for (const data of [1, 2]) await run.events.a.send(data);
  await run.events.b.send();
  t.same(await outputOf(run), [true, { timeout: false, data: 1 }, 2]);
});

test("a child that ended tells every status it is asked for, and one that did not end in time goes on", async (t) => {
  const { client } = await ground(t);
  const parentV1 = workflow({ name: "parent" }).v("1", {
    async handler(run) {
      const told: unknown[] = [];
      for (const how of ["ok", "fail"]) {
        const child = await childV1.startAsChild(run, how);
        for (const status of ["completed", "failed", "cancelled"] as const) {
          const end = await child.waitForStatus(status);
          told.push(end.success ? end.state.status : [end.cause, end.cause === "run_terminated" && end.state.status]);
        }
      }
      const slow = await childV1.startAsChild(run, "wait");
      const early = await slow.waitForStatus("completed", { timeout: 1 });
      await slow.events.go.with("reference.id", "once").send("a");
      await slow.events.go.with("reference.id", "once").send("b");
      const late = await slow.waitForStatus("completed");
      return [...told, early.success ? "" : early.cause, late.success ? late.state.output : ""];
    },
  });
  const aiki = client();
  await worker({ workflows: [parentV1, childV1] }).start(aiki);
  const [completed, failed] = ["completed", "failed"].map((status) => ["run_terminated", status]);
  const expected = ["completed", completed, completed, failed, "failed", failed, "timeout", "a"];
  t.same(await outputOf(await parentV1.start(aiki)), expected);
});

test("a task starts a run of its own, sends to it by reference and waits for it", async (t) => {
  const { client } = await ground(t);
  const aiki = client();
  const starter = task({
    name: "starter",
    async handler() {
      const run = await childV1.with("reference.id", "inner").start(aiki, "wait");
      await childV1.events.go.sendByReferenceId(aiki, "inner", "sent");
      return outputOf(run);
    },
  });
  const v1 = workflow({ name: "outer" }).v("1", { handler: (run) => starter.start(run) });
  await worker({ workflows: [v1, childV1] }).start(aiki);
  t.equal(await outputOf(await v1.start(aiki)), "sent");
});

test("other code under one reference of a child is a conflict after a deploy, or gets the child that there is", async (t) => {
  const { client, advance } = await ground(t);
  for (const conflictPolicy of ["error", "return_existing"] as const) {
    const make = (input: string): Text =>
      workflow({ name: `deployed-${conflictPolicy}` }).v("1", {
        async handler(run, _input: string) {
          const reference = { id: conflictPolicy, conflictPolicy };
          const child = await echoV1.with("reference", reference).startAsChild(run, input);
          await run.sleep({ days: 1 });
          const end = await child.waitForStatus("completed");
          return end.success ? end.state.output : end.cause;
        },
      });
    const aiki = client();
    const old = await worker({ workflows: [make("old"), echoV1] }).start(aiki);
    const run = await make("old").start(aiki, "");
    await comesTo(run, "sleeping");
    await old.stop();
    await worker({ workflows: [make("new"), echoV1] }).start(aiki);
    await advance(DAY);
    if (conflictPolicy === "return_existing") t.equal(await outputOf(run), "old");
    else {
      const error = { name: "WorkflowRunReferenceConflictError", referenceId: "error" };
      t.match(await run.waitForStatus("failed"), { success: true, state: { cause: "self", error } });
    }
  }
});

test("a run that waits for the retry of its workflow says so", async (t) => {
  const { client } = await ground(t);
  const v1 = workflow({ name: "w" }).v("1", {
    retry: { type: "fixed", maxAttempts: 2, delayMs: DAY },
    async handler() {
      throw new Error("no");
    },
  });
  const aiki = client();
  await worker({ workflows: [v1] }).start(aiki);
  const run = await v1.start(aiki);
  await comesTo(run, "awaiting_retry");
  t.pass();
});

// ---- what was repaired

test("a parent whose process is killed before it has recorded that its child goes on does not fail", async (t) => {
  const { client, url, schema, sql } = await ground(t);
  await sql(`create function :SCHEMA.hold() returns trigger language plpgsql as $$ begin
      if new.name like 'resume %' then perform pg_sleep(30); end if;
      return new;
    end $$`);
  await sql("create trigger hold before insert on :SCHEMA.checkpoint for each row execute function :SCHEMA.hold()");
  const member = fork(fileURLToPath(new URL("member.js", import.meta.url)), ["member", url, schema], {
    env: { ...process.env, NODE_OPTIONS: "" },
    execArgv: [],
  });
  t.teardown(() => void member.kill("SIGKILL"));
  const aiki = client({ lease: "1s" });
  const run = await resumingV1.start(aiki);
  const held = `from pg_stat_activity where wait_event = 'PgSleep' and position('${schema}' in query) > 0`;
  await eventually(async () => (await sql(`select pid ${held}`)).length > 0, 30_000);
  member.kill("SIGKILL");
  await sql(`select pg_terminate_backend(pid) ${held}`);
  await sql("drop trigger hold on :SCHEMA.checkpoint");
  await worker({ workflows: [resumingV1, nappingV1] }).start(aiki);
  const end = await run.waitForStatus("completed", { timeout: { seconds: 60 } });
  t.ok(end.success, JSON.stringify(end));
});

test("a worker of two pools whose connection breaks once fails no run", async (t) => {
  const { client, url } = await ground(t);
  const target = new URL(url);
  const proxy = await FaultyProxy.open({ host: target.hostname, port: Number(target.port) });
  t.teardown(() => proxy.close());
  const v1 = workflow({ name: "pooled" }).v("1", {
    async handler(run) {
      await run.sleep(1);
      return run.name;
    },
  });
  let executions = 0;
  const through = client({
    database: Object.assign(new URL(url), { hostname: "127.0.0.1", port: String(proxy.port) }).href,
    // Asked before each execution.
    context: () => {
      executions += 1;
      if (executions === 1) {
        proxy.mode = "refuse";
        proxy.cut();
        setTimeout(() => Object.assign(proxy, { mode: "pass" }), 300);
      }
      return null;
    },
  });
  await worker({ workflows: [v1] })
    .with("pools", ["a", "b"])
    .start(through);
  const run = await v1.with("pool", "a").start(client());
  const end = await run.waitForStatus("completed", { timeout: { seconds: 30 } });
  t.ok(end.success, JSON.stringify(end));
});

test("a logger of this layer's own shape is written to in that shape", async (t) => {
  const { client } = await ground(t);
  const lines: unknown[][] = [];
  const add = (...line: unknown[]): void => void lines.push(line);
  const own: Logger = { trace: add, debug: add, info: add, warn: add, error: add, child: () => own };
  const v1 = workflow({ name: "logs" }).v("1", { handler: async (run) => run.logger.info("hello", { a: 1 }) });
  const aiki = client({ logger: own });
  await worker({ workflows: [v1] }).start(aiki);
  await outputOf(await v1.start(aiki));
  const line = lines.find((each) => each.includes("hello"));
  t.match(line, ["hello", { a: 1 }], "message first");
});

test("schedules: what does not fit has its class, and a reference and schedules without one do not meet", async (t) => {
  const { client, sql } = await ground(t);
  const aiki = client();
  const hourly = schedule({ type: "interval", every: { hours: 1 } });
  const names = async () => (await sql("select name from :SCHEMA.schedules")).length;
  const refusing = { "~standard": { version: 1, vendor: "own", validate: () => ({ issues: [{ message: "no" }] }) } };
  const strictV1 = workflow({ name: "strict" }).v("1", {
    schema: { input: refusing as never },
    handler: async (_run, _input: number) => {},
  });
  const { error } = await rejection(hourly.activate(aiki, strictV1, 1));
  t.ok(error instanceof SchemaValidationError, "its class");
  const plain = await hourly.activate(aiki, echoV1, "a");
  const named = await hourly.with("reference.id", "hourly").activate(aiki, echoV1, "a");
  t.equal(await names(), 1, "a schedule that gets a reference stays one");
  t.equal((await hourly.with("reference.id", "hourly").activate(aiki, echoV1, "a")).id, named.id);
  t.equal(await names(), 1, "it took the place of the one without");
  t.match(await rejection(plain.pause()), { code: "PERDURE_NOT_FOUND" });
});

test("references of any letters, the state of an existing run, a race, and a failure that is large", async (t) => {
  const { client } = await ground(t);
  const http = task({
    name: "http",
    async handler() {
      throw Object.assign(new Error("HTTP 500"), { response: { data: "y".repeat(1_500_000) } });
    },
  });
  const refsV1 = workflow({ name: "refs" }).v("1", {
    handler: async (run, reference: string) => echo.with("reference.id", reference).start(run, "x"),
  });
  const racingV1 = workflow({ name: "racing" }).v("1", {
    events: { paid: event() },
    handler: async (run) => (await race({ paid: run.events.paid, late: 1 })).winner,
  });
  const largeV1 = workflow({ name: "large" }).v("1", { handler: (run) => http.start(run) });
  const rewrapV1 = workflow({ name: "rewrap" }).v("1", {
    retry: { type: "fixed", maxAttempts: 2, delayMs: 0 },
    handler: async (run) =>
      flaky.start(run).catch(() => {
        throw new Error("the task failed");
      }),
  });
  let tries = 0;
  const flaky = task({
    name: "flaky",
    async handler() {
      tries += 1;
      if (tries === 1) throw new Error("once");
    },
  });
  const aiki = client();
  await worker({ workflows: [refsV1, echoV1, racingV1, largeV1, rewrapV1] }).start(aiki);
  const wide = echoV1.with("reference.id", "\u5b57".repeat(100));
  const refused = await wide.start(aiki, "x").then(
    () => "",
    ({ message }) => message,
  );
  t.equal(refused, "", "100 wide letters");
  const long = await (await refsV1.start(aiki, "a".repeat(300))).waitForStatus("completed");
  t.ok(long.success, "300 letters on a task");
  const once = echoV1.with("reference.id", "x");
  await outputOf(await once.start(aiki, "a"));
  const again = await once.start(aiki, "a");
  t.equal(again.run.state.status, "completed", "as of the start");
  const raced = await (await racingV1.start(aiki)).waitForStatus("completed");
  t.ok(raced.success, "race()");
  const large = await (await largeV1.start(aiki)).waitForStatus("failed");
  const error = large.success && large.state.error;
  t.ok(error instanceof TaskFailedError);
  t.equal((error as TaskFailedError).attempts, 1, "attempts");
  const rewrapped = await (await rewrapV1.start(aiki)).waitForStatus("failed");
  t.ok(rewrapped.success, "a failure that was caught stays");
});

test("a worker with a registry that was started twice is stopped once and for all", async (t) => {
  const { client } = await ground(t);
  const aiki = client();
  const registered = worker(aiki, { id: "w" });
  registered.registry.add(echoV1);
  await registered.start();
  await registered.start();
  await registered.stop();
  const run = await echoV1.start(aiki, "x");
  const { success } = await run.waitForStatus("completed", { timeout: { seconds: 2 } });
  t.notOk(success, "nobody is left");
  await registered.start();
  t.equal(await outputOf(run), "x");
});

test("a wrong grace period is refused where it is given", (t) => {
  const config = { gracefulShutdownTimeoutMs: -1 };
  t.throws(() => worker({ workflows: [echoV1], config }), { code: "PERDURE_OPTION", message: /gracefulShutdown/ });
  t.end();
});

test("what the page says of a stalled run holds", async (t) => {
  const page = readFileSync(fileURLToPath(new URL("../../../lib/aiki/README.md", import.meta.url)), "utf8");
  const { client, advance } = await ground(t);
  const make = (input: string): Text =>
    workflow({ name: "deployed" }).v("1", {
      async handler(run, _input: string) {
        await echo.start(run, input);
        await run.sleep({ days: 1 });
        return echo.start(run, "last");
      },
    });
  const aiki = client();
  const first = await worker({ workflows: [make("old")] }).start(aiki);
  const run = await make("old").start(aiki, "");
  await comesTo(run, "sleeping");
  await first.stop();
  const wrong = await worker({ workflows: [make("new")] }).start(aiki);
  await advance(DAY);
  await comesTo(run, "stalled");
  t.match(await rejection(run.pause()), { code: "PERDURE_STATE" });
  t.notMatch(page, /paused in every state that is not an end|for a deploy or/, "the page");
  await wrong.stop();
  await worker({ workflows: [make("old")] }).start(aiki);
  await run.retry();
  t.equal(await outputOf(run), "last");
});
