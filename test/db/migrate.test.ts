/** Migrations are applied once by whoever comes first, say what is wrong, and leave the host's own alone. */

import { execFile, execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { type Test, test } from "tap";
import { connectClient } from "../../lib/db/connect.ts";
import { assertMigrated, migrate } from "../../lib/db/migrate.ts";
import { committedMigrations, pendingMigrations, verifyChain } from "../../lib/db/migration-files.ts";
import { inSchema } from "../../lib/db/schema-name.ts";
import { catalogue } from "../support/catalogue.ts";
import { freshDatabase, freshSchema, inDatabase } from "../support/postgres.ts";

const run = promisify(execFile);
const all = committedMigrations().map((migration) => migration.name);
const connectTo = (url: string) => () => connectClient({ connectionString: url });
const migrateModule = new URL("../../lib/db/migrate.js", import.meta.url).href;

/** One process of many: migrates and prints what it applied. */
const PROCESS = `
  import pg from "pg";
  const { migrate } = await import(${JSON.stringify(migrateModule)});
  const connect = async () => { const client = new pg.Client(process.env.URL); await client.connect(); return client; };
  console.log(JSON.stringify(await migrate({ connect, schema: process.env.SCHEMA })));`;

/** A host application that keeps its own migrations with graphile-migrate, in the same database. */
async function hostMigrations(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "perdure-host-"));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await mkdir(join(folder, "committed"));
  return folder;
}

