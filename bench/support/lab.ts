/** Where the benchmarks run: a server whose commits reach the disk, a schema for each question, engines that are shut down after. */
import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { startPostgres } from "../../lib/db/embedded.ts";
import { Perdure, type PerdureOptions } from "../../lib/index.ts";

/** Room for a benchmark's own data, so that checkpoints do not fall into the measured rounds; what a commit costs is the default. */
const SETTINGS = { shared_buffers: "512MB", max_wal_size: "4GB", max_connections: "100" };

export class Lab {
  readonly url: string;
  readonly print: (text: string) => void;
  readonly #stop: () => Promise<void>;
  readonly #pool: pg.Pool;
  readonly #schemas: string[] = [];
  readonly #closing: (() => Promise<unknown>)[] = [];

  /** The server of DATABASE_URL, or one of our own, with these settings too. */
  static async open(print: (text: string) => void, settings: Readonly<Record<string, string>> = {}): Promise<Lab> {
    const { DATABASE_URL } = process.env;
    if (DATABASE_URL) return new Lab(DATABASE_URL, print, async () => {});
    const server = await startPostgres({ durable: true, settings: { ...SETTINGS, ...settings } });
    return new Lab(server.url, print, server.stop);
  }

  constructor(url: string, print: (text: string) => void, stop: () => Promise<void>) {
    this.url = url;
    this.print = print;
    this.#stop = stop;
    this.#pool = new pg.Pool({ connectionString: url, max: 2 });
    this.#pool.on("error", () => {});
  }

  /** A schema that is there and up to date, dropped at the end. */
  async schema(): Promise<string> {
    const schema = `bench_${randomBytes(4).toString("hex")}`;
    this.#schemas.push(schema);
    await new Perdure({ database: this.url, schema }).migrate();
    return schema;
  }

  /** A launched engine, shut down with this question. */
  async engine(schema: string, options: PerdureOptions): Promise<Perdure> {
    const engine = new Perdure({ database: this.url, schema, ...options });
    await engine.launch();
    this.#closing.push(() => engine.shutdown({ timeout: "1s" }));
    return engine;
  }

  /** A connection of its own, ended with this question. */
  async client(config: object = {}): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.url, ...config });
    client.on("error", () => {});
    await client.connect();
    this.#closing.push(() => client.end());
    return client;
  }

  async sql(text: string, values: unknown[] = []): Promise<any[]> {
    return (await this.#pool.query(text, values)).rows;
  }

  /** Another process that runs a file of this folder, killed with this question. */
  fork(file: string, args: readonly string[], execArgv: readonly string[] = []): ChildProcess {
    const path = fileURLToPath(new URL(`../${file}`, import.meta.url));
    const child = fork(path, [this.url, ...args], { execArgv: [...execArgv], stdio: "inherit" });
    this.#closing.push(async () => child.kill("SIGKILL"));
    return child;
  }

  /** Ends what this question opened. */
  async clear(): Promise<void> {
    for (const close of this.#closing.splice(0).reverse()) await close();
    for (const schema of this.#schemas.splice(0)) await this.sql(`drop schema if exists ${schema} cascade`);
  }

  async close(): Promise<void> {
    await this.clear();
    await this.#pool.end();
    await this.#stop();
  }

  /** What was measured on. */
  async machine(): Promise<string> {
    const [{ version }] = await this.sql("select current_setting('server_version') as version");
    const settings = ["fsync", "synchronous_commit"].map((name) => this.sql(`show ${name}`));
    const [fsync, commit] = (await Promise.all(settings)).map(([row]) => Object.values(row)[0]);
    return `PostgreSQL ${version} (fsync ${fsync}, synchronous_commit ${commit}), Node ${process.versions.node}`;
  }
}

/** The next message of a child. Rejects when it ends first. */
export function message<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`a child process ended with ${code}`));
    child.once("exit", ended);
    child.once("message", (value) => {
      child.off("exit", ended);
      resolve(value as T);
    });
  });
}
