/** Starts of many at once: under ids of their own they have a statement of their own, and a connection beside the batch that is on its way. */
import { test } from "tap";
import { NEW_RUNS } from "../../lib/db/new-runs.ts";
import { type Perdure, type RunHandle, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, rejection } from "../support/gate.ts";
import { FaultyProxy } from "../support/proxy.ts";
import { traffic } from "../support/traffic.ts";
import { needs } from "../support/without.ts";

const MANY = 3000;
const echo = workflow("echo", async (n: number) => n);

const startAll = (perdure: Perdure, count = MANY): Promise<RunHandle<number>>[] =>
  Array.from({ length: count }, (_, n) => perdure.start(echo, n));

/** The argument of each run there is, in the order of the claim. */
async function claimable({ sql }: Bench): Promise<number[]> {
  const rows = await sql(
    "select (i.args->'json'->>0)::int as n from :SCHEMA.ready q join :SCHEMA.input i using (run) order by q.priority, q.ready_at, q.run",
  );
  return rows.map(({ n }) => n);
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n);
const ascending = (numbers: readonly number[]): number[] => [...numbers].sort((a, b) => a - b);

/** Who has executed the statement of new runs in this schema last. */
const starters = ({ sql, schema }: Bench): Promise<{ pid: number }[]> =>
  sql("select pid from pg_stat_activity where query like $1 and pid <> pg_backend_pid()", [
    `%"${schema}".${NEW_RUNS}(%`,
  ]) as Promise<{ pid: number }[]>;

test("a run that is new in a batch of new ones is the row that it is by itself", async (t) => {
  const { sql } = await bench(t, { worker: false });
  const row = (id: string) =>
    `array['${id}'], array['w "1"'], array['1'], array['q'], array[7::smallint], array[500::float8], array['{"json":[]}'], array['h'], array['{"json":{"retry":1}}']`;
  const [made] = await sql(`select * from :SCHEMA.${NEW_RUNS}(${row("new")})`);
  t.match(made, { ord: null, verdict: "created", key: null, leased: false, workflow: null, state: null });
  await sql(`select * from :SCHEMA.start_runs(array['old'], array['w "1"'], array['1'], array['q'], array[7::smallint], '{}', '{}', array[500::float8],
    array['{"json":[]}'], array['h'], array['{"json":{"retry":1}}'], array[false], '{}', '{}', '{}', array[false], '{}', '{}', array[false],
    null, '{}', '{}', '{}', false)`);
  const left =
    await sql(`select to_jsonb(r) - '{key,id,ready_at,created_at}'::text[] as run, to_jsonb(i) - 'run' as input,
      to_jsonb(q) - '{run,ready_at}'::text[] as ready, q.ready_at = r.ready_at and r.ready_at >= r.created_at as fits
    from :SCHEMA.run r join :SCHEMA.input i on i.run = r.key join :SCHEMA.ready q on q.run = r.key order by r.id`);
  t.equal(left.length, 2);
  t.same(left[0], left[1]);
  t.equal(left[0].fits, true);
});

test("an id that is taken fails the statement of new runs, and nothing of it is made", async (t) => {
  const { sql } = await bench(t, { worker: false });
  const make = (ids: string) =>
    sql(
      `select * from :SCHEMA.${NEW_RUNS}($1, array_fill('w'::text, array[3]), array_fill('1'::text, array[3]), array_fill('q'::text, array[3]),
        array_fill(0::smallint, array[3]), '{}', array_fill('[]'::text, array[3]), array_fill('h'::text, array[3]), '{}')`,
      [ids],
    );
  await make("{a,b,c}");
  t.equal((await rejection(make("{d,b,e}"))).error.code, "23505");
  for (const table of ["run", "input", "ready"]) t.equal((await sql(`select from :SCHEMA.${table}`)).length, 3, table);
});

test("among many new runs each start is what it asked to be", needs("batch", "lease"), async (t) => {
  const b = await bench(t, { workflows: [echo], worker: false });
  const counted = traffic(t);
  await b.perdure.start(echo.with({ id: "taken" }), -1);
  const urgent = echo.with({
    priority: -5,
    queue: "other, {quoted}",
    timeout: "1m",
    retry: { type: "fixed", maxAttempts: 2, delay: 5 },
  });
  const [refused, ...others] = await Promise.all([
    rejection(b.perdure.start(echo.with({ id: "taken" }), 1)),
    b.perdure.start(echo.with({ id: "taken" }), -1),
    b.perdure.start(echo.with({ id: "given" }), 1002),
    b.perdure.start(echo.with({ delay: "1h" }), 1003),
    b.perdure.start(echo.with({ tags: ["a"] }), 1004),
    b.perdure.start(urgent, 1005),
    ...startAll(b.perdure, 50),
  ]);
  t.equal(refused.code, "PERDURE_CONFLICT");
  t.equal(new Set(others.map(({ id }) => id)).size, 55);
  t.ok(counted.take().some((text) => text.includes(NEW_RUNS)));
  const [run] = await b.sql(
    "select r.priority, r.queue, r.timeout_ms, i.options::text as options from :SCHEMA.run r join :SCHEMA.input i on i.run = r.key where r.id = $1",
    [others[4]!.id],
  );
  t.match(run, { priority: -5, queue: "other, {quoted}", timeout_ms: 60_000, options: /fixed/ });
  t.match(await others[2]!.status(), { state: "pending", waitingFor: "start" });
  const { runs } = await b.perdure.list({ tags: ["a"] });
  t.equal(runs[0]!.id, others[3]!.id);
  const waiting = await claimable(b);
  t.equal(waiting[0], 1005, "the urgent one is first");
  const plain = waiting.filter((n) => n >= 0 && n < 1000);
  t.same(plain, upTo(50), "those that are alike keep their order");
});

