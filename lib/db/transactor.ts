/**
 * Transaction steps: the function's own SQL, the fenced checkpoint and the commit, all or nothing. The fence stands last, so the
 * run's row is locked for one moment only, and a claim that is over commits nothing.
 */
import pg from "pg";
import { PerdureError } from "../core/errors.ts";
import { attempt } from "../core/options.ts";
import { isNonRetryable } from "../core/retry.ts";
import type { TransactionClient } from "../core/types.ts";
import { type Database, discard } from "./connect.ts";
import { answered } from "./deadline.ts";
import type { Guard } from "./guard.ts";
import { isConnectionLost, isCrossed, isTransient } from "./pg-errors.ts";
import { TYPES } from "./reading.ts";
import { quoteSchema } from "./schema-name.ts";
import { call } from "./statement.ts";
import { type RecordRow, SHAPES } from "./writes.ts";

const BEGIN = "begin isolation level read committed read write";
/** After so many collisions with other transactions the step's own retry policy decides. */
const RERUNS = 10;
/** For how long a transaction that loses its connection is run again; a function that breaks its own connection ends by this. */
const PATIENCE_MS = 60_000;
/** How long the end of a transaction may take; behind a half-open socket it takes for ever. */
const ANSWER_MS = 5000;
/** Who wraps an error wraps it once or twice. */
const DEEPEST = 8;

interface Ran<T> {
  readonly result: T;
  readonly verdict: "ok" | "stale";
}

export class PgTransactor {
  readonly #pool: pg.Pool;
  readonly #pooled: boolean;
  readonly #schema: string;
  readonly #guard: Guard;

  constructor({ pool, pooled }: Pick<Database, "pool" | "pooled">, schema: string, guard: Guard | null = null) {
    this.#pool = pool;
    this.#pooled = pooled;
    this.#schema = schema;
    this.#guard = guard ?? ((_, commit) => commit());
  }

  /** Runs `work` in a transaction that also holds the checkpoint. A lost connection, a deadlock or a serialization failure runs it again. */
  async run<T>(
    work: (tx: TransactionClient) => Promise<T>,
    record: (result: T) => RecordRow,
    over: () => boolean,
  ): Promise<Ran<T>> {
    const since = performance.now();
    for (let reruns = 0; ; reruns += 1) {
      const client = await this.#connect(over);
      const once = new Once<T>(client, this.#pooled, this.#schema, this.#guard);
      try {
        const ran = await once.run(work, record, over);
        once.over();
        client.release();
        return ran;
      } catch (error) {
        // Asked before the release, which ends the connection.
        const lost = once.isLost(error);
        once.over();
        discard(client);
        const settled = lost ? await this.#settle(once, over) : undefined;
        if (settled) return settled;
        const again = lost ? performance.now() - since < PATIENCE_MS : isCollision(error) && reruns < RERUNS;
        if (over() || !again) throw error;
        await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(1000, 10 * 2 ** reruns)));
      }
    }
  }

  /** The same for a transaction called outside a workflow: no checkpoint. */
  async plain<T>(work: (tx: TransactionClient) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    try {
      await client.query(BEGIN);
      const result = await work(client);
      checkOpen(client);
      await commit(client);
      client.release();
      return result;
    } catch (error) {
      discard(client);
      throw error;
    }
  }

  async #connect(over: () => boolean): Promise<pg.PoolClient> {
    for (let failures = 0; ; failures += 1) {
      try {
        return await this.#pool.connect();
      } catch (error) {
        if (over()) throw error;
        await new Promise((resolve) => setTimeout(resolve, Math.min(1000, 20 * 2 ** failures)));
      }
    }
  }

  /** Returns when the session is gone: one that still commits would take effect after we have looked. */
  async #endSession(pid: number): Promise<void> {
    for (let there = true; there; ) {
      await this.#pool.query("select pg_terminate_backend($1::int, 5000)", [pid]).catch(() => {});
      const { rows } = await this.#pool.query("select from pg_stat_activity where pid = $1", [pid]);
      there = rows.length > 0;
    }
  }

  /** The answer to the commit was lost: ends the old session for good, and looks whether it had committed, for as long as it takes. */
  async #settle<T>(once: Once<T>, over: () => boolean): Promise<Ran<T> | undefined> {
    if (!once.committing) return undefined;
    const { row, result } = once.recorded!;
    for (let failures = 0; ; failures += 1) {
      try {
        await this.#endSession(once.pid);
        const text = `select 1 from ${quoteSchema(this.#schema)}.checkpoint where run = $1 and slot = $2 and attempt = $3 and epoch = $4`;
        const { rows } = await this.#pool.query(text, [row.run, row.slot, row.attempt, row.epoch]);
        return rows.length > 0 ? { result, verdict: "ok" } : undefined;
      } catch (lookError) {
        // Who does not know whether it is recorded cannot fail the step either.
        if (over() || !(isConnectionLost(lookError) || isTransient(lookError))) throw lookError;
        await new Promise((resolve) => setTimeout(resolve, Math.min(1000, 20 * 2 ** failures)));
      }
    }
  }
}

