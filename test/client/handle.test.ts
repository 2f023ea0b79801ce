/** A run from outside: what its result comes to, wherever one asks, and what cancelling it does at once. */
import pg from "pg";
import { type Test, test } from "tap";
import { currentStep, event, Perdure, type RunHandle, sleep, step, workflow } from "../../lib/index.ts";
import { type Bench, bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

class Declined extends Error {
  static {
    Declined.prototype.name = "Declined";
  }
  readonly cents: number;
  constructor(message: string, cents: number) {
    super(message);
    this.cents = cents;
  }
}

const ping = event<number>("ping");
const outcome = workflow("outcome", async (how: string) => {
  await sleep(20);
  if (how === "throws") throw Object.assign(new Declined("no money", 5), { cause: new TypeError("deep") });
  if (how === "throws text") throw "text";
  if (how === "waits") await ping.wait();
  return how === "returns nothing" ? undefined : { how, at: new Date(7), many: new Map([[1n, how]]) };
});
const options = { workflows: [outcome], errors: [Declined] };

/** The run as the starting engine, another worker and a pure client see it. */
async function seenBy(t: Test, extra = {}) {
  const b = await bench(t, { ...options, ...extra });
  const engines = [b.perdure, await b.another(), await b.another({ worker: false })];
  const all = async (how: string) => {
    const run = await b.perdure.start(outcome, how);
    return [run, ...engines.slice(1).map((engine) => engine.get(outcome, run.id))];
  };
  return { b, engines, all };
}

for (const [name, extra] of [
  ["with hints", {}],
  ["by polling alone", { notify: false }],
] as const) {
  test(`every engine sees the same outcome, asked before and after the end, ${name}`, async (t) => {
    const { all } = await seenBy(t, extra);
    for (const how of ["returns", "returns nothing"]) {
      const handles = await all(how);
      const results = await Promise.all(handles.map((run) => run.result({ timeout: PATIENCE_MS })));
      const expected = how === "returns" ? { how, at: new Date(7), many: new Map([[1n, how]]) } : undefined;
      t.strictSame(results, [expected, expected, expected]);
      t.strictSame(await Promise.all(handles.map((run) => run.result())), results, "after the end");
    }
    const thrown = await all("throws");
    for (const run of [...thrown, ...thrown]) {
      const failed = await rejection(run.result({ timeout: PATIENCE_MS }));
      t.match(failed, { name: "RunFailedError", code: "PERDURE_FAILED", message: /failed: Declined: no money/ });
      t.equal(failed.error.runId, run.id);
      const { cause } = failed.error;
      t.ok(cause instanceof Declined && cause.cents === 5 && cause.cause instanceof TypeError, "revived");
    }
    const text = await all("throws text");
    t.same(
      await Promise.all(text.map(async (run) => (await rejection(run.result())).error.cause)),
      Array(3).fill("text"),
    );
    const waits = await all("waits");
    const refusals = Promise.all(waits.map((run) => rejection(run.result({ timeout: PATIENCE_MS }))));
    await reaches(waits[0]!, "suspended");
    await waits[2]!.cancel("changed my mind");
    for (const refused of await refusals) {
      t.match(refused, {
        name: "RunCancelledError",
        code: "PERDURE_CANCELLED",
        message: /was cancelled: changed my mind$/,
      });
      t.equal(refused.error.reason, "changed my mind");
    }
  });
}

test("a wait for a result ends at its timeout or signal, and the run goes on", async (t) => {
  const { all } = await seenBy(t);
  const handles = await all("waits");
  for (const run of handles) {
    t.match(await rejection(run.result({ timeout: 1 })), {
      name: "TimeoutError",
      code: "PERDURE_TIMEOUT",
      message: /it stays as it is, so wait again/,
    });
    const aborter = new AbortController();
    const waiting = rejection(run.result({ signal: aborter.signal }));
    aborter.abort(new RangeError("enough"));
    t.match(await waiting, { name: "RangeError", message: "enough" });
    t.match(await rejection(run.result({ signal: aborter.signal })), { message: "enough" }, "aborted before");
    t.match(await rejection(run.result({ timeout: "soon" as never })), { code: "PERDURE_OPTION" });
    t.match(await rejection(run.result({ timout: 5 } as never)), {
      code: "PERDURE_OPTION",
      message: /did you mean "timeout"/,
    });
  }
  const waiting = handles.map((run) => run.result({ timeout: PATIENCE_MS, signal: new AbortController().signal }));
  await handles[1]!.send(ping, 1);
  t.equal((await Promise.all(waiting)).length, 3);
  for (const run of handles)
    t.same(await run.result({ timeout: 0 }), await run.result(), "a run that has ended is never late");
});

test("a run that nobody started is not found, whatever is asked of it", async (t) => {
  const { engines } = await seenBy(t);
  for (const engine of engines) {
    const run = engine.get("nobody");
    const calls = [run.status(), run.result(), run.cancel(), run.wake(), run.send(ping, 1)];
    for (const refused of await Promise.all(calls.map(rejection))) {
      t.match(refused, { code: "PERDURE_NOT_FOUND", message: /there is no run "nobody"/ });
    }
    t.throws(() => engine.get(""), { code: "PERDURE_NAME" });
  }
});

test("a run that is finished elsewhere is told to the engine that started it", async (t) => {
  const b = await bench(t, options);
  const run = await b.perdure.start(outcome, "waits");
  await reaches(run, "suspended");
  const waiting = run.result({ timeout: PATIENCE_MS });
  const second = await b.another({ worker: { queues: ["second"] } });
  await b.sql("update :SCHEMA.run set queue = 'second'");
  await second.send(run.id, ping, 1);
  t.equal((await waiting)?.how, "waits");
});

test("the status says what a run is doing, from its start to its end", async (t) => {
  const stop = gate();
  const work = step("work", () => stop.opened);
  const stages = workflow({ name: "stages", version: "7" }, async () => {
    await work();
    await ping.wait();
    await sleep("1h");
  });
  const b = await bench(t, { workflows: [stages] });
  const run = await b.perdure.start(stages.with({ id: "s", priority: 3 }));
  await reaches(run, "running");
  t.match(await run.status(), {
    id: "s",
    workflow: "stages",
    version: "7",
    state: "running",
    waitingFor: null,
    reason: null,
    queue: "default",
    priority: 3,
    attempt: 1,
    createdAt: Date,
    startedAt: Date,
    finishedAt: null,
  });
  stop.open();
  await reaches(run, "suspended");
  t.equal((await run.status()).waitingFor, "event");
  await run.send(ping, 1);
  await eventually(async () => (await run.status()).waitingFor === "sleep", PATIENCE_MS);
  await run.wake();
  await run.result();
  const { state, waitingFor, finishedAt, startedAt } = await run.status();
  t.same([state, waitingFor], ["completed", null]);
  t.ok(finishedAt! >= startedAt!);
});

/** A workflow whose step stands still until the test lets it go on. */
function standing() {
  const [began, stop] = [gate(), gate()];
  const seen: string[] = [];
  const work = step("work", async () => {
    const { signal } = currentStep();
    signal.addEventListener("abort", () => seen.push("aborted"));
    began.open();
    await stop.opened;
    seen.push("step ended");
    return 1;
  });
  const run = workflow("standing", async () => {
    try {
      await work();
    } catch {
      seen.push("caught");
    } finally {
      seen.push("went on");
    }
    await ping.wait();
  });
  return { workflow: run, began, stop, seen };
}

async function recorded({ sql }: Bench): Promise<number> {
  return (await sql("select from :SCHEMA.checkpoint")).length + (await sql("select from :SCHEMA.outcome")).length;
}

for (const from of ["the same engine", "another engine", "an engine without hints"]) {
  test(`a running run that ${from} cancels: its step is told, its body never goes on, its writes are refused`, async (t) => {
    const { workflow: stand, began, stop, seen } = standing();
    const hints = from === "an engine without hints" ? { notify: false } : {};
    const b = await bench(t, { workflows: [stand], ...hints });
    const run = await b.perdure.start(stand);
    await began.opened;
    const canceller = from === "the same engine" ? b.perdure : await b.another({ worker: false });
    await canceller.get(run.id).cancel("enough");
    await eventually(() => seen.includes("aborted"), PATIENCE_MS);
    stop.open();
    await eventually(() => seen.includes("step ended"), PATIENCE_MS);
    t.match(await rejection(run.result()), { code: "PERDURE_CANCELLED" });
    await b.perdure.shutdown();
    t.same(seen, ["aborted", "step ended"]);
    const after = await b.another();
    t.match(await after.get(run.id).status(), { state: "cancelled", reason: "enough" });
    t.equal(await recorded(b), 0);
  });
}

test("a run is cancelled while it is pending, delayed, asleep or waiting, and nothing of it runs after", async (t) => {
  let bodies = 0;
  const listen = workflow("listen", async (how: string) => {
    bodies += 1;
    if (how === "asleep") await sleep("1h");
    else await ping.wait({ timeout: "1h" });
    bodies += 100;
  });
  const unserved = workflow({ name: "unserved", queue: "nobody" }, async () => {
    bodies += 1000;
  });
  const b = await bench(t, { workflows: [listen, unserved], worker: { queues: ["default"] } });
  const runs: RunHandle[] = [
    await b.perdure.start(unserved),
    await b.perdure.start(listen.with({ delay: "1h" }), "delayed"),
  ];
  for (const how of ["asleep", "waiting"]) {
    runs.push(await b.perdure.start(listen, how));
    await reaches(runs.at(-1)!, "suspended");
  }
  for (const run of runs) {
    await run.cancel();
    t.match(await run.status(), { state: "cancelled", reason: null, waitingFor: null, finishedAt: Date });
    const refused = await rejection(run.result());
    t.match(refused, { code: "PERDURE_CANCELLED", message: /was cancelled$/ });
    t.equal(refused.error.reason, null);
    t.equal((await rejection(run.send(ping, 1))).code, "PERDURE_FINISHED");
    t.equal((await rejection(run.wake())).code, "PERDURE_STATE");
  }
  await b.advance(2 * 3_600_000);
  // Whatever became claimable would run before this one.
  const last = await b.perdure.start(listen, "last");
  await reaches(last, "suspended");
  t.equal(bodies, 3);
  t.same(await b.sql("select distinct state from :SCHEMA.run where id <> $1", [last.id]), [{ state: "cancelled" }]);
});

test("a cancelled run stays cancelled, and a finished one cannot be cancelled", async (t) => {
  const b = await bench(t, options);
  const run = await b.perdure.start(outcome.with({ id: "c" }), "waits");
  await run.cancel("first");
  await run.cancel("second");
  t.equal((await run.status()).reason, "first");
  const done = await b.perdure.start(outcome.with({ id: "d" }), "returns");
  await done.result();
  t.match(await rejection(done.cancel()), {
    code: "PERDURE_STATE",
    message: 'run "d" is completed, so it cannot be cancelled; only a run that has not finished can',
  });
  const failed = await b.perdure.start(outcome.with({ id: "f" }), "throws");
  await rejection(failed.result());
  t.match(await rejection(failed.cancel()), { code: "PERDURE_STATE", message: /is failed/ });
  const again = await b.perdure.start(outcome.with({ id: "c" }), "waits");
  t.equal((await rejection(again.result())).code, "PERDURE_CANCELLED", "an equal start gives the cancelled run");
});

test("a finish that is refused because the run was cancelled leaves the recorded outcome to every handle", async (t) => {
  const stop = gate();
  const busy = workflow("busy", async () => {
    await stop.opened;
    return "finished";
  });
  const b = await bench(t, { workflows: [busy] });
  const client = await b.another({ worker: false, workflows: [] });
  const holder = new pg.Client({ connectionString: b.url });
  await holder.connect();
  t.teardown(() => holder.end());
  const run = await b.perdure.start(busy);
  await reaches(run, "running");
  const waiting = [run, client.get(run.id)].map((handle) => rejection(handle.result({ timeout: PATIENCE_MS })));
  await holder.query("begin");
  await holder.query(`select "${b.schema}".cancel_run($1, 'by SQL')`, [run.id]);
  stop.open();
  const blocked = "select from pg_stat_activity where wait_event_type = 'Lock' and query like $1";
  await eventually(async () => (await b.sql(blocked, [`%"${b.schema}".finish_runs(%`])).length, PATIENCE_MS);
  await holder.query("commit");
  for (const refused of await Promise.all(waiting)) t.match(refused, { code: "PERDURE_CANCELLED", message: /by SQL/ });
  t.same(await b.sql("select from :SCHEMA.outcome"), []);
});

test("a result that an engine waits for when it shuts down is not left open", async (t) => {
  const b = await bench(t, options);
  const client = new Perdure({ database: b.url, schema: b.schema, worker: false, logger: collector() });
  await client.launch();
  const run = await b.perdure.start(outcome, "waits");
  const waiting = rejection(client.get(run.id).result());
  await eventually(async () => (await b.sql("select from :SCHEMA.worker where watching")).length, PATIENCE_MS);
  await client.shutdown();
  t.match(await waiting, { code: "PERDURE_STATE", message: /shut down/ });
});
