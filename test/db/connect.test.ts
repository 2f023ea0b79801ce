/** Any way to name a database gives a pool that survives lost connections; what goes wrong is said in words. */

import { once } from "node:events";
import { createServer } from "node:net";
import { inspect } from "node:util";
import pg from "pg";
import { test } from "tap";
import { RunConflictError, RunFinishedError } from "../../lib/core/errors.ts";
import { checkServer, connectClient, connectDatabase } from "../../lib/db/connect.ts";
import {
  isConnectionLost,
  isCrossed,
  isLocked,
  isTaken,
  isTooSlow,
  isTransient,
  toPerdureError,
} from "../../lib/db/pg-errors.ts";
import { freshDatabase, inDatabase, server } from "../support/postgres.ts";

const sqlError = (code: string, message = "no", more: object = {}) =>
  Object.assign(new Error(message), { code, ...more });

test("a URL, a config and a pool all give a pool and the settings for clients beside it", async (t) => {
  const url = await server();
  const { hostname, port } = new URL(url);
  const theirs = new pg.Pool({ connectionString: url, password: "secret", application_name: "theirs" });
  t.teardown(() => theirs.end());
  const config = { host: hostname, port: Number(port), user: "postgres", database: "postgres", password: "secret" };
  for (const option of [url, config, theirs]) {
    const database = await connectDatabase(option);
    t.equal(database.ownsPool, option !== theirs);
    t.equal((await database.pool.query("select 1 as one")).rows[0].one, 1);
    const settings = database.clientConfig({ application_name: "perdure listener" });
    t.equal(settings.password, option === url ? undefined : "secret");
    const client = await connectClient(settings);
    const { rows } = await client.query("select current_setting('application_name') as name");
    t.equal(rows[0].name, "perdure listener");
    await checkServer(client);
    await client.end();
    await database.close();
    t.equal(theirs.ending, false, "a pool that was given stays open");
  }
});

test("what is not a database is refused without showing the password", async (t) => {
  for (const option of ["nonsense", "postgres://u:hunter2@h:port/db", "mysql://u:hunter2@h/db", 5, new pg.Client()]) {
    const error = await connectDatabase(option as string).catch((caught) => caught);
    t.match(error, { code: "PERDURE_OPTION", message: /postgres:\/\/user:password@host/ });
    t.notMatch(inspect(error, { depth: 9, showHidden: true }), /hunter2/);
  }
});

test("without any database, production is told how to name one", async (t) => {
  const before = { ...process.env };
  t.teardown(() => {
    process.env = before;
  });
  delete process.env.DATABASE_URL;
  process.env.NODE_ENV = "production";
  await t.rejects(connectDatabase(), { code: "PERDURE_OPTION", message: /set DATABASE_URL/ });
});

test("terminated backends, idle or in use, do not end the process", async (t) => {
  const url = await freshDatabase(t);
  for (const given of ["url", "pool"]) {
    const theirs = new pg.Pool({ connectionString: url });
    t.teardown(() => theirs.end());
    if (given === "pool") await theirs.query("select 1");
    const database = await connectDatabase(given === "pool" ? theirs : url);
    const busy = await database.pool.connect();
    const idle = await database.pool.connect();
    idle.release();
    const ended = [busy, idle].map((client) => new Promise((done) => client.once("end", done)));
    await inDatabase(await server(), (client) =>
      client.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", [
        new URL(url).pathname.slice(1),
      ]),
    );
    await Promise.all(ended);
    const error = await busy.query("select 1").catch((caught) => caught);
    t.ok(isTransient(error));
    t.match(toPerdureError(error, "asking"), { code: "PERDURE_CONNECTION" });
    busy.release(true);
    t.equal((await database.pool.query("select 1 as one")).rows[0].one, 1);
    await database.close();
  }
});

test("real refusals of a server are told apart", async (t) => {
  const url = new URL(await server());
  const at = (changes: Partial<URL>) => connectClient({ connectionString: Object.assign(new URL(url), changes).href });
  await t.rejects(at({ pathname: "/nowhere" }), { code: "PERDURE_AUTH", message: /database "nowhere" does not exist/ });
  await t.rejects(at({ username: "nobody" }), { code: "PERDURE_AUTH", message: /role "nobody" does not exist/ });
  await t.rejects(at({ search: "sslmode=verify-full" }), { code: "PERDURE_AUTH", message: /TLS/ });
  await t.rejects(at({ hostname: "no-such-host.invalid" }), { code: "PERDURE_CONNECTION", message: /resolve/ });
  const closed = createServer().listen(0, "127.0.0.1");
  await once(closed, "listening");
  const { port } = closed.address() as { port: number };
  await new Promise((done) => closed.close(done));
  await t.rejects(at({ port: String(port) }), { code: "PERDURE_CONNECTION", message: new RegExp(`127.0.0.1:${port}`) });
});

