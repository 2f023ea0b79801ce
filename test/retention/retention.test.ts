/** Retention: what has ended long enough ago goes, whole; what is needed stays. */
import { type Test, test } from "tap";
import {
  event,
  Perdure,
  type PerdureOptions,
  race,
  sleep,
  start,
  step,
  stream,
  transaction,
  value,
  workflow,
} from "../../lib/index.ts";
import { type Bench, bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches, rejection } from "../support/gate.ts";
import { inDatabase, server } from "../support/postgres.ts";
import { stranger } from "../support/stranger.ts";
import { type TestOptions, TestPerdure } from "../support/testing.ts";

const patient = { timeout: PATIENCE_MS };
const DAY = 86_400_000;
const go = event<string>("go");
const double = workflow("double", async (n: number) => n * 2);
const waiting = workflow("waiting", async (_n: number) => (await go.wait()).data);

async function launched(t: Test, options: TestOptions): Promise<TestPerdure> {
  const perdure = new TestPerdure({ database: await server(), logger: collector(), retention: "30d", ...options });
  t.teardown(() => perdure.shutdown());
  await perdure.launch();
  return perdure;
}

const schemas = new WeakMap<TestPerdure, string>();
let made = 0;
/** An engine whose schema's name the test knows. */
async function known(t: Test, options: TestOptions): Promise<TestPerdure> {
  const schema = `retention_${process.pid}_${++made}`;
  const perdure = await launched(t, { schema, ...options });
  schemas.set(perdure, schema);
  return perdure;
}

async function sqlOf(perdure: TestPerdure, text: string): Promise<any[]> {
  const schema = schemas.get(perdure)!;
  return inDatabase(await server(), async (c) => (await c.query(text.replaceAll(":SCHEMA", schema))).rows);
}

/** The tables that still have a row for a run which is not there. */
async function leftOver(perdure: TestPerdure): Promise<string[]> {
  const tables = await sqlOf(
    perdure,
    `select c.relname as name, a.attname as column from pg_class c join pg_attribute a on a.attrelid = c.oid
      where c.relnamespace = ':SCHEMA'::regnamespace and c.relkind in ('r', 'p') and a.attname in ('run', 'follower') and a.atttypid = 'bigint'::regtype`,
  );
  const found: string[] = [];
  for (const { name, column } of tables) {
    const text = `select count(*)::int as n from :SCHEMA.${name} x where not exists (select from :SCHEMA.run r where r.key = x.${column})`;
    if ((await sqlOf(perdure, text))[0].n > 0) found.push(`${name}.${column}`);
  }
  return found;
}

/** Lets the ended runs of a bench look as if they had ended, and been started, so long ago. */
async function age(b: Bench, ms: number): Promise<void> {
  const by = `${ms} * interval '1 millisecond'`;
  await b.sql(`update :SCHEMA.run set created_at = created_at - ${by}, finished_at = finished_at - ${by}`);
}

test("a run that ended goes once its retention has passed, with all that belongs to it", async (t) => {
  const [progress, lines] = [value<number>("progress"), stream<string>("lines")];
  let tries = 0;
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 3, delay: "1m" } }, async () => {
    tries += 1;
    if (tries < 3) throw new Error("not yet");
  });
  const counted = transaction("counted", async (tx) => void (await tx.query("select 1")));
  let rounds = 0;
  const all = workflow({ name: "all", retry: { type: "fixed", maxAttempts: 2, delay: "1m" } }, async () => {
    await flaky();
    await counted();
    await progress.set(1);
    await lines.write("one");
    await sleep("1h");
    await go.wait();
    await race({ never: event("never"), late: { minutes: 1 } });
    await double(1);
    await (await start(double, 2)).result();
    rounds += 1;
    if (rounds === 1) throw new Error("again");
    return "done";
  });
  const perdure = await known(t, { workflows: [all, double] });
  const run = await perdure.start(all.with({ id: "all", tags: ["x"] }));
  await run.send(go, "1");
  await run.send(go, "unread", { reference: "r" });
  await perdure.advance({ hours: 3 });
  t.equal(await run.result(patient), "done");
  const kept = await sqlOf(perdure, "select count(*)::int as n from :SCHEMA.run");
  t.equal(kept[0].n, 3, "with its two children");
  await perdure.advance({ days: 29 });
  t.equal((await run.status()).state, "completed", "on the 29th day it is there");
  t.equal(await run.get(progress), 1);
  await perdure.advance({ days: 1 });
  const gone = { code: "PERDURE_NOT_FOUND", message: 'there is no run "all"; check the id, or start the run first' };
  t.match(await rejection(run.status()), gone);
  t.match(await rejection(run.history()), gone);
  t.match(await rejection(run.get(progress)), gone);
  t.match(await rejection(run.cancel()), gone);
  t.match(await rejection(run.result()), gone, "also of a handle that start gave");
  t.match(await rejection(run.result({ timeout: 1 })), gone);
  t.match(await rejection(perdure.get("all").result()), gone);
  t.match(await rejection(run.send(go, "late")), { code: "PERDURE_NOT_FOUND" });
  t.same((await perdure.list()).runs, []);
  t.same(await leftOver(perdure), []);
  const tables = ["run", "input", "outcome", "checkpoint", "delivery", "try", "round", "wait", "mail", "value", "item"];
  for (const table of tables) t.same(await sqlOf(perdure, `select from :SCHEMA.${table}`), [], table);
  const again = await perdure.start(double.with({ id: "all" }), 21);
  t.equal(await again.result(patient), 42, "its id is free");
});

