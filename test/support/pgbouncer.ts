/** PgBouncer in transaction mode, in front of a server, where the machine has one. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, chown, mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import pg from "pg";
import { eventually } from "./eventually.ts";

const NOBODY = 65534;

export interface Pooler {
  /** Host and port, as in a URL. */
  readonly host: string;
  stop(): Promise<void>;
}

const program = (): string | undefined =>
  [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin"]
    .map((folder) => join(folder, "pgbouncer"))
    .find((path) => existsSync(path));

/** Undefined: there is none on this machine. */
export async function startPgBouncer(url: string): Promise<Pooler | undefined> {
  const path = program();
  if (path === undefined) return undefined;
  const { hostname, port, username } = new URL(url);
  const dir = await mkdtemp(join(tmpdir(), "perdure-pgbouncer-"));
  const listenPort = await freePort();
  await writeFile(
    join(dir, "pgbouncer.ini"),
    `[databases]
* = host=${hostname} port=${port} user=${username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${listenPort}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 2000
default_pool_size = 40
server_reset_query_always = 0
log_connections = 0
log_disconnections = 0
log_pooler_errors = 0
logfile = ${join(dir, "log")}
`,
  );
  const user = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {};
  if (user.uid !== undefined) {
    await chown(dir, user.uid, user.gid);
    await chmod(dir, 0o755);
  }
  const child = spawn(path, ["-q", join(dir, "pgbouncer.ini")], { ...user, cwd: "/", stdio: "inherit" });
  const gone = once(child, "exit");
  const host = `127.0.0.1:${listenPort}`;
  const pooled = Object.assign(new URL(url), { host }).href;
  await eventually(() => answers(pooled), 20_000);
  return {
    host,
    stop: async () => {
      child.kill("SIGTERM");
      await gone;
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function answers(connectionString: string): Promise<boolean> {
  const client = new pg.Client({ connectionString });
  client.on("error", () => {});
  try {
    await client.connect();
    await client.query("select 1");
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => {});
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}
