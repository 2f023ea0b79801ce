/** The database of the tests: one server for the whole run, one schema per test. */

import { randomBytes } from "node:crypto";
import pg from "pg";
import type { Test } from "tap";
import { startPostgres } from "../../lib/db/embedded.ts";

/** Settings for a server that many test files share at once. */
export const TEST_SERVER = { durable: false, settings: { max_connections: "300" } } as const;

let url: Promise<string> | undefined;

/** The server of `npm test`, or one of this file's own when tap was called directly; it stops with the process. */
export function server(): Promise<string> {
  url ??= process.env.DATABASE_URL
    ? Promise.resolve(process.env.DATABASE_URL)
    : startPostgres(TEST_SERVER).then((started) => started.url);
  return url;
}

export interface FreshSchema {
  readonly url: string;
  readonly schema: string;
  readonly pool: pg.Pool;
}

/** Of what a test itself asks, whatever the server's defaults are: `npm run matrix` changes them. */
export const OWN = "-c default_transaction_isolation=read\\ committed -c statement_timeout=0";

/** The name of a schema that nobody else has, dropped after the test. It is not created here: that is migrate's work. */
export async function freshSchema(t: Pick<Test, "teardown">): Promise<FreshSchema> {
  const connectionString = await server();
  const schema = `t_${randomBytes(6).toString("hex")}`;
  const pool = new pg.Pool({ connectionString, max: 5, options: OWN });
  pool.on("error", () => {});
  t.teardown(async () => {
    await pool.query(`drop schema if exists ${schema} cascade`);
    await pool.end();
  });
  return { url: connectionString, schema, pool };
}

/** A database of its own, for what lives outside one schema. Dropped after the test. */
export async function freshDatabase(t: Pick<Test, "teardown">): Promise<string> {
  const name = `d_${randomBytes(6).toString("hex")}`;
  const root = await server();
  await inDatabase(root, (client) => client.query(`create database ${name} template template0`));
  t.teardown(() => inDatabase(root, (client) => client.query(`drop database if exists ${name} with (force)`)));
  return Object.assign(new URL(root), { pathname: `/${name}` }).href;
}

/** Runs `work` on a connection of its own. */
export async function inDatabase<T>(connectionString: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString });
  client.on("error", () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
