/** What programs of each generation of the Aiki API do, in that generation's own shape, with nothing changed but the import. */
// Older generations await what client() and worker() return.
/* oxlint-disable typescript/await-thenable */
import { test } from "tap";
import {
  client,
  createClient,
  database,
  event,
  schedule,
  server,
  TaskFailedError,
  task,
  WorkflowRunReferenceConflictError,
  worker,
  workflow,
} from "../../lib/aiki/index.ts";
import { comesTo, DAY, ground, outputOf } from "../support/aiki.ts";
import { eventually } from "../support/eventually.ts";
import { gate, rejection } from "../support/gate.ts";
import { freshDatabase } from "../support/postgres.ts";

// ---- S0: workflow({ name }).v(…), handler(run, input), with().opt(), unnamed sleeps, references on tasks

function shop() {
  const done: string[] = [];
  const say = (what: string) =>
    task({
      name: what,
      async handler(input: { orderId: string }) {
        done.push(`${what} ${input.orderId}`);
      },
    });
  const [create, reserve, fulfill, release] = ["create", "reserve", "fulfill", "release"].map(say) as [
    ReturnType<typeof say>,
    ReturnType<typeof say>,
    ReturnType<typeof say>,
    ReturnType<typeof say>,
  ];
  const processOrder = workflow({ name: "process-order" });
  const processOrderV1 = processOrder.v("1.0.0", {
    events: { paymentReceived: event<{ amount: number }>() },
    async handler(run, input: { orderId: string }) {
      await create.start(run, input);
      await reserve.start(run, input);
      const payment = await run.events.paymentReceived.wait({ timeout: { minutes: 30 } });
      if (payment.timeout) {
        await release.start(run, input);
        return { status: "released" as const };
      }
      await fulfill.start(run, input);
      return { status: "paid" as const, amount: payment.data.amount };
    },
  });
  return { done, processOrderV1 };
}

test("S0: an order waits half an hour for its payment, holds no worker meanwhile, and is paid by its reference", async (t) => {
  const { client, sql } = await ground(t);
  const { done, processOrderV1 } = shop();
  const aiki = client();
  await worker({ workflows: [processOrderV1], opts: { maxConcurrentWorkflowRuns: 1 } }).spawn(aiki);
  const orders = await Promise.all(
    ["1", "2", "3"].map((orderId) =>
      processOrderV1
        .with()
        .opt("reference", { id: `order-${orderId}` })
        .start(aiki, { orderId }),
    ),
  );
  for (const order of orders) await comesTo(order, "awaiting_event");
  t.same(await sql("select distinct state, worker from :SCHEMA.run"), [{ state: "suspended", worker: null }]);
  await processOrderV1.events.paymentReceived.sendByReferenceId(aiki, "order-2", { amount: 990 });
  t.same(await outputOf(orders[1]!), { status: "paid", amount: 990 });
  t.same(
    done.filter((line) => line.endsWith("2")),
    ["create 2", "reserve 2", "fulfill 2"],
  );
  t.equal((await orders[0]!.getState()).status, "awaiting_event");
});

test("S0: an order that is not paid in time is released, and a payment that comes then changes nothing", async (t) => {
  const { client, advance } = await ground(t);
  const { done, processOrderV1 } = shop();
  const aiki = client();
  await worker({ workflows: [processOrderV1] }).spawn(aiki);
  const order = await processOrderV1.with().opt("reference.id", "late").start(aiki, { orderId: "late" });
  await comesTo(order, "awaiting_event");
  await advance(30 * 60_000);
  t.same(await outputOf(order), { status: "released" });
  const { name } = await rejection(order.events.paymentReceived.send({ amount: 1 }));
  t.equal(name, "RunFinishedError");
  await order.events.paymentReceived.with("ignoreFinished", true).send({ amount: 1 });
  t.same(done, ["create late", "reserve late", "release late"]);
});

