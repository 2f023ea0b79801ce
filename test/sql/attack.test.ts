/** What a sender, an observer and a login without any right try, and what they are told. Each thing that is tried is a row of a table. */
import { type Test, test } from "tap";
import { event, Perdure, workflow } from "../../lib/index.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches, rejection } from "../support/gate.ts";
import { type Login, type Stage, stage } from "../support/roles.ts";

const patient = { timeout: PATIENCE_MS };
const ping = event<unknown>("ping");
const greet = workflow("greet", async (name: unknown) => `hello ${JSON.stringify(name)}`);
const listen = workflow("listen", async () => (await ping.wait()).data);
const keys = workflow("keys", async (given: unknown) => [Object.keys(given as object), "polluted" in {}]);

/** What is tried, and how it is refused: the SQLSTATE, and words of the text. */
type Attempt = readonly [sql: string, code: string, text: RegExp];

async function refused(t: Test, login: Login, attempts: readonly Attempt[]): Promise<void> {
  for (const [sql, code, message] of attempts) {
    const error = (await rejection(login.run(sql))) as Error & { code?: string };
    t.match(error, { code, message }, sql.slice(0, 100));
    t.ok(String(error?.message).length < 700, "the refusal is short");
    await login.run("rollback; reset all").catch(() => {});
  }
}

/** Sorted names of the relations of which a role has any right, and of functions that it may call, but for types of tests. */
async function rightsOf(
  { admin, schema }: Stage,
  { name }: Login,
): Promise<{ relations: string[]; functions: string[] }> {
  const relations = await admin.run(
    `select c.relname || case when has_table_privilege($2, c.oid, 'insert, update, delete, truncate, references, trigger')
        or has_any_column_privilege($2, c.oid, 'insert, update, references') then ' (writes)' else '' end as name
      from pg_class c where c.relnamespace = $1::regnamespace and c.relkind in ('r', 'v', 'p') and (has_any_column_privilege($2, c.oid, 'select, insert, update, references')
        or has_table_privilege($2, c.oid, 'select, insert, update, delete, truncate, references, trigger')) order by 1`,
    [schema, name],
  );
  const functions = await admin.run(
    "select p.proname as name from pg_proc p where p.pronamespace = $1::regnamespace and has_function_privilege($2, p.oid, 'execute') order by 1",
    [schema, name],
  );
  return { relations: relations.map((row) => row.name), functions: functions.map((row) => row.name) };
}

/** Every function of the schema, called with nulls. */
async function calls({ admin, schema }: Stage): Promise<{ name: string; sql: string }[]> {
  const rows = await admin.run(
    `select p.proname as name, format('select :SCHEMA.%I(%s)', p.proname,
        (select string_agg('null::' || format_type(a.type, null), ', ' order by a.no) from unnest(p.proargtypes) with ordinality as a(type, no))) as sql
      from pg_proc p where p.pronamespace = $1::regnamespace and p.prorettype <> 'trigger'::regtype order by 1`,
    [schema],
  );
  return rows as { name: string; sql: string }[];
}

test("public has no right on the schema, its tables, functions and types, and each role exactly its own", async (t) => {
  const s = await stage(t, { workflows: [greet] });
  const open = await s.admin.run(
    `select 'schema' as what from pg_namespace n cross join aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a where n.nspname = $1 and a.grantee = 0
    union all select c.relname from pg_class c cross join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a where c.relnamespace = $1::regnamespace and a.grantee = 0
    union all select p.proname from pg_proc p cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where p.pronamespace = $1::regnamespace and a.grantee = 0
    union all select y.typname from pg_type y cross join aclexplode(coalesce(y.typacl, acldefault('T', y.typowner))) a
      where y.typnamespace = $1::regnamespace and a.grantee = 0 and y.typelem = 0`,
    [s.schema],
  );
  t.same(open, []);
  const definers = await s.admin.run(
    "select p.proname as name from pg_proc p where p.pronamespace = $1::regnamespace and p.prosecdef and not p.proconfig[1] = 'search_path=pg_catalog, pg_temp'",
    [s.schema],
  );
  t.same(definers, [], "what runs with the owner's rights has its search path pinned");
  const none = { relations: [], functions: [] };
  const verbs = ["cancel_run", "send_event", "start_run"];
  const pure = ["clock", "codecs_of", "ms"];
  const views = "codecs events queues runs schedule_history schedules steps timeline workers".split(" ");
  const own = "tenant_events tenant_runs tenant_steps tenant_timeline".split(" ");
  t.same(await rightsOf(s, await s.login()), none);
  t.same(await rightsOf(s, await s.login([["sender"]])), { ...none, functions: verbs });
  t.same(await rightsOf(s, await s.login([["sender", "acme"]])), { ...none, functions: verbs });
  t.same(await rightsOf(s, await s.login([["observer"]])), { relations: views, functions: pure });
  t.same(await rightsOf(s, await s.login([["observer", "acme"]])), { relations: own, functions: pure });
  t.same(await rightsOf(s, await s.login([["payloads"]])), { ...none, relations: ["payloads"] });
  t.same(await rightsOf(s, await s.login([["payloads", "acme"]])), { ...none, relations: ["tenant_payloads"] });
  const all = await s.login([["sender"], ["observer"], ["payloads"]]);
  await s.admin.run("select :SCHEMA.revoke_from($1)", [all.name]);
  t.same(await rightsOf(s, all), none, "and none once it is taken back");
  await refused(t, all, [["select :SCHEMA.start_run('greet')", "42501", /for schema/]]);
});