async function graphileMigrate(folder: string, url: string, settings: object = {}): Promise<string> {
  const cli = createRequire(import.meta.url).resolve("graphile-migrate/dist/cli.js");
  const scratch = await mkdtemp(join(tmpdir(), "perdure-gmrc-"));
  const config = join(scratch, "gmrc");
  await writeFile(config, JSON.stringify({ migrationsFolder: folder, ...settings }));
  try {
    return (await run(process.execPath, [cli, "migrate", "-c", config], { env: { ...process.env, DATABASE_URL: url } }))
      .stdout;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

test("ten processes at once on an empty database all succeed, and each migration is applied once", async (t) => {
  const url = await freshDatabase(t);
  const env = { ...process.env, URL: url, SCHEMA: "perdure" };
  const each = await Promise.all(
    Array.from({ length: 10 }, () =>
      run(process.execPath, ["--input-type=module", "-e", PROCESS], { env, cwd: process.cwd() }),
    ),
  );
  t.same(
    each.flatMap(({ stdout }) => JSON.parse(stdout).applied),
    all,
  );
  await inDatabase(url, async (client) => {
    const { rows } = await client.query("select name from perdure.migrations order by name");
    t.same(
      rows.map((row) => row.name),
      all,
    );
    await assertMigrated(client, "perdure");
  });
});

test("a second call does nothing, and waits for no lock", async (t) => {
  const { url, schema, pool } = await freshSchema(t);
  t.same(await migrate({ connect: connectTo(url), schema }), { applied: all });
  const other = await pool.connect();
  await other.query("begin");
  await other.query("select pg_advisory_xact_lock(hashtextextended($1, 0))", [`perdure:migrate:${schema}`]);
  t.same(await migrate({ connect: connectTo(url), schema }), { applied: [] });
  await other.query("rollback");
  other.release();
});

test("odd but valid schema names work, and others are refused", async (t) => {
  const url = await freshDatabase(t);
  const longest = `${"é".repeat(31)}x`;
  for (const schema of [
    "Weird Schema",
    "select",
    "é",
    longest,
    "a-b.c",
    "; drop table x --",
    'a"b',
    "a'b",
    "a$$b",
    "a\\b",
  ]) {
    t.same(await migrate({ connect: connectTo(url), schema }), { applied: all }, schema);
    t.same(await migrate({ connect: connectTo(url), schema }), { applied: [] }, schema);
  }
  for (const schema of ["", `${longest}x`, "pg_mine", "a$perdure$b", "a\nb"]) {
    await t.rejects(migrate({ connect: connectTo(url), schema }), { code: "PERDURE_NAME" }, schema);
  }
});

test("a database that is ahead, or built by another text, is refused in words", async (t) => {
  const { url, schema, pool } = await freshSchema(t);
  await inDatabase(url, async (client) => {
    await t.rejects(assertMigrated(client, schema), {
      code: "PERDURE_SCHEMA",
      message: /has migration none and needs/,
    });
  });
  await migrate({ connect: connectTo(url), schema });
  await pool.query(`insert into ${schema}.migrations values ('999999-later.sql', 'sha1:0')`);
  const ahead = {
    code: "PERDURE_SCHEMA",
    message: /has migration 999999-later\.sql.*knows none but those up to.*upgrade/,
  };
  await t.rejects(migrate({ connect: connectTo(url), schema }), ahead);
  await pool.query(`delete from ${schema}.migrations where name = '999999-later.sql'`);
  await pool.query(`update ${schema}.migrations set hash = 'sha1:1' where name = $1`, [all[0]]);
  const changed = { code: "PERDURE_SCHEMA", message: /sha1:1.*another text \(sha1:\w{40}\)/ };
  await t.rejects(migrate({ connect: connectTo(url), schema }), changed);
});

test("files that were changed, left out or reordered are refused", async (t) => {
  const [first] = verifyChain([{ name: "1", text: "--! Previous: -\n--! Hash: x\n\nselect 1;" }].map(rehash));
  t.throws(() => verifyChain([{ name: "1", text: "--! Previous: -\n--! Hash: sha1:0\n\nselect 1;\n" }]), {
    code: "PERDURE_SCHEMA",
  });
  t.throws(() => verifyChain([{ name: "2", text: "--! Previous: sha1:0\n--! Hash: sha1:0\n\nselect 1;\n" }]), {
    message: /does not follow/,
  });
  t.same(pendingMigrations([], "s", [first!]), [first]);
  t.same(pendingMigrations([{ ...first!, works_with: null }], "s", [first!]), []);
});

/** Fills in the hash that the complaint names. */
function rehash(file: { name: string; text: string }): { name: string; text: string } {
  try {
    verifyChain([file]);
    return file;
  } catch (error) {
    const hash = /sha1:\w{40}/.exec((error as Error).message)?.[0] ?? "";
    return { ...file, text: file.text.replace("Hash: x", `Hash: ${hash}`) };
  }
}

test("a host's own graphile-migrate, before or after ours, is not disturbed and does not disturb", async (t) => {
  const folder = await hostMigrations(t);
  const { text } = rehash({ name: "1", text: "--! Previous: -\n--! Hash: x\n\ncreate table public.host (id int);\n" });
  await writeFile(join(folder, "committed", "000001-host.sql"), text);
  for (const first of ["host", "ours"]) {
    const url = await freshDatabase(t);
    if (first === "host") await graphileMigrate(folder, url);
    t.same(await migrate({ connect: connectTo(url), schema: "perdure" }), { applied: all });
    if (first === "ours") await graphileMigrate(folder, url);
    t.match(await graphileMigrate(folder, url), /Already up to date/);
    t.same(await migrate({ connect: connectTo(url), schema: "perdure" }), { applied: [] });
    await inDatabase(url, async (client) => {
      t.equal((await client.query("select * from public.host")).rowCount, 0);
      t.equal((await client.query("select * from graphile_migrate.migrations")).rowCount, 1);
    });
  }
});

test("a role without the right to create a schema is told the GRANT; with a schema of its own it needs none", async (t) => {
  const url = await freshDatabase(t);
  const database = new URL(url).pathname.slice(1);
  const role = `r_${database}`;
  await inDatabase(url, (client) => client.query(`create role ${role} login`));
  t.teardown(() => inDatabase(url, (client) => client.query(`drop owned by ${role}; drop role ${role}`)));
  const connect = connectTo(Object.assign(new URL(url), { username: role }).href);
  await t.rejects(migrate({ connect, schema: "perdure" }), {
    code: "PERDURE_PRIVILEGE",
    message: `run: grant create on database "${database}" to "${role}"`,
  });
  await inDatabase(url, (client) => client.query(`create schema mine authorization ${role}`));
  t.same(await migrate({ connect, schema: "mine" }), { applied: all });
});

test("a lock that somebody holds is waited for in short turns, under whatever timeouts the role has", async (t) => {
  const { url, schema, pool } = await freshSchema(t);
  await pool.query(`create schema ${schema}; create table ${schema}.migrations
    (name text primary key, hash text not null, works_with text, applied_at timestamptz not null default now())`);
  const holder = await pool.connect();
  await holder.query(`begin; lock table ${schema}.migrations in share mode`);
  const impatient = { connect: connectTo(url), schema, lockTimeoutMs: 20, attempts: 2 };
  const gaveUp = {
    code: "PERDURE_DATABASE",
    message: /lock timeout; .*gave up after 2 attempts: look in pg_stat_activity/,
  };
  await t.rejects(migrate(impatient), gaveUp);
  const messages: string[] = [];
  const connect = () =>
    connectClient({
      connectionString: url,
      options: "-c statement_timeout=200 -c default_transaction_isolation=serializable",
    });
  const log = (message: string) => {
    messages.push(message);
    // Once it has met the lock, the lock goes.
    if (messages.length === 1) void holder.query("rollback").then(() => holder.release());
  };
  t.same(await migrate({ connect, schema, lockTimeoutMs: 50, log }), { applied: all });
  t.match(messages[0], /lock timeout; trying again/);
});

test("a server that is not there shows as an error of ours, at once", async (t) => {
  const connect = async () => {
    const client = new pg.Client("postgres://postgres@127.0.0.1:1/x");
    await client.connect();
    return client;
  };
  await t.rejects(migrate({ connect, schema: "perdure" }), {
    code: "PERDURE_CONNECTION",
    message: /ECONNREFUSED.*check that the server runs/,
  });
});

test("sql/schema, sql/committed and graphile-migrate build the same database", async (t) => {
  const url = await freshDatabase(t);
  await migrate({ connect: connectTo(url), schema: "ours" });
  await graphileMigrate(join(process.cwd(), "sql"), url, {
    placeholders: { ":SCHEMA": '"theirs"' },
    beforeAllMigrations: [{ _: "sql", file: "create-schema.sql" }],
  });
  const files = (await readdir("sql/schema")).filter((name) => name.endsWith(".sql")).sort();
  await inDatabase(url, async (client) => {
    await client.query("create schema today");
    for (const name of files) await client.query(inSchema(await readFile(join("sql/schema", name), "utf8"), "today"));
    const ours = await catalogue(client, "ours");
    t.ok(ours.length > 0);
    t.same(
      await catalogue(client, "today"),
      ours,
      "run `npm run migration -- --initial` (before the first release) or commit one",
    );
    t.same(await catalogue(client, "theirs"), ours);
  });
});

test("the migrations in the code are those of sql/committed", (t) => {
  execFileSync(process.execPath, ["test/support/embed-sql.mjs", "--check"], { stdio: "inherit" });
  t.end();
});
