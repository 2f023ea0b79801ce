/** A server that cannot be used is refused in words: with a code, what is wrong, what to do, and never a password. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { type Test, test } from "tap";
import { Perdure, type PerdureError, type PerdureOptions } from "../lib/index.ts";
import { collector } from "./support/engine.ts";
import { eventually } from "./support/eventually.ts";
import { freshDatabase, freshSchema, inDatabase, server } from "./support/postgres.ts";
import { FaultyProxy } from "./support/proxy.ts";

const DEADLINE_MS = 10_000;
const SECRET = "hunter2-s3cr3t";

async function failure(options: PerdureOptions): Promise<PerdureError> {
  const perdure = new Perdure({ logger: collector(), ...options });
  try {
    await perdure.launch();
  } catch (error) {
    return error as PerdureError;
  } finally {
    await perdure.shutdown();
  }
  throw new Error("launched");
}

const shown = (error: unknown): string =>
  [inspect(error, { depth: 20, showHidden: true }), String((error as Error).stack), JSON.stringify(error)].join("\n");

/** A role with a password, in a database of its own. */
async function role(t: Test, setup: (name: string) => string[]): Promise<{ url: string; name: string; admin: string }> {
  const admin = await freshDatabase(t);
  const name = `r_${Math.random().toString(36).slice(2, 10)}`;
  await inDatabase(admin, async (client) => {
    for (const text of [`create role ${name} login password '${SECRET}'`, ...setup(name)]) await client.query(text);
  });
  t.teardown(() =>
    inDatabase(admin, (client) => client.query(`drop owned by ${name} cascade; drop role ${name}`)).catch(() => {}),
  );
  const url = Object.assign(new URL(admin), { username: name, password: SECRET }).href;
  return { url, name, admin };
}

test("a server that cannot be reached is named, without a storm of attempts, and nothing is left open", async (t) => {
  let attempts = 0;
  const refusing = createServer((socket) => {
    attempts += 1;
    socket.resetAndDestroy();
  }).listen(0, "127.0.0.1");
  await once(refusing, "listening");
  t.teardown(() => refusing.close());
  const { port } = refusing.address() as AddressInfo;
  const reset = await failure({ database: `postgres://me:${SECRET}@127.0.0.1:${port}/app` });
  t.equal(reset.code, "PERDURE_CONNECTION");
  t.match(
    reset.message,
    new RegExp(
      `^while connecting to 127\\.0\\.0\\.1:${port}: .+; check that the server runs and that host and port are right$`,
    ),
  );
  t.ok(attempts <= 3, `${attempts} attempts`);
  t.notMatch(shown(reset), SECRET);
  const closed = await failure({ database: `postgres://me:${SECRET}@127.0.0.1:1/app` });
  t.equal(
    closed.message,
    "while connecting to 127.0.0.1:1: connect ECONNREFUSED 127.0.0.1:1; check that the server runs and that host and port are right",
  );
  const nowhere = await failure({ database: `postgres://me:${SECRET}@no-such-host.invalid/app` });
  t.equal(nowhere.code, "PERDURE_CONNECTION");
  t.match(nowhere.message, /the host name does not resolve: check it$/);
  t.notMatch(shown(nowhere), SECRET);
});

test("a server that accepts and never answers is given up, and so is a listenUrl that leads nowhere", async (t) => {
  const url = new URL(await server());
  const { schema } = await freshSchema(t);
  const proxy = await FaultyProxy.open({ host: url.hostname, port: Number(url.port) });
  t.teardown(() => proxy.close());
  proxy.mode = "half-open";
  const through = Object.assign(new URL(url), { port: String(proxy.port) }).href;
  const database = { connectionString: through, connectionTimeoutMillis: 300 };
  t.equal((await failure({ database, schema })).code, "PERDURE_CONNECTION");
  const silent = await failure({ database: url.href, schema, listenUrl: through });
  t.equal(silent.code, "PERDURE_CONNECTION");
  const closed = await failure({ database: url.href, schema, listenUrl: `postgres://me:${SECRET}@127.0.0.1:1/app` });
  t.equal(closed.code, "PERDURE_CONNECTION");
  t.notMatch(shown(closed), SECRET);
  const left = () =>
    inDatabase(url.href, async (client) => {
      const text = `select from pg_stat_activity where query like '%"${schema}"%' and pid <> pg_backend_pid()`;
      return (await client.query(text)).rowCount === 0;
    });
  t.ok(await eventually(left, DEADLINE_MS));
});

