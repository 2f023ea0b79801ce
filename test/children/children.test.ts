/** Children: one for each call, whatever crashes; their ends reach the parent, whatever they are; cancellation goes down. */
import { test } from "tap";
import {
  event,
  NonRetryableError,
  RunCancelledError,
  RunFailedError,
  sleep,
  start,
  step,
  TimeoutError,
  workflow,
} from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, rejection } from "../support/gate.ts";
import { needs } from "../support/without.ts";

const patient = { timeout: PATIENCE_MS };
const go = event<string>("go");
const double = workflow("double", async (n: number) => n * 2);
const waiting = workflow("waiting", async (_n: number) => (await go.wait()).data);
const failing = workflow("failing", async (code: string) => {
  throw new NonRetryableError(`no ${code}`);
});

test("a workflow called inside a workflow is a child, and its result comes back", async (t) => {
  const parent = workflow("parent", async (n: number) => (await double(n)) + (await double(n)) + (await double(n + 1)));
  const b = await bench(t, { workflows: [parent, double] });
  t.equal(await (await b.perdure.start(parent.with({ id: "p" }), 1)).result(patient), 8);
  const rows = await b.sql("select id, parent_id, state from :SCHEMA.runs order by created_at, id");
  t.equal(rows.length, 4);
  t.same(rows.filter(({ parent_id }) => parent_id === "p").length, 3);
});

test("start() gives a handle once the child is durable, and its end can be awaited later", async (t) => {
  const parent = workflow("parent", async () => {
    const children = await Promise.all([1, 2, 3].map((n) => start(double, n)));
    await sleep(1);
    return Promise.all(children.map((child) => child.result()));
  });
  const b = await bench(t, { workflows: [parent, double] });
  t.same(await (await b.perdure.start(parent)).result(patient), [2, 4, 6]);
});

test("a child that fails, or is cancelled, wakes its parent with an error that says so", async (t) => {
  const seen: unknown[] = [];
  const parent = workflow("parent", async () => {
    const child = await start(waiting.with({ id: "victim" }), 1);
    const error = await failing("luck").catch((e) => e);
    seen.push(error);
    const cancelled = await child.result().catch((e) => e);
    seen.push(cancelled);
    return [
      error instanceof RunFailedError,
      error.cause instanceof NonRetryableError,
      cancelled instanceof RunCancelledError,
      cancelled.reason,
    ];
  });
  const b = await bench(t, { workflows: [parent, failing, waiting] });
  const run = await b.perdure.start(parent);
  await eventually(async () => (await run.status()).waitingFor === "child" && seen.length === 1);
  await b.perdure.get("victim").cancel("enough");
  t.same(await run.result(patient), [true, true, true, "enough"]);
});

test("a wait for a child may have a timeout; the child goes on, and can be waited for again", async (t) => {
  const parent = workflow("parent", async () => {
    const child = await start(waiting.with({ id: "slow" }), 1);
    const late = await child.result({ timeout: 50 }).catch((e) => e instanceof TimeoutError);
    await child.send(go, "now");
    return [late, await child.result()];
  });
  const b = await bench(t, { workflows: [parent, waiting] });
  t.same(await (await b.perdure.start(parent)).result(patient), [true, "now"]);
  const sent = await b.sql("select count(*)::int as n from :SCHEMA.mail");
  t.equal(sent[0].n, 1);
});

test("cancelling a parent cancels what is below it, but not what is detached", async (t) => {
  const deep = workflow("deep", async () => {
    await start(waiting.with({ id: "grandchild" }), 1);
    await sleep("1h");
  });
  const parent = workflow("parent", async () => {
    await start(deep.with({ id: "child" }));
    await start(waiting.with({ id: "free", detached: true }), 2);
    await sleep("1h");
  });
  const b = await bench(t, { workflows: [parent, deep, waiting] });
  const run = await b.perdure.start(parent);
  await eventually(async () => (await b.sql("select from :SCHEMA.run where state = 'suspended'")).length === 4);
  await run.cancel("stop");
  const states = await b.sql("select id, state, reason from :SCHEMA.run where parent is not null order by id");
  t.match(states, [
    { id: "child", state: "cancelled", reason: "its parent was cancelled: stop" },
    { id: "free", state: "suspended" },
    { id: "grandchild", state: "cancelled" },
  ]);
});

