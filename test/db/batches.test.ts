/** What batches say of a run, alone and among others; and how claims go on beside an old snapshot. On the SQL itself. */
import { test } from "tap";
import { statement } from "../../lib/db/statement.ts";
import type { WriteKind } from "../../lib/db/writes.ts";
import { step as stepOf, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, rejection } from "../support/gate.ts";
import { type Sql, stranger } from "../support/stranger.ts";
import { traffic } from "../support/traffic.ts";
import { needs } from "../support/without.ts";

const WORKER = "77";
const lanes = { workflows: ["w"], versions: ["1"], queues: ["default"] };

/** As the flusher puts the rows of a batch. */
function call(schema: string, kind: WriteKind, rows: readonly object[]) {
  const context = { schema, worker: WORKER, lanes, named: true, again: false, lockMs: null, apart: false };
  const items = rows.map((row) => ({ row }));
  return statement(kind, items, context);
}

async function write(sql: Sql, schema: string, kind: WriteKind, rows: readonly object[]): Promise<any[]> {
  const { text, values } = call(schema, kind, rows);
  return sql(text, values);
}

const startOf = (id: string, lease = false) => ({
  id,
  workflow: "w",
  version: "1",
  queue: "default",
  priority: 0,
  args: '{"json":[]}',
  hash: "h",
  keep: false,
  detached: false,
  lease: () => lease,
});
const step = {
  attempt: 1,
  no: 1,
  kind: "step",
  name: "s",
  outcome: "completed",
  value: "1",
  tries: 1,
  started: 0,
  at: 0,
};

/** `end_runs` as the flusher calls it, for steps "s#0" of these claims. */
const END = `select ord, verdict, recorded from :SCHEMA.end_runs($1, $2, array_fill('s#0'::text, array[$3::int]), array_fill(1, array[$3]),
  array_fill(1, array[$3]), array_fill('s'::text, array[$3]), array_fill('completed'::text, array[$3]), array_fill('1'::text, array[$3]),
  array_fill(null::text, array[$3]), array_fill(0::float8, array[$3]), array_fill(0::float8, array[$3]), array_fill('completed'::text, array[$3]),
  array_fill('2'::text, array[$3]), array_fill(null::text, array[$3]), $4, $5)`;
async function endRuns(
  sql: Sql,
  runs: readonly string[],
  epochs: readonly number[],
  wait = false,
  again = false,
): Promise<any[]> {
  const rows = await sql(END, [runs, epochs, runs.length, wait, again]);
  return rows[0].ord === null ? runs.map((_, at) => ({ ...rows[0], ord: at + 1 })) : rows;
}

test("texts come as they are, whatever is in them", async (t) => {
  const { schema, sql } = await bench(t, { worker: false });
  const plain = [
    "",
    " ",
    "NULL",
    "null",
    'a "word"',
    "back\\slash",
    '\\"',
    "{a,b}",
    "'",
    "é 😀",
    '{"json":"\\n \\u0001"}',
  ];
  const odd = ["a\nline", "\u0001\b\f\r\t", "\\n", '"\n"', "\u007f\u2028"];
  for (const texts of [plain, odd, [...plain, ...odd]]) {
    const { values } = call(
      schema,
      "send",
      texts.map((name) => ({ id: "r", name })),
    );
    t.same(
      await sql("select unnest($1::text[]) as text", [values[1]]),
      texts.map((text) => ({ text })),
    );
    t.equal(values[2], "{}", "a column of nothing but null");
  }
});

/** One after the other. */
async function each<T>(rows: readonly T[], work: (row: T) => Promise<any[]>): Promise<any[]> {
  const answers: any[] = [];
  for (const row of rows) answers.push(...(await work(row)));
  return answers;
}