test("a role that may not write, and a missing right, are named", async (t) => {
  const url = await freshDatabase(t);
  await inDatabase(url, async (client) => {
    await client.query("set session characteristics as transaction read only");
    await t.rejects(checkServer(client), { code: "PERDURE_READ_ONLY", message: /127\.0\.0\.1:\d+ is read-only/ });
    const error = await client.query("create table a (b int)").catch((caught) => caught);
    t.match(toPerdureError(error, "creating"), { code: "PERDURE_READ_ONLY" });
    t.ok(isConnectionLost(error), "a primary that became a standby");
  });
  await t.rejects(
    checkServer({ host: "h", port: 1, query: async () => ({ rows: [{ version: 130002, name: "13.2" }] }) } as never),
    {
      code: "PERDURE_SERVER_VERSION",
      message: /h:1 is PostgreSQL 13\.2/,
    },
  );
});

test("each SQLSTATE has its code, and the cause shows no password", (t) => {
  const table: [string, string][] = [
    ["28P01", "PERDURE_AUTH"],
    ["28000", "PERDURE_AUTH"],
    ["53300", "PERDURE_CONNECTION"],
    ["57P01", "PERDURE_CONNECTION"],
    ["08006", "PERDURE_CONNECTION"],
    ["ETIMEDOUT", "PERDURE_CONNECTION"],
    ["42P01", "PERDURE_SCHEMA"],
    ["3F000", "PERDURE_SCHEMA"],
    ["42883", "PERDURE_SCHEMA"],
    ["23505", "PERDURE_DATABASE"],
    ["PD001", "PERDURE_NOT_FOUND"],
    ["PD004", "PERDURE_STATE"],
    ["PD005", "PERDURE_OPTION"],
  ];
  for (const [sqlstate, code] of table) t.equal(toPerdureError(sqlError(sqlstate), "asking").code, code, sqlstate);
  const leak = sqlError("28P01", "no: postgres://me:hunter2@host/db", {
    client: { password: "hunter2" },
    detail: "me:hunter2@",
  });
  Object.assign(leak, { detail: "url postgres://me:hunter2@host/db" });
  t.notMatch(inspect(toPerdureError(leak, "asking"), { depth: 9, showHidden: true }), /hunter2/);
  const denied = toPerdureError(sqlError("42501", "permission denied for table run"), "asking", {
    role: "app",
    schema: "s",
  });
  t.match(denied.message, `as the owner of the schema, run: select "s".grant_to('app', 'worker')`);
  const known = toPerdureError(leak, "asking");
  t.equal(toPerdureError(known, "asking again"), known);
  t.end();
});

test("errors that our SQL raises keep their sentence and their run", (t) => {
  const finished = toPerdureError(sqlError("PD002", 'run "a" has finished', { detail: "a" }), "sending");
  t.match(finished, { message: 'run "a" has finished', runId: "a" });
  t.ok(finished instanceof RunFinishedError);
  const conflict = toPerdureError(sqlError("PD003", 'run "b" has another input'), "starting");
  t.match(conflict, { runId: "b" });
  t.ok(conflict instanceof RunConflictError);
  t.end();
});

test("what may be tried again is told from what may not", (t) => {
  for (const code of ["40001", "40P01", "55P03", "57014", "53300", "57P01", "ECONNRESET"])
    t.ok(isTransient(sqlError(code)), code);
  for (const code of ["23505", "42P01", "28P01", "PD002"]) t.notOk(isTransient(sqlError(code)), code);
  t.ok(isTransient(new Error("Connection terminated unexpectedly")));
  t.ok(isTransient(toPerdureError(sqlError("40P01"), "asking")), "also once it is ours");
  t.notOk(isConnectionLost(sqlError("40P01")));
  const lost = new Error("Client has encountered a connection error and is not queryable");
  t.ok(isConnectionLost(lost));
  for (const is of [isLocked, isTaken, isTooSlow, isCrossed]) t.notOk(is(lost), "what the driver says is nothing else");
  t.end();
});
