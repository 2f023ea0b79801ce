/** A migration beside traffic, one rule at a time: what it waits for, for how long, when it gives way, and whom it refuses. */
import { test } from "tap";
import { connectClient } from "../../lib/db/connect.ts";
import { type MigrateOptions, migrate } from "../../lib/db/migrate.ts";
import { committedMigrations, pendingMigrations, verifyChain } from "../../lib/db/migration-files.ts";
import { Perdure } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { rejection } from "../support/gate.ts";
import { faultsIn } from "../support/migration-rules.ts";
import { committedWith, migrationsWith } from "../support/release.ts";
import { blockedIn, stranger } from "../support/stranger.ts";

const FIRST = committedMigrations()[0]!.name;
const WORKS = `-- Works with: ${FIRST}\n`;

function upgrade({ url, schema }: Pick<Bench, "url" | "schema">, bodies: Record<string, string>, more: object = {}) {
  const connect = () => connectClient({ connectionString: url });
  return migrate({ connect, schema, migrations: migrationsWith(bodies), ...more } as MigrateOptions);
}

const ledger = async ({ sql }: Bench): Promise<string[]> =>
  (await sql("select name from :SCHEMA.migrations order by name")).map(({ name }) => name);

/** Resolves when somebody waits for a lock of all kinds on a table. */
const waitsFor = ({ sql }: Bench, table: string): Promise<unknown> =>
  eventually(
    async () => (await sql("select from pg_locks where not granted and relation = $1::regclass", [table])).length > 0,
    30_000,
  );

test("a migration gives way in time for whoever queues behind it, and keeps its turn while it pauses", async (t) => {
  const b = await bench(t, {});
  const holder = await stranger(t, b);
  await holder("begin");
  await holder("select from :SCHEMA.run limit 1");
  const tries: string[] = [];
  const body = `${WORKS}alter table :SCHEMA.run add column note text;`;
  const upgrading = upgrade(
    b,
    { "000002-note.sql": body },
    { lockTimeoutMs: 300, log: (line: string) => tries.push(line) },
  );
  await waitsFor(b, `"${b.schema}".run`);
  const since = performance.now();
  await b.sql("select from :SCHEMA.run limit 1");
  t.ok(performance.now() - since < 30_000, "who came after it is let through while the stranger still holds on");
  await eventually(() => tries.length >= 2, 30_000);
  const turn =
    "select state, backend_xmin, backend_xid from pg_stat_activity where query like $1 and pid <> pg_backend_pid()";
  t.same(
    await b.sql(turn, [`select pg_advisory_xact_lock%perdure:migrate:${b.schema}%`]),
    [{ state: "idle in transaction", backend_xmin: null, backend_xid: null }],
    "its turn is kept by a session that does nothing and holds nothing back",
  );
  await holder("rollback");
  t.same(await upgrading, { applied: ["000002-note.sql"] });
  t.match(tries[0], /lock timeout; trying again/);
  t.same(await ledger(b), [FIRST, "000002-note.sql"]);
});

test("beside processes at work a migration has a time in all, for its waits and its work; with none at work it takes what it needs", async (t) => {
  const b = await bench(t, {});
  // Each of its statements is short enough; all of them are not.
  const body = `${WORKS}${"select pg_sleep(0.7);\n".repeat(3)}alter table :SCHEMA.run add column note text;`;
  const refused = await rejection(upgrade(b, { "000002-note.sql": body }, { attempts: 1 }));
  t.match(refused, {
    code: "PERDURE_DATABASE",
    message: /statement timeout; .*gave up after 1 attempts: with no process at work on this schema/,
  });
  t.same(await ledger(b), [FIRST], "and nothing of it is left");
  await b.perdure.shutdown();
  t.same(await upgrade(b, { "000002-note.sql": body }, { attempts: 1 }), { applied: ["000002-note.sql"] });
});