test("a failed child is started anew when its failure escaped and the workflow is retried; the others are kept", async (t) => {
  const calls: string[] = [];
  const flaky = workflow("flaky", async (n: number) => {
    calls.push(`flaky ${n}`);
    if (calls.filter((c) => c.startsWith("flaky")).length < 2) throw new Error("again");
    return n;
  });
  const steady = workflow("steady", async (n: number) => {
    calls.push(`steady ${n}`);
    return n;
  });
  const parent = workflow(
    { name: "parent", retry: { type: "fixed", maxAttempts: 3, delay: 1 } },
    async () => (await steady(1)) + (await flaky(2)),
  );
  const b = await bench(t, { workflows: [parent, flaky, steady] });
  t.equal(await (await b.perdure.start(parent)).result(patient), 3);
  t.same(calls, ["steady 1", "flaky 2", "flaky 2"]);
  t.equal((await b.sql("select from :SCHEMA.run")).length, 4);
});

test("two parents that name one child share it, and both hear of its end", async (t) => {
  const parent = workflow("parent", async (_name: string) => waiting.with({ id: "shared" })(1));
  const b = await bench(t, { workflows: [parent, waiting] });
  const runs = await Promise.all(["a", "b"].map((name) => b.perdure.start(parent, name)));
  await eventually(async () => (await b.sql("select from :SCHEMA.run where state = 'suspended'")).length === 3);
  await b.perdure.send("shared", go, "both");
  t.same(await Promise.all(runs.map((run) => run.result(patient))), ["both", "both"]);
});

test("a child with a taken id: other input is refused, and so is waiting for oneself", async (t) => {
  const parent = workflow("parent", async () => {
    const other = await double
      .with({ id: "taken" })(2)
      .catch((e) => e.code);
    const self = await double
      .with({ id: "p" })(2)
      .catch((e) => e.code);
    const kept = await double.with({ id: "taken too", onConflict: "return_existing" })(2);
    return [other, self, kept];
  });
  const b = await bench(t, { workflows: [parent, double] });
  await (await b.perdure.start(double.with({ id: "taken" }), 1)).result(patient);
  await (await b.perdure.start(double.with({ id: "taken too" }), 1)).result(patient);
  t.same(await (await b.perdure.start(parent.with({ id: "p" }))).result(patient), [
    "PERDURE_CONFLICT",
    "PERDURE_CONFLICT",
    2,
  ]);
});

test("a thousand children are joined, and the parent replays a few times only", needs("batch"), async (t) => {
  let bodies = 0;
  const parent = workflow("parent", async (n: number) => {
    bodies += 1;
    const all = await Promise.all(Array.from({ length: n }, (_, i) => double(i)));
    return all.reduce((a, b) => a + b, 0);
  });
  const b = await bench(t, { workflows: [parent, double] });
  const begun = performance.now();
  t.equal(await (await b.perdure.start(parent, 1000)).result(patient), 999_000);
  t.comment(`${Math.round(performance.now() - begun)} ms, ${bodies} passes`);
  t.ok(bodies < 30, `${bodies} passes`);
});

test("a child that nobody awaited is named when the workflow returns", async (t) => {
  const parent = workflow("parent", async () => {
    void double(1);
  });
  const b = await bench(t, { workflows: [parent, double] });
  const error = await rejection((await b.perdure.start(parent)).result(patient));
  t.match(error.message, /nobody awaited child "double"/);
});
void step;
void gate;
