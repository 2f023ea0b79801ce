/** Events and cancellations from SQL: in the sender's own transaction, heard by engines elsewhere. */
import pg from "pg";
import { type Test, test } from "tap";
import { event, step, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const ping = event<unknown>("ping");
const listen = workflow("listen", async () => {
  const { data, reference } = await ping.wait();
  return { data, reference: reference ?? null };
});

/** Well under the 3 s of a poll: who goes on by then was woken by a hint. */
const PROMPT_MS = 1500;

/** A session of somebody else's program. `:SCHEMA` stands for the schema. */
async function stranger(
  t: Test,
  { url, schema }: Bench,
): Promise<(text: string, values?: unknown[]) => Promise<any[]>> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  t.teardown(() => client.end());
  return async (text, values = []) => (await client.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
}

test("send_event wakes a run that another process suspended, promptly", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const sql = await stranger(t, b);
  const run = await b.perdure.start(listen.with({ id: "order-42" }));
  await reaches(run, "suspended");
  const since = performance.now();
  t.same(await sql(`select :SCHEMA.send_event('order-42', 'ping', '{"amount": 99}') as sent`), [{ sent: true }]);
  t.strictSame(await run.result(), { data: { amount: 99 }, reference: null });
  t.ok(performance.now() - since < PROMPT_MS, "by the hint, not by the poll");
});

test("send_event to a run in work is heard at once, and without hints by polling", async (t) => {
  const b = await bench(t, { workflows: [listen], worker: false });
  const sql = await stranger(t, b);
  const away = gate();
  const hold = step("hold", () => away.opened);
  const beside = workflow("beside", async () => {
    const held = hold();
    const { data } = await ping.wait();
    await runStepAfter(data);
    await held;
    return data;
  });
  const seen: unknown[] = [];
  const runStepAfter = step("after", async (data: unknown) => void seen.push(data));
  const engine = await b.another({ workflows: [beside], worker: {} });
  const run = await engine.start(beside.with({ id: "beside" }));
  await eventually(async () => (await b.sql("select from :SCHEMA.wait where kind = 'event'")).length, PATIENCE_MS);
  const since = performance.now();
  await sql("select :SCHEMA.send_event('beside', 'ping', '1')");
  await eventually(() => seen.length === 1, PATIENCE_MS);
  t.ok(performance.now() - since < PROMPT_MS, "while another branch holds the run in work");
  away.open();
  t.equal(await run.result(), 1);
  await engine.shutdown();

  const deaf = await b.another({ workflows: [listen], worker: {}, notify: false });
  const other = await deaf.start(listen.with({ id: "deaf" }));
  await reaches(other, "suspended");
  await sql("select :SCHEMA.send_event(run_id => 'deaf', event => 'ping', data => '[2]', reference => 'r')");
  t.strictSame(await other.result({ timeout: PATIENCE_MS }), { data: [2], reference: "r" });
});

test("an event sent in a transaction exists when that commits: rolled back, nothing was sent", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const sql = await stranger(t, b);
  const run = await b.perdure.start(listen.with({ id: "a" }));
  await reaches(run, "suspended");
  await sql("begin");
  await sql("select :SCHEMA.send_event('a', 'ping', '1', 'key')");
  await sql("rollback");
  t.same(await b.sql("select from :SCHEMA.mail"), []);
  t.same(await b.sql("select state, mail from :SCHEMA.run"), [{ state: "suspended", mail: 0 }]);
  await sql("begin");
  t.same(await sql("select :SCHEMA.send_event('a', 'ping', '2', 'key') as sent"), [{ sent: true }]);
  t.same(await sql("select :SCHEMA.send_event('a', 'ping', '3', 'key') as sent"), [{ sent: false }], "a duplicate");
  t.equal((await run.status()).state, "suspended", "nobody sees it before the commit");
  const since = performance.now();
  await sql("commit");
  t.strictSame(await run.result(), { data: 2, reference: "key" });
  t.ok(performance.now() - since < PROMPT_MS, "the commit wakes the run");
});

test("what a transaction sends from several sessions arrives in the order of the commits", async (t) => {
  const collect = workflow("collect", async () => {
    const got: unknown[] = [];
    for (let n = 0; n < 3; n += 1) got.push((await ping.wait()).data);
    return got;
  });
  const b = await bench(t, { workflows: [collect] });
  const [first, second] = [await stranger(t, b), await stranger(t, b)];
  const run = await b.perdure.start(collect.with({ id: "a" }));
  await reaches(run, "suspended");
  await first("begin");
  await first("select :SCHEMA.send_event('a', 'ping', '1')");
  const behind = second("select :SCHEMA.send_event('a', 'ping', '3')");
  await eventually(async () => (await b.sql("select from pg_locks where not granted")).length > 0, PATIENCE_MS);
  await first("select :SCHEMA.send_event('a', 'ping', '2')");
  await first("commit");
  await behind;
  t.same(await run.result(), [1, 2, 3]);
});

test("null and left out data are null, and any JSON comes through", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const sql = await stranger(t, b);
  const data = [null, undefined, '"text"', "[1, {}]", "1e400", '{"json": 1, "meta": 2}', '"\\u0000\\ud800"'];
  for (const [n, text] of data.entries()) {
    const run = await b.perdure.start(listen.with({ id: `n${n}` }));
    if (text === undefined) await sql("select :SCHEMA.send_event($1, 'ping')", [run.id]);
    else await sql("select :SCHEMA.send_event($1, 'ping', $2)", [run.id, text]);
    t.strictSame((await run.result()).data, JSON.parse(text ?? "null"));
  }
});

