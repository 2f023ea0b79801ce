/** A role that may start runs, send events and cancel runs, and do nothing else; and what the catalogue says to whoever looks. */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { type Test, test } from "tap";
import { event, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const patient = { timeout: PATIENCE_MS };
const ping = event<unknown>("ping");
const greet = workflow("greet", async (name: string) => `hello ${name}`);
const listen = workflow("listen", async () => (await ping.wait()).data);

type Sql = (text: string, values?: unknown[]) => Promise<any[]>;

/** A new role without any right, and a session of its own. */
async function role(t: Test, { url, schema, sql }: Bench): Promise<{ name: string; as: Sql }> {
  const name = `R ${randomBytes(6).toString("hex")}`;
  await sql(`create role "${name}"`);
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  await client.query(`set session authorization "${name}"`);
  t.teardown(async () => {
    await client.end();
    await sql(`drop owned by "${name}" cascade`);
    await sql(`drop role "${name}"`);
  });
  const as: Sql = async (text, values = []) =>
    (await client.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
  return { name, as };
}

test("a sender starts runs, sends events and cancels runs, without a right on any table", async (t) => {
  const b = await bench(t, { workflows: [greet, listen] });
  const { name, as } = await role(t, b);
  t.match(
    await rejection(as("select :SCHEMA.start_run('greet')")),
    { code: "42501" },
    "nobody may, before it is granted",
  );
  await b.sql(`select :SCHEMA.grant_to('${name}', 'sender')`);
  await b.sql(`select :SCHEMA.grant_to('${name}', 'sender')`);
  const [{ id }] = await as(`select :SCHEMA.start_run('greet', '["Ada"]') as id`);
  t.equal(await b.perdure.get(id).result(patient), "hello Ada");
  await as(`select :SCHEMA.start_run('listen', id => 'a')`);
  await as(`select :SCHEMA.start_run('listen', id => 'b')`);
  await reaches(b.perdure.get("a"), "suspended");
  t.same(await as(`select :SCHEMA.send_event('a', 'ping', '{"n": 1}', 'once') as sent`), [{ sent: true }]);
  t.same(await b.perdure.get("a").result(patient), { n: 1 }, "and is heard");
  t.same(await as("select :SCHEMA.cancel_run('b', 'enough') as done"), [{ done: true }]);
  t.match(await rejection(b.perdure.get("b").result(patient)), { code: "PERDURE_CANCELLED" });
  t.match(await rejection(as("select :SCHEMA.send_event('nobody', 'ping')")), { code: "PD001" });
});

test("a sender reads no payload, writes no table, calls nothing else and creates nothing", async (t) => {
  const b = await bench(t, { workflows: [greet, listen] });
  const { name, as } = await role(t, b);
  await b.sql(`select :SCHEMA.grant_to('${name}', 'sender')`);
  await as(`select :SCHEMA.start_run('greet', '["secret"]', id => 'a')`);
  await b.perdure.get("a").result(patient);
  const relations = await b.sql(
    `select c.relname as name, c.relkind::text as kind, c.relkind <> 'S' and has_any_column_privilege($2, c.oid, 'select, insert, update') as columns,
      has_table_privilege($2, c.oid, 'select, insert, update, delete, truncate, references, trigger') as whole
    from pg_class c where c.relnamespace = $1::regnamespace and c.relkind in ('r', 'v', 'p', 'S')`,
    [b.schema, name],
  );
  t.ok(relations.length > 15);
  t.same(
    relations.filter(({ columns, whole }) => columns || whole),
    [],
  );
  for (const { name: relation, kind } of relations) {
    const attempts = [`select * from :SCHEMA."${relation}"`];
    if (kind === "r")
      attempts.push(`insert into :SCHEMA."${relation}" default values`, `delete from :SCHEMA."${relation}"`);
    for (const attempt of attempts) t.match(await rejection(as(attempt)), { code: "42501" }, attempt);
  }
  for (const verb of ["pause_run('a')", "resume_run('a')", "wake_run('a')"])
    t.match(
      await rejection(as(`select :SCHEMA.${verb}`)),
      { code: "42501", message: /permission denied for function/ },
      verb,
    );
  for (const inner of [
    "cancel_runs('{a}', null)",
    "load_runs('{1}', '', 0, 1000, false)",
    "sweep()",
    "unread(1, 0)",
    "hold_runs('{1}', true)",
  ])
    t.match(await rejection(as(`select * from :SCHEMA.${inner}`)), { code: "42501", message: /for function/ }, inner);
  t.match(await rejection(as("create table :SCHEMA.mine (n int)")), { code: "42501" });
  t.match(await rejection(as(`select :SCHEMA.grant_to('${name}', 'sender')`)), { code: "42501" }, "nor does it grant");
  t.equal(await b.perdure.get("a").result(patient), "hello secret");
});

test("what a sender puts on its search path is not called with the rights of the owner", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const { name, as } = await role(t, b);
  await b.sql(`select :SCHEMA.grant_to('${name}', 'sender')`);
  const trap = `t_${randomBytes(6).toString("hex")}`;
  await b.sql(`create schema ${trap} authorization "${name}"`);
  t.teardown(() => b.sql(`drop schema if exists ${trap} cascade`).catch(() => {}));
  await as(`create table ${trap}.caught (who text)`);
  await as(
    `create function ${trap}.spring() returns void language sql as $$ insert into ${trap}.caught values (current_user) $$`,
  );
  // Each would be the better match for a call in the verbs, if it were looked for there.
  await as(
    `create function ${trap}.octet_length(text) returns integer language plpgsql as $$ begin perform ${trap}.spring(); return 1; end $$`,
  );
  await as(
    `create function ${trap}.json_typeof(json) returns text language plpgsql as $$ begin perform ${trap}.spring(); return 'array'; end $$`,
  );
  await as(
    `create function ${trap}.same(text, text) returns boolean language plpgsql as $$ begin perform ${trap}.spring(); return true; end $$`,
  );
  await as(`create operator ${trap}.= (leftarg = text, rightarg = text, function = ${trap}.same)`);
  await as(`set search_path = ${trap}, pg_temp, pg_catalog`);
  await as(`create temp table definition (workflow text)`);
  const [{ id }] = await as(`select :SCHEMA.start_run('greet', '["Ada"]') as id`);
  await as("select :SCHEMA.cancel_run($1, 'x')", [id]);
  await rejection(as("select :SCHEMA.send_event($1, 'ping')", [id]));
  t.same(await b.sql(`select who from ${trap}.caught`), []);
  await as(`select 'a'::text = 'b'::text`);
  t.equal((await b.sql(`select who from ${trap}.caught`)).length, 1, "the trap works");
  await b.sql(`drop schema ${trap} cascade`);
});

test("grant_to refuses a role that does not exist, and a caller who does not own the schema", async (t) => {
  const b = await bench(t, { workflows: [] });
  const [owner, other] = [await role(t, b), await role(t, b)];
  t.match(await rejection(b.sql("select :SCHEMA.grant_to('nobody at all', 'sender')")), {
    code: "PD005",
    message: /there is no role "nobody at all"/,
  });
  await b.sql(`grant usage on schema :SCHEMA to "${other.name}"`);
  await b.sql(`grant execute on function :SCHEMA.start_run, :SCHEMA.send_event, :SCHEMA.cancel_run to "${other.name}"`);
  t.match(await rejection(other.as(`select :SCHEMA.grant_to('${owner.name}', 'sender')`)), { code: "42501" });
  t.same(
    await b.sql(
      `select has_function_privilege('${owner.name}', p.oid, 'execute') as may from pg_proc p
    where p.pronamespace = $1::regnamespace and p.proname = 'start_run'`,
      [b.schema],
    ),
    [{ may: false }],
  );
});

test("a trigger of a role that may only write its own table starts a run, once that role is granted it", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const { name, as } = await role(t, b);
  await b.sql(`grant usage on schema :SCHEMA to "${name}"`);
  await b.sql("create table :SCHEMA.orders (id text primary key)");
  await b.sql(`grant insert on :SCHEMA.orders to "${name}"`);
  await b.sql(`create function :SCHEMA.ordered() returns trigger language plpgsql as $$ begin
    perform :SCHEMA.start_run('greet', json_build_array(new.id), id => new.id); return new; end $$`);
  await b.sql("create trigger ordered after insert on :SCHEMA.orders for each row execute function :SCHEMA.ordered()");
  t.match(await rejection(as("insert into :SCHEMA.orders values ('a')")), { code: "42501", message: /start_run/ });
  await b.sql(`select :SCHEMA.grant_to('${name}', 'sender')`);
  await as("insert into :SCHEMA.orders values ('a')");
  t.equal(await b.perdure.get("a").result(patient), "hello a");
});