test("an unfinished run stays, whatever its age, and its children with it; they go with it", async (t) => {
  const parent = workflow("parent", async () => {
    const child = await start(double, 4);
    await go.wait();
    return [await child.result(), await child.result()];
  });
  const lone = workflow("lone", async () => {
    await start(double.with({ detached: true }), 5);
  });
  const perdure = await known(t, { workflows: [parent, double, lone, waiting] });
  const [run, old, blocked] = [
    await perdure.start(parent),
    await perdure.start(waiting.with({ id: "old" }), 1),
    await perdure.start(waiting.with({ id: "paused" }), 2),
  ];
  await perdure.start(lone);
  await perdure.settled();
  await blocked.pause();
  await perdure.advance({ days: 3650 });
  const ids = (await perdure.list()).runs.map(({ workflow: name }) => name).sort();
  t.same(ids, ["double", "parent", "waiting", "waiting"], "ten years on; what nobody needs has gone");
  await run.send(go, "now");
  await old.send(go, "hello");
  t.same(await run.result(patient), [8, 8], "its child's end is read, and read again");
  t.equal(await old.result(patient), "hello");
  await perdure.advance({ days: 30 });
  t.same(
    (await perdure.list()).runs.map(({ id }) => id),
    ["paused"],
    "counted from the end, not from the start",
  );
  t.same(await leftOver(perdure), []);
});

test("a run that another follows stays as long as that one is kept", async (t) => {
  const follows = workflow("follows", async () => {
    const shared = await start(double.with({ id: "shared" }), 3);
    await go.wait();
    return shared.result();
  });
  const perdure = await known(t, { workflows: [follows, double] });
  await perdure.start(double.with({ id: "shared" }), 3);
  await perdure.settled();
  const run = await perdure.start(follows);
  await perdure.advance({ days: 90 });
  t.equal((await perdure.get("shared").status()).state, "completed");
  await run.send(go, "on");
  t.equal(await run.result(patient), 6);
  await perdure.advance({ days: 30 });
  t.same((await perdure.list()).runs, []);
  t.same(await leftOver(perdure), []);
});

test("a child that outlives its parent ends though there is nobody to tell", async (t) => {
  const parent = workflow("parent", async () => (await start(waiting.with({ detached: true, id: "child" }), 1)).id);
  const perdure = await known(t, { workflows: [parent, waiting] });
  const run = await perdure.start(parent);
  await perdure.advance({ days: 40 });
  t.match(await rejection(run.status()), { code: "PERDURE_NOT_FOUND" });
  const child = perdure.get("child");
  t.equal((await child.status()).parentId, null);
  await child.send(go, "grown");
  t.equal(await child.result(patient), "grown");
  t.same(await sqlOf(perdure, "select id from :SCHEMA.run where untold"), []);
  await perdure.advance({ days: 30 });
  t.same((await perdure.list()).runs, []);
});

test("failed and cancelled runs go too; one that is tried again in time counts from its next end", async (t) => {
  let fails = true;
  const failing = workflow("failing", async () => {
    if (fails) throw new Error("no");
  });
  const perdure = await known(t, { workflows: [failing, waiting] });
  const [failed, retried] = [await perdure.start(failing), await perdure.start(failing)];
  const cancelled = await perdure.start(waiting, 1);
  await perdure.settled();
  await cancelled.cancel("enough");
  await perdure.advance({ days: 29 });
  fails = false;
  await retried.retry();
  await perdure.advance({ days: 2 });
  t.match(await rejection(failed.status()), { code: "PERDURE_NOT_FOUND" });
  t.match(await rejection(cancelled.status()), { code: "PERDURE_NOT_FOUND" });
  t.equal((await retried.status()).state, "completed");
  await perdure.advance({ days: 29 });
  t.match(await rejection(retried.status()), { code: "PERDURE_NOT_FOUND" });
});