test("what send_event and cancel_run cannot do has a SQLSTATE of ours and a text that helps, and leaves nothing", async (t) => {
  const quick = workflow("quick", async () => 1);
  const b = await bench(t, { workflows: [quick, listen] });
  const sql = await stranger(t, b);
  await (await b.perdure.start(quick.with({ id: "done" }))).result();
  await reaches(await b.perdure.start(listen.with({ id: "open" })), "suspended");
  const refused = (call: string, values: unknown[] = []) => rejection(sql(`select :SCHEMA.${call}`, values));

  t.match(await refused("send_event('nobody', 'ping')"), { code: "PD001", message: /there is no run "nobody"/ });
  t.match(await refused("cancel_run('nobody')"), { code: "PD001", message: /there is no run "nobody"/ });
  t.match(await refused("send_event('done', 'ping')"), { code: "PD002", message: /run "done" has finished/ });
  t.match(await refused("send_event(null, 'ping')"), { code: "PD005", message: /run_id must be given/ });
  t.match(await refused("send_event('open', null)"), { code: "PD005", message: /event is null/ });
  t.match(await refused("cancel_run(null)"), { code: "PD005", message: /run_id must be given/ });
  t.match(await refused("send_event('open', '')"), { code: "PD005", message: /1 to 255 bytes/ });
  t.match(await refused("send_event('open', repeat('ä', 128))"), { code: "PD005", message: /1 to 255 bytes/ });
  const large = JSON.stringify("x".repeat(1_048_575));
  t.match(await refused("send_event('open', 'ping', $1)", [large]), {
    code: "PD005",
    message: /event "ping" for run "open" has 1048577 bytes; at most 1048576/,
  });
  const noise = Array.from({ length: 4000 }, (_, n) => String.fromCharCode(0x4e00 + ((n * 7919) % 20_000))).join("");
  t.match(await refused("send_event('open', 'ping', '1', $1)", [noise]), {
    code: "PD005",
    message: /reference.*255 bytes/,
  });
  t.match(await refused("send_event('open', 'ping', '1', '')"), { code: "PD005", message: /reference.*255 bytes/ });
  t.match(
    await refused("send_event('open', 'ping', 'no json')"),
    { code: "22P02" },
    "not JSON: Postgres itself says so",
  );

  t.same(await b.sql("select from :SCHEMA.mail"), []);
  t.same(await b.sql("select state, mail from :SCHEMA.run where id = 'open'"), [{ state: "suspended", mail: 0 }]);
});

test("a refused call aborts the sender's transaction as any error does, and a savepoint saves it", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const sql = await stranger(t, b);
  const run = await b.perdure.start(listen.with({ id: "a" }));
  await reaches(run, "suspended");
  await sql("begin");
  await sql("savepoint before");
  t.equal((await rejection(sql("select :SCHEMA.send_event('nobody', 'ping')"))).code, "PD001");
  await sql("rollback to before");
  await sql("select :SCHEMA.send_event('a', 'ping', '1')");
  await sql("commit");
  t.equal((await run.result()).data, 1);
});

test("a trigger on a table of the application sends an event with the row", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const sql = await stranger(t, b);
  await sql("create table :SCHEMA.payment (order_id text, amount int)");
  await sql(`create function :SCHEMA.paid() returns trigger language plpgsql as $$ begin
    perform :SCHEMA.send_event(new.order_id, 'ping', to_json(new)); return new; end $$`);
  await sql("create trigger paid after insert on :SCHEMA.payment for each row execute function :SCHEMA.paid()");
  const runs = await Promise.all(["a", "b"].map((id) => b.perdure.start(listen.with({ id }))));
  await Promise.all(runs.map((run) => reaches(run, "suspended")));
  await sql("insert into :SCHEMA.payment values ('a', 1), ('b', 2)");
  t.same(await Promise.all(runs.map(async (run) => (await run.result()).data)), [
    { order_id: "a", amount: 1 },
    { order_id: "b", amount: 2 },
  ]);
});

test("cancel_run cancels in the caller's transaction: true, and false when it had finished", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const sql = await stranger(t, b);
  const run = await b.perdure.start(listen.with({ id: "a" }));
  await reaches(run, "suspended");
  await sql("begin");
  t.same(await sql("select :SCHEMA.cancel_run('a', 'not paid') as done"), [{ done: true }]);
  t.equal((await run.status()).state, "suspended");
  await sql("rollback");
  t.same(await sql("select :SCHEMA.cancel_run('a', reason => 'not paid') as done"), [{ done: true }]);
  const refused = await rejection(run.result());
  t.match(refused, { name: "RunCancelledError", message: 'run "a" was cancelled: not paid' });
  t.same(await sql("select :SCHEMA.cancel_run('a') as done"), [{ done: false }]);
  t.equal((await run.status()).reason, "not paid", "the first reason stands");
});

test("a listener whose connection was killed listens again, and what came meanwhile is found", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const sql = await stranger(t, b);
  const listeners = `select pid from pg_stat_activity where query ilike '%listen%' and query not ilike '%pg_stat%' and query ilike '%' || :SCHEMA.channel() || '%'`;
  const runs = await Promise.all(["a", "b"].map((id) => b.perdure.start(listen.with({ id }))));
  await Promise.all(runs.map((run) => reaches(run, "suspended")));
  const [first] = await sql(listeners);
  t.ok(first, "there is one");
  await sql("select pg_terminate_backend($1, 5000)", [first.pid]);
  await sql("select :SCHEMA.send_event('a', 'ping', '1')");
  t.equal((await runs[0]!.result({ timeout: PATIENCE_MS })).data, 1);
  const second = await eventually(async () => (await sql(listeners))[0], PATIENCE_MS);
  t.not(second.pid, first.pid, "on another connection");
  await sql("select :SCHEMA.send_event('b', 'ping', '2')");
  t.equal((await runs[1]!.result({ timeout: PATIENCE_MS })).data, 2);
});
