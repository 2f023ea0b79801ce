/**
 * Writes in the caller's own transaction, on the caller's connection: they exist once it commits, and a rollback leaves nothing. They
 * wait for locks as the caller's own statements do. Each statement first looks whether there is a transaction that may write, and does
 * nothing otherwise, so that neither case costs the caller its transaction.
 */
import { randomUUID } from "node:crypto";
import { PerdureError } from "../core/errors.ts";
import { attempt, isArray } from "../core/options.ts";
import type { CallerClient } from "../core/types.ts";
import { toPerdureError } from "./pg-errors.ts";
import { quoteSchema } from "./schema-name.ts";
import { statement } from "./statement.ts";
import type { Queryable } from "./store.ts";
import type { BatchContext, Hearer, StartRow, WriteKind, Writer, Writes } from "./writes.ts";

export interface CallerOptions {
  readonly schema: string;
  /** Whether workers are told: the hint rides in the same transaction. */
  readonly notify: boolean;
}

/** Nothing is leased at birth: whether the run will exist is not known here. */
const CONTEXT: BatchContext = {
  worker: null,
  lanes: { workflows: [], versions: [], queues: [] },
  named: false,
  again: false,
  lockMs: 0,
  apart: false,
};

/** A setting that lasts as long as a transaction, and outside of one no longer than its own statement. */
const MARK = "select set_config('perdure.caller', $1, true), current_setting('transaction_read_only') as readonly";

interface Gathered {
  readonly kind: WriteKind;
  readonly row: unknown;
  readonly hearer: Hearer<any>;
}

export class CallerWriter implements Writer, Queryable {
  readonly #client: CallerClient;
  readonly #options: CallerOptions;
  readonly #mark = randomUUID();
  #marked = false;
  #gathered: Gathered[] = [];
  #last: Promise<void> = Promise.resolve();

  constructor(client: CallerClient, options: CallerOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** Resolves when it is written; it is durable once the caller commits. What is asked for in one go is one statement. */
  write<K extends WriteKind>(kind: K, row: Writes[K]["row"]): Promise<Writes[K]["answer"]> {
    return new Promise((resolve, reject) => this.put(kind, row, { resolve, reject, onAside: () => {} }));
  }

  put<K extends WriteKind>(kind: K, row: Writes[K]["row"], hearer: Hearer<K>): void {
    if (this.#gathered.length === 0) this.#last = this.#last.then(() => this.#writeGathered());
    this.#gathered.push({ kind, row, hearer });
  }

  async #writeGathered(): Promise<void> {
    const gathered = this.#gathered;
    this.#gathered = [];
    while (gathered.length > 0) {
      const { kind } = gathered[0]!;
      const end = gathered.findIndex((item) => item.kind !== kind);
      await this.#writeGroup(kind, gathered.splice(0, end === -1 ? gathered.length : end));
    }
  }

  async #writeGroup(kind: WriteKind, group: readonly Gathered[]): Promise<void> {
    const { text, values } = statement(kind, group, { ...CONTEXT, schema: this.#options.schema });
    try {
      const rows = await this.#rows(`select f.*${this.#hint(kind, group, values)} from (${text}) f`, values);
      for (const row of rows) group[row.ord - 1]!.hearer.resolve(row);
    } catch (error) {
      for (const { hearer } of group) hearer.reject(error);
    }
  }

  /** The column that tells workers of the row's news, where there is some. */
  #hint(kind: WriteKind, group: readonly Gathered[], values: unknown[]): string {
    if (!this.#options.notify) return "";
    const schema = quoteSchema(this.#options.schema);
    if (kind !== "start")
      return `, case when f.woken then ${schema}.hint('w') is null when f.working then ${schema}.hint('c') is null end as told`;
    const delayed = group.map(({ row }) => (row as StartRow).delay !== null || (row as StartRow).startAt !== null);
    values.push(`{${delayed.join()}}`);
    return `, case f.verdict when 'created' then ${schema}.tell_start(($${values.length}::boolean[])[f.ord]) end as told`;
  }

  /** Any other of our statements. */
  async query({ text, values = [] }: { text: string; values?: unknown[] }): Promise<{ rows: any[] }> {
    return { rows: await this.#rows(text, [...values]) };
  }

  async #rows(text: string, values: unknown[]): Promise<any[]> {
    try {
      const isKnown = isInTransaction(this.#client);
      if (!isKnown && !this.#marked) await this.#enter();
      const rows = await this.#ask(text, values, isKnown ? null : this.#mark);
      if (rows) return rows;
      // Another transaction by now, one back to a savepoint, or none.
      await this.#enter();
      const found = await this.#ask(text, values, this.#mark);
      if (found) return found;
    } catch (error) {
      throw toPerdureError(error, "writing in the caller's transaction");
    }
    const none =
      "the client given to using() is in no transaction, so nothing was written: begin one on that very client";
    throw new PerdureError("PERDURE_STATE", none);
  }

  async #enter(): Promise<void> {
    const rows = rowsOf(await this.#client.query(MARK, [this.#mark]));
    this.#marked = true;
    if (rows[0]?.readonly !== "on") return;
    throw new PerdureError("PERDURE_READ_ONLY", "the caller's transaction is read only: begin it with `read write`");
  }

  /** The rows of a statement, or undefined: there is no transaction that may write. As text, whatever the client makes of other types. */
  async #ask(text: string, values: unknown[], mark: string | null): Promise<any[] | undefined> {
    const own = `$${values.length + 1}::text`;
    const answered = await this.#client.query(
      `select (select coalesce(json_agg(a), '[]') from (${text}) a)::text as answers
      where current_setting('transaction_read_only') = 'off' and (${own} is null or current_setting('perdure.caller', true) = ${own})`,
      [...values, mark],
    );
    const [row] = rowsOf(answered);
    return row && JSON.parse(row.answers);
  }
}

/** What a client answered, which may be anything that has a `query`. */
function rowsOf(answered: unknown): any[] {
  const rows: unknown = attempt(() => (answered as { rows?: unknown }).rows);
  if (isArray(rows)) return rows;
  const text =
    "the client given to using() answered a statement without rows: its query(text, values) must return { rows }, as pg's does";
  throw new PerdureError("PERDURE_OPTION", text);
}

/** A pg client knows. Of others, and of one with statements under way, the database is asked. */
function isInTransaction(client: CallerClient): boolean {
  return (client as { getTransactionStatus?: () => unknown }).getTransactionStatus?.() === "T";
}