test("S0: with repeat cached a second identical call gives the first result; references tell such calls apart", async (t) => {
  const { client } = await ground(t);
  const sent: string[] = [];
  const send = task({
    name: "send",
    async handler(to: string) {
      sent.push(to);
      return sent.length;
    },
  });
  const cachedV1 = workflow({ name: "cached", repeat: "cached" }).v("1.0.0", {
    async handler(run) {
      const first = await send.start(run, "a@b.c");
      const again = await send.start(run, "a@b.c");
      const other = await send.with().opt("reference.id", "reminder").start(run, "a@b.c");
      await run.sleep({ milliseconds: 1 });
      return [first, again, other, await send.start(run, "a@b.c")];
    },
  });
  const againV1 = workflow({ name: "again" }).v("1.0.0", {
    handler: async (run) => [await send.start(run, "x"), await send.start(run, "x")],
  });
  const aiki = client();
  await worker({ workflows: [cachedV1, againV1] }).spawn(aiki);
  t.same(await outputOf(await cachedV1.start(aiki)), [1, 1, 2, 1]);
  t.same(await outputOf(await againV1.start(aiki)), [3, 4]);
});

test("S0: a task's reference with another input is a conflict, or gives what there is", async (t) => {
  const { client } = await ground(t);
  const calls: string[] = [];
  const charge = task({
    name: "charge",
    async handler(cents: number) {
      calls.push(`${cents}`);
      return cents;
    },
  });
  const strictV1 = workflow({ name: "strict" }).v("1.0.0", {
    async handler(run, policy: "error" | "return_existing") {
      const first = await charge.with().opt("reference.id", "charge").start(run, 1);
      const reference = { id: "charge", conflictPolicy: policy };
      return [first, await charge.with().opt("reference", reference).start(run, 2)];
    },
  });
  const aiki = client();
  await worker({ workflows: [strictV1] }).spawn(aiki);
  t.same(await outputOf(await strictV1.start(aiki, "return_existing")), [1, 1]);
  const failed = await (await strictV1.start(aiki, "error")).waitForStatus("failed");
  t.match(failed, { success: true, state: { cause: "self", error: { code: "PERDURE_CONFLICT" } } });
  t.same(calls, ["1", "1"]);
});

test("S0: calls may change places and be appended while a run sleeps an hour", async (t) => {
  const { client, advance } = await ground(t);
  const ran: string[] = [];
  const [a, b, c] = ["a", "b", "c"].map((name) => task({ name, handler: async (_: string) => void ran.push(name) }));
  let deployed = false;
  const changingV1 = workflow({ name: "changing" }).v("1.0.0", {
    async handler(run) {
      for (const each of deployed ? [b, a] : [a, b]) await each!.start(run, "x");
      await run.sleep({ hours: 1 });
      if (deployed) await c!.start(run, "x");
      return ran.length;
    },
  });
  const aiki = client();
  await worker({ workflows: [changingV1] }).spawn(aiki);
  const handle = await changingV1.start(aiki);
  await comesTo(handle, "sleeping");
  deployed = true;
  await advance(3_600_000);
  t.equal(await outputOf(handle), 3);
  t.same(ran, ["a", "b", "c"]);
});

test("S0: what is random is drawn in a task, and stays as it was drawn", async (t) => {
  const { client, advance } = await ground(t);
  const draw = task({ name: "draw", handler: async () => crypto.randomUUID() });
  const seen = new Set<string>();
  const drawingV1 = workflow({ name: "drawing" }).v("1.0.0", {
    async handler(run) {
      const id = await draw.start(run);
      seen.add(id);
      await run.sleep({ hours: 1 });
      return id;
    },
  });
  const aiki = client();
  await worker({ workflows: [drawingV1] }).spawn(aiki);
  const handle = await drawingV1.start(aiki);
  await comesTo(handle, "sleeping");
  await advance(3_600_000);
  t.same([await outputOf(handle)], [...seen]);
});

