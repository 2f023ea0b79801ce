/** Deleting old runs: each page in a transaction of its own, whatever the role's defaults are. */
import type { Database } from "./connect.ts";
import { type Expired, Store } from "./store.ts";

/** A run with a million items takes longer than a statement may here and there, and would never go. */
const BEGIN = "begin isolation level read committed read write; set local statement_timeout = 0";

/** Looks at up to `limit` runs behind a key, and deletes those that ended so long ago; null: as launches have said. */
export type Expire = (keepMs: number | null, behind: string, limit: number) => Promise<Expired>;

export function expireOn(database: Pick<Database, "beside">, schema: string): Expire {
  return (...page) =>
    database.beside(async (client) => {
      await client.query(BEGIN);
      const expired = await new Store(schema, client).expire(...page);
      await client.query("commit");
      return expired;
    });
}
