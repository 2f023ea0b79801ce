/** What lies at the edges of the Aiki layer: what is not there, what is refused, and what happens when the same is done twice. */
import { test } from "tap";
import {
  client as clientOf,
  createAiki,
  database,
  event,
  inMemoryQueue,
  inMemoryTimerPriorityQueue,
  type Logger,
  race,
  redisPublisher,
  redisSubscriber,
  redisTimerPriorityQueue,
  ScheduleConflictError,
  SchemaValidationError,
  schedule,
  server,
  TaskFailedError,
  task,
  type WorkflowVersion,
  worker,
  workflow,
} from "../../lib/aiki/index.ts";
import { encryption } from "../../lib/codec/index.ts";
import { schedule as coreSchedule, workflow as coreWorkflow, Perdure } from "../../lib/index.ts";
import { comesTo, DAY, ground, outputOf } from "../support/aiki.ts";
import { rejection } from "../support/gate.ts";

/** A version that takes and returns text. */
type Text = WorkflowVersion<string, string, null, Record<never, never>>;

const echo = task({ name: "echo", handler: async (value: unknown) => value });
const echoV1 = workflow({ name: "echo" }).v("1.0.0", { handler: async (_run, value: string) => value });
const hourly = schedule({ type: "interval", every: { hours: 1 } });

test("a control of a child that is as it is wanted has nothing to do, and its step names the child", async (t) => {
  const { client, sql } = await ground(t);
  const waitingV1 = workflow({ name: "waiting" }).v("1", {
    events: { go: event<string>() },
    handler: async (run) => (await run.events.go.wait()).data,
  });
  const parentV1 = workflow({ name: "parent" }).v("1", {
    async handler(run) {
      const [a, b] = [
        await waitingV1.with("reference.id", "a").startAsChild(run),
        await waitingV1.with("reference.id", "b".repeat(300)).startAsChild(run),
      ];
      for (const child of [a, b]) {
        await child.resume();
        await child.wakeup();
        await child.pause();
        await child.pause();
        await child.resume();
        await child.resume();
        await child.events.go.with("ignoreFinished", true).send("went");
      }
      const ends = [await a.waitForStatus("completed"), await b.waitForStatus("completed")];
      await a.pause();
      await a.wakeup();
      await a.cancel();
      return ends.map((end) => end.success && end.state.output);
    },
  });
  const aiki = client();
  await worker({ workflows: [parentV1, waitingV1] }).start(aiki);
  t.same(await outputOf(await parentV1.start(aiki)), ["went", "went"]);
  const names = (await sql("select distinct name from :SCHEMA.checkpoint where kind = 'step'")).map(({ name }) => name);
  for (const name of ["pause", "resume", "wake", "cancel", "send go to"])
    t.ok(names.includes(`${name} waiting:1:a`), name);
});

test("a race takes the events of a run, its children and durations", async (t) => {
  const { client } = await ground(t);
  const racingV1 = workflow({ name: "racing" }).v("1", {
    events: { never: event(), paid: event<number>() },
    async handler(run) {
      const { never, paid } = run.events;
      const child = await echoV1.startAsChild(run, "of the child");
      const [first, late] = [await race({ never, child }), await race({ never, late: 1 })];
      return [first.value, late.winner, (await race({ paid, late: { days: 1 } })).value?.data];
    },
  });
  const aiki = client();
  await worker({ workflows: [racingV1, echoV1] }).start(aiki);
  const run = await racingV1.start(aiki);
  await run.events.paid.send(5);
  t.same(await outputOf(run), ["of the child", "late", 5]);
});

test("a client is not used in a handler: its starts and events belong to children and tasks", async (t) => {
  const { client } = await ground(t);
  const aiki = client();
  const said: unknown[] = [];
  const v1 = workflow({ name: "w" }).v("1", {
    events: { go: event() },
    async handler(run) {
      const code = (error: { code: string }) => said.push(error.code);
      await echoV1.start(aiki, "x").catch(code);
      await v1.events.go.send(aiki, run.id).catch(code);
    },
  });
  await worker({ workflows: [v1] }).start(aiki);
  await outputOf(await v1.start(aiki));
  t.same(said, ["PERDURE_CONTEXT", "PERDURE_CONTEXT"]);
});

