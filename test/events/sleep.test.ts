/** Sleeps: a deadline by the database's clock that survives restarts, follows changed code, and can be ended early. */
import { randomInt } from "node:crypto";
import pg from "pg";
import { type Test, test } from "tap";
import { type Duration, event, sleep, sleepUntil, step, transaction, workflow } from "../../lib/index.ts";
import { type Bench, coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const ping = event<number>("ping");
const HOUR = 3_600_000;

/** The database's clock, in ms. */
const clock = transaction("clock", async (tx) => {
  const { rows } = await tx.query("select extract(epoch from clock_timestamp())::float8 * 1000 as ms");
  return Number(rows[0].ms);
});

/** When the open wait of a schema began and is due, in ms. */
async function openWait({ sql }: Bench): Promise<{ started: number; due: number }> {
  const [row] = await sql(
    "select extract(epoch from started_at)::float8 * 1000 as started, extract(epoch from due)::float8 * 1000 as due from :SCHEMA.wait",
  );
  return row;
}

/** Makes a suspended run claimable with nothing new, as after a hand-back: it replays and waits again. */
async function replays({ sql }: Bench, id: string): Promise<void> {
  const [{ epoch }] = await sql("select epoch from :SCHEMA.run where id = $1", [id]);
  await sql("update :SCHEMA.run set state = 'pending', ready_at = now(), due = null, topics = null where id = $1", [
    id,
  ]);
  await sql("select :SCHEMA.hint('w')");
  await eventually(
    async () =>
      (await sql("select from :SCHEMA.run where id = $1 and epoch > $2 and state <> 'running'", [id, epoch])).length,
    PATIENCE_MS,
  );
}

test("a sleep is never early by the database's clock, however short", async (t) => {
  const lengths = [0, 1, 5, 20, 20.7, 50, 120];
  const nap = workflow("nap", async (ms: number) => {
    const from = await clock();
    const { woken } = await sleep(ms);
    return { took: (await clock.with({ reference: "after" })()) - from, woken };
  });
  const { perdure } = await coldBench(t, { workflows: [nap] });
  const runs = await Promise.all([...lengths, ...lengths].map((ms) => perdure.start(nap, ms)));
  for (const [n, run] of runs.entries()) {
    const ms = lengths[n % lengths.length]!;
    const { took, woken } = await run.result();
    t.ok(took >= ms, `${ms} ms took ${took}`);
    t.equal(woken, false);
  }
});

test("sleepUntil ends at its instant, and at once when that is past", async (t) => {
  const until = workflow("until", async (at: Date) => {
    await sleepUntil("the past", new Date(0));
    await sleepUntil(at);
    return clock();
  });
  const b = await coldBench(t, { workflows: [until] });
  const [{ at }] = await b.sql("select now() + interval '300 milliseconds' as at");
  const run = await b.perdure.start(until, at);
  t.ok((await run.result()) >= at.getTime());
  t.same(await b.sql("select name, outcome from :SCHEMA.steps where kind = 'sleep' order by finished_at"), [
    { name: "the past", outcome: "completed" },
    { name: "", outcome: "completed" },
  ]);
  const far = new Date("2999-01-01");
  const long = await b.perdure.start(until, far);
  await reaches(long, "suspended");
  t.equal((await openWait(b)).due, far.getTime(), "centuries away too");
});

test("a sleep longer than any timer of the process goes on when it is due, not before", async (t) => {
  const long = workflow("long", async (length: Duration) => sleep(length));
  const b = await coldBench(t, { workflows: [long] });
  const days = [30, 3650, 365_000];
  const runs = await Promise.all(days.map((n) => b.perdure.start(long, { days: n })));
  await Promise.all(runs.map((run) => reaches(run, "suspended")));
  await b.advance(30 * 24 * HOUR - 60_000);
  t.same(await Promise.all(runs.map(async (run) => (await run.status()).state)), [
    "suspended",
    "suspended",
    "suspended",
  ]);
  await b.advance(60_000);
  t.same(await runs[0]!.result(), { woken: false });
  t.equal((await runs[1]!.status()).state, "suspended");
  t.equal((await runs[2]!.status()).waitingFor, "sleep");
});

test("a sleep keeps its deadline across a restart, and is passed in time by the next process", async (t) => {
  const nap = workflow("nap", async (length: Duration) => {
    const from = await clock();
    await sleep(length);
    return (await clock.with({ reference: "after" })()) - from;
  });
  const b = await coldBench(t, { workflows: [nap] });
  const long = await b.perdure.start(nap, "1h");
  await reaches(long, "suspended");
  const before = await openWait(b);
  const short = await b.perdure.start(nap, 400);
  await reaches(short, "suspended");
  await b.perdure.shutdown();
  const second = await b.another();
  const took = await second.get(nap, short.id).result({ timeout: PATIENCE_MS });
  t.ok(took >= 400);
  await replays(b, long.id);
  t.same(await openWait(b), before);
});

/** A run of `before` that sleeps, then a process with `after` in its place. */
async function redeployed(t: Test, before: Duration, after: Duration) {
  const code = (length: Duration) => workflow("nap", async () => sleep("nap", length));
  const b = await coldBench(t, { workflows: [code(before)] });
  const run = await b.perdure.start("nap");
  await reaches(run, "suspended");
  const { started } = await openWait(b);
  await b.advance(HOUR / 2);
  await b.perdure.shutdown();
  const second = await b.another({ workflows: [code(after)] });
  return { b, started: started - HOUR / 2, run: second.get(run.id) };
}

test("a sleep that new code lengthens counts from its start, and ends", async (t) => {
  const { b, started, run } = await redeployed(t, "1h", "1h30m");
  await replays(b, run.id);
  t.equal((await openWait(b)).due, started + 1.5 * HOUR);
  await b.advance(HOUR / 2 + 1000);
  t.equal((await run.status()).state, "suspended", "not at the old deadline");
  await b.advance(HOUR / 2);
  t.same(await run.result({ timeout: PATIENCE_MS }), { woken: false });
});

test("a sleep that ends by its old deadline and was lengthened sleeps the rest, and ends", async (t) => {
  const { b, run } = await redeployed(t, "1h", "1h30m");
  await b.advance(HOUR / 2 + 1000);
  await eventually(
    async () => (await b.sql("select from :SCHEMA.run where epoch = 2 and state = 'suspended'")).length,
    PATIENCE_MS,
  );
  await b.advance(HOUR / 2);
  t.same(await run.result({ timeout: PATIENCE_MS }), { woken: false });
  t.same(await b.sql("select kind, outcome from :SCHEMA.steps"), [{ kind: "sleep", outcome: "completed" }]);
});

test("a sleep that new code shortens to less than has passed ends at once", async (t) => {
  const { b, run } = await redeployed(t, "1h", "10m");
  await b.sql("update :SCHEMA.run set state = 'pending', ready_at = now(), due = null, topics = null");
  await b.sql("select :SCHEMA.hint('w')");
  t.same(await run.result({ timeout: PATIENCE_MS }), { woken: false });
});

test("wake ends a sleep early, and it says so live and on replay", async (t) => {
  const seen: boolean[] = [];
  const nap = workflow("nap", async () => {
    const first = await sleep("1h");
    seen.push(first.woken);
    const second = await sleep("second", 1);
    await ping.wait();
    return [first.woken, second.woken];
  });
  const b = await coldBench(t, { workflows: [nap] });
  const run = await b.perdure.start(nap);
  await reaches(run, "suspended");
  await run.wake();
  await eventually(async () => (await run.status()).waitingFor === "event", PATIENCE_MS);
  await run.send(ping, 1);
  t.same(await run.result(), [true, false]);
  t.ok(seen.length >= 2 && seen.every(Boolean), "on each pass");
});

test("wake reaches a sleep beside a step in work, from any engine, and every sleep of the run", async (t) => {
  const stop = gate();
  const ended: string[] = [];
  const work = step("work", () => stop.opened);
  const nap = workflow("nap", async () => {
    const naps = ["a", "b"].map((name) => sleep(name, "1h").then(() => ended.push(name)));
    await Promise.all([work(), ...naps]);
  });
  const b = await coldBench(t, { workflows: [nap] });
  const client = await b.another({ worker: false, workflows: [] });
  const run = await b.perdure.start(nap);
  await eventually(
    async () => (await b.sql("select from :SCHEMA.wait where kind = 'sleep'")).length === 2,
    PATIENCE_MS,
  );
  await client.get(run.id).wake();
  await eventually(() => ended.length === 2, PATIENCE_MS);
  t.same(ended, ["a", "b"]);
  stop.open();
  await run.result();
});

test("wake of a run that is not asleep says what it is", async (t) => {
  const stop = gate();
  const work = step("work", () => stop.opened);
  const busy = workflow("busy", async () => {
    await work();
    await ping.wait();
  });
  const { perdure } = await coldBench(t, { workflows: [busy] });
  const late = await perdure.start(busy.with({ id: "late", delay: "1h" }));
  const run = await perdure.start(busy.with({ id: "r" }));
  await reaches(run, "running");
  const wake = async (handle = run) => rejection(handle.wake());
  t.match(await wake(), { code: "PERDURE_STATE", message: /run "r" is running and not asleep/ });
  stop.open();
  await reaches(run, "suspended");
  t.match(await wake(), { code: "PERDURE_STATE", message: /run "r" is suspended and not asleep/ });
  await run.send(ping, 1);
  await run.result();
  t.match(await wake(), { code: "PERDURE_STATE", message: /run "r" is completed and not asleep/ });
  t.match(await wake(late), { code: "PERDURE_STATE", message: /run "late" is pending and not asleep/ });
  t.match(await wake(perdure.get("nobody") as typeof run), { code: "PERDURE_NOT_FOUND" });
});

test("many sleeps side by side end in the order of their deadlines", async (t) => {
  const order: number[] = [];
  const naps = workflow("naps", async () => {
    const lengths = [90, 30, 60, 0, 120];
    await Promise.all(
      lengths.map(async (ms, n) => sleep(`n${n}`, ms).then(() => order.includes(ms) || order.push(ms))),
    );
    return order;
  });
  const { perdure } = await coldBench(t, { workflows: [naps] });
  t.same(await (await perdure.start(naps)).result(), [0, 30, 60, 90, 120]);
});

test("a length that is no duration is refused at the call, and the body may catch it", async (t) => {
  const wrong = workflow("wrong", async () => {
    const codes: unknown[] = [];
    for (const length of [-1, Number.NaN, Infinity, "soon", { days: 365_001 }, null]) {
      const error: any = await (async () => sleep(length as Duration))().catch((reason: unknown) => reason);
      codes.push(error.code);
    }
    const until: any = await (async () => sleepUntil(new Date(Number.NaN)))().catch((reason: unknown) => reason);
    return [...codes, until.code];
  });
  const b = await coldBench(t, { workflows: [wrong] });
  t.same(
    await (await b.perdure.start(wrong)).result(),
    Array.from({ length: 7 }, () => "PERDURE_OPTION"),
  );
  t.same(await b.sql("select from :SCHEMA.wait"), []);
});

test("a timer that a frozen leader does not ring is rung by another process, which does not lead", async (t) => {
  const nap = workflow("nap", async () => sleep("1h"));
  const b = await coldBench(t, { workflows: [nap] });
  const run = await b.perdure.start(nap);
  await reaches(run, "suspended");
  await b.perdure.shutdown();
  // Its session lock is held, so that its lead lasts; it holds no run that would give it away.
  const id = randomInt(2 ** 47);
  const frozen = new pg.Client({ connectionString: b.url });
  await frozen.connect();
  t.teardown(() => frozen.end());
  await frozen.query("select pg_advisory_lock($1::bigint)", [id]);
  await b.sql(
    "insert into :SCHEMA.worker (id, name, started_at, beat_at, lease, knows) values ($1, 'frozen', now(), now(), '1h', '')",
    [id],
  );
  await b.sql("update :SCHEMA.leader set worker = $1, until = now() + interval '1 hour'", [id]);
  const second = await b.another();
  await b.sql("update :SCHEMA.run set due = now() - interval '1 second'");
  await b.sql("update :SCHEMA.wait set due = now() - interval '1 second'");
  t.same(await second.get(run.id).result({ timeout: PATIENCE_MS }), { woken: false });
});
