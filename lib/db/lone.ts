/**
 * Calls of functions beside the batches, each a transaction of its own in one round trip: READ COMMITTED, whatever the role or the database has
 * for a default, and asked again where another transaction was in the way or the role's statement_timeout cut it off.
 */
import type { ClientBase, QueryConfig } from "pg";
import type { Database } from "./connect.ts";
import { pause } from "./deadline.ts";
import { isCrossed, isTooSlow } from "./pg-errors.ts";
import type { Queryable, Statement } from "./store.ts";

/** What is cut off is given as long as this, once. */
export const SLOW_MS = 5000;
const RERUNS = 5;
const BEGIN = "begin isolation level read committed read write";
const IS_AS_BEGUN = "'read committed' = current_setting('transaction_isolation')";

/** Connections: whether their transactions are by default what BEGIN asks for. */
const asBegun = new WeakMap<ClientBase, boolean>();

/** The pool of an engine, for its stores. */
export function lone(database: Pick<Database, "beside" | "pooled">): Queryable {
  return { query: (statement) => ask(database, database.pooled ? unnamed(statement) : statement) };
}

const unnamed = ({ name: _, ...statement }: Statement): Statement => statement;

async function ask({ beside }: Pick<Database, "beside">, statement: Statement): Promise<{ rows: any[] }> {
  let slow = false;
  for (let reruns = 0; ; reruns += 1) {
    try {
      return await beside((client) => (slow ? between(client, statement, slow) : once(client, statement)));
    } catch (error) {
      // Nothing of it took effect.
      if (reruns === RERUNS || !(isCrossed(error) || (isTooSlow(error) && !slow))) throw error;
      slow ||= isTooSlow(error);
      await pause(Math.random() * 10 * 2 ** reruns);
    }
  }
}

async function once(client: ClientBase, statement: Statement): Promise<{ rows: any[] }> {
  const { text, call, ...rest } = statement;
  if (!call) return client.query(statement as QueryConfig);
  if (asBegun.get(client) === false) return between(client, statement, false);
  // A condition without a column is looked at before the function is called.
  const answer = await client.query({ ...rest, text: `${text} where ${IS_AS_BEGUN}` } as QueryConfig);
  if (answer.rows.length > 0) asBegun.set(client, true);
  // The function may have said nothing.
  else if (!asBegun.has(client)) {
    const { rows } = await client.query(`select ${IS_AS_BEGUN} as "is"`);
    asBegun.set(client, rows[0].is);
  }
  return asBegun.get(client) ? answer : between(client, statement, false);
}

async function between(client: ClientBase, statement: Statement, slow: boolean): Promise<{ rows: any[] }> {
  await client.query(slow ? `${BEGIN}; set local statement_timeout = ${SLOW_MS}` : BEGIN);
  const answer = await client.query(statement as QueryConfig);
  await client.query("commit");
  return answer;
}