test("under a retry of the workflow a failure that was caught stays recorded, and the one that ended the run runs again", async (t) => {
  const { client } = await ground(t);
  const tries = { caught: 0, last: 0 };
  const failing = (name: keyof typeof tries) =>
    task({
      name,
      async handler() {
        tries[name] += 1;
        if (tries[name] === 1) throw new Error(name);
      },
    });
  const v1 = workflow({ name: "w" }).v("1", {
    retry: { type: "fixed", maxAttempts: 2, delayMs: 0 },
    async handler(run) {
      const first = await failing("caught")
        .start(run)
        .then(
          () => "ran",
          () => "failed",
        );
      await failing("last").start(run);
      return first;
    },
  });
  const aiki = client();
  await worker({ workflows: [v1] }).start(aiki);
  t.equal(await outputOf(await v1.start(aiki)), "failed");
  t.same(tries, { caught: 1, last: 2 });
});

test("class instances, objects with toJSON, functions and more than 1 MiB are refused as values", async (t) => {
  const { client } = await ground(t);
  class Money {
    cents = 5;
  }
  class Point {
    toJSON() {
      return { x: 1 };
    }
  }
  const anyV1 = workflow({ name: "any" }).v("1", { handler: async (_run, _value: unknown) => {} });
  const aiki = client();
  for (const value of [new Money(), new Point(), () => {}, { nested: new Money() }])
    t.match(await rejection(anyV1.start(aiki, value)), { code: "PERDURE_SERIALIZE" });
  t.match(await rejection(anyV1.start(aiki, "y".repeat(1_100_000))), { code: "PERDURE_TOO_LARGE" });
});

test("a failure that cannot be stored whole keeps what the TaskFailedError says, and shouldRetry is asked with all of it", async (t) => {
  const { client } = await ground(t);
  const asked: unknown[] = [];
  const http = task({
    name: "http",
    retry: {
      type: "fixed",
      maxAttempts: 2,
      delayMs: 0,
      shouldRetry: (error) => asked.push((error as { status: number }).status) > 0,
    },
    async handler() {
      throw Object.assign(new RangeError("HTTP 500"), { status: 500, retry: () => {}, body: "y".repeat(1_500_000) });
    },
  });
  const v1 = workflow({ name: "w" }).v("1", { handler: (run) => http.start(run) });
  const aiki = client();
  await worker({ workflows: [v1] }).start(aiki);
  const end = await (await v1.start(aiki)).waitForStatus("failed");
  const error = (end.success && end.state.error) as TaskFailedError;
  t.ok(error instanceof TaskFailedError && error.cause instanceof RangeError);
  t.match(error, { attempts: 2, reason: "HTTP 500", taskId: String });
  t.same(asked, [500]);
});

test("a logger of this layer's own shape gets the message first, with the fields of its run", async (t) => {
  const { client } = await ground(t);
  const lines: [string, object][] = [];
  const make = (fields: object): Logger => {
    const add = (message: string, more: object = {}) => void lines.push([message, { ...fields, ...more }]);
    return { trace: add, debug: add, info: add, warn: add, error: add, child: (more) => make({ ...fields, ...more }) };
  };
  const v1 = workflow({ name: "logs" }).v("1", {
    handler: async (run) => run.logger.child({ b: 2 }).info("hello", { a: 1 }),
  });
  const aiki = client({ logger: make({ own: true }) });
  await worker({ workflows: [v1] }).start(aiki);
  const run = await v1.start(aiki);
  await outputOf(run);
  t.match(lines.find(([message]) => message === "hello")?.[1], {
    own: true,
    a: 1,
    b: 2,
    runId: run.id,
    workflow: "logs",
  });
  aiki.logger.warn("outside", { c: 3 });
  t.same(lines.at(-1), ["outside", { own: true, c: 3 }]);
});