test("a worker owns nothing: it changes no checkpoint, deletes no run, makes and empties no table, and grants nothing", async (t) => {
  const s = await stage(t, { workflows: [greet] });
  const worker = await s.login([["worker"]]);
  await (await s.perdure.start(greet.with({ id: "kept" }), 1)).result(patient);
  const kept = "run checkpoint input delivery mail try round value item follower".split(" ");
  await refused(t, worker, [
    ...kept.map((table) => [`delete from :SCHEMA.${table}`, "42501", /for table/] as const),
    ..."checkpoint input delivery item outcome round follower migrations grantee"
      .split(" ")
      .map(
        (table) =>
          [`update :SCHEMA.${table} set ${table === "grantee" ? "tenant" : "run"} = null`, "42501", /./] as const,
      )
      .filter(([sql]) => !sql.includes("migrations")),
    ["insert into :SCHEMA.grantee values ('x', 'sender')", "42501", /for table grantee/],
    ["update :SCHEMA.migrations set name = 'x'", "42501", /for table migrations/],
    ["truncate :SCHEMA.run", "42501", /for table run/],
    ["drop table :SCHEMA.run", "42501", /must be owner/],
    ["alter table :SCHEMA.run disable trigger all", "42501", /must be owner/],
    ["create table :SCHEMA.mine (n int)", "42501", /for schema/],
    ["create trigger mine before insert on :SCHEMA.run execute function :SCHEMA.place_run()", "42501", /for table run/],
    [
      `create or replace function :SCHEMA.clock() returns timestamptz language sql as 'select now()'`,
      "42501",
      /for schema/,
    ],
    [`select :SCHEMA.grant_to('${worker.name}', 'sender')`, "42501", /for function grant_to/],
    [`select :SCHEMA.revoke_from('${worker.name}')`, "42501", /for function revoke_from/],
    ["select :SCHEMA.settle_rights()", "42501", /for function settle_rights/],
  ]);
  const [{ gone }] = (await worker.run("select gone from :SCHEMA.expire_runs(0, 0, 100)")) as [{ gone: number }];
  t.equal(gone, 1, "what has ended goes by the function of retention alone");
});