test("where an id is taken after all, each start of the batch is made as one whose id may be", async (t) => {
  const b = await bench(t, { workflows: [echo], worker: false });
  await b.sql(`create function :SCHEMA.take() returns trigger language plpgsql as $$ begin
      if current_query() like '%${NEW_RUNS}%' then raise unique_violation; end if;
      return new;
    end $$`);
  await b.sql("create trigger take before insert on :SCHEMA.input for each row execute function :SCHEMA.take()");
  await Promise.all(startAll(b.perdure, 500));
  t.same(ascending(await claimable(b)), upTo(500));
});

test("what many start is worked on by others, each run once", async (t) => {
  const b = await bench(t, { workflows: [echo] });
  const client = await b.another({ worker: false });
  const handles = await Promise.all(startAll(client, 500));
  t.same(await Promise.all(handles.map((run) => run.result())), upTo(500));
});

test(
  "two batches of many starts are on their way at a time, and none is lost or doubled",
  needs("batch", "follow"),
  async (t) => {
    const b = await bench(t, { workflows: [echo], worker: false });
    const starting = startAll(b.perdure);
    await eventually(async () => (await starters(b)).length === 2, PATIENCE_MS);
    const handles = await Promise.all(starting);
    t.equal(new Set(handles.map(({ id }) => id)).size, MANY);
    t.same(ascending(await claimable(b)), upTo(MANY));
    await b.perdure.start(echo, 0);
    await b.perdure.shutdown();
    t.same(await starters(b), [], "no connection is left");
  },
);

test(
  "a server that has no second connection to give gets the starts on the first",
  needs("batch", "follow"),
  async (t) => {
    const { url } = await bench(t, { worker: false });
    const { hostname, port } = new URL(url);
    const proxy = await FaultyProxy.open({ host: hostname, port: Number(port) });
    t.teardown(() => proxy.close());
    const through = new URL(url);
    through.port = String(proxy.port);
    const b = await bench(t, { workflows: [echo], worker: false, database: through.href });
    await b.perdure.start(echo, 0);
    const accepted = proxy.accepted;
    proxy.mode = "refuse";
    await Promise.all(startAll(b.perdure));
    t.equal(proxy.accepted, accepted + 1, "asked once, and not again for a while");
    t.equal((await claimable(b)).length, MANY + 1);
    proxy.mode = "pass";
  },
);

test(
  "whichever connection is lost while many are started, before or after a commit, each is there once",
  needs("batch"),
  async (t) => {
    const { url } = await bench(t, { worker: false });
    const { hostname, port } = new URL(url);
    const proxy = await FaultyProxy.open({ host: hostname, port: Number(port) });
    t.teardown(() => proxy.close());
    const through = new URL(url);
    through.port = String(proxy.port);
    const b = await bench(t, { workflows: [echo], worker: false, notify: false, database: through.href });
    let commits = 0;
    // The second and the third: one on each connection, where there are two.
    proxy.onCommitted = (batch) => (batch && [2, 3].includes(++commits) ? "reset" : "pass");
    const starting = startAll(b.perdure);
    await eventually(async () => (await claimable(b)).length > 1000, PATIENCE_MS);
    const pids = (await starters(b)).map(({ pid }) => pid);
    await b.sql("select pg_terminate_backend(p) from unnest($1::int[]) p", [pids]);
    const handles = await Promise.all(starting);
    t.ok(commits >= 3, "answers were lost");
    t.equal(new Set(handles.map(({ id }) => id)).size, MANY);
    t.same(ascending(await claimable(b)), upTo(MANY));
  },
);

test("a shutdown while many are started: what was told to be durable is there", async (t) => {
  const b = await bench(t, { workflows: [echo], worker: false });
  const starting = startAll(b.perdure);
  await starting[0];
  await b.perdure.shutdown();
  const settled = await Promise.allSettled(starting);
  const durable = settled.filter(({ status }) => status === "fulfilled").length;
  t.equal((await claimable(b)).length, durable);
});
