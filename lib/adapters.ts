/**
 * `perdure/adapters`: the transaction of an ORM as the client of `perdure.using()`, so that a run starts with the rows that the ORM
 * writes, or not at all. Nothing is imported from the ORMs; an application without them compiles.
 */
import type { CallerClient } from "./core/types.ts";

export type { CallerClient } from "./core/types.ts";

/** What is used of drizzle's transaction on Postgres, whatever the driver. */
export interface DrizzleTransaction {
  /** Runs what has a `getSQL()`. */
  execute(query: any): PromiseLike<any>;
}

/** What is used of kysely's transaction on Postgres. */
export interface KyselyTransaction {
  /** Runs a compiled query. */
  executeQuery(query: any): Promise<{ rows: any[] }>;
}

/** What is used of knex's transaction on Postgres. */
export interface KnexTransaction {
  /** Runs a statement with `?` in place of its values. */
  raw(sql: string, bindings: any): PromiseLike<any>;
}

/**
 * The client behind drizzle's transaction, for `perdure.using()`.
 *
 * @param tx What `db.transaction()` gives. The connection itself, outside a transaction, is refused when it is used: PERDURE_STATE.
 * @example
 * await db.transaction(async (tx) => {
 *   await tx.insert(orders).values({ id });
 *   await perdure.using(drizzle(tx)).start(processOrder.with({ id }), id);
 * });
 */
export function drizzle(tx: DrizzleTransaction): CallerClient {
  return {
    async query(sql, params) {
      const query = { toQuery: () => ({ sql, params }) };
      try {
        const result = await tx.execute({ getSQL: () => query });
        return { rows: Array.isArray(result) ? result : result.rows };
      } catch (error) {
        // It wraps what the driver throws, in a text with all parameters.
        throw (error as { cause?: unknown } | null)?.cause ?? error;
      }
    },
  };
}

/**
 * The client behind kysely's transaction, for `perdure.using()`.
 *
 * @param trx What `db.transaction().execute()` gives. The connection itself, outside a transaction, is refused when it is used: PERDURE_STATE.
 * @example
 * await db.transaction().execute(async (trx) => {
 *   await trx.insertInto("orders").values({ id }).execute();
 *   await perdure.using(kysely(trx)).start(processOrder.with({ id }), id);
 * });
 */
export function kysely(trx: KyselyTransaction): CallerClient {
  return {
    query: (sql, parameters) =>
      trx.executeQuery({
        sql,
        parameters,
        query: { kind: "RawNode", sqlFragments: [sql], parameters: [] },
        queryId: { queryId: "perdure" },
      }),
  };
}

/**
 * The client behind knex's transaction, for `perdure.using()`.
 *
 * @param trx What `db.transaction()` gives. The connection itself, outside a transaction, is refused when it is used: PERDURE_STATE.
 * @example
 * await db.transaction(async (trx) => {
 *   await trx("orders").insert({ id });
 *   await perdure.using(knex(trx)).start(processOrder.with({ id }), id);
 * });
 */
export function knex(trx: KnexTransaction): CallerClient {
  return {
    async query(text, values) {
      const bindings: unknown[] = [];
      // Its own placeholders, and no others: what stands in quotes is left alone.
      const sql = text.replace(/"[^"]*"|'[^']*'|\$(\d+)/g, (part, place?: string) => {
        if (place === undefined) return part.replaceAll("?", "\\?");
        bindings.push(values[Number(place) - 1]);
        return "?";
      });
      try {
        return await trx.raw(sql, bindings);
      } catch (error) {
        throw withoutStatement(error);
      }
    },
  };
}

/** It puts the statement, with all its values, before the message of the server. */
function withoutStatement(error: unknown): unknown {
  if (error instanceof Error) error.message = error.message.replace(/^select .* - /s, "");
  return error;
}