test("references and names of any letters and any length are taken, counted in bytes", async (t) => {
  const { client } = await ground(t);
  const wide = "\u5b57".repeat(100);
  const v1 = workflow({ name: "w" }).v("1", {
    events: { go: event<number>() },
    async handler(run) {
      const first = await echo.with("reference.id", wide).start(run, 1);
      const same = await echo.with("reference", { id: wide, conflictPolicy: "return_existing" }).start(run, 2);
      return [first, same, (await run.events.go.wait()).data, (await run.events.go.wait()).data];
    },
  });
  const aiki = client();
  const run = await v1.with("reference.id", wide).start(aiki);
  t.equal((await v1.getHandleByReferenceId(aiki, wide)).id, run.id);
  for (const [reference, data] of [
    [wide, 1],
    [wide, 2],
    ["other", 3],
  ] as const)
    await run.events.go.with("reference.id", reference).send(data);
  await worker({ workflows: [v1] }).start(aiki);
  t.same(await outputOf(run), [1, 1, 1, 3]);
  t.match(await rejection(run.events.go.with("reference.id", `${wide}\0`).send(1)), { code: "PERDURE_NAME" });
});

test("the state of a run that was there is told by its start", async (t) => {
  const { client } = await ground(t);
  const aiki = client();
  await worker({ workflows: [echoV1] }).start(aiki);
  const once = echoV1.with("reference.id", "x");
  await outputOf(await once.start(aiki, "a"));
  t.match((await once.start(aiki, "a")).run, { attempts: 1, state: { status: "completed", output: "a" } });
});

// ---- schedules

test("a schedule that gets a reference takes the place of the same without, and counts as another without it", async (t) => {
  const { client, sql } = await ground(t);
  const names = async () => (await sql("select name from :SCHEMA.schedules order by 1")).map(({ name }) => name);
  const aiki = client();
  const plain = await hourly.activate(aiki, echoV1, "a");
  const named = await hourly.with("reference.id", "r").activate(aiki, echoV1, "a");
  t.same(await names(), [named.id]);
  t.match(await rejection(plain.pause()), { code: "PERDURE_NOT_FOUND" });
  const again = await hourly.activate(aiki, echoV1, "a");
  t.equal(again.id, plain.id);
  t.same(await names(), [named.id, again.id]);
  await hourly.with("reference.id", "r").activate(aiki, echoV1, "a");
  t.same(await names(), [named.id]);
});

test("names of schedules begin with aiki:, and no reference meets another, what has none, or what is not of this layer", async (t) => {
  const { client, url, schema, sql } = await ground(t);
  const names = async () => (await sql("select name from :SCHEMA.schedules")).map(({ name }) => name as string);
  const aiki = client();
  await hourly.activate(aiki, echoV1, "a");
  const other = coreWorkflow("other", async () => {});
  const core = new Perdure({ database: url, schema, workflows: [other], worker: false });
  await core.launch();
  t.teardown(() => core.shutdown());
  const foreign = ["nightly#AAAAAAAAAAAAAAAA", "aiki:reference:nightly#my own"];
  for (const name of foreign) await core.schedules.put(coreSchedule(name, { every: "1h" }, other));
  const references = ["echo:1.0.0", "nightly", "nightly#AAAAAAAAAAAAAAAA", "nightly%23", "x".repeat(300)];
  for (const id of references)
    for (const input of ["b", "c"])
      await hourly.with("reference", { id, conflictPolicy: "upsert" }).activate(aiki, echoV1, input);
  const all = await names();
  t.equal(all.length, 1 + foreign.length + references.length, all.join("\n"));
  t.ok(foreign.every((name) => all.includes(name)));
  t.ok(all.every((name) => name.startsWith("aiki:") || foreign.includes(name)));
});

