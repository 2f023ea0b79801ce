/** Attacks on perdure/testing that found nothing, or found something that was mended. */
import { AssertionError } from "node:assert";
import pg from "pg";
import { test } from "tap";
import { event, now, schedule, sleep, step, transaction, workflow } from "../../lib/index.ts";
import { collector } from "../support/engine.ts";
import { rejection } from "../support/gate.ts";
import { freshDatabase, inDatabase, server } from "../support/postgres.ts";
import {
  crashEverywhere,
  exportHistory,
  replayHistory,
  standIn,
  type TestOptions,
  TestPerdure,
} from "../support/testing.ts";

async function launched(t: { teardown(work: () => unknown): void }, options: TestOptions): Promise<TestPerdure> {
  const perdure = new TestPerdure({ database: await server(), logger: collector(), ...options });
  t.teardown(() => perdure.shutdown());
  await perdure.launch();
  return perdure;
}

test("cron times of a zone fire once where the clock jumps, forward and back", async (t) => {
  const at: string[] = [];
  const tick = step("tick", async (when: Date) => void at.push(when.toISOString()));
  const job = workflow("job", async () => tick(now()));
  for (const [start, cron, expected] of [
    // 2027-03-28 02:00 → 03:00 in Berlin: 02:30 does not exist.
    ["2027-03-27T12:00:00Z", "30 2 * * *", ["2027-03-28T01:00:00.000Z", "2027-03-29T00:30:00.000Z"]],
    // 2027-10-31 03:00 → 02:00: 02:30 is there twice.
    ["2027-10-30T12:00:00Z", "30 2 * * *", ["2027-10-31T00:30:00.000Z", "2027-11-01T01:30:00.000Z"]],
  ] as const) {
    at.length = 0;
    const perdure = await launched(t, {
      workflows: [job],
      now: new Date(start),
      schedules: [schedule("job", { cron, timezone: "Europe/Berlin" }, job)],
    });
    await perdure.advance({ hours: 40 });
    t.same(at, expected, start);
  }
});

test("calls of advance() at once follow one another, and years of sleep take no time", async (t) => {
  const nap = workflow("nap", async () => {
    for (let year = 0; year < 5; year += 1) await sleep({ days: 365 });
    return now().toISOString();
  });
  const perdure = await launched(t, { workflows: [nap], now: new Date("2027-01-01T00:00:00Z") });
  const run = await perdure.start(nap);
  await Promise.all([perdure.advance({ days: 1000 }), perdure.advance({ days: 1000 })]);
  t.equal(perdure.now().toISOString(), new Date(Date.UTC(2027, 0, 2001)).toISOString());
  t.equal(await run.result(), new Date(Date.UTC(2027, 0, 1 + 1825)).toISOString());
});

test("time that passes kills no worker: a step at work over a long advance is not run again", async (t) => {
  let open!: () => void;
  let ran = 0;
  const long = step("long", async () => {
    ran += 1;
    await new Promise<void>((resolve) => (open = resolve));
  });
  const works = workflow("works", async () => long());
  const perdure = await launched(t, { workflows: [works] });
  const run = await perdure.start(works);
  const { code } = await rejection(perdure.advance({ days: 30 }, { timeout: 300 }));
  t.equal(code, "PERDURE_TIMEOUT");
  open();
  await perdure.settled();
  await perdure.advance({ days: 30 });
  t.equal((await run.status()).state, "completed");
  t.equal(ran, 1);
});

test("crashEverywhere finds an effect that is done twice, where its end shows it", async (t) => {
  const url = await server();
  await inDatabase(url, (client) => client.query("create table if not exists refute4_ledger (id text)"));
  t.teardown(() => inDatabase(url, (client) => client.query("drop table refute4_ledger")));
  // After each go, of which it leaves nothing to the next.
  const check = async (): Promise<void> => {
    const { rowCount } = await inDatabase(url, (client) => client.query("delete from refute4_ledger"));
    if (rowCount !== 1) throw new AssertionError({ message: `${rowCount} rows` });
  };
  const insert = "insert into refute4_ledger values ('x')";
  const exactly = transaction("exactly-once", async (tx) => void (await tx.query(insert)));
  const atLeast = step("at-least-once", async () => void (await inDatabase(url, (client) => client.query(insert))));
  const once = (call: () => Promise<void>) =>
    workflow("ledger", async () => {
      await call();
      return "done";
    });
  const options = { database: url, logger: collector(), check };
  const { points } = await crashEverywhere(once(exactly), options);
  t.ok(points.length >= 2);
  t.match((await rejection(crashEverywhere(once(atLeast), options))).error.message, /2 rows/);
});

test("crashEverywhere leaves no schema and no session behind, whether it passes or fails, on a pool that was given too", async (t) => {
  const url = await freshDatabase(t);
  const name = "refute4 leaks";
  const sessions = (): Promise<number> =>
    inDatabase(url, async (client) => {
      const { rows } = await client.query("select count(*)::int from pg_stat_activity where application_name = $1", [
        name,
      ]);
      return rows[0].count;
    });
  const schemas = (): Promise<string[]> =>
    inDatabase(url, async (client) => {
      const text = "select nspname as name from pg_namespace where nspname like 'perdure%'";
      return (await client.query(text)).rows.map((row) => row.name);
    });
  const a = step("a", async () => 1);
  let passes = 0;
  const fine = workflow("fine", async () => a());
  const wrong = workflow("wrong", async () => (await a()) + ++passes);
  const pool = new pg.Pool({ connectionString: url, application_name: name, max: 3 });
  t.teardown(() => pool.end());
  t.match((await crashEverywhere(fine, { database: pool, logger: collector() })).end, { state: "completed", value: 1 });
  await rejection(
    crashEverywhere(wrong, {
      database: { connectionString: url, application_name: name } as never,
      logger: collector(),
    }),
  );
  t.same(await schemas(), []);
  t.ok((await pool.query("select 1 as one")).rows[0].one, "the given pool is open");
  while ((await sessions()) > pool.totalCount) await new Promise((resolve) => setTimeout(resolve, 20));
});

test("what a session was set to by one go is not there in the next", async (t) => {
  const set = transaction("set", async (tx) => {
    const { rows } = await tx.query("select current_setting('app.tenant', true) as tenant");
    await tx.query("select set_config('app.tenant', 'left over', false), pg_advisory_lock(4711)");
    await tx.query("create temp table if not exists refute4_temp (n int)");
    return rows[0].tenant || null;
  });
  const sets = workflow("sets", async () => set());
  const { end } = await crashEverywhere(sets, { database: await server(), logger: collector() });
  t.same(end, { state: "completed", value: null });
});

test("a golden history of a paused run rests where it stood, and shows code that moved on", async (t) => {
  const go = event<number>("go");
  const a = step("a", async (n: number) => n);
  const body = (broken: boolean) =>
    workflow("moves", async () => {
      await a(broken ? 2 : 1);
      return (await go.wait()).data;
    });
  const perdure = await launched(t, { workflows: [body(false)], standIns: [standIn(a, async (n) => n)] });
  const run = await perdure.start("moves");
  await perdure.settled();
  await run.pause();
  const golden = JSON.parse(JSON.stringify(await exportHistory(perdure, run.id)));
  t.match(await replayHistory(golden, { workflows: [body(false)] }), { came: "waiting" });
  t.ok((await rejection(replayHistory(golden, { workflows: [body(true)] }))).error instanceof AssertionError);
});