test("S0: a wait of 30 days survives its worker, and an event at its very end is either received or left, never both", async (t) => {
  const { client, advance } = await ground(t);
  const waitingV1 = workflow({ name: "waiting" }).v("1.0.0", {
    events: { done: event<number>() },
    async handler(run) {
      const first = await run.events.done.wait({ timeout: { days: 30 } });
      return first.timeout ? { late: (await run.events.done.wait()).data } : { inTime: first.data };
    },
  });
  const aiki = client();
  const before = await worker({ workflows: [waitingV1] }).spawn(aiki);
  const handles = await Promise.all(Array.from({ length: 20 }, () => waitingV1.start(aiki)));
  for (const handle of handles) await comesTo(handle, "awaiting_event");
  await before.stop();
  await worker({ workflows: [waitingV1] }).spawn(aiki);
  await Promise.all([advance(30 * DAY), ...handles.map((handle, i) => handle.events.done.send(i))]);
  const outputs = await Promise.all(handles.map((handle) => outputOf(handle)));
  t.same(
    outputs.map((output) => ("late" in output ? output.late : output.inTime)),
    handles.map((_, i) => i),
  );
});

// ---- S1: exec(input, run), withOptions(), run.wait(), a worker with a registry

test("S1: an onboarding retries its mail, sleeps a day and goes on; the worker has a registry", async (t) => {
  const { client, advance } = await ground(t);
  const calls: string[] = [];
  const createProfile = task({
    name: "create-profile",
    async exec(input: { email: string }) {
      calls.push("profile");
      return { userId: `user of ${input.email}` };
    },
  });
  const sendWelcome = task({
    name: "send-welcome",
    async exec(input: { email: string }) {
      calls.push("welcome");
      if (calls.filter((call) => call === "welcome").length < 3) throw new Error(`no server for ${input.email}`);
    },
  }).withOptions({ retry: { type: "exponential", maxAttempts: 5, baseDelayMs: 1, maxDelayMs: 30_000 } });
  const onboarding = workflow({ name: "user-onboarding" });
  const onboardingV1 = onboarding.v("1.0", {
    async exec(input: { email: string }, run) {
      const { userId } = await createProfile.start(run, { email: input.email });
      await sendWelcome.start(run, { email: input.email });
      await run.sleep({ days: 1 });
      calls.push("tips");
      return { success: true, userId };
    },
  });
  const aiki = await client({ url: "localhost:9090", redis: { host: "localhost", port: 6379 } });
  const workerA = await worker(aiki, { id: "worker-A", subscriber: { type: "redis_streams" } });
  workerA.registry.add(onboarding);
  await workerA.start();
  t.throws(() => workerA.registry.add(onboarding), { code: "PERDURE_STATE" });
  const run = await onboardingV1.start(aiki, { email: "new@user.example" });
  await comesTo(run, "sleeping");
  t.same(calls, ["profile", "welcome", "welcome", "welcome"]);
  await advance(DAY);
  const result = await run.wait({ type: "status", status: "completed" }, { maxDurationMs: 60_000 });
  t.match(result, { success: true, state: { output: { success: true, userId: "user of new@user.example" } } });
  await aiki.close();
});

test("S1: a wait for an event says whether it was received", async (t) => {
  const { client } = await ground(t);
  const verifyV1 = workflow({ name: "verify" }).v("1.0", {
    events: { verified: event<string>() },
    async exec(patience: number, run) {
      const waited = await run.wait<string>({ type: "event", event: "verified" }, { maxDurationMs: patience });
      return waited.received ? waited.data : "nobody";
    },
  });
  const aiki = client();
  await worker({ workflows: [verifyV1] }).spawn(aiki);
  t.equal(await outputOf(await verifyV1.start(aiki, 1)), "nobody");
  const run = await verifyV1.start(aiki, 600_000);
  await run.events.verified.send("ada");
  t.equal(await outputOf(run), "ada");
});