test("of different schedules activated at once under one reference one stays, and return_existing gives it to all", async (t) => {
  const { client, sql } = await ground(t);
  const clients = [client(), client(), client()];
  const rounds = { error: 4, return_existing: 4, upsert: 4 } as const;
  for (const [conflictPolicy, count] of Object.entries(rounds) as [keyof typeof rounds, number][]) {
    for (let round = 0; round < count; round += 1) {
      const id = `${conflictPolicy}-${round}`;
      const named = hourly.with("reference", { id, conflictPolicy });
      const settled = await Promise.allSettled(clients.map((aiki, n) => named.activate(aiki, echoV1, `${n}`)));
      const stored = await sql("select name from :SCHEMA.schedules where starts_with(name, $1)", [
        `aiki:reference:${id}#`,
      ]);
      t.equal(stored.length, 1, `${stored.length} under ${id}`);
      for (const one of settled)
        if (one.status === "rejected") t.ok(one.reason instanceof ScheduleConflictError, String(one.reason));
        else if (conflictPolicy !== "upsert") t.equal(one.value.id, stored[0].name);
      if (conflictPolicy !== "error") t.ok(settled.every(({ status }) => status === "fulfilled"));
    }
  }
});

test("the hash in a schedule's name is keyed where the client's codec has a key for hashes", async (t) => {
  const { client, sql } = await ground(t);
  const named = hourly.with("reference.id", "r");
  const open = await named.activate(client(), echoV1, "a");
  t.match(open.id, /^aiki:reference:r#[\w-]{16}$/);
  const codec = encryption({ keys: { k: Buffer.alloc(32, 1) }, current: "k", hashKey: Buffer.alloc(32, 2) });
  const keyed = await named.activate(client({ codec }), echoV1, "a");
  t.match(keyed.id, /^aiki:reference:r#~[\w-]{16}$/);
  t.same(await sql("select name from :SCHEMA.schedules"), [{ name: keyed.id }], "the one without a key is replaced");
});

test("crons have five or six fields and no name such as @daily, in UTC unless a zone is given; an input is checked by its schema", async (t) => {
  const { client, sql } = await ground(t);
  const aiki = client();
  for (const expression of ["0 9 * * *", "30 0 9 * * *"])
    await schedule({ type: "cron", expression }).activate(aiki, echoV1, expression);
  t.same(await sql("select distinct timezone from :SCHEMA.schedules"), [{ timezone: "UTC" }]);
  const daily = schedule({ type: "cron", expression: "@daily" });
  t.match(await rejection(daily.activate(aiki, echoV1, "a")), {
    code: "PERDURE_OPTION",
    message: /write "0 0 \* \* \*"/,
  });
  const validate = async () => ({ issues: [{ message: "no", path: ["id"] }] });
  const strictV1 = workflow({ name: "strict" }).v("1", {
    schema: { input: { "~standard": { version: 1, vendor: "own", validate } } },
    handler: async (_run, _input: number) => {},
  });
  const { error } = await rejection(hourly.activate(aiki, strictV1, 1));
  t.ok(error instanceof SchemaValidationError && error.issues[0]?.path === "$.id");
});

test("a sleep may last 365,000 days, and no longer", async (t) => {
  const { client } = await ground(t);
  const v1 = workflow({ name: "w" }).v("1", {
    async handler(run, days: number) {
      await run.sleep({ days });
    },
  });
  const aiki = client();
  await worker({ workflows: [v1] }).start(aiki);
  await comesTo(await v1.start(aiki, 365_000), "sleeping");
  const { success } = await (await v1.start(aiki, 365_001)).waitForStatus("failed");
  t.ok(success);
});

// ---- around it

test("a stalled run goes on by retry() once the code is right again, and cannot be paused before", async (t) => {
  const { client, advance } = await ground(t);
  const make = (input: string): Text =>
    workflow({ name: "deployed" }).v("1", {
      async handler(run, _input: string) {
        await echo.start(run, input);
        await run.sleep({ days: 1 });
        return "done";
      },
    });
  const aiki = client();
  const old = await worker({ workflows: [make("old")] }).start(aiki);
  const run = await make("old").start(aiki, "");
  await comesTo(run, "sleeping");
  await old.stop();
  const wrong = await worker({ workflows: [make("new")] }).start(aiki);
  await advance(DAY);
  await comesTo(run, "stalled");
  t.match(await rejection(run.pause()), { code: "PERDURE_STATE" });
  await wrong.stop();
  await worker({ workflows: [make("old")] }).start(aiki);
  await run.retry();
  t.equal(await outputOf(run), "done");
});

test("the parts of a server that have nothing to do here are taken by workers and servers", async (t) => {
  const { url, schema } = await ground(t);
  const parts = [redisSubscriber, redisPublisher, redisTimerPriorityQueue, inMemoryTimerPriorityQueue, inMemoryQueue];
  const [subscriber, publisher, ...queues] = parts.map((make) => make({ url: "redis://localhost" }));
  const aikiServer = server({ db: database({ provider: "pg", url }), publisher, queues });
  const aiki = clientOf({ handler: aikiServer.handler, schema });
  t.teardown(() => aiki.close());
  await worker({ workflows: [echoV1], subscriber }).start(aiki);
  t.equal(await outputOf(await echoV1.start(aiki, "a")), "a");
});

test("createAiki is a client and its worker in one", async (t) => {
  const { url, schema } = await ground(t);
  const aiki = createAiki({ pool: url, schema, workflows: [echoV1] });
  await aiki.migrate();
  await aiki.start();
  t.equal(await outputOf(await echoV1.start(aiki, "a")), "a");
  await aiki.stop();
  t.match(await rejection(echoV1.start(aiki, "b")), { code: "PERDURE_STATE" });
  const none = createAiki({ database: url, schema });
  t.match(await rejection(none.start()), { code: "PERDURE_OPTION", message: /workflows/ });
  await none.stop();
});

test("a worker with a registry is one engine however often it is started, and may be started again after it failed or stopped", async (t) => {
  const { client, sql } = await ground(t);
  const aiki = client();
  const registered = worker(aiki, { id: "w" });
  t.match(await rejection(registered.start()), { code: "PERDURE_OPTION" });
  registered.registry.add(echoV1);
  await Promise.all([registered.start(), registered.start()]);
  const lanes = "select distinct worker from :SCHEMA.lane";
  t.equal((await sql(lanes)).length, 1);
  await registered.stop();
  t.equal((await sql(lanes)).length, 0);
  const run = await echoV1.start(aiki, "x");
  await registered.start();
  t.equal(await outputOf(run), "x");
});

test("in the oldest form a workflow and a task without a payload need none", async (t) => {
  const { client } = await ground(t);
  const ping = task({ name: "ping", run: () => "pong" });
  const v1 = workflow({ name: "w", version: "1", run: ({ workflowRun }) => ping.run(workflowRun) });
  const aiki = client();
  await worker({ workflows: [v1] }).start(aiki);
  t.equal(await (await v1.enqueue(aiki)).waitForCompletion(), "pong");
  t.equal(await (await v1.enqueue(aiki, { idempotencyKey: "k" })).waitForCompletion(), "pong");
});

test("what is wrong with a client, a server, a worker or a schedule is said where it is made", (t) => {
  const wrong: [() => unknown, RegExp][] = [
    [() => clientOf({ context: 5 } as never), /context of client\(\) must be a function/],
    [() => clientOf({ handler: {} } as never), /handler of client\(\)/],
    [() => schedule({ type: "interval", expression: "* * * * *" } as never), /type "interval" takes every/],
    [() => schedule({ type: "cron", every: "1h" } as never), /type "cron" takes expression/],
    [() => worker({ workflows: [echoV1.with("reference.id", "x") as never] }), /one particular run \(reference\)/],
    [() => (worker as any)(), /worker\(\) needs workflows/],
    [() => worker({ workflows: [echoV1], config: { gracefulShutdownTimeoutMs: -1 } }), /gracefulShutdownTimeoutMs/],
    [() => worker({ workflows: [echoV1], config: { maxConcurrentWorkflowRuns: 0 } }), /maxConcurrentWorkflowRuns/],
    [() => (server as any)(), /server\(\) needs its database/],
    [() => server({} as never), /db of server\(\)/],
    [() => (database as any)(), /database\(\) needs/],
  ];
  for (const [make, message] of wrong) t.throws(make, { code: "PERDURE_OPTION", message });
  t.end();
});
