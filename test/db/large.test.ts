/** What has gathered in the tables is not read by who works beside it, though plans are made with the statistics of large tables. On a real server. */
import { test } from "tap";
import { event, type Perdure, sleep, step, value, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches } from "../support/gate.ts";

const GATHERED = 30_000;
const RUNS = 300;

const add = step("add", async (n: number) => n + 1);
const twice = step({ name: "twice", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async (key: string) => {
  if (!tried.has(key)) {
    tried.add(key);
    throw new Error("not at once");
  }
  return key;
});
const tried = new Set<string>();
const go = event<number>("go");
const stage = value<string>("stage");
const child = workflow("child", async (n: number) => add(n));
const whole = workflow("whole", async (n: number) => {
  const first = await add(n);
  await stage.set("begun");
  await twice(`${n}`);
  await sleep(20);
  const gone = await go.wait({ timeout: "1h" });
  return first + gone!.data + (await child(n));
});

const SOME = "id, workflow, version, queue, priority, state, ready_at, due, topics, created_at, finished_at";
const of = (workflow: string, state: string, rest: string): string =>
  `insert into :SCHEMA.run (${SOME}) select gen_random_uuid(), '${workflow}', '1', 'default', 0, '${state}', ${rest}, clock_timestamp(),
    case when '${state}' = 'completed' then clock_timestamp() end from generate_series(1, ${GATHERED}) g`;
const LATER = "now() + interval '1 day'";
const GATHERING = [
  of("other", "pending", "now(), null::timestamptz, null::text[]"),
  of("whole", "pending", `${LATER}, null, null`),
  of("whole", "suspended", `null, ${LATER}, array['sleep:']`),
  of("whole", "completed", "null, null, null"),
  "insert into :SCHEMA.ready select workflow, version, queue, priority, ready_at, key, 0 from :SCHEMA.run where ready_at is not null",
  `insert into :SCHEMA.input (run, args, hash) select key, '{"json":[1]}', 'h' from :SCHEMA.run`,
  `insert into :SCHEMA.wait (run, slot, attempt, kind, topics, length_ms, due, started_at) select key, 'sleep:#0', 1, 'sleep', array['sleep:'], 1, due, now() from :SCHEMA.run where due is not null and state = 'suspended'`,
  `insert into :SCHEMA.outcome (run, value) select key, '{"json":2}' from :SCHEMA.run where finished_at is not null`,
  `insert into :SCHEMA.checkpoint select key, 'step:add#0', 1, 1, 'step', 'add', 'completed', '{"json":2}', null, 1, 1, now(), now() from :SCHEMA.run where finished_at is not null`,
];

test("beside large tables a run reads no more rows than beside empty ones, whatever it does", async (t) => {
  const read = async (gathered: readonly string[]): Promise<number> => {
    const b = await bench(t, { worker: false, workflows: [whole, child] });
    await b.sql(gathered.join(";"));
    await b.sql("vacuum analyze");
    const before = await rowsRead(b.sql);
    tried.clear();
    const worker = await b.another({ worker: { concurrency: 100 } });
    await works(worker);
    await worker.shutdown();
    await b.perdure.shutdown();
    return ((await rowsRead(b.sql)) - before) / RUNS;
  };
  const [empty, large] = [await read([]), await read(GATHERING)];
  t.ok(large < 2 * empty + 100, `${large} rows a run, and ${empty} beside empty tables`);
});

test("so does a run by itself, in its statements of one row", async (t) => {
  const alone = 20;
  const read = async (gathered: readonly string[]): Promise<number> => {
    const b = await bench(t, { worker: false, workflows: [whole, child] });
    await b.sql([...gathered, ""].join(";"));
    await b.sql("vacuum analyze");
    const before = await rowsRead(b.sql);
    tried.clear();
    const worker = await b.another({ worker: { concurrency: 10 } });
    for (let n = 0; n < alone; n += 1) {
      const run = await b.perdure.start(whole, n);
      await reaches(run, "suspended");
      await worker.send(run.id, go, 1);
      await run.result();
    }
    await worker.shutdown();
    await b.perdure.shutdown();
    return ((await rowsRead(b.sql)) - before) / alone;
  };
  // Nothing is claimable in what the worker serves.
  const [empty, large] = [
    await read([]),
    await read(GATHERING.filter((text) => !text.includes(`'whole', '1', 'default', 0, 'pending'`))),
  ];
  t.ok(large < 2 * empty + 100, `${large} rows a run, and ${empty} beside empty tables`);
});

const READ = `select (
    select sum(coalesce(seq_tup_read, 0)) from pg_stat_user_tables where schemaname = trim('":"' from ':SCHEMA')
  ) + (
    select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = trim('":"' from ':SCHEMA')
  ) as count`;
/** So many times running the same count. */
const STILL = 20;

async function works(perdure: Perdure): Promise<void> {
  await Promise.all(
    Array.from({ length: RUNS }, async (_, n) => {
      const run = await perdure.start(whole, n);
      await run.send(go, 1);
      await run.result();
    }),
  );
}

test("what a worker holds is found by the runs that it took, beside a table that is soon read as a whole", async (t) => {
  const { sql } = await bench(t, { worker: false });
  // Of a worker that is nobody the leader takes back what it has.
  await sql(
    `insert into :SCHEMA.worker (id, name, started_at, beat_at, lease, locked, knows) values (7, 'seven', now(), now(), '1h', false, '')`,
  );
  await sql(of("whole", "completed", "null, null, null"));
  await sql(`insert into :SCHEMA.run (id, workflow, version, queue, priority, state, epoch, worker, created_at)
    values ('held', 'whole', '1', 'default', 0, 'running', 1, 7, now());
    insert into :SCHEMA.taken (worker, runs)
    select 7, array_agg(key) from (select key, ntile(16) over (order by key) as part from (
      select key from :SCHEMA.run order by key desc limit 3200) r) r group by part`);
  await sql("vacuum analyze :SCHEMA.run, :SCHEMA.taken");
  const before = await rowsRead(sql);
  const [{ held }] = await sql("select count(*)::int as held from :SCHEMA.held_runs(7)");
  const [{ holds }] = await sql("select :SCHEMA.holds_runs(7) as holds");
  await sql("select :SCHEMA.tidy_taken(7, 9223372036854775807)");
  t.same([held, holds], [1, true]);
  t.same(await sql("select worker, cardinality(runs) as runs from :SCHEMA.taken"), [{ worker: "7", runs: 1 }]);
  const read = (await rowsRead(sql)) - before;
  t.ok(read < GATHERED / 2, `${read} rows and entries were read`);
});

/** Rows that were read in tables and entries that were read in indexes, once nobody tells of more: sessions do so at their end, or when they are asked to. */
async function rowsRead(sql: (text: string) => Promise<any[]>): Promise<number> {
  let last = -1;
  let same = 0;
  await eventually(async () => {
    await sql("select pg_stat_force_next_flush()").catch(() => {}); // before PostgreSQL 15 there is none, and it comes by itself
    const [{ count }] = await sql(READ);
    same = Number(count) === last ? same + 1 : 0;
    last = Number(count);
    return same === STILL;
  }, PATIENCE_MS);
  return last;
}