test("the catalogue explains every view, every column of a view, and every function for users", async (t) => {
  const b = await bench(t, { workflows: [] });
  const views = await b.sql(
    `select c.relname || coalesce('.' || a.attname, '') as name, col_description(c.oid, a.attnum) as column_text, obj_description(c.oid) as view_text
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 where c.relnamespace = $1::regnamespace and c.relkind = 'v'`,
    [b.schema],
  );
  t.ok(views.length > 30);
  t.same(
    views.filter(({ column_text, view_text }) => !column_text || !view_text).map(({ name }) => name),
    [],
  );
  const functions = await b.sql(
    `select p.proname as name, obj_description(p.oid) as text, p.prosecdef as definer, p.proconfig as config,
      has_function_privilege('public', p.oid, 'execute') as public
    from pg_proc p where p.pronamespace = $1::regnamespace and (obj_description(p.oid) is not null or p.prosecdef) and p.proname <> 'check_place' order by 1`,
    [b.schema],
  );
  t.same(
    functions.map(({ name }) => name),
    [
      "cancel_run",
      "expire_runs",
      "grant_to",
      "pause_run",
      "resume_run",
      "revoke_from",
      "send_event",
      "start_run",
      "wake_run",
    ],
  );
  for (const { name, text, config, public: isPublic } of functions) {
    if (name !== "expire_runs") t.ok(text, name);
    t.equal(config[0], "search_path=pg_catalog, pg_temp", `${name} has its search path pinned`);
    t.notOk(isPublic, `${name} is not everybody's`);
  }
});