for (const among of [0, 3]) {
  const name = among === 0 ? "alone" : "among others";

  test(`a run's last step and its end are judged ${name} as they are one by one`, async (t) => {
    const { schema, sql, url } = await bench(t, { worker: false });
    const own = await stranger(t, { url, schema });
    let made = 0;
    const begin = async (): Promise<string[]> => {
      const rows = Array.from({ length: among + 1 }, () => startOf(`r${++made}`, true));
      return (await write(own, schema, "start", rows)).map(({ key }) => key);
    };
    const epochs = (first: number): number[] => [first, ...Array.from({ length: among }, () => 1)];
    const says = async (keys: string[], epoch = 1, again = false): Promise<string> => {
      const rows = await endRuns(own, keys, epochs(epoch), false, again);
      t.same(
        rows.map(({ ord }) => ord).toSorted(),
        keys.map((_, at) => at + 1),
      );
      const others = rows.filter(({ ord }) => ord > 1);
      t.ok(others.every(({ verdict, recorded }) => verdict === "ok" && recorded === "ok"));
      const { verdict, recorded } = rows.find(({ ord }) => ord === 1);
      return `${recorded}, ${verdict}`;
    };
    const stored = async (key: string) =>
      (
        await sql(
          `select r.state, (select count(*)::int from :SCHEMA.checkpoint where run = r.key) as steps,
            (select value::text from :SCHEMA.outcome where run = r.key) as result from :SCHEMA.run r where key = $1`,
          [key],
        )
      )[0];

    const keys = await begin();
    t.equal(await says(keys), "ok, ok");
    t.same(await stored(keys[0]!), { state: "completed", steps: 1, result: "2" });
    for (const again of [false, true])
      t.equal(await says(keys, 1, again), "ok, ok", "the answer was lost, and it is written again");
    t.same(await stored(keys[0]!), { state: "completed", steps: 1, result: "2" });

    const stale = await begin();
    for (const again of [true, false]) t.equal(await says(stale, 9, again), "stale, stale");
    t.same(await stored(stale[0]!), { state: "running", steps: 0, result: null });

    const late = [
      { ...step, run: keys[0], epoch: 1, slot: "late#0" },
      { ...step, run: stale[0], epoch: 9, slot: "late#0" },
      { ...step, run: stale[0], epoch: 1, slot: "late#0" },
    ];
    const judged =
      among === 0
        ? await each(late, (row) => write(own, schema, "record", [row]))
        : await write(own, schema, "record", late);
    t.same(
      judged.map(({ verdict }) => verdict),
      ["stale", "stale", "ok"],
    );
    const ends = late.map(({ run, epoch }) => ({ run, epoch, state: "failed", value: "3", reopened: null }));
    const ended =
      among === 0
        ? await each(ends, (row) => write(own, schema, "finish", [row]))
        : await write(own, schema, "finish", ends);
    t.same(
      ended.map(({ verdict }) => verdict),
      ["stale", "stale", "ok"],
    );
    t.same(await stored(keys[0]!), { state: "completed", steps: 1, result: "2" });
    t.same(await stored(stale[0]!), { state: "failed", steps: 1, result: "3" });

    const taken = await begin();
    await sql(
      `insert into :SCHEMA.checkpoint (run, slot, attempt, kind, name, outcome, tries, epoch, started_at, at)
        values ($1, 's#0', 1, 'step', 's', 'completed', 1, 7, now(), now())`,
      [taken[0]],
    );
    if (among > 0) t.match(await rejection(says(taken)), { code: "23505" }, "not looked for the first time");
    t.equal(await says(taken, 1, true), "stale, ok", "another claim's outcome stays");
    const alone = await begin();
    t.equal(await says(alone, 1, true), "ok, ok", "nothing was there");
    t.same(await stored(alone[0]!), { state: "completed", steps: 1, result: "2" });
    t.same(await stored(taken[0]!), { state: "completed", steps: 1, result: "2" });
  });

  test(`a run that a stranger holds is left out ${name}, and for the rest of the transaction`, async (t) => {
    const { schema, url, sql } = await bench(t, { worker: false });
    const [own, other] = [await stranger(t, { url, schema }), await stranger(t, { url, schema })];
    const rows = Array.from({ length: among + 1 }, (_, at) => startOf(`r${at}`, true));
    const keys: string[] = (await write(own, schema, "start", rows)).map(({ key }) => key);
    const of = (more: object) => keys.map((run) => ({ run, epoch: 1, ...more }));
    const first = (answers: any[]) => answers.find(({ ord }) => ord === 1).verdict;
    for (const kind of ["record", "end", "finish"] as const) {
      await other("begin");
      await other("select from :SCHEMA.run where key = $1 for update", [keys[0]]);
      await own("begin isolation level read committed");
      const slot = { ...step, slot: "s#0", state: "completed", reopened: null };
      const answers =
        kind === "end"
          ? await endRuns(
              own,
              keys,
              keys.map(() => 1),
            )
          : await write(own, schema, kind, of(slot));
      t.equal(first(answers), "busy");
      t.equal(answers.filter(({ verdict }) => verdict === "ok").length, among);
      await other("commit");
      const later = await write(own, schema, "record", of({ ...slot, slot: "later#0" }).slice(0, 1));
      t.equal(first(later), "busy", "what was skipped is not overtaken, though the row is free");
      await own("rollback");
    }
    t.same(await sql("select from :SCHEMA.checkpoint"), []);
    await own("begin isolation level read committed");
    t.match(
      await endRuns(
        own,
        keys,
        keys.map(() => 1),
        true,
      ),
      keys.map(() => ({ verdict: "ok", recorded: "ok" })),
    );
    await own("commit");
  });
}

