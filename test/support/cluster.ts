/** A Postgres server of a test file's own, on loopback, gone at its end. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { eventually } from "./eventually.ts";

const BIN = "/usr/lib/postgresql/15/bin";
const NOBODY = { uid: 65534, gid: 65534, cwd: "/", stdio: "ignore" as const };

export interface Target {
  host: string;
  port: number;
  user: string;
  database: string;
}

export async function startCluster(t: { teardown: (fn: () => Promise<void>) => unknown }): Promise<Target> {
  const dir = await mkdtemp(join(tmpdir(), "perdure-pg-"));
  await chown(dir, NOBODY.uid, NOBODY.gid);
  const data = join(dir, "data");
  await once(spawn(join(BIN, "initdb"), ["-D", data, "-U", "postgres", "-A", "trust", "--no-sync"], NOBODY), "exit");
  const port = await freePort();
  const server = spawn(
    join(BIN, "postgres"),
    ["-D", data, "-k", dir, "-h", "127.0.0.1", "-p", `${port}`, "-F"],
    NOBODY,
  );
  t.teardown(() => stop(server, dir));
  const target = { host: "127.0.0.1", port, user: "postgres", database: "postgres" };
  await eventually(() => sql(target, "select 1"), 20_000);
  return target;
}

/** One statement on a connection of its own. */
export async function sql(target: object, text: string, values: unknown[] = []): Promise<any[]> {
  const client = new pg.Client(target);
  try {
    await client.connect();
    return (await client.query(text, values)).rows;
  } finally {
    await client.end();
  }
}

async function stop(server: ChildProcess, dir: string): Promise<void> {
  const gone = once(server, "exit");
  server.kill("SIGINT");
  await gone;
  await rm(dir, { recursive: true, force: true });
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}