test("S1: workers share the work, and each takes the versions that it registers", async (t) => {
  const { client } = await ground(t);
  const open = gate();
  const inWork = { v1: 0, v2: 0 };
  const greeter = workflow({ name: "greeter" });
  const [v1, v2] = (["v1", "v2"] as const).map((version) =>
    greeter.v(version, {
      async handler(_run, name: string) {
        inWork[version] += 1;
        await open.opened;
        return `${version} greets ${name}`;
      },
    }),
  ) as [ReturnType<typeof greeter.v<string, string>>, ReturnType<typeof greeter.v<string, string>>];
  const aiki = client();
  const one = { opts: { maxConcurrentWorkflowRuns: 1 } };
  await worker({ name: "a", workflows: [v1], ...one }).spawn(aiki);
  const handles = [await v1.start(aiki, "ada"), await v1.start(aiki, "bob"), await v2.start(aiki, "eve")];
  await eventually(() => inWork.v1 === 1);
  // A second worker, as of another process, takes what the first has no room for.
  await worker({ name: "b", workflows: [v1], ...one }).spawn(client());
  await eventually(() => inWork.v1 === 2);
  t.equal(inWork.v2, 0, "nobody serves v2");
  await worker({ name: "c", workflows: [v2], ...one }).spawn(client());
  await eventually(() => inWork.v2 === 1);
  open.open();
  t.same(await Promise.all(handles.map((handle) => outputOf(handle))), [
    "v1 greets ada",
    "v1 greets bob",
    "v2 greets eve",
  ]);
});

// ---- S2: workflow({ name, version, run }), enqueue, idempotencyKey, getStatus, waitForCompletion

test("S2: a workflow is enqueued with a payload, and its handle gives status and result", async (t) => {
  const { url, schema } = await ground(t);
  const seen: string[] = [];
  const validate = task({
    name: "validate-order",
    run({ payload, workflowRun }: { payload: { items: string[] }; workflowRun: { id: string } }) {
      seen.push(workflowRun.id);
      return { orderId: `order of ${payload.items.length}` };
    },
  });
  const pay = task({
    name: "pay",
    retry: { type: "exponential", maxAttempts: 3, baseDelayMs: 1 },
    run: ({ payload }: { payload: { orderId: string } }) => `paid ${payload.orderId}`,
  });
  const orderProcessing = workflow({
    name: "order-processing",
    version: "1.0.0",
    async run({ workflowRun, payload }: { workflowRun: any; payload: { items: string[] } }) {
      const { orderId } = await validate.run(workflowRun, { payload: workflowRun.params.payload });
      return { orderId, items: payload.items, paid: await pay.run(workflowRun, { payload: { orderId } }) };
    },
  });
  const aiki = await createClient({ url: "localhost:9090", database: url, schema, logger: silent });
  t.teardown(() => aiki.close());
  const instance = await worker(aiki, {
    id: "order-worker",
    maxConcurrentWorkflowRuns: 5,
    workflowRunSubscriber: { pollIntervalMs: 100, maxBatchSize: 10 },
  });
  instance.registry.add(orderProcessing);
  void instance.start();
  const handle = await orderProcessing.enqueue(aiki, { payload: { items: ["a", "b"] } });
  const expected = { orderId: "order of 2", items: ["a", "b"], paid: "paid order of 2" };
  t.same(await handle.waitForCompletion(), expected);
  t.same(await handle.getStatus(), { id: handle.id, state: "completed" });
  t.same(seen, [handle.id]);
  await instance.stop();
});

const silent = { debug() {}, info() {}, warn() {}, error() {} };

test("S2: the same idempotency key gives the same run and the same task result, whatever the input", async (t) => {
  const { client } = await ground(t);
  let sent = 0;
  const send = task({
    name: "send",
    run: ({ payload }: { payload: string }) => `${payload} ${++sent}`,
  });
  const mailing = workflow({
    name: "mailing",
    version: "1",
    async run({ workflowRun, payload }: { workflowRun: any; payload: string }) {
      const first = await send.run(workflowRun, { payload, idempotencyKey: "k" });
      const same = await send.run(workflowRun, { payload: "other", idempotencyKey: "k" });
      const none = [await send.run(workflowRun, { payload }), await send.run(workflowRun, { payload })];
      return [first, same, ...none];
    },
  });
  const aiki = client();
  await worker({ workflows: [mailing] }).spawn(aiki);
  const first = await mailing.enqueue(aiki, { payload: "a", idempotencyKey: "once" });
  const second = await mailing.enqueue(aiki, { payload: "b", idempotencyKey: "once" });
  t.equal(first.id, second.id);
  t.same(await second.waitForCompletion(), ["a 1", "a 1", "a 2", "a 3"]);
});

