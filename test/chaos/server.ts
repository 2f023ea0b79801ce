/** The PostgreSQL of a chaos run: it crashes and comes back, and a standby may take its place. What was acknowledged is on both. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, chmod, chown, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { type RunningPostgres, startPostgres } from "../../lib/db/embedded.ts";
import { eventually } from "../support/eventually.ts";

interface Node {
  readonly name: string;
  readonly dir: string;
  running: RunningPostgres;
}

/** No power is cut, only processes end: what the kernel has is as good as on disk. */
const SETTINGS = {
  fsync: "off",
  max_connections: "300",
  track_commit_timestamp: "on",
  log_line_prefix: "%m [%p] %e ",
  wal_keep_size: "1GB",
  wal_receiver_status_interval: "1s",
  max_wal_senders: "5",
  wal_retrieve_retry_interval: "100ms",
};
const STREAMING = "select 1 from pg_stat_replication where state = 'streaming'";

export class Server {
  readonly #logs: string;
  #primary: Node;
  #standby: Node | undefined;
  #nodes = 0;

  private constructor(logs: string, primary: Node) {
    this.#logs = logs;
    this.#primary = primary;
  }

  /** `logs`: the folder that keeps what the servers wrote. */
  static async start(logs: string, withStandby: boolean): Promise<Server> {
    const dir = await newHome();
    const server = new Server(logs, {
      name: "pg-0",
      dir,
      running: await startPostgres({ dataDir: dir, settings: SETTINGS }),
    });
    if (withStandby) await server.#attach();
    return server;
  }

  get target(): { host: string; port: number } {
    return { host: "127.0.0.1", port: Number(new URL(this.#primary.running.url).port) };
  }

  get pid(): number {
    return this.#primary.running.pid;
  }

  /** Ends it as a power cut of its process would, and starts it again. Resolves when it takes connections. */
  async crash(): Promise<void> {
    const node = this.#primary;
    await this.#kill(node);
    node.running = await startPostgres({ dataDir: node.dir, port: this.target.port, settings: SETTINGS });
  }

  /** The server dies, and the standby becomes the server. Resolves when it takes writes; `rebuild` makes the next standby. */
  async failover(): Promise<void> {
    const old = this.#primary;
    const next = this.#standby;
    if (!next) throw new Error("there is no standby");
    await this.#kill(old);
    this.#standby = undefined;
    await sql(next.running.url, "select pg_promote(true, 30)");
    this.#primary = next;
    await this.#remove(old);
  }

  async rebuild(): Promise<void> {
    await this.#attach();
  }

  async stop(): Promise<void> {
    for (const node of [this.#standby, this.#primary]) if (node) await this.#remove(node);
  }

  /** A copy of the server as it runs, by the server's own protocol for backups. */
  async #attach(): Promise<void> {
    const from = this.#primary;
    const dir = await newHome();
    const data = join(dir, "data");
    const client = new pg.Client({ connectionString: from.running.url });
    client.on("error", () => {});
    await client.connect();
    try {
      await client.query("select pg_backup_start('chaos', true)");
      // A file that goes while it is copied is no fault: the log of the server has what became of it.
      await once(spawn("cp", ["-a", join(from.dir, "data"), data], { stdio: "ignore" }), "exit");
      const { rows } = await client.query("select labelfile from pg_backup_stop(false)");
      await writeFile(join(data, "backup_label"), rows[0].labelfile);
    } finally {
      await client.end();
    }
    const wal = join(data, "pg_wal");
    for (const name of await readdir(wal)) if (/^[0-9A-F]{24}/.test(name)) await rm(join(wal, name));
    for (const name of ["postmaster.pid", "postmaster.opts"]) await rm(join(data, name), { force: true });
    const conninfo = `primary_conninfo = 'host=127.0.0.1 port=${this.target.port} user=postgres application_name=standby'\n`;
    await writeFile(join(data, "postgresql.auto.conf"), conninfo);
    await writeFile(join(data, "standby.signal"), "");
    if (process.getuid?.() === 0) {
      for (const name of ["backup_label", "postgresql.auto.conf", "standby.signal"])
        await chown(join(data, name), 65534, 65534);
    }
    this.#nodes += 1;
    const running = await startPostgres({ dataDir: dir, settings: SETTINGS });
    this.#standby = { name: `pg-${this.#nodes}`, dir, running };
    // Only then: from here on a commit waits for it.
    await eventually(async () => (await sql(from.running.url, STREAMING)).length > 0, 30_000);
    await sql(from.running.url, "alter system set synchronous_standby_names = '*'");
    await sql(from.running.url, "select pg_reload_conf()");
    await eventually(
      async () => (await sql(from.running.url, `${STREAMING} and sync_state = 'sync'`)).length > 0,
      30_000,
    );
  }

  async #kill(node: Node): Promise<void> {
    process.kill(node.running.pid, "SIGQUIT");
    await eventually(() => {
      try {
        return !process.kill(node.running.pid, 0);
      } catch {
        return true;
      }
    }, 20_000);
    await this.#keepLog(node);
  }

  async #remove(node: Node): Promise<void> {
    await node.running.stop();
    await this.#keepLog(node);
    await rm(node.dir, { recursive: true, force: true, maxRetries: 5 });
  }

  /** The next start begins a new one. */
  async #keepLog(node: Node): Promise<void> {
    const text = await readFile(join(node.dir, "log"), "utf8").catch(() => "");
    await appendFile(join(this.#logs, `${node.name}.log`), text);
  }
}

/** Open to the server's own user, who would otherwise be given another folder. */
async function newHome(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "perdure-chaos-"));
  await chmod(dir, 0o755);
  return dir;
}

/** One statement on a connection of its own. */
export async function sql(url: string, text: string, values: unknown[] = []): Promise<any[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5000 });
  client.on("error", () => {});
  try {
    await client.connect();
    return (await client.query(text, values)).rows;
  } finally {
    await client.end().catch(() => {});
  }
}
