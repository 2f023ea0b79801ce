/** No raw Postgres error reaches a user. */
import { isConnectionLost, isCrossed, isTransient, toPerdureError } from "../db/pg-errors.ts";

/** The result of `work`, or an error of ours that says what was being done. */
export async function explain<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toPerdureError(error, doing);
  }
}

/** More deadlocks in a row than this are no accident. */
const TIMES = 10;

/** As explain, for one statement: where it meets a deadlock, nothing of it took effect, and it is issued again. */
export function insist<T>(doing: string, statement: () => Promise<T>): Promise<T> {
  const tried = async (times: number): Promise<T> => {
    try {
      return await statement();
    } catch (error) {
      if (times >= TIMES || !isCrossed(error)) throw error;
      return tried(times + 1);
    }
  };
  return explain(doing, () => tried(1));
}

/** How long a connection that is lost may take to come back. */
const PATIENCE_MS = 60_000;

/** As insist, also where the connection was lost: for a statement that may take effect twice. */
export function persist<T>(doing: string, statement: () => Promise<T>): Promise<T> {
  const since = performance.now();
  const tried = async (times: number): Promise<T> => {
    try {
      return await statement();
    } catch (error) {
      const lost = isConnectionLost(error) || isTransient(error);
      if (!lost || performance.now() - since > PATIENCE_MS) throw error;
      await new Promise((resolve) => setTimeout(resolve, Math.min(1000, 10 * 2 ** times)));
      return tried(times + 1);
    }
  };
  return explain(doing, () => tried(1));
}
