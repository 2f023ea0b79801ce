/** An answer is lost while the server is still at the commit: what is written again meets what commits late. */
import { type Test, test } from "tap";
import { event, type Perdure, type PerdureOptions, step, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches } from "../support/gate.ts";
import { server } from "../support/postgres.ts";
import { FaultyProxy } from "../support/proxy.ts";
import { stranger } from "../support/stranger.ts";
import { LateProxy } from "./late.ts";

const patient = { timeout: "20s" } as const;
const ping = event<number>("ping");
const LOCK = 7_050_101;

/** Commits that have put rows into a table wait until `release`; `waiting` resolves when one does. */
async function slowCommits(t: Test, b: Bench, table: string) {
  await b.sql(`create function :SCHEMA.late() returns trigger language plpgsql as $$
    begin perform pg_advisory_xact_lock_shared(${LOCK}); return null; end $$`);
  await b.sql(`create constraint trigger late after insert on :SCHEMA.${table} deferrable initially deferred
    for each row execute function :SCHEMA.late()`);
  const other = await stranger(t, b);
  await other(`select pg_advisory_lock(${LOCK})`);
  const sessions = async (waitsFor: string): Promise<any[]> =>
    b.sql("select pid from pg_stat_activity where wait_event_type = 'Lock' and wait_event = $1", [waitsFor]);
  return {
    waiting: () => eventually(async () => (await sessions("advisory")).length > 0, PATIENCE_MS),
    /** Somebody waits for a row that the late commit holds. */
    met: () => eventually(async () => (await sessions("transactionid")).length > 0, PATIENCE_MS),
    release: () => other(`select pg_advisory_unlock(${LOCK})`),
  };
}

/** An engine without a worker, behind a proxy. */
async function behind(t: Test, b: Bench): Promise<{ proxy: FaultyProxy; engine: Perdure }> {
  const target = new URL(await server());
  const proxy = await FaultyProxy.open({ host: target.hostname, port: Number(target.port) });
  t.teardown(() => proxy.close());
  target.host = `127.0.0.1:${proxy.port}`;
  return { proxy, engine: await b.another({ worker: false, database: target.href }) };
}

test("an event whose answer is lost before its commit is sent once", async (t) => {
  const listens = workflow("listens", async () => {
    const first = await ping.wait();
    const second = await ping.wait({ timeout: 300 });
    return [first.data, second?.data ?? null];
  });
  const b = await bench(t, { workflows: [listens] });
  const { proxy, engine } = await behind(t, b);
  const run = await b.perdure.start(listens);
  await eventually(async () => (await run.status()).waitingFor === "event", PATIENCE_MS);
  const slow = await slowCommits(t, b, "mail");
  const sent = engine.send(run.id, ping, 7);
  await slow.waiting();
  proxy.cut();
  await slow.met();
  await slow.release();
  await sent;
  t.same(await run.result(patient), [7, null]);
  t.same(await b.sql("select count(*)::int as n from :SCHEMA.mail"), [{ n: 1 }]);
});

/** An engine behind a proxy that delivers late. */
async function farAway(t: Test, b: Bench, options: PerdureOptions) {
  const target = new URL(await server());
  const proxy = await LateProxy.open(target);
  t.teardown(() => proxy.close());
  return { proxy, engine: await b.another({ ...options, database: proxy.via(target) }) };
}

test("an event that reaches the server late, when it has been sent again, is there once", async (t) => {
  const listens = workflow("listens", async () => {
    await ping.wait();
    return (await ping.wait()).data;
  });
  const b = await bench(t, { workflows: [listens] });
  const { proxy, engine } = await farAway(t, b, { worker: false });
  const run = await b.perdure.start(listens);
  // By BEGIN and COMMIT, and as a statement that is a transaction of its own.
  for (const n of [1, 2]) {
    let cuts = 1;
    proxy.keeps = (text) => text.includes("send_events") && cuts-- > 0;
    await engine.send(run.id, ping, n);
    t.equal(proxy.late, 1);
    await proxy.deliver();
    t.same(await b.sql("select count(*)::int as n from :SCHEMA.mail"), [{ n }]);
  }
  t.equal(await run.result(patient), 2);
});

test("a claim that reaches the server late, long after it was issued again, strands no run", async (t) => {
  const hold = gate();
  const work = step("work", async (n: number) => {
    if (n === 1) await hold.opened;
    return n;
  });
  const works = workflow("works", (n: number) => work(n));
  const b = await bench(t, { workflows: [works], worker: false, lease: "1s" });
  let cuts = 1;
  const { proxy, engine } = await farAway(t, b, { worker: { concurrency: 1 } });
  proxy.keeps = (text) => /claim_runs|:claim:swift/.test(text) && cuts-- > 0;
  const first = await b.perdure.start(works.with({ id: "first" }), 1);
  await eventually(() => proxy.late === 1, PATIENCE_MS);
  await reaches(first, "running");
  const second = await b.perdure.start(works.with({ id: "second" }), 2);
  // What follows a lost answer is over.
  const [{ at }] = await b.sql("select clock_timestamp() as at");
  const beats = "select from :SCHEMA.worker where beat_at > $1::timestamptz + interval '2 seconds'";
  await eventually(async () => (await b.sql(beats, [at])).length === 2, PATIENCE_MS);
  await proxy.deliver();
  t.equal((await second.status()).state, "running", "held by a process that does not know of it");
  hold.open();
  t.equal(await first.result(patient), 1);
  t.equal(await second.result(patient), 2);
  void engine;
});
