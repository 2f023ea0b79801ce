/** Starting and steering runs from SQL: in the caller's own transaction, as other programs and triggers do. */
import pg from "pg";
import { type Test, test } from "tap";
import { event, sleep, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

/** Well under the 3 s of a poll: what runs by then was woken by a hint. */
const PROMPT_MS = 1500;
const patient = { timeout: PATIENCE_MS };

const ping = event<unknown>("ping");
const greet = workflow("greet", async (...names: unknown[]) => names);
const listen = workflow("listen", async () => (await ping.wait()).data);
const wait = workflow("wait", async () => (await sleep("1h")).woken);

type Sql = (text: string, values?: unknown[]) => Promise<any[]>;

/** A session of somebody else's program. `:SCHEMA` stands for the schema. */
async function stranger(t: Test, { url, schema }: Bench): Promise<Sql> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  t.teardown(() => client.end());
  return async (text, values = []) => (await client.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
}

test("start_run starts a run with plain JSON, and an idle worker takes it up promptly", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const sql = await stranger(t, b);
  for (const args of ["[]", '["Ada"]', '[null, true, -1.5e3, "\\u0000\\ud800", {"json": 1, "meta": [2]}, []]']) {
    const since = performance.now();
    const [{ id }] = await sql("select :SCHEMA.start_run('greet', $1) as id", [args]);
    t.strictSame(await b.perdure.get(id).result(patient), JSON.parse(args));
    t.ok(performance.now() - since < PROMPT_MS, "by the hint, not by the poll");
  }
  const [{ id }] = await sql("select :SCHEMA.start_run('greet') as id");
  t.strictSame(await b.perdure.get(id).result(patient), [], "args left out are none");
  const ids = await sql("select :SCHEMA.start_run('greet') as id from generate_series(1, 200)");
  t.ok(
    ids.every(({ id }) => /^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/.test(id)),
    "a UUID of version 7",
  );
  t.equal(new Set(ids.map(({ id }) => id)).size, 200);
  const ms = Number.parseInt(ids[0].id.replace("-", "").slice(0, 12), 16);
  t.ok(Math.abs(ms - Date.now()) < 3_600_000, "that grows with time");
});

test("start_run takes what the call says, and otherwise what the newest version that was launched says", async (t) => {
  const one = workflow({ name: "order", queue: "slow", timeout: "1h" }, async () => 1);
  const two = workflow({ name: "order", version: "2", queue: "fast", timeout: "2h" }, async () => 2);
  const b = await bench(t, { workflows: [one] });
  await b.another({ workflows: [two] });
  const row = async (call: string) => {
    const [{ id }] = await b.sql(`select :SCHEMA.start_run('order'${call}) as id`);
    return (await b.sql("select version, queue, priority, timeout_ms from :SCHEMA.run where id = $1", [id]))[0];
  };
  t.same(await row(""), { version: "2", queue: "fast", priority: 0, timeout_ms: 7_200_000 });
  t.same(await row(", version => '1', priority => -5"), {
    version: "1",
    queue: "slow",
    priority: -5,
    timeout_ms: 3_600_000,
  });
  t.same(await row(", queue => 'other', priority => null"), {
    version: "2",
    queue: "other",
    priority: 0,
    timeout_ms: 7_200_000,
  });
  await b.another({ workflows: [one] });
  t.same((await row("")).version, "2", "an old version that is launched again is not the newest");
});

test("a run started from SQL exists when the transaction commits; rolled back, nothing was started", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const sql = await stranger(t, b);
  await sql("begin");
  await sql(`select :SCHEMA.start_run('greet', '["Ada"]', id => 'a')`);
  await sql("rollback");
  t.same([await b.sql("select from :SCHEMA.run"), await b.sql("select from :SCHEMA.input")], [[], []]);
  await sql("begin");
  await sql(`select :SCHEMA.start_run('greet', '["Ada"]', id => 'a')`);
  await sql(`select :SCHEMA.start_run('greet', '["Bob"]', id => 'b')`);
  t.same(await b.sql("select from :SCHEMA.run"), []);
  await sql("commit");
  t.same(await b.perdure.get("a").result(patient), ["Ada"]);
  t.same(await b.perdure.get("b").result(patient), ["Bob"]);
});