test("beside an old snapshot a claim passes over what was claimed before, and finds what comes in an earlier place", async (t) => {
  const { schema, url, sql } = await bench(t, { worker: false });
  const [own, old] = [await stranger(t, { url, schema }), await stranger(t, { url, schema })];
  let made = 0;
  const start = (count: number) =>
    write(
      own,
      schema,
      "start",
      Array.from({ length: count }, () => startOf(`r${++made}`)),
    );
  const claim = async (limit: number): Promise<string[]> =>
    (await write(own, schema, "claim", [{ limit: () => limit, warmFrom: () => null }])).map(({ id }) => id).toSorted();
  const age = (id: string) => sql(`update :SCHEMA.run set ready_at = now() - interval '1 hour' where id = $1`, [id]);
  const note = (took: string) => own(`select :SCHEMA.note_claimed(${WORKER}, 0::smallint, now(), $1)`, [took]);
  const reads = async (): Promise<number> => {
    await own("select pg_stat_force_next_flush()").catch(() => {}); // before PostgreSQL 15 there is none, and it comes by itself
    const read =
      "select coalesce(sum(idx_tup_read), 0)::int as n from pg_stat_user_indexes where schemaname = $1 and indexrelname = 'ready_claim'";
    return (await sql(read, [schema]))[0].n;
  };

  await old("begin isolation level repeatable read");
  await old("select from :SCHEMA.run");
  await start(1000);
  t.equal((await claim(1000)).length, 1000);
  await start(1);
  const before = await reads();
  t.same(await claim(10), ["r1001"]);
  await eventually(async () => (await reads()) - before >= 1000, PATIENCE_MS);

  // As after a look that took long: a second later all that was claimed stands before the place.
  await sql("select pg_sleep(1.1)");
  await note("1 hour");
  await note("1 hour"); // once says nothing
  await start(1);
  const from = await reads();
  t.same(await claim(10), ["r1002"]);
  const after = await reads();
  t.ok(after - from < 100, `${after - from} entries were read`);

  await start(2);
  await age("r1003");
  t.same(await claim(10), ["r1004"], "from the place on");
  t.same(await claim(10), ["r1003"], "nothing from the place on: from the beginning");
  t.same(await claim(10), []);

  await start(2);
  await age("r1005");
  await note("1 hour");
  await note("0");
  t.same(await claim(10), ["r1005", "r1006"], "it is time again to look from the beginning");

  await note("1 hour");
  await note("1 hour");
  await start(1);
  await age("r1007");
  const [{ leased }] = await write(own, schema, "start", [startOf("born", true)]);
  t.ok(leased, "a start looks from the same place");
  await old("rollback");
});