test("an index is built beside the traffic, again where an attempt was broken off", async (t) => {
  const b = await bench(t, {});
  const holder = await stranger(t, b);
  await holder("begin isolation level repeatable read");
  await holder("select from :SCHEMA.mail limit 1");
  const index = `--! no-transaction\n${WORKS}create index concurrently if not exists mail_name on :SCHEMA.mail (name);`;
  const bodies = { "000002-index.sql": index };
  const upgrading = upgrade(b, bodies).catch((error: unknown) => error);
  const building =
    "select a.pid from pg_locks l join pg_stat_activity a using (pid) where not l.granted and l.locktype = 'virtualxid' and a.query like '%mail_name%'";
  const [{ pid }] = (await eventually(async () => {
    const rows = await b.sql(building);
    return rows.length > 0 && rows;
  }, 30_000)) as any[];
  // As a process that is killed, or a server that restarts, leaves it.
  await b.sql("select pg_terminate_backend($1)", [pid]);
  await eventually(
    async () =>
      (
        await b.sql("select from pg_index where indexrelid = to_regclass($1) and not indisvalid", [
          `"${b.schema}".mail_name`,
        ])
      ).length === 1,
    30_000,
  );
  await holder("rollback");
  t.same(await upgrading, { applied: ["000002-index.sql"] });
  t.same(await b.sql("select indisvalid from pg_index where indexrelid = $1::regclass", [`"${b.schema}".mail_name`]), [
    { indisvalid: true },
  ]);
  t.same(await upgrade(b, bodies), { applied: [] });
});

test("a process works on a schema that is ahead, as far as its migrations say so", (t) => {
  const newer = migrationsWith({
    "000002-a.sql": `${WORKS}select 1;`,
    "000003-b.sql": "-- Works with: 000002-a.sql\nselect 1;",
  });
  const rows = newer.map(({ name, hash, worksWith }) => ({ name, hash, works_with: worksWith }));
  const known = (many: number) => () => pendingMigrations(rows, "s", newer.slice(0, many));
  t.same(known(2)(), [], "the last release");
  t.throws(known(1), {
    code: "PERDURE_SCHEMA",
    message:
      /has migration 000003-b\.sql .*works with no process that does not know 000002-a\.sql, but this version of Perdure knows none but those up to 000001.*upgrade/,
  });
  t.same(pendingMigrations(rows.slice(0, 2), "s", newer.slice(0, 1)), []);
  t.end();
});

test("a migration that processes at work could not live with is refused, and they cannot get in between", async (t) => {
  const b = await bench(t, {});
  const bodies = {
    "000002-a.sql": `${WORKS}select 1;`,
    "000003-b.sql": "-- Works with: 000002-a.sql\nselect pg_sleep(0);",
  };
  const refused = await rejection(upgrade(b, bodies));
  t.match(refused, {
    code: "PERDURE_SCHEMA",
    message:
      /is not migrated: 000003-b\.sql works with no process that does not know 000002-a\.sql, and of these are at work: \S+ \(000001-initial\.sql\); stop them/,
  });
  t.same(await ledger(b), [FIRST, "000002-a.sql"], "what came before it stays");
  await b.perdure.shutdown();
  // Launched while it is being applied: it has looked at the ledger, and waits to enter.
  const holder = await stranger(t, b);
  await holder("begin");
  await holder("lock table :SCHEMA.lane in access exclusive mode");
  const slow = {
    ...bodies,
    "000003-b.sql": "-- Works with: 000002-a.sql\nalter table :SCHEMA.lane add column extra text;",
  };
  const upgrading = upgrade(b, slow, { lockTimeoutMs: 20_000 });
  await waitsFor(b, `"${b.schema}".lane`);
  const late = rejection(new Perdure({ database: b.url, schema: b.schema, migrate: false }).launch());
  await blockedIn(b, "enter_worker");
  await holder("rollback");
  await upgrading;
  t.match(await late, {
    code: "PERDURE_SCHEMA",
    message:
      /migration 000003-b\.sql was applied, which works with no process that does not know 000002-a\.sql; this one knows none but those up to 000001-initial\.sql: upgrade/,
  });
  t.same(await b.sql("select from :SCHEMA.worker"), [], "and it is not among the workers");
});