test("an id is one run, wherever it is started from: equal JSON gives that run, other input is refused", async (t) => {
  const b = await bench(t, { workflows: [greet, listen] });
  const sql = await stranger(t, b);
  const input = [{ b: 1, a: [true, null] }, "Ada"];
  const equal = '[ {"a": [true, null], "b": 1.0}, "Ada" ]';
  await b.perdure.start(greet.with({ id: "from-ts" }), ...input);
  await sql(`select :SCHEMA.start_run('greet', $1, id => 'from-sql')`, [equal]);
  for (const id of ["from-ts", "from-sql"]) {
    t.same(await sql("select :SCHEMA.start_run('greet', $1, id => $2) as id", [equal, id]), [{ id }]);
    t.equal((await b.perdure.start(greet.with({ id }), ...input)).id, id);
    t.match(await rejection(sql(`select :SCHEMA.start_run('greet', '["Bob"]', id => $1)`, [id])), {
      code: "PD003",
      message: new RegExp(`run "${id}" is taken and was started with other input`),
    });
    t.match(await rejection(sql(`select :SCHEMA.start_run('listen', id => $1)`, [id])), {
      code: "PD003",
      message: /belongs to workflow "greet"/,
    });
    t.match(await rejection(b.perdure.start(greet.with({ id }), "Bob")), { code: "PERDURE_CONFLICT" });
    t.same(
      await sql(`select :SCHEMA.start_run('greet', '["Bob"]', id => $1, on_conflict => 'return_existing') as id`, [id]),
      [{ id }],
    );
    t.same(await b.perdure.get(id).result(patient), input);
  }
  t.match(await rejection(b.perdure.start(greet.with({ id: "from-sql" }), input[0], "Ada", undefined)), {
    code: "PERDURE_CONFLICT",
  });
});

test("a delayed start begins when it is due, a few milliseconds after a commit too, and no earlier", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const sql = await stranger(t, b);
  await eventually(async () => (await b.sql("select from :SCHEMA.workers where leads")).length > 0, PATIENCE_MS);
  const [{ id }] = await sql("select :SCHEMA.start_run('greet', delay => '50 milliseconds') as id");
  const since = performance.now();
  await b.perdure.get(id).result(patient);
  t.ok(performance.now() - since < PROMPT_MS, "not left to the poll");
  const [{ early }] = await b.sql(
    "select started_at < created_at + interval '50 milliseconds' as early from :SCHEMA.runs",
  );
  t.notOk(early);
  await sql("select :SCHEMA.start_run('greet', id => 'later', delay => '1 month')");
  t.same(
    await b.sql(
      "select state, waiting_for, due = created_at + interval '1 month' as exact from :SCHEMA.runs where id = 'later'",
    ),
    [{ state: "pending", waiting_for: "start", exact: true }],
  );
  await sql("select :SCHEMA.start_run('greet', id => 'now', delay => '0')");
  t.same(await b.perdure.get("now").result(patient), []);
});

test("what start_run cannot do has a SQLSTATE of ours and a text that helps, and leaves nothing", async (t) => {
  const b = await bench(t, { workflows: [greet, listen] });
  const sql = await stranger(t, b);
  const refused = async (call: string, values: unknown[] = []) => {
    const { code, message, error } = await rejection(sql(`select :SCHEMA.start_run(${call})`, values));
    return { code, message, hint: error.hint };
  };
  t.match(await refused("'great'"), {
    code: "PD001",
    message: /no launch has registered workflow "great"$/,
    hint: /Registered are: "(greet|listen)" version "1", .*Launch an engine/,
  });
  t.match(await refused("'greet', version => '9'"), {
    code: "PD001",
    message: /"greet" version "9"/,
    hint: /^Registered are: "greet" version "1"/,
  });
  const bad: [string, RegExp][] = [
    ["null", /workflow is null/],
    ["''", /workflow is empty/],
    ["' greet'", /workflow " greet" begins or ends with a blank/],
    ["repeat('x', 256)", /workflow "x{60}" has 256 bytes/],
    ["'greet', id => ''", /id is empty/],
    ["'greet', id => E'a\\nb'", /control character/],
    ["'greet', id => E'a\\u0085'", /control character/],
    ["'greet', version => ''", /version is empty/],
    ["'greet', queue => E'x\\t'", /queue .* control character/],
    [`'greet', '{"name": "Ada"}'`, /args of workflow "greet" must be a JSON array.*not a JSON object/],
    [`'greet', '"Ada"'`, /not a JSON string/],
    ["'greet', 'null'", /not a JSON null/],
    ["'greet', priority => 32768", /priority 32768 .* is not from -32768 to 32767/],
    ["'greet', delay => '-1 second'", /delay -00:00:01 of workflow "greet" is negative/],
    ["'greet', delay => '365001 days'", /longer than 365000 days/],
    ["'greet', delay => '178000000 years'", /longer than 365000 days/],
    ["'greet', on_conflict => 'ignore'", /on_conflict cannot be "ignore"; it must be "error" or "return_existing"/],
    ["'greet', on_conflict => null", /on_conflict/],
  ];
  for (const [call, message] of bad) t.match(await refused(call), { code: "PD005", message }, call);
  t.match(await refused("'greet', $1", [JSON.stringify(["x".repeat(1_048_576)])]), {
    code: "PD005",
    message: /args of workflow "greet" have 1048580 bytes; at most 1048576/,
  });
  t.equal((await refused("'greet', 'no json'")).code, "22P02", "not JSON: Postgres itself says so");
  t.same(await b.sql("select from :SCHEMA.run"), []);
});

