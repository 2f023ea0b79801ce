/** No wake-up is lost between looking and suspending, and a stranger who holds a run's row delays that run alone. */
import pg from "pg";
import { type Test, test } from "tap";
import { event, sleep, step, transaction, workflow } from "../../lib/index.ts";
import { type Bench, coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { type Gate, gate, PATIENCE_MS, reaches } from "../support/gate.ts";

const ping = event<number>("ping");

type Sql = (text: string, values?: unknown[]) => Promise<any[]>;

async function stranger(t: Test, { url, schema }: Bench): Promise<Sql> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  t.teardown(() => client.end());
  return async (text, values = []) => (await client.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
}

/** Sessions in which a function of this schema waits for a lock. */
function blocked({ sql, schema }: Bench, fn: string): Promise<{ pid: number; since: string }[]> {
  return sql(
    "select pid, xact_start::text as since from pg_stat_activity where wait_event_type = 'Lock' and query like $1",
    [`%"${schema}".${fn}(%`],
  );
}

const isBlocked = (b: Bench, fn: string) => eventually(async () => (await blocked(b, fn)).length > 0, PATIENCE_MS);

/** A run that stands still wherever its code says so, whichever pass it is in. */
function stops(): { readonly at: () => Promise<void>; readonly next: () => Gate } {
  let here = gate();
  return {
    at: () => here.opened,
    next: () => {
      const left = here;
      here = gate();
      return left;
    },
  };
}

// Without hints: with them a look after the commit would find the mail all the same.
const DEAF = { notify: false } as const;

test("an event that commits while the suspension waits for its sender is never lost", async (t) => {
  const stop = stops();
  const listen = workflow("listen", async () => {
    await stop.at();
    return (await ping.wait()).data;
  });
  const b = await coldBench(t, { workflows: [listen], ...DEAF });
  const sql = await stranger(t, b);
  for (let round = 0; round < 3; round += 1) {
    const run = await b.perdure.start(listen.with({ id: `first-${round}` }));
    await reaches(run, "running");
    await sql("begin");
    await sql("select :SCHEMA.send_event($1, 'ping', '1')", [run.id]);
    stop.next().open();
    await isBlocked(b, "begin_waits");
    await sql("commit");
    t.equal(await run.result({ timeout: PATIENCE_MS }), 1, "the wait is new");
  }
  for (let round = 0; round < 3; round += 1) {
    const run = await b.perdure.start(listen.with({ id: `again-${round}` }));
    await reaches(run, "running");
    stop.next().open();
    await reaches(run, "suspended");
    // Claimed again with its wait open, its next write is the suspension itself: its snapshot is older than the commit.
    await b.sql("update :SCHEMA.run set state = 'pending', ready_at = now(), due = null, topics = null where id = $1", [
      run.id,
    ]);
    await reaches(run, "running");
    await sql("begin");
    await sql("select :SCHEMA.send_event($1, 'ping', '2')", [run.id]);
    stop.next().open();
    await isBlocked(b, "suspend_runs");
    await sql("commit");
    t.equal(await run.result({ timeout: PATIENCE_MS }), 2, "the wait is there");
  }
});

test("an event that commits between the last look and the suspension is never lost", async (t) => {
  const stop = stops();
  const listen = workflow("listen", async () => {
    await stop.at();
    return (await ping.wait()).data;
  });
  const b = await coldBench(t, { workflows: [listen], ...DEAF });
  const sql = await stranger(t, b);
  for (let round = 0; round < 5; round += 1) {
    const run = await b.perdure.start(listen);
    await reaches(run, "running");
    await sql("select :SCHEMA.send_event($1, 'ping', '1')", [run.id]);
    stop.next().open();
    t.equal(await run.result({ timeout: PATIENCE_MS }), 1);
  }
});

test("a sender that waits for the suspension sees it, and wakes the run", async (t) => {
  const listen = workflow("listen", async () => (await ping.wait()).data);
  const b = await coldBench(t, { workflows: [listen], ...DEAF });
  const [guard, sender] = [await stranger(t, b), await stranger(t, b)];
  await guard(`create function :SCHEMA.slowly() returns trigger language plpgsql as $$ begin
    perform pg_advisory_xact_lock(hashtext('${b.schema}')); return new; end $$`);
  await guard(`create trigger slowly before update on :SCHEMA.run for each row
    when (new.state = 'suspended') execute function :SCHEMA.slowly()`);
  await guard(`select pg_advisory_lock(hashtext('${b.schema}'))`);
  const run = await b.perdure.start(listen.with({ id: "a" }));
  await isBlocked(b, "suspend_runs");
  const sending = sender("select :SCHEMA.send_event('a', 'ping', '1')");
  await isBlocked(b, "send_event");
  await guard(`select pg_advisory_unlock(hashtext('${b.schema}'))`);
  await sending;
  t.equal(await run.result({ timeout: PATIENCE_MS }), 1);
});

test("a write that finds its row held keeps the later ones of its run from overtaking, within a batch too", async (t) => {
  const b = await coldBench(t, { workflows: [], worker: false });
  const [holder, batch] = [await stranger(t, b), await stranger(t, b)];
  await b.sql(
    `insert into :SCHEMA.worker (id, name, started_at, beat_at, lease, knows) values (1, 'w', now(), now(), '1h', '')`,
  );
  const [{ key }] =
    await b.sql(`with r as (insert into :SCHEMA.run (id, workflow, version, queue, priority, state, epoch, worker, created_at)
      values ('a', 'w', '1', 'default', 0, 'running', 1, 1, now()) returning key)
    insert into :SCHEMA.taken (worker, runs) select 1, array[key] from r returning runs[1] as key`);
  const record = `select verdict from :SCHEMA.record_steps(array[$1::bigint], '{1}', '{s#0}', '{1}', '{1}', '{step}', '{s}',
    '{completed}', array['{"json":1}'], array[null], '{1}', '{0}', '{0}', array[null]::bigint[], false)`;
  const finish = `select verdict from :SCHEMA.finish_runs(array[$1::bigint], '{1}', '{completed}', array['{"json":1}'], array[null], false)`;
  await holder("begin");
  await holder("select from :SCHEMA.run for update");
  await batch("begin");
  t.same(await batch(record, [key]), [{ verdict: "busy" }]);
  await holder("commit");
  t.same(await batch(finish, [key]), [{ verdict: "busy" }], "although the row is free by then");
  await batch("commit");
  t.same(await batch(record, [key]), [{ verdict: "ok" }], "the next transaction begins anew");
  t.same(await batch(finish, [key]), [{ verdict: "ok" }]);
});

/** Whose row is held: what it writes next is a record, a suspension or its finish. */
const stages = ["record", "suspend", "finish"] as const;

test("a stranger's transaction that holds rows of runs delays those runs alone, and their writes arrive in order", async (t) => {
  const stop = gate();
  const first = step("first", async (n: number) => n);
  const work = step("work", async () => stop.opened);
  const last = step("last", async (n: number) => n);
  const held = workflow("held", async (stage: (typeof stages)[number], n: number) => {
    await first(n);
    if (stage === "record") await work();
    else await stop.opened;
    if (stage === "finish") return n;
    if (stage === "suspend") await ping.wait();
    return last(n);
  });
  const debit = transaction("debit", async (tx, n: number) =>
    Number((await tx.query("select $1::int as n", [n])).rows[0].n),
  );
  const other = workflow("other", async (n: number) => {
    await first(n);
    const { data } = await ping.wait();
    await sleep(10);
    return (await debit(data)) + (await last(n));
  });
  const b = await coldBench(t, { workflows: [held, other] });
  const sql = await stranger(t, b);
  // More rows than the engine has connections in its pool.
  const runs = await Promise.all(
    Array.from({ length: 9 }, (_, n) => b.perdure.start(held.with({ id: `held-${n}` }), stages[n % 3]!, n)),
  );
  await eventually(async () => (await b.sql("select from :SCHEMA.checkpoint where name = 'first'")).length === 9);
  await sql("begin");
  await sql("select from :SCHEMA.run where workflow = 'held' order by key for update");
  stop.open();
  const waits = new Set<string>();
  let most = 0;
  const isHeld = async (): Promise<boolean> => {
    const sessions = await blocked(b, "%");
    most = Math.max(most, sessions.length);
    for (const { pid, since } of sessions) waits.add(`${pid} ${since}`);
    return waits.size > 0;
  };
  await eventually(isHeld, PATIENCE_MS);

  const others = await Promise.all(Array.from({ length: 20 }, (_, n) => b.perdure.start(other, n)));
  await Promise.all(others.map((run, n) => run.send(ping, n)));
  const results = await Promise.all(others.map((run) => run.result({ timeout: PATIENCE_MS })));
  t.same(
    results,
    Array.from({ length: 20 }, (_, n) => 2 * n),
  );
  t.same(await b.sql("select count(*)::int as n from :SCHEMA.run where workflow = 'held' and state = 'running'"), [
    { n: 9 },
  ]);
  t.same(
    await b.sql(
      "select from :SCHEMA.checkpoint where name in ('work', 'last') and run in (select key from :SCHEMA.run where workflow = 'held')",
    ),
    [],
  );
  // Held for longer than one wait for the lock lasts.
  const before = waits.size;
  await eventually(async () => (await isHeld()) && waits.size > before, PATIENCE_MS);
  t.ok(most < 5, `${most} of the 5 connections wait for locks at once`);
  const sending = runs.filter((_, n) => stages[n % 3] === "suspend").map((run) => run.send(ping, 0));
  await sql("commit");
  await Promise.all(sending);
  t.same(await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS }))), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  const written =
    await b.sql(`select r.id, string_agg(c.name, ' ' order by c.no) as names, bool_and(c.at <= r.finished_at) as before
    from :SCHEMA.run r join :SCHEMA.checkpoint c on c.run = r.key where r.workflow = 'held' group by r.id order by r.id`);
  const names = { record: "first work last", suspend: "first ping last", finish: "first" };
  t.same(
    written,
    runs.map(({ id }, n) => ({ id, names: names[stages[n % 3]!], before: true })),
  );
});

test("an engine that shuts down while a row is held ends once the row is free, and the run goes on elsewhere", async (t) => {
  const [began, stop] = [gate(), gate()];
  const work = step("work", async () => {
    began.open();
    await stop.opened;
  });
  const held = workflow("held", async () => {
    await work();
    return 1;
  });
  const b = await coldBench(t, { workflows: [held] });
  const sql = await stranger(t, b);
  const run = await b.perdure.start(held);
  await began.opened;
  await sql("begin");
  await sql("select from :SCHEMA.run for update");
  stop.open();
  await isBlocked(b, "end_runs");
  const down = b.perdure.shutdown({ timeout: 0 });
  await sql("commit");
  await down;
  const second = await b.another();
  t.equal(await second.get(run.id).result({ timeout: PATIENCE_MS }), 1);
});