test("a role that may only read is told to connect to the primary", async (t) => {
  const { url } = await role(t, (name) => [`alter role ${name} set default_transaction_read_only = on`]);
  const error = await failure({ database: url });
  t.equal(error.code, "PERDURE_READ_ONLY");
  t.match(
    error.message,
    /^the server 127\.0\.0\.1:\d+ is read-only for this role: connect to the primary, with a role that may write$/,
  );
});

test("a server of a version that is too old is refused", async (t) => {
  const old = await fakeServer(t, ["130014", "13.14", "f", "f"]);
  const error = await failure({ database: `postgres://me@127.0.0.1:${old}/app` });
  t.equal(error.code, "PERDURE_SERVER_VERSION");
  t.equal(
    error.message,
    `the server 127.0.0.1:${old} is PostgreSQL 13.14, but Perdure needs 14 or newer: upgrade the server`,
  );
  const standby = await fakeServer(t, ["160002", "16.2", "t", "t"]);
  const other = await failure({ database: `postgres://me@127.0.0.1:${standby}/app` });
  t.equal(other.code, "PERDURE_READ_ONLY");
  t.equal(
    other.message,
    `the server 127.0.0.1:${standby} is a standby: connect to the primary, with a role that may write`,
  );
});

/** Speaks just enough of the protocol to log anybody in and answer one question. */
async function fakeServer(t: Test, row: string[]): Promise<number> {
  const message = (type: string, body: Buffer): Buffer => {
    const head = Buffer.alloc(5);
    head.write(type);
    head.writeUInt32BE(body.length + 4, 1);
    return Buffer.concat([head, body]);
  };
  const int16 = (n: number): Buffer => Buffer.from([n >> 8, n & 255]);
  const int32 = (n: number): Buffer => Buffer.from([n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255]);
  const field = (name: string, type: number): Buffer =>
    Buffer.concat([Buffer.from(`${name}\0`), int32(0), int16(0), int32(type), int16(-1 & 0xffff), int32(-1), int16(0)]);
  const names: [string, number][] = [
    ["version", 23],
    ["name", 25],
    ["standby", 16],
    ["readonly", 16],
  ];
  const ready = message("Z", Buffer.from("I"));
  const answer = Buffer.concat([
    message("T", Buffer.concat([int16(names.length), ...names.map(([name, type]) => field(name, type))])),
    message(
      "D",
      Buffer.concat([int16(row.length), ...row.map((cell) => Buffer.concat([int32(cell.length), Buffer.from(cell)]))]),
    ),
    message("C", Buffer.from("SELECT 1\0")),
    ready,
  ]);
  const fake: Server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      socket.write(Buffer.concat([message("R", int32(0)), ready]));
      socket.on("data", (bytes) => (bytes[0] === "X".charCodeAt(0) ? socket.end() : socket.write(answer)));
    });
  }).listen(0, "127.0.0.1");
  await once(fake, "listening");
  t.teardown(() => fake.close());
  return (fake.address() as AddressInfo).port;
}

test("a wrong password, user or database is told apart from a server that is away, and no password is shown", async (t) => {
  const { port } = await scramServer(t);
  const at = (user: string, password: string, database: string): string =>
    `postgres://${user}:${password}@127.0.0.1:${port}/${database}`;
  const wrong: [PerdureOptions["database"], RegExp][] = [
    [
      at("postgres", SECRET, "postgres"),
      /password authentication failed for user "postgres"; check user, password and pg_hba.conf$/,
    ],
    [
      at("nobody", SECRET, "postgres"),
      /password authentication failed for user "nobody"; check user, password and pg_hba.conf$/,
    ],
    [
      { host: "127.0.0.1", port, user: "postgres", password: SECRET, database: "postgres" },
      /password authentication failed/,
    ],
    [
      { host: "127.0.0.1", port, user: "postgres", password: () => SECRET, database: "postgres" },
      /password authentication failed/,
    ],
    [
      { host: "127.0.0.1", port, user: "postgres", database: "postgres" },
      /password.*check user, password and pg_hba.conf$/,
    ],
    [
      at("postgres", "r1ght-one", "nowhere"),
      /database "nowhere" does not exist; create the database, or correct its name in the `database` option$/,
    ],
  ];
  for (const [database, message] of wrong) {
    const error = await failure({ database: database! });
    t.equal(error.code, "PERDURE_AUTH");
    t.match(error.message, message);
    t.notMatch(shown(error), SECRET);
    t.notMatch(shown(error), "r1ght-one");
  }
  const listenUrl = at("postgres", SECRET, "postgres");
  const half = await failure({ database: at("postgres", "r1ght-one", "postgres"), listenUrl });
  t.equal(half.code, "PERDURE_AUTH");
  t.notMatch(shown(half), SECRET);
  const logger = collector();
  const engine = new Perdure({ database: at("postgres", "r1ght-one", "postgres"), logger });
  await engine.launch();
  t.notMatch(shown(engine), "r1ght-one");
  await engine.shutdown();
  t.notMatch(logger.lines.join("\n"), "r1ght-one");
});