/** One go at a transaction. */
class Once<T> {
  readonly #client: pg.PoolClient;
  readonly #schema: string;
  readonly #guard: Guard;
  /** The session of the server; null: it is asked, as a pooler gives the client another number. */
  #pid: number | null;
  committing = false;
  #lost = false;
  /** The function has been called: what is thrown may be its own. */
  #working = false;
  readonly #lose = (): void => {
    this.#lost = true;
  };
  recorded: { readonly row: RecordRow; readonly result: T } | null = null;

  constructor(client: pg.PoolClient, pooled: boolean, schema: string, guard: Guard) {
    this.#client = client;
    this.#pid = pooled ? null : (client as unknown as { processID: number }).processID;
    this.#schema = schema;
    this.#guard = guard;
    client.once("error", this.#lose).once("end", this.#lose);
  }

  /** Hears no more of the client. */
  over(): void {
    this.#client.off("error", this.#lose).off("end", this.#lose);
  }

  get pid(): number {
    return this.#pid!;
  }

  /** Whether the connection broke. An ECONNREFUSED may be the function's own, from another server: the client or Postgres tells. */
  isLost(error: unknown): boolean {
    if (this.#lost) return true;
    if (this.#working && !this.committing) return isConnectionLost(saidByPostgres(error));
    return isConnectionLost(error);
  }

  async run(
    work: (tx: TransactionClient) => Promise<T>,
    record: (result: T) => RecordRow,
    over: () => boolean,
  ): Promise<Ran<T>> {
    await this.#begin();
    this.#working = true;
    const result = await work(this.#client);
    if (over())
      throw new PerdureError("PERDURE_STATE", "the run has ended in this process, so its transaction is rolled back");
    checkOpen(this.#client);
    const row = record(result);
    this.recorded = { row, result };
    const shape = SHAPES.record;
    const arrays = shape.columns.map((column) => [(row as unknown as Record<string, unknown>)[column]]);
    const { text, values } = call(this.#schema, shape.fn, [...arrays, true]);
    const { rows } = await this.#client.query({ text, values }).catch((error: unknown) => {
      throw isAborted(error) ? aborted() : error;
    });
    if (rows[0].verdict !== "ok") {
      await this.#client.query("rollback");
      if (await this.#isHeld(row)) throw ownEnd();
      return { result, verdict: "stale" };
    }
    this.committing = true;
    await this.#guard([{ kind: "record", row }], () => commit(this.#client));
    return { result, verdict: "ok" };
  }

  async #begin(): Promise<void> {
    if (this.#pid !== null) return void (await this.#client.query(BEGIN));
    const answers = await this.#client.query({
      text: `${BEGIN}; select pg_backend_pid() as pid`,
      types: TYPES,
    } as pg.QueryConfig);
    this.#pid = (answers as unknown as pg.QueryResult[])[1]!.rows[0].pid;
  }

  /** Whether the claim holds once the transaction is rolled back: then it was the transaction itself that had ended it. */
  async #isHeld({ run, epoch }: RecordRow): Promise<boolean> {
    const text = `select from ${quoteSchema(this.#schema)}.run where key = $1 and epoch = $2 and state = 'running'`;
    return (await this.#client.query(text, [run, epoch])).rows.length > 0;
  }
}

/** What Postgres itself has reported; undefined: it has not. `using()` and some ORMs wrap it. An error may refuse to be asked. */
const saidByPostgres = (error: unknown): unknown => attempt(() => reportIn(error));

function reportIn(error: unknown): unknown {
  for (let at = error, depth = 0; at instanceof Error && !isNonRetryable(at) && depth < DEEPEST; depth += 1) {
    const { code, severity } = at as { code?: unknown; severity?: unknown };
    if (at instanceof pg.DatabaseError || (typeof severity === "string" && /^[0-9A-Z]{5}$/.test(String(code))))
      return at;
    at = at.cause;
  }
  return undefined;
}

const isCollision = (error: unknown): boolean => isCrossed(saidByPostgres(error) ?? error);

/** The function may have swallowed an error that aborted the transaction, or ended the transaction itself. */
function checkOpen(client: pg.PoolClient): void {
  const status = (client as unknown as { getTransactionStatus?: () => string | null }).getTransactionStatus?.();
  if (status === "E") throw aborted();
  if (status === "I") {
    throw new PerdureError(
      "PERDURE_STATE",
      "the step's function ended its transaction itself; leave commit and rollback to the step",
    );
  }
}

// An error is told before the client knows what it has done to the transaction: what comes next finds it out.
const isAborted = (error: unknown): boolean => (error as { code?: unknown } | null)?.code === "25P02";

async function commit(client: pg.PoolClient): Promise<void> {
  const { command } = await answered(client.query("commit"), ANSWER_MS, "commit");
  if (command !== "COMMIT") throw aborted();
}

function ownEnd(): PerdureError {
  return new PerdureError(
    "PERDURE_STATE",
    "the transaction ended its own run, by cancelling it for one, and so could not be recorded: it is rolled back; do that in a step that is no transaction",
  );
}

function aborted(): PerdureError {
  return new PerdureError(
    "PERDURE_STATE",
    "the transaction was aborted by an error that the step's function caught; let it through, or use a savepoint",
  );
}
