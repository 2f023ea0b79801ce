/** What has gathered in the tables is not read by who works beside it, though plans are made with the statistics of large tables. On a real server. */
import { test } from "tap";
import { event, type Perdure, sleep, step, value, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { reaches } from "../support/gate.ts";

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

async function works(perdure: Perdure): Promise<void> {
  await Promise.all(
    Array.from({ length: RUNS }, async (_, n) => {
      const run = await perdure.start(whole, n);
      await run.send(go, 1);
      await run.result();
    }),
  );
}

/** Rows that were read in tables and entries that were read in indexes, by sessions that are over. */
async function rowsRead(sql: (text: string) => Promise<any[]>): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, 500));
  const [{ count }] = await sql(`select (
      select sum(coalesce(seq_tup_read, 0)) from pg_stat_user_tables where schemaname = trim('":"' from ':SCHEMA')
    ) + (
      select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = trim('":"' from ':SCHEMA')
    ) as count`);
  return Number(count);
}
