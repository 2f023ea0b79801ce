/** A development server starts from what is installed and never outlives the process that needs it. */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { test } from "tap";
import { startPostgres } from "../../lib/db/embedded.ts";
import { findBinaries, usableBin } from "../../lib/db/embedded-binaries.ts";
import { inDatabase } from "../support/postgres.ts";

const temporary = { durable: false } as const;

/** A process that died but that nobody has waited for still has a pid. */
async function lives(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat !== undefined) return !/\) Z /.test(stat);
  try {
    return !existsSync("/proc/self") && process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function becomesTrue(condition: () => Promise<boolean>, withinMs: number): Promise<boolean> {
  for (const end = Date.now() + withinMs; Date.now() < end; await pause(20)) if (await condition()) return true;
  return false;
}

const show = (url: string, setting: string) =>
  inDatabase(url, async (client) => (await client.query(`show ${setting}`)).rows[0][setting] as string);

test("a temporary server takes connections, has the settings given, and is gone after stop", async (t) => {
  const pg = await startPostgres({ ...temporary, settings: { max_connections: "7" } });
  t.teardown(() => pg.stop());
  t.equal(await show(pg.url, "max_connections"), "7");
  t.equal(await show(pg.url, "server_encoding"), "UTF8");
  t.equal(await show(pg.url, "listen_addresses"), "127.0.0.1");
  t.equal(await show(pg.url, "unix_socket_directories"), "");
  t.equal(await show(pg.url, "fsync"), "off");
  const home = dirname(await show(pg.url, "data_directory"));
  const port = Number(new URL(pg.url).port);
  const taken = { code: "PERDURE_CONNECTION", message: /already in use/ };
  await t.rejects(startPostgres({ ...temporary, port }), taken, "a port that is taken is refused in words");
  await pg.stop();
  t.notOk(await lives(pg.pid));
  t.notOk(existsSync(home), "its folder is removed");
  await t.rejects(inDatabase(pg.url, async () => {}));
});

test("data in a kept folder is there at the next start, and two users of a folder share one server", async (t) => {
  const dataDir = await mkdtemp(join(tmpdir(), "perdure-kept-"));
  await chmod(dataDir, 0o755);
  t.teardown(() => rm(dataDir, { recursive: true, force: true }));
  const first = await startPostgres({ dataDir });
  t.teardown(() => first.stop());
  t.equal(await show(first.url, "fsync"), "on");
  await inDatabase(first.url, (client) => client.query("create table kept as select 1 as one"));
  const second = await startPostgres({ dataDir });
  t.teardown(() => second.stop());
  t.equal(second.pid, first.pid);
  await first.stop();
  t.ok(await lives(first.pid), "stays up while somebody uses it");
  await second.stop();
  t.notOk(await lives(first.pid));
  const third = await startPostgres({ dataDir });
  t.teardown(() => third.stop());
  const { rows } = await inDatabase(third.url, (client) => client.query("select * from kept"));
  t.same(rows, [{ one: 1 }]);
});

test("a process killed with SIGKILL leaves no server and no folder within 5 s", async (t) => {
  const module = new URL("../../lib/db/embedded.js", import.meta.url).href;
  const script = `
    const { startPostgres } = await import(${JSON.stringify(module)});
    const { url, pid } = await startPostgres({ durable: false });
    console.log(JSON.stringify({ url, pid }));
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.teardown(() => child.kill("SIGKILL"));
  const line = await new Promise<string>((done) => child.stdout.once("data", (chunk) => done(String(chunk))));
  const { url, pid } = JSON.parse(line) as { url: string; pid: number };
  const home = dirname(await show(url, "data_directory"));
  t.ok(await lives(pid));
  child.kill("SIGKILL");
  t.ok(await becomesTrue(async () => !(await lives(pid)), 5000), "no server");
  t.ok(await becomesTrue(async () => !existsSync(home), 5000), "no folder");
});

test("an engine that is given no database says once which one it has taken", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "perdure-announced-"));
  t.teardown(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  const library = new URL("../../lib/index.js", import.meta.url).href;
  const script = `
    const { Perdure } = await import(${JSON.stringify(library)});
    const logger = { debug() {}, info() {}, warn: (line) => console.log(line), error: console.error };
    for (const schema of ["one", "two"]) {
      const perdure = new Perdure({ schema, logger });
      await perdure.launch();
      await perdure.shutdown();
    }`;
  const { DATABASE_URL: _, ...env } = process.env;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
    cwd: folder,
    env: { ...env, NODE_ENV: "test" },
  });
  let text = "";
  for await (const chunk of child.stdout) text += chunk;
  t.match(
    text,
    /^perdure: no database is given, so this is an embedded Postgres for development, at postgres:.*; set DATABASE_URL.*\n$/,
  );
});

test("a package whose install script did not run, in a private folder, is copied with its links", async (t) => {
  const binaries = await findBinaries();
  if (!binaries.native) return t.pass("no platform package here");
  const folder = await mkdtemp(join(tmpdir(), "perdure-native-"));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const native = join(folder, "native");
  await cp(binaries.native.folder, native, { recursive: true, verbatimSymlinks: true });
  const links = JSON.parse(await readFile(join(native, "pg-symlinks.json"), "utf8")) as { target: string }[];
  for (const link of links) await rm(join(folder, link.target), { force: true });
  const home = join(folder, "home");
  const bin = await usableBin({ bin: join(native, "bin"), native: { folder: native, version: "1" } }, home, true);
  t.equal(bin, join(home, "native-1", "bin"));
  const child = spawn(join(bin, "postgres"), ["--version"], { env: {} });
  t.equal(await new Promise((done) => child.on("close", done)), 0);
});