test("a sender, an observer and a stranger call no function that is not theirs, and touch no table", async (t) => {
  const s = await stage(t, { workflows: [greet] });
  const all = await calls(s);
  t.ok(all.length > 60);
  const [sender, observer, stranger] = [await s.login([["sender"]]), await s.login([["observer"]]), await s.login()];
  const verbs = ["cancel_run", "send_event", "start_run", "clock", "codecs_of", "ms"];
  const inner = all.filter(({ name }) => !verbs.includes(name));
  for (const login of [sender, observer])
    await refused(
      t,
      login,
      inner.map(({ name, sql }) => [sql, "42501", new RegExp(`for function ${name}$`)]),
    );
  await refused(
    t,
    stranger,
    all.map(({ sql }) => [sql, "42501", /for schema/]),
  );
  await refused(
    t,
    observer,
    ["start_run('greet')", "send_event('a', 'ping')", "cancel_run('a')"].map((call) => [
      `select :SCHEMA.${call}`,
      "42501",
      /for function/,
    ]),
  );
  for (const login of [sender, observer])
    await refused(t, login, [
      ["select args from :SCHEMA.input", "42501", /for table input/],
      ["select value from :SCHEMA.payloads", "42501", /for view payloads/],
      ["select * from :SCHEMA.tenant_payloads", "42501", /for view tenant_payloads/],
      ["copy :SCHEMA.input to stdout", "42501", /for table input/],
      ["explain analyze select from :SCHEMA.outcome", "42501", /for table outcome/],
      ["begin; lock table :SCHEMA.run in access exclusive mode", "42501", /for table run/],
      ["update :SCHEMA.runs set state = 'completed'", "42501", /for view runs|cannot update/],
      ["delete from :SCHEMA.schedules", "42501", /for view schedules/],
      ["create table :SCHEMA.mine (n int)", "42501", /for schema/],
      ["create function :SCHEMA.mine() returns int language sql as 'select 1'", "42501", /for schema/],
      ["create index on :SCHEMA.run (state)", "42501", /must be owner/],
      ["create rule mine as on insert to :SCHEMA.mail do also notify x", "42501", /must be owner/],
      ["alter table :SCHEMA.run enable row level security", "42501", /must be owner/],
      ["alter function :SCHEMA.start_run security invoker", "42501", /must be owner/],
      ["drop schema :SCHEMA cascade", "42501", /must be owner/],
      ["create temp table t (r :SCHEMA.run)", "42501", /for type/],
      ["create temp table t (r :SCHEMA.loaded)", "42501", /for type/],
      ["create temp table t (like :SCHEMA.run)", "42501", /for table run/],
      ["create temp table t () inherits (:SCHEMA.run)", "42501", /must be owner/],
      [`set role ${s.owner}`, "42501", /permission denied to set role/],
      [`set session authorization ${s.owner}`, "42501", /permission denied to set session authorization/],
      ["set session_replication_role = replica", "42501", /session_replication_role/],
      [`alter role ${s.owner} login`, "42501", /./],
      [`alter default privileges for role ${s.owner} grant all on tables to public`, "42501", /./],
      [
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and usename <> current_user limit 1",
        "42501",
        /./,
      ],
    ]);
  t.same(
    await observer.run("select tablename, most_common_vals from pg_stats where schemaname = $1", [s.schema]),
    [],
    "nor do the statistics of the planner show any value",
  );
});

test("what a sender puts in the way of a verb is not called with the rights of the owner", async (t) => {
  const s = await stage(t, { workflows: [greet, listen] });
  await s.admin.run("grant create on schema public to public");
  const sender = await s.login([["sender"]]);
  await sender.run("create table public.caught (who text)");
  await sender.run("grant insert on public.caught to public");
  const trap = (name: string, args: string, returns: string, body: string): Promise<unknown> =>
    sender.run(
      `create function ${name}(${args}) returns ${returns} language plpgsql as $$ begin insert into public.caught values (current_user || ' in ${name}'); ${body} end $$`,
    );
  // Each would be the better match for a call in the verbs or in what they call, if it were looked for there.
  for (const home of ["public", "pg_temp"]) {
    await trap(`${home}.octet_length`, "text", "integer", "return 1;");
    await trap(`${home}.json_typeof`, "json", "text", "return 'array';");
    await trap(`${home}.cardinality`, "text[]", "integer", "return 1;");
    await trap(`${home}.unnest`, "text[]", "setof text", "return;");
    await trap(`${home}.unnest`, "bigint[]", "setof bigint", "return;");
    await trap(`${home}.starts_with`, "text, text", "boolean", "return true;");
    await trap(`${home}.pg_notify`, "text, text", "void", "");
    await trap(`${home}.gen_random_uuid`, "", "uuid", "return null;");
    await trap(`${home}.same`, "text, text", "boolean", "return true;");
    await sender.run(`create operator ${home}.= (leftarg = text, rightarg = text, function = ${home}.same)`);
  }
  for (const table of ["run", "mail", "definition", "input", "ready", "grantee", "pg_class", "pg_roles"]) {
    await sender.run(`create temp table ${table} (id text, key bigint, tenant text, workflow text)`);
    await trap(`pg_temp.on_${table}`, "", "trigger", "return new;");
    await sender.run(
      `create trigger on_${table} before insert or update on pg_temp.${table} for each row execute function pg_temp.on_${table}()`,
    );
  }
  await sender.run("set search_path = pg_temp, public, pg_catalog");
  // The workers are out of it: their own search path is theirs to keep clean, and a launch says so.
  await sender.run(`begin; select :SCHEMA.start_run('listen', id => 'a')`);
  await sender.run("select :SCHEMA.send_event('a', 'ping', '1', 'once')");
  await rejection(sender.run("savepoint x; select :SCHEMA.send_event('nobody', 'ping')"));
  await sender.run("rollback to x; select :SCHEMA.cancel_run('a', 'enough')");
  t.same(await s.admin.run("select who from public.caught"), []);
  await sender.run("select 'a'::text = 'b'::text; commit");
  t.same(
    await s.admin.run("select who from public.caught"),
    [{ who: `${sender.name} in public.same` }],
    "the trap works",
  );
});

