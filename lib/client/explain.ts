/** No raw Postgres error reaches a user. */
import { toPerdureError } from "../db/pg-errors.ts";

/** The result of `work`, or an error of ours that says what was being done. */
export async function explain<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toPerdureError(error, doing);
  }
}