test("a fork outlives the run that it was made from", async (t) => {
  const first = step("first", async (n: number) => n + 1);
  const forked = workflow("forked", async (n: number) => {
    const one = await first(n);
    await go.wait();
    return one;
  });
  const perdure = await known(t, { workflows: [forked] });
  const source = await perdure.start(forked, 1);
  await source.send(go, "on");
  await perdure.settled();
  const fork = await source.fork({ from: "go" });
  await perdure.advance({ days: 365 });
  t.match(await rejection(source.status()), { code: "PERDURE_NOT_FOUND" });
  await fork.send(go, "on");
  t.equal(await fork.result(patient), 2);
  t.equal(perdure.calls(first).length, 1, "it has the history of the run that is gone");
});

test('retention: "forever" keeps everything, and a test engine does unless it is told otherwise', async (t) => {
  for (const options of [{ retention: "forever" as const }, { retention: undefined }]) {
    const perdure = new TestPerdure({ database: await server(), workflows: [double], ...options });
    t.teardown(() => perdure.shutdown());
    await perdure.launch();
    const run = await perdure.start(double, 1);
    await perdure.advance({ days: 36_500 });
    t.equal(await run.result(patient), 2);
  }
});

test("the last launch that says how long counts for all, and one that says nothing changes nothing", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "forever", lease: "1s" });
  const kept = async (): Promise<number> => (await b.sql("select retention_ms from :SCHEMA.leader"))[0].retention_ms;
  t.equal(await kept(), Number.POSITIVE_INFINITY);
  const old = await b.perdure.start(double.with({ id: "old" }), 1);
  await old.result(patient);
  await age(b, 3650 * DAY);
  await b.another({ retention: undefined, worker: false });
  t.equal(await kept(), Number.POSITIVE_INFINITY);
  t.same(await b.sql("select * from :SCHEMA.expire_runs(null, 0, 100)"), [{ gone: 0, last: null }]);
  const last = await b.another({ retention: "10s", worker: false });
  t.equal(await kept(), 10_000);
  await b.perdure.shutdown();
  await eventually(async () => (await rejection(last.get("old").status())).code === "PERDURE_NOT_FOUND", PATIENCE_MS);
});

test("nobody has said how long: thirty days", async (t) => {
  const b = await bench(t, { workflows: [double] });
  for (const id of ["old", "young"]) await (await b.perdure.start(double.with({ id }), 1)).result(patient);
  await b.sql(
    "update :SCHEMA.run set created_at = created_at - interval '30 days', finished_at = finished_at - interval '30 days' where id = 'old'",
  );
  await b.sql(
    "update :SCHEMA.run set created_at = created_at - interval '29 days', finished_at = finished_at - interval '29 days' where id = 'young'",
  );
  t.equal((await b.sql("select gone from :SCHEMA.expire_runs(null, 0, 100)"))[0].gone, 1);
  t.same(await b.sql("select id from :SCHEMA.run"), [{ id: "young" }]);
});

test("a retention that is none is refused", (t) => {
  const refused = (retention: unknown, message: RegExp): void =>
    void t.throws(() => new Perdure({ retention } as PerdureOptions), { code: "PERDURE_OPTION", message });
  refused("forver", /retention of new Perdure\(\) is "forver"; did you mean "forever"\?/);
  refused("999ms", /retention of new Perdure\(\) must be at least 1s, or "forever", not "999ms"/);
  refused(0, /must be at least 1s, or "forever", not 0/);
  refused(Number.POSITIVE_INFINITY, /not finite/);
  refused("1 month", /retention of new Perdure\(\) is "1 month", which is not a duration/);
  refused(null, /not a duration/);
  refused({ day: 1 }, /unknown option "day".*did you mean "days"/s);
  t.end();
});

test("the process that leads deletes them by itself", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "60s", lease: "1s" });
  const old = await b.perdure.start(double, 1);
  await old.result(patient);
  await age(b, 60_000);
  const young = await b.perdure.start(double, 2);
  await young.result(patient);
  await eventually(async () => (await rejection(old.status())).code === "PERDURE_NOT_FOUND", PATIENCE_MS);
  t.equal((await young.status()).state, "completed");
});