test("S2: retries are fixed, exponential or jittered, and what fails for good is compensated without state by hand", async (t) => {
  const { client } = await ground(t);
  const tries: Record<string, number> = {};
  const failing = (name: string, retry: Parameters<typeof task>[0]["retry"]) =>
    task<string, void>({
      name,
      retry,
      handler: async () => {
        tries[name] = (tries[name] ?? 0) + 1;
        throw new Error("down");
      },
    });
  const refund = task({
    name: "refund",
    async handler(order: string) {
      tries[order] = (tries[order] ?? 0) + 1;
    },
  });
  const tasks = [
    failing("fixed", { type: "fixed", maxAttempts: 3, delayMs: 1 }),
    failing("exponential", { type: "exponential", maxAttempts: 2, baseDelayMs: 1, factor: 2, maxDelayMs: 5 }),
    failing("jittered", { type: "jittered", maxAttempts: 4, baseDelayMs: 1 }),
    failing("never", { type: "never" }),
  ];
  const sagaV1 = workflow({ name: "saga" }).v("1", {
    async handler(run, order: string) {
      const attempts: number[] = [];
      for (const each of tasks) {
        try {
          await each.start(run, order);
        } catch (error) {
          if (!(error instanceof TaskFailedError)) throw error;
          attempts.push(error.attempts);
          await refund.with("reference.id", each.name).start(run, `${order} ${each.name}`);
        }
      }
      await run.sleep(1);
      return attempts;
    },
  });
  const aiki = client();
  await worker({ workflows: [sagaV1] }).spawn(aiki);
  t.same(await outputOf(await sagaV1.start(aiki, "o")), [3, 2, 4, 1]);
  const once = { "o fixed": 1, "o exponential": 1, "o jittered": 1, "o never": 1 };
  t.same(tries, { fixed: 3, exponential: 2, jittered: 4, never: 1, ...once });
});

// ---- S3: server().runtime, client({ handler }), spawn and start, handles

function trial() {
  const done: string[] = [];
  const activate = task({
    name: "activate-trial",
    handler: async (user: string) => void done.push(`activate ${user}`),
  });
  const downgrade = task({ name: "downgrade", handler: async (user: string) => void done.push(`downgrade ${user}`) });
  const trialV1 = workflow({ name: "subscription-trial" }).v("1.0.0", {
    async handler(run, input: { userId: string }) {
      await activate.start(run, input.userId);
      const result = await run.events.paymentReceived.wait({ timeout: { days: 14 } });
      if (result.timeout) await downgrade.start(run, input.userId);
    },
    events: { paymentReceived: event() },
  });
  return { done, trialV1 };
}

test("S3: the quick start of one process, from the server to the last stop", async (t) => {
  const { url } = await ground(t);
  const { done, trialV1 } = trial();
  // A database of its own: the quick start names no schema.
  const databaseUrl = await freshDatabase(t);
  t.not(url, databaseUrl);
  const aikiServer = server({ db: database({ provider: "pg", url: databaseUrl }) });
  const runtimeHandle = aikiServer.runtime.start();
  const aikiClient = client({ handler: aikiServer.handler });
  const workerHandle = worker({ workflows: [trialV1] }).start(aikiClient);
  const handle = await trialV1.start(aikiClient, { userId: "user-123" });
  await handle.events.paymentReceived.send();
  t.match(await handle.waitForStatus("completed"), { success: true });
  await workerHandle.stop();
  await runtimeHandle.stop();
  t.same(done, ["activate user-123"]);
  t.equal((await aikiServer.handler(new Request("http://localhost/api"))).status, 501);
});