test("a launch warns where others may put functions on its search path", async (t) => {
  const s = await stage(t, { worker: false });
  t.notOk(s.lines.some((line) => line.includes("search path")));
  await s.perdure.shutdown();
  await s.admin.run("grant create on schema public to public");
  await s.login();
  const lines: string[] = [];
  const worker = await s.login([["worker"]]);
  const logger = { debug: () => {}, info: () => {}, error: () => {}, warn: (line: string) => void lines.push(line) };
  const perdure = new Perdure({ database: worker.url, schema: s.schema, worker: false, logger });
  await perdure.launch();
  await perdure.shutdown();
  t.match(lines.join("\n"), /may make functions in schema "public".*revoke create on schema "public" from public/);
});

test("forged notifications make an engine look, and do nothing else", async (t) => {
  const s = await stage(t, { workflows: [greet, listen] });
  const waiting = await s.perdure.start(listen.with({ id: "waiting" }));
  await reaches(waiting, "suspended");
  const stranger = await s.login();
  const [{ channel }] = (await s.admin.run("select :SCHEMA.channel() as channel")) as [{ channel: string }];
  const before = await s.admin.run("select r.*, r.xmin::text from :SCHEMA.run r");
  const [{ worker }] = (await s.admin.run(
    "select id::text as worker from :SCHEMA.worker where dead_at is null limit 1",
  )) as [{ worker: string }];
  const letters = [
    "w",
    "d",
    "v",
    "c",
    "t",
    "b",
    "n",
    "wdvctbn",
    `w${worker}`,
    "w9".repeat(3000),
    "é\n\"'`",
    "{}",
    "x".repeat(7999),
    " ",
  ];
  for (let round = 0; round < 10; round++)
    for (const text of letters) await stranger.run("select pg_notify($1, $2)", [channel, text]);
  await refused(t, stranger, [
    [`select pg_notify('${channel}', repeat('w', 8000))`, "22023", /payload string too long/],
  ]);
  t.equal(await (await s.perdure.start(greet, 1)).result(patient), "hello 1");
  t.same(await s.admin.run("select r.*, r.xmin::text from :SCHEMA.run r where id = 'waiting'"), before);
  await waiting.send(ping, "real");
  t.equal(await waiting.result(patient), "real");
  t.same(
    s.lines.filter((line) => /error|unhandled/i.test(line)),
    [],
  );
  await stranger.run(`select pg_advisory_unlock(${worker})`);
  t.match(stranger.notices.join(), /you don't own a lock/, "nor is the certificate of a process taken from it");
});

test("what a sender sets in its session is for itself alone", async (t) => {
  const s = await stage(t, { workflows: [greet, listen] });
  const sender = await s.login([["sender"]]);
  await refused(t, sender, [
    ["set standard_conforming_strings = off; select :SCHEMA.start_run('greet', id => 'blank ')", "PD005", /blank/],
    ["set transform_null_equals = on; select :SCHEMA.start_run('greet', id => '')", "PD005", /is empty/],
    ["set plpgsql.variable_conflict = use_column", "42501", /variable_conflict/],
  ]);
  await sender.run("set default_transaction_read_only = on");
  const written = (await rejection(sender.run("select :SCHEMA.start_run('greet', id => 'ro')"))) as { code?: string };
  t.equal(written.code, "25006");
  await sender.run("reset all; set standard_conforming_strings = off; set plpgsql.extra_errors = 'all'");
  t.same(await sender.run("select :SCHEMA.start_run('greet', '[1]', id => 'some s') as id"), [{ id: "some s" }]);
  await sender.run("reset all");
  // However early a verb is cut off, all of it has happened or nothing.
  await sender.run("set statement_timeout = 1");
  for (let n = 0; n < 20; n++)
    await sender.run(`select :SCHEMA.start_run('greet', '[${n}]', id => 'cut-${n}')`).catch(() => {});
  await sender.run(
    "reset all; set perdure.skipped = '{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30}'",
  );
  for (let n = 0; n < 20; n++) await sender.run(`select :SCHEMA.start_run('greet', '[${n}]', id => 'cut-${n}')`);
  for (let n = 0; n < 20; n++) t.equal(await s.perdure.get(`cut-${n}`).result(patient), `hello ${n}`);
  await sender.run("select :SCHEMA.start_run('listen', id => 'held'), :SCHEMA.start_run('listen', id => 'free')");
  for (const id of ["held", "free"]) await reaches(s.perdure.get(id), "suspended");
  await sender.run(
    "begin; set lock_timeout = 1; set local work_mem = '64kB'; select :SCHEMA.send_event('held', 'ping', '1')",
  );
  await s.perdure.send("free", ping, "through");
  t.equal(
    await s.perdure.get("free").result(patient),
    "through",
    "a transaction that stays open holds its own run only",
  );
  await sender.run("commit");
  t.equal(await s.perdure.get("held").result(patient), 1);
});

test("what is too large or malformed is refused by the verb, shortly, and what is only odd harms nobody", async (t) => {
  const s = await stage(t, { workflows: [greet, listen, keys] });
  const sender = await s.login([["sender"]]);
  const huge = "repeat('x', 5000000)";
  const large = `('["' || repeat('x', 1048577) || '"]')::json`;
  await refused(t, sender, [
    [`select :SCHEMA.start_run(${huge})`, "PD005", /has 5000000 bytes/],
    [`select :SCHEMA.start_run('greet', id => ${huge})`, "PD005", /has 5000000 bytes/],
    [`select :SCHEMA.start_run('greet', version => ${huge})`, "PD005", /has 5000000 bytes/],
    [`select :SCHEMA.start_run('greet', queue => ${huge})`, "PD005", /has 5000000 bytes/],
    [`select :SCHEMA.start_run('greet', on_conflict => ${huge})`, "PD005", /on_conflict cannot be "x{60}"/],
    [`select :SCHEMA.start_run('greet', ${large})`, "PD005", /have 10485\d\d bytes; at most 1048576/],
    ["select :SCHEMA.start_run('greet', priority => 40000)", "PD005", /priority 40000/],
    ["select :SCHEMA.start_run('greet', delay => '-1 day')", "PD005", /negative/],
    ["select :SCHEMA.start_run('greet', delay => '999999 years')", "PD005", /longer than/],
    ["select :SCHEMA.start_run('greet', '{}')", "PD005", /not a JSON object/],
    ["select :SCHEMA.start_run(null)", "PD005", /is null/],
    [`select :SCHEMA.start_run('greet', (repeat('[', 100000) || repeat(']', 100000))::json)`, "54001", /stack depth/],
    [`select :SCHEMA.send_event(${huge}, 'ping')`, "PD005", /run_id "x{60}" has 5000000 bytes/],
    [`select :SCHEMA.send_event('a', ${huge})`, "PD005", /has 5000000 bytes/],
    [`select :SCHEMA.send_event('a', 'ping', reference => ${huge})`, "PD005", /1 to 255 bytes, not 5000000/],
    [`select :SCHEMA.send_event('a', 'ping', ${large})`, "PD005", /has 10485\d\d bytes/],
    ["select :SCHEMA.send_event(null, 'ping')", "PD005", /run_id must be given/],
    ["select :SCHEMA.send_event('', 'ping')", "PD001", /no run ""/],
    [`select :SCHEMA.cancel_run(${huge})`, "PD005", /has 5000000 bytes/],
    [`select :SCHEMA.cancel_run('a', ${huge})`, "PD005", /has 5000000 characters/],
    ["select :SCHEMA.cancel_run(null)", "PD005", /run_id must be given/],
    ["select :SCHEMA.send_event('a''; drop table run; --', 'ping')", "PD001", /there is no run/],
    ["select :SCHEMA.start_run('%s %I %1$L')", "PD001", /no launch has registered workflow/],
  ]);
  t.same(await s.admin.run("select id from :SCHEMA.run"), []);
  const proto =
    '[{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}, "from": "x", "json": 1, "meta": {"values": {"a": ["Date"]}}}]';
  await sender.run("select :SCHEMA.start_run('keys', $1, id => 'proto')", [proto]);
  t.same(await s.perdure.get("proto").result(patient), [["__proto__", "constructor", "from", "json", "meta"], false]);
  await sender.run("select :SCHEMA.start_run('greet', $1, id => 'nul')", ['["\\u0000\\ud800"]']);
  t.equal(await s.perdure.get("nul").result(patient), 'hello "\\u0000\\ud800"');
  await sender.run("select :SCHEMA.start_run('greet', (repeat('[', 3000) || repeat(']', 3000))::json, id => 'deep')");
  const state = async (): Promise<string> => (await s.perdure.get("deep").status()).state;
  await eventually(async () => ["completed", "failed", "blocked"].includes(await state()), PATIENCE_MS);
  t.equal(await (await s.perdure.start(greet, 2)).result(patient), "hello 2", "a deep value harms its own run only");
});