const commit = (body: string) => () => verifyChain(committedWith({ "000002-x.sql": body }));

test("a migration says whom it works with, and runs outside a transaction only to build an index", (t) => {
  t.throws(commit("select 1;"), { message: /000002-x\.sql does not say which migration a process has to know of/ });
  t.throws(commit("-- Works with: 000003-later.sql\nselect 1;"), { message: /does not say which/ });
  for (const statement of [
    "vacuum :SCHEMA.run",
    "create index concurrently x on :SCHEMA.run (id)",
    "create index concurrently if not exists x on :SCHEMA.run (id); select 1",
  ])
    t.throws(commit(`--! no-transaction\n${WORKS}${statement};`), {
      message: /outside a transaction, and not one `create index/,
    });
  t.end();
});

/** Statement → what is wrong with it. */
const WRONG: Record<string, RegExp> = {
  "alter table :SCHEMA.run add column a text; alter table :SCHEMA.mail add column b text;": /locks more than one/,
  "alter table :SCHEMA.run add column a text; create or replace view :SCHEMA.runs as select 1;": /locks more than one/,
  "create index run_x on :SCHEMA.run (id);": /concurrently/,
  "alter table :SCHEMA.run add column a int not null default random();": /rewrites|reads/,
  "alter table :SCHEMA.run add column a int generated always as (1) stored;": /rewrites/,
  "alter table :SCHEMA.run alter column id type varchar;": /rewrites/,
  "alter table :SCHEMA.run alter column tags set not null;": /reads/,
  "alter table :SCHEMA.run add constraint c check (key > 0);": /reads/,
  "update :SCHEMA.run set tags = null;": /changes rows/,
  "delete from :SCHEMA.run;": /changes rows/,
  "drop table :SCHEMA.lane;": /takes away/,
  "drop function :SCHEMA.peek(bigint);": /takes away/,
  "alter table :SCHEMA.run drop column tags;": /takes away/,
  "alter table :SCHEMA.run rename column tags to labels;": /takes away/,
  "create function :SCHEMA.beat(p_id bigint, p_more text) returns void language sql as 'select';":
    /beside one of its name/,
};

test("the rules for migrations find what would stop the traffic or break the last release", (t) => {
  const check = (body: string) => faultsIn(migrationsWith({ "000002-x.sql": `${WORKS}${body}` }).at(-1)!);
  for (const [body, wrong] of Object.entries(WRONG)) t.match(check(body).join(), wrong, body);
  for (const body of [
    "alter table :SCHEMA.run add column a text, add column b int not null default 0;",
    "alter table :SCHEMA.run add constraint c check (key > 0) not valid;",
    "create table :SCHEMA.extra (a int primary key); create index extra_a on :SCHEMA.extra (a);",
    "create or replace function :SCHEMA.clock() returns timestamptz language sql as 'select now()';\n-- drop table :SCHEMA.run",
    "create or replace view :SCHEMA.codecs as select 1;",
  ])
    t.same(check(body), [], body);
  const contract = migrationsWith({
    "000002-a.sql": `${WORKS}select 1;`,
    "000003-b.sql": "-- Works with: 000002-a.sql\ndrop table :SCHEMA.lane;",
  });
  t.same(faultsIn(contract.at(-1)!), [], "a release after it was last called, it may go");
  t.end();
});

test("every committed migration after the first keeps to the rules", (t) => {
  for (const migration of committedMigrations().slice(1)) t.same(faultsIn(migration), [], migration.name);
  t.ok(committedMigrations().length > 0);
  t.end();
});