test("S3: a trial that nobody pays for ends after 14 days", async (t) => {
  const { client, advance } = await ground(t);
  const { done, trialV1 } = trial();
  const aiki = client();
  await worker({ workflows: [trialV1] }).spawn(aiki);
  const handle = await trialV1.start(aiki, { userId: "u" });
  await comesTo(handle, "awaiting_event");
  await advance(14 * DAY);
  t.match(await handle.waitForStatus("completed"), { success: true, state: { status: "completed" } });
  t.same(done, ["activate u", "downgrade u"]);
});

test("S3: children run in parallel on other workers, and a parent collects them", async (t) => {
  const { client } = await ground(t);
  const open = gate();
  const by: string[] = [];
  const childV1 = workflow<string>({ name: "child" }).v("1.0.0", {
    async handler(run, n: number) {
      by.push(run.context);
      if (by.length === 4) open.open();
      await open.opened;
      return n * n;
    },
  });
  const parentV1 = workflow<string>({ name: "parent" }).v("1.0.0", {
    async handler(run, count: number) {
      const numbers = Array.from({ length: count }, (_, n) => n);
      const children = await Promise.all(numbers.map((n) => childV1.startAsChild(run, n)));
      const results = await Promise.all(children.map((child) => child.waitForStatus("completed")));
      return results.map((result) => (result.success ? result.state.output : -1));
    },
  });
  const aiki = client<string>({ context: () => "parent's" });
  await worker({ workflows: [parentV1] }).spawn(aiki);
  const config = { maxConcurrentWorkflowRuns: 2 };
  for (const name of ["a", "b"]) await worker({ workflows: [childV1], config }).spawn(client({ context: () => name }));
  t.same(await outputOf(await parentV1.start(aiki, 4)), [0, 1, 4, 9]);
  t.same([...new Set(by)].sort(), ["a", "b"], "both workers had a part");
});

test("S3: a duplicate start returns the existing run, another input is a conflict, and a policy settles it", async (t) => {
  const { client } = await ground(t);
  const orderV1 = workflow({ name: "order" }).v("1.0.0", { handler: async (_run, id: string) => id });
  const aiki = client();
  const start = (input: string) => orderV1.with("reference.id", "o-1").start(aiki, input);
  const handles = await Promise.all(Array.from({ length: 50 }, () => start("a")));
  t.same(new Set(handles.map(({ id }) => id)).size, 1);
  const { error } = await rejection(start("b"));
  t.ok(error instanceof WorkflowRunReferenceConflictError);
  t.match(error, { code: "PERDURE_CONFLICT", referenceId: "o-1", runId: handles[0]!.id });
  const existing = { id: "o-1", conflictPolicy: "return_existing" } as const;
  t.equal((await orderV1.with("reference", existing).start(aiki, "b")).id, handles[0]!.id);
});

test("S3: a schedule starts runs, is paused, resumed and deactivated", async (t) => {
  const { client } = await ground(t);
  const ticks: string[] = [];
  const reportV1 = workflow({ name: "report" }).v("1.0.0", {
    handler: async (_run, input: { tenant: string }) => void ticks.push(input.tenant),
  });
  const aiki = client();
  await worker({ workflows: [reportV1] }).spawn(aiki);
  const everySecond = schedule({ type: "interval", every: { seconds: 1 }, overlapPolicy: "skip" });
  const handle = await everySecond.activate(aiki, reportV1, { tenant: "t-1" });
  await eventually(() => ticks.length >= 1, 20_000);
  await handle.pause();
  await handle.resume();
  await eventually(() => ticks.length >= 2, 20_000);
  await handle.deactivate();
  t.same(new Set(ticks), new Set(["t-1"]));
  t.match(await rejection(handle.pause()), { code: "PERDURE_NOT_FOUND" });
});