test("what a stranger holds is passed over, and goes the next time; one that is being retried or forked stays whole", async (t) => {
  let fails = true;
  const first = step("first", async (n: number) => n);
  const failing = workflow("failing", async (n: number) => {
    await first(n);
    if (fails) throw new Error("no");
    return n;
  });
  const b = await bench(t, { workflows: [failing], retention: "forever" });
  const ids = ["free", "held", "retried", "forked"];
  for (const [n, id] of ids.entries()) {
    const run = await b.perdure.start(failing.with({ id }), n);
    await rejection(run.result(patient));
  }
  await age(b, DAY);
  fails = false;
  const [holder, retrier, forker] = [await stranger(t, b), await stranger(t, b), await stranger(t, b)];
  for (const sql of [holder, retrier, forker]) await sql("begin");
  await holder("select from :SCHEMA.run where id = 'held' for no key update");
  await retrier("select :SCHEMA.retry_runs(array['retried'], false)");
  await forker("select :SCHEMA.fork_run('forked', 'first', 'fork', null)");
  const expire = () => b.sql("select * from :SCHEMA.expire_runs(1000, 0, 100)");
  t.same(await expire(), [{ gone: 1, last: null }]);
  for (const sql of [holder, retrier, forker]) await sql("commit");
  await b.sql("select :SCHEMA.hint('w')");
  t.equal(await b.perdure.get("retried").result(patient), 2);
  t.same(await expire(), [{ gone: 2, last: null }]);
  t.same(
    (await b.sql("select id from :SCHEMA.run order by id")).map(({ id }) => id),
    ["fork", "retried"],
  );
  t.equal(await b.perdure.get("fork").result(patient), 3);
});

test("many are deleted page by page, by two at once, each once", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "forever" });
  await Promise.all(
    Array.from({ length: 500 }, (_, n) => b.perdure.start(double, n).then((run) => run.result(patient))),
  );
  await age(b, DAY);
  const young = await b.perdure.start(double, 0);
  await young.result(patient);
  const pass = async (): Promise<number> => {
    let gone = 0;
    for (let behind: string | null = "0"; behind !== null; ) {
      const [row]: any[] = await b.sql("select gone, last::text from :SCHEMA.expire_runs($1, $2, 20)", [
        DAY / 2,
        behind,
      ]);
      gone += row.gone;
      behind = row.last;
    }
    return gone;
  };
  const both = await Promise.all([pass(), pass()]);
  // What one passed over because the other held it is the other's.
  t.equal(both[0] + both[1], 500);
  t.same(await b.sql("select id from :SCHEMA.run"), [{ id: young.id }]);
  for (const table of ["input", "outcome"]) t.equal((await b.sql(`select from :SCHEMA.${table}`)).length, 1, table);
});

test("ids that expire just now are started anew or found, and every start has its run", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "forever" });
  const sql = await stranger(t, b);
  const runs = Array.from({ length: 30 }, (_, n) => ({ id: `run-${n}`, n }));
  let gone = 0;
  for (let round = 0; round < 15; round += 1) {
    const starting = runs.map(({ id, n }) => b.perdure.start(double.with({ id }), n));
    const expiring = sql("select gone from :SCHEMA.expire_runs(0, 0, 1000)");
    const handles = await Promise.all(starting);
    gone += (await expiring)[0].gone;
    const ends = await Promise.all(
      handles.map((run) =>
        run.result(patient).catch((error) => ((error as { code?: string }).code === "PERDURE_NOT_FOUND" ? -1 : error)),
      ),
    );
    t.ok(
      ends.every((end, n) => end === n * 2 || end === -1),
      `round ${round}: each has ended, or has expired since`,
    );
    await eventually(async () => (await b.sql("select from :SCHEMA.run where finished_at is null")).length === 0);
    const [{ bad }] = await b.sql(
      "select count(*)::int as bad from :SCHEMA.run r full join :SCHEMA.input i on i.run = r.key where r.key is null or i.run is null",
    );
    t.equal(bad, 0, "no run without its input, no input without its run");
  }
  t.ok(gone > 0);
});

test("nothing of a run is gone for anybody until all of it is", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "forever" });
  const run = await b.perdure.start(double.with({ id: "old" }), 1);
  await run.result(patient);
  await age(b, DAY);
  const sql = await stranger(t, b);
  await sql("begin");
  t.equal((await sql("select gone from :SCHEMA.expire_runs(1000, 0, 10)"))[0].gone, 1);
  t.equal(await run.result(patient), 2);
  const starting = rejection(b.perdure.start(double.with({ id: "old" }), 5));
  await sql("rollback");
  t.equal((await starting).code, "PERDURE_CONFLICT", "a start of its id has waited for what comes of it");
  t.equal((await run.status()).state, "completed");
});

