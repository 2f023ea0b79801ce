/** Somebody else's session: a transaction that stays open, and who waits for it. */
import pg from "pg";
import type { Test } from "tap";
import type { Bench } from "./engine.ts";
import { eventually } from "./eventually.ts";
import { PATIENCE_MS } from "./gate.ts";
import { OWN } from "./postgres.ts";

export type Sql = (text: string, values?: unknown[]) => Promise<any[]>;

/** A connection of its own; `:SCHEMA` stands for the schema. */
export async function stranger(t: Test, { url, schema }: Pick<Bench, "url" | "schema">): Promise<Sql> {
  const client = new pg.Client({ connectionString: url, options: OWN });
  client.on("error", () => {});
  await client.connect();
  t.teardown(() => client.end());
  return async (text, values = []) => (await client.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
}

/** Resolves when so many sessions wait for a lock in a function of this schema. */
export async function blockedIn({ sql, schema }: Pick<Bench, "sql" | "schema">, fn: string, many = 1): Promise<void> {
  const text = "select from pg_stat_activity where wait_event_type = 'Lock' and query like $1";
  await eventually(async () => (await sql(text, [`%"${schema}".${fn}(%`])).length >= many, PATIENCE_MS);
}