test("a claim holds nothing of what another has claimed since it began to look", async (t) => {
  const { schema, url, sql } = await bench(t, { worker: false });
  const [own, late, gate] = await Promise.all([1, 2, 3].map(() => stranger(t, { url, schema })));
  await write(
    own!,
    schema,
    "start",
    ["r1", "r2", "r3"].map((id) => startOf(id)),
  );
  // The first is left to worker 5, if that one is hungry: whoever asks that waits here, in the midst of a claim.
  await sql(`update :SCHEMA.run set warm = 5, warm_no = 1, ready_at = now() + interval '1 hour' where id = 'r1'`);
  await sql(`update :SCHEMA.run set ready_at = now() + interval '2 hours' where id <> 'r1'`);
  await sql(`create or replace function :SCHEMA.hungry_workers() returns setof bigint language plpgsql stable as
    'begin perform pg_advisory_xact_lock_shared(hashtext(''${schema}'')); end'`);
  await gate!(`select pg_advisory_lock(hashtext('${schema}'))`);
  await late!("begin isolation level read committed");
  const looking = write(late!, schema, "claim", [{ limit: () => 10, warmFrom: () => 0 }]);
  const waits = `select from pg_locks where locktype = 'advisory' and not granted and objid = hashtext('${schema}')::oid`;
  await eventually(async () => (await sql(waits)).length > 0, PATIENCE_MS);
  const claim =
    "select key, epoch from :SCHEMA.claim_runs(5, array['w'], array['1'], array['default'], 10, 0) where key is not null";
  const claimed = await own!(claim);
  t.equal(claimed.length, 2, "what the other has not come to");
  await gate!(`select pg_advisory_unlock(hashtext('${schema}'))`);
  t.same(
    (await looking).map(({ id }) => id),
    ["r1"],
  );
  const [keys, epochs] = [claimed.map(({ key }) => key), claimed.map(({ epoch }) => epoch)];
  t.match(await endRuns(own!, keys, epochs), [{ verdict: "ok" }, { verdict: "ok" }], "and their ends wait for nobody");
  await late!("commit");
});

const ROUNDS = 8;
const alone = needs("pipeline", "batch", "gather", "lease");
test(
  "a statement by itself is a transaction of its own, unless by default transactions are of another kind",
  alone,
  async (t) => {
    const counted = traffic(t);
    const add = stepOf("add", async (n: number) => n + 1);
    const flow = workflow("flow", async (n: number) => add(n));
    /** How many begins each round takes: claims and timers may come with it, in a batch then. */
    const begins = async (database?: string): Promise<number[]> => {
      const { perdure } = await bench(t, { workflows: [flow], ...(database && { database }) });
      const counts: number[] = [];
      let starts = 0;
      for (let round = 0; round < ROUNDS; round += 1) {
        counted.take();
        t.equal(await (await perdure.start(flow, round)).result(), round + 1);
        const sent = counted.take();
        counts.push(sent.filter((text) => text.startsWith("begin isolation level read committed")).length);
        starts += sent.filter((text) => /^select .*\.start_runs\(/.test(text)).length;
      }
      t.ok(starts <= ROUNDS + 2, "one attempt of each kind shows what there is by default");
      await perdure.shutdown();
      return counts;
    };
    const { url } = await bench(t, { worker: false });
    t.equal(Math.min(...(await begins())), 0);
    const other = new URL(url);
    other.searchParams.set("options", "-c default_transaction_isolation=serializable");
    t.ok(Math.min(...(await begins(other.href))) >= 2, "said in each, after a first attempt that did nothing");
  },
);