test("triggers of three lines start a workflow for a row, and send an event for another", async (t) => {
  const order = workflow("order", async (row: { id: string; total: number }) => {
    const { data, reference } = await ping.wait();
    return { total: row.total, paid: data, reference };
  });
  const b = await bench(t, { workflows: [order] });
  const sql = await stranger(t, b);
  await sql("create table :SCHEMA.orders (id text primary key, total int)");
  await sql("create table :SCHEMA.payment (id text primary key, order_id text, amount int)");
  await sql(`create function :SCHEMA.ordered() returns trigger language plpgsql as $$ begin
    perform :SCHEMA.start_run('order', json_build_array(new), id => new.id); return new; end $$`);
  await sql(`create function :SCHEMA.paid() returns trigger language plpgsql as $$ begin
    perform :SCHEMA.send_event(new.order_id, 'ping', to_json(new.amount), reference => new.id); return new; end $$`);
  await sql("create trigger ordered after insert on :SCHEMA.orders for each row execute function :SCHEMA.ordered()");
  await sql("create trigger paid after insert on :SCHEMA.payment for each row execute function :SCHEMA.paid()");
  await sql("begin");
  await sql("insert into :SCHEMA.orders values ('a', 1)");
  await sql("rollback");
  await sql("insert into :SCHEMA.orders values ('a', 10), ('b', 20)");
  await sql("insert into :SCHEMA.payment values ('p-1', 'a', 10), ('p-2', 'b', 20)");
  t.same(await Promise.all(["a", "b"].map((id) => b.perdure.get(id).result(patient))), [
    { total: 10, paid: 10, reference: "p-1" },
    { total: 20, paid: 20, reference: "p-2" },
  ]);
  const refused = await rejection(sql("insert into :SCHEMA.payment values ('p-3', 'nobody', 1)"));
  t.match(refused, { code: "PD001", message: /there is no run "nobody"/ });
  t.equal((await sql("select from :SCHEMA.payment")).length, 2, "the row is refused with it");
});

test("pause_run, resume_run and wake_run steer a run, and say why they cannot", async (t) => {
  const b = await bench(t, { workflows: [greet, listen, wait] });
  const sql = await stranger(t, b);
  await (await b.perdure.start(greet.with({ id: "done" }))).result();
  const [run, asleep] = [
    await b.perdure.start(listen.with({ id: "a" })),
    await b.perdure.start(wait.with({ id: "b" })),
  ];
  await Promise.all([reaches(run, "suspended"), reaches(asleep, "suspended")]);
  await sql("begin");
  await sql("select :SCHEMA.pause_run('a')");
  await sql("rollback");
  t.equal((await run.status()).state, "suspended");
  await sql("select :SCHEMA.pause_run(run_id => 'a')");
  await sql("select :SCHEMA.pause_run('a')");
  await sql("select :SCHEMA.send_event('a', 'ping', '7')");
  t.equal((await run.status()).state, "paused");
  await sql("select :SCHEMA.resume_run('a')");
  t.equal(await run.result(patient), 7);
  await sql("select :SCHEMA.wake_run('b')");
  t.equal(await asleep.result(patient), true);
  for (const verb of ["pause_run", "resume_run", "wake_run"]) {
    const refused = (id: string | null) => rejection(sql(`select :SCHEMA.${verb}($1)`, [id]));
    t.match(await refused("done"), { code: "PD004", message: new RegExp(`^${verb}: run "done" is completed; .*only`) });
    t.match(await refused("nobody"), { code: "PD001", message: /there is no run "nobody"/ });
    t.match(await refused(null), { code: "PD005", message: /run_id must be given/ });
  }
  t.match(await rejection(sql("select :SCHEMA.cancel_run('nobody', repeat('x', 1001))")), {
    code: "PD005",
    message: /1001 characters/,
  });
});