async function scramServer(t: Test): Promise<{ port: number }> {
  const bin = "/usr/lib/postgresql/15/bin";
  const as = { uid: 65534, gid: 65534, cwd: "/", stdio: "ignore" as const };
  const dir = await mkdtemp(join(tmpdir(), "perdure-scram-"));
  await writeFile(join(dir, "password"), "r1ght-one");
  await chown(dir, as.uid, as.gid);
  await chown(join(dir, "password"), as.uid, as.gid);
  const data = join(dir, "data");
  const init = [
    "-D",
    data,
    "-U",
    "postgres",
    "--auth-host=scram-sha-256",
    "--pwfile",
    join(dir, "password"),
    "--no-sync",
  ];
  await once(spawn(join(bin, "initdb"), init, as), "exit");
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  const postgres: ChildProcess = spawn(
    join(bin, "postgres"),
    ["-D", data, "-k", dir, "-h", "127.0.0.1", "-p", `${port}`, "-F"],
    as,
  );
  t.teardown(async () => {
    const gone = once(postgres, "exit");
    postgres.kill("SIGINT");
    await gone;
    await rm(dir, { recursive: true, force: true });
  });
  await eventually(
    () => inDatabase(`postgres://postgres:r1ght-one@127.0.0.1:${port}/postgres`, (client) => client.query("select")),
    30_000,
  );
  return { port };
}

test("a role that may not create the schema, or not use it, is told what to grant", async (t) => {
  const { url, name, admin } = await role(t, () => []);
  const database = new URL(admin).pathname.slice(1);
  const create = await failure({ database: url });
  t.equal(create.code, "PERDURE_PRIVILEGE");
  t.equal(
    create.message,
    `while migrating schema "perdure": permission denied for database ${database}; run: grant create on database "${database}" to "${name}"`,
  );
  await inDatabase(admin, (client) => client.query("create schema perdure"));
  const use = await failure({ database: url });
  t.equal(use.code, "PERDURE_PRIVILEGE");
  t.match(use.message, `run: grant usage, create on schema "perdure" to "${name}"`);
  const owner = new Perdure({ database: admin, logger: collector() });
  await owner.launch();
  await owner.shutdown();
  await inDatabase(admin, (client) =>
    client.query(`grant usage on schema perdure to ${name}; grant select on perdure.migrations to ${name}`),
  );
  for (const migrate of [true, false]) {
    const work = await failure({ database: url, migrate });
    t.equal(work.code, "PERDURE_PRIVILEGE");
    const fix = `as the owner of the schema, run: select "perdure".grant_to('${name}', 'worker')`;
    t.ok(work.message.endsWith(fix), work.message);
  }
  await inDatabase(admin, (client) => client.query(`select perdure.grant_to('${name}', 'worker')`));
  const worker = new Perdure({ database: url, logger: collector() });
  await worker.launch();
  await worker.shutdown();
});

test("a schema that is behind is refused where migrating is off", async (t) => {
  const { url, schema } = await freshSchema(t);
  const error = await failure({ database: url, schema, migrate: false });
  t.equal(error.code, "PERDURE_SCHEMA");
  t.match(
    error.message,
    /^schema ".*" has migration none and needs 00.*: call migrate\(\) of an engine, or launch with `migrate` on$/,
  );
});
