/** A worker process of a chaos run. What it does is told by its argument; it goes on until it is killed or its parent is gone. */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { Perdure } from "../../lib/index.ts";
import { type Port, schedulesOf, sinks } from "./sink.ts";

export interface WorkerOptions {
  /** Through its proxy. */
  readonly url: string;
  readonly listenUrl: string;
  /** Straight to the server. */
  readonly ledger: string;
  readonly schema: string;
  readonly leaseMs: number;
  /** The newest version that it knows; it serves the older ones too. */
  readonly version: number;
  /** So many suspended runs stay in memory. */
  readonly warm: number;
}

const options = JSON.parse(process.argv[2]!) as WorkerOptions;
/** As the engine names itself. */
const name = `${hostname()}:${process.pid}`;
const ENTER = `insert into chaos.attempt (key, run, step, try, worker, version)
  select * from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[]) on conflict do nothing`;

interface Entry {
  readonly values: readonly unknown[];
  readonly done: () => void;
}

/** Entries go together; each waits for its commit, however long the server is away. */
class Ledger implements Port {
  readonly #pool = new pg.Pool({ connectionString: options.ledger, max: 2, connectionTimeoutMillis: 5000 });
  #waiting: Entry[] = [];
  #writing = 0;

  constructor() {
    this.#pool.on("error", () => {});
  }

  enter(run: string, step: string, attempt: number, version: string): Promise<void> {
    return new Promise((done) => {
      this.#waiting.push({ values: [randomUUID(), run, step, attempt, name, version], done });
      if (this.#writing < 2) void this.#write();
    });
  }

  async #write(): Promise<void> {
    this.#writing += 1;
    while (this.#waiting.length > 0) {
      const entries = this.#waiting;
      this.#waiting = [];
      const columns = entries[0]!.values.map((_, at) => entries.map(({ values }) => values[at]));
      while (!(await this.#tried(columns))) await pause(20);
      for (const { done } of entries) done();
    }
    this.#writing -= 1;
  }

  async #tried(columns: unknown[]): Promise<boolean> {
    try {
      await this.#pool.query(ENTER, columns);
      return true;
    } catch {
      return false;
    }
  }
}

const line =
  (level: string) =>
  (message: string, detail?: unknown): void => {
    const error =
      detail instanceof Error ? { error: `${detail.message} ${(detail as { code?: string }).code ?? ""}` } : {};
    process.stderr.write(`${JSON.stringify({ at: Date.now(), pid: process.pid, level, message, ...error })}\n`);
  };
const logger = { debug: () => {}, info: line("info"), warn: line("warn"), error: line("error") };

const ledger = new Ledger();
const versions = Array.from({ length: options.version }, (_, at) => sinks(`${at + 1}`, ledger));

process.on("disconnect", () => process.exit(0));
process.on("message", (message) => {
  if (message === "leave") void perdure.shutdown({ timeout: "10s" }).then(() => process.exit(0));
});

const perdure = new Perdure({
  database: options.url,
  listenUrl: options.listenUrl,
  schema: options.schema,
  workflows: versions.flatMap(({ sink, kid, tick, poison }) => [sink, kid, tick, poison]),
  // Of the first version, whoever launches: a rolling deploy changes no schedule.
  schedules: schedulesOf(versions[0]!),
  application: "chaos",
  worker: { warm: options.warm },
  lease: options.leaseMs,
  migrate: false,
  logger,
});
for (;;) {
  try {
    await perdure.launch();
    break;
  } catch (error) {
    logger.warn("launch failed", error);
    await pause(100);
  }
}
process.send?.("launched");