test("who waits for the result of a run that is deleted meanwhile is told", async (t) => {
  const b = await bench(t, { workflows: [waiting], retention: "forever" });
  const client = await b.another({ workflows: [], worker: false });
  const run = await b.perdure.start(waiting.with({ id: "short" }), 1);
  await reaches(run, "suspended");
  const ends = [run.result(), client.get("short").result()].map((result) => rejection(result));
  const sql = await stranger(t, b);
  // Nobody ever sees it ended.
  await sql("begin");
  await sql("select :SCHEMA.cancel_runs(array['short'], null)");
  t.equal((await sql("select gone from :SCHEMA.expire_runs(0, 0, 10)"))[0].gone, 1);
  await sql("commit");
  for (const { code } of await Promise.all(ends)) t.equal(code, "PERDURE_NOT_FOUND");
});

test("a history that is read while its run is deleted is whole, or there is no such run", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "forever" });
  const seen = new Set<unknown>();
  for (let round = 0; round < 10; round += 1) {
    const run = await b.perdure.start(double, round);
    await run.result(patient);
    await b.sql(`insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, tries, epoch, started_at, at)
      select key, 's#' || g, 1, g, 'step', 's', 'completed', '{"json":1}', 1, 1, now(), now() from :SCHEMA.run, generate_series(1, 1200) g`);
    const reading = run.history().then(
      (entries) => entries.length,
      (error) => error.code,
    );
    if (round === 9) await reading;
    await b.sql("select gone from :SCHEMA.expire_runs(0, 0, 10)");
    seen.add(await reading);
  }
  t.ok(seen.delete(1200));
  t.ok(seen.delete("PERDURE_NOT_FOUND"));
  t.same([...seen], [], "and nothing in between");
});

test("a role whose transactions are serializable and short deletes all the same, and one page that is refused does not end it", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "forever" });
  await Promise.all(
    Array.from({ length: 50 }, (_, n) => b.perdure.start(double, n).then((run) => run.result(patient))),
  );
  await b.perdure.shutdown();
  await age(b, DAY);
  const options = "-c statement_timeout=200 -c default_transaction_isolation=serializable";
  // Its deletions fail until the test says otherwise.
  await b.sql(`create function :SCHEMA.refuse() returns trigger language plpgsql as $$ begin raise 'not yet'; end $$;
    create trigger refuse before delete on :SCHEMA.input for each statement execute function :SCHEMA.refuse()`);
  const logger = collector();
  const database = { connectionString: b.url, options };
  await b.another({ database, retention: "1s", lease: "1s", logger });
  await eventually(() => logger.lines.some((line) => /deleting old runs failed.*not yet/.test(line)), PATIENCE_MS);
  t.equal((await b.sql("select from :SCHEMA.run")).length, 50);
  await b.sql("drop trigger refuse on :SCHEMA.input");
  await eventually(async () => (await b.sql("select from :SCHEMA.run limit 1")).length === 0, PATIENCE_MS);
  t.same(await b.sql("select from :SCHEMA.input"), []);
});

test("a run that not all were told of stays until they are", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "forever" });
  await (await b.perdure.start(double.with({ id: "told" }), 1)).result(patient);
  await age(b, DAY);
  await b.sql("update :SCHEMA.run set untold = true");
  t.equal((await b.sql("select gone from :SCHEMA.expire_runs(1000, 0, 10)"))[0].gone, 0);
  await b.sql("update :SCHEMA.run set untold = false");
  t.equal((await b.sql("select gone from :SCHEMA.expire_runs(1000, 0, 10)"))[0].gone, 1);
});

test("an engine shuts down in the middle of a pass, and the next goes on", async (t) => {
  const b = await bench(t, { workflows: [double], retention: "forever", lease: "1s" });
  await b.perdure.shutdown();
  await b.sql(`insert into :SCHEMA.run (id, workflow, version, queue, priority, state, created_at, finished_at)
    select 'r' || g, 'gone', '1', 'default', 0, 'completed', now() - interval '2 days', now() - interval '2 days' from generate_series(1, 20000) g`);
  const left = async (): Promise<number> => (await b.sql("select count(*)::int as n from :SCHEMA.run"))[0].n;
  const first = await b.another({ retention: "1d" });
  await eventually(async () => (await left()) < 20_000, PATIENCE_MS);
  await first.shutdown();
  t.ok((await left()) > 0, "a shutdown waits for one page only");
  await b.another({ retention: "1d" });
  await eventually(async () => (await left()) === 0, PATIENCE_MS);
});
