/** Brings a schema up to date: any number of processes may call it at once, each migration is applied once. */

import { setTimeout as pause } from "node:timers/promises";
import type pg from "pg";
import { PerdureError } from "../core/errors.ts";
import { checkSchemaName } from "../core/options.ts";
import { type LedgerRow, type Migration, pendingMigrations } from "./migration-files.ts";
import { isConnectionLost, isOurs, toPerdureError } from "./pg-errors.ts";
import { checkRights } from "./rights.ts";
import { inSchema, quoteSchema } from "./schema-name.ts";

export interface MigrateOptions {
  /** Opens a direct connection, which migrate ends. */
  readonly connect: () => Promise<pg.Client>;
  readonly schema: string;
  /** How long one statement waits for a lock before all is tried again, so that nobody queues behind it. Default 2000. */
  readonly lockTimeoutMs?: number;
  /** How often all is tried, within two minutes at most. Default 20. */
  readonly attempts?: number;
  readonly log?: (message: string) => void;
}

const PATIENCE_MS = 120_000;
/** Another process may be applying: its work is waited for, but not without end. */
const TURN_TIMEOUT_MS = 60_000;

/** Applies what is missing and gives its names. */
export async function migrate(options: MigrateOptions): Promise<{ applied: string[] }> {
  checkSchemaName(options.schema);
  const applied: string[] = [];
  const deadline = Date.now() + PATIENCE_MS;
  for (let attempt = 1; ; attempt++) {
    try {
      await withClient(options, (client) => applyPending(client, options, applied));
      return { applied };
    } catch (error) {
      if (!mayPass(error) || attempt >= (options.attempts ?? 20) || Date.now() > deadline)
        throw inWords(error, options, attempt);
      options.log?.(`migrating schema "${options.schema}": ${(error as Error).message}; trying again`);
      await pause(Math.random() * Math.min(50 * 2 ** attempt, 1000));
    }
  }
}

/** For an application that migrates by itself: refuses a schema that is behind, or ahead. */
export async function assertMigrated(client: pg.ClientBase, schema: string): Promise<void> {
  checkSchemaName(schema);
  const ledger = await readLedger(client, schema).catch((error) => {
    throw toPerdureError(error, `reading the migrations of schema "${schema}"`);
  });
  const pending = pendingMigrations(ledger, schema);
  if (pending.length === 0) return;
  const have = ledger.at(-1)?.name ?? "none";
  const text = `schema "${schema}" has migration ${have} and needs ${pending.at(-1)!.name}: call migrate() of an engine, or launch with \`migrate\` on`;
  throw new PerdureError("PERDURE_SCHEMA", text);
}

async function withClient(options: MigrateOptions, work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = await options.connect();
  try {
    await work(client).catch(async (error) => {
      throw isOurs(error) || mayPass(error) ? error : await refused(client, error, options.schema);
    });
  } finally {
    await client.end().catch(() => {});
  }
}

async function applyPending(client: pg.Client, options: MigrateOptions, applied: string[]): Promise<void> {
  // Without a lock first: the usual start finds nothing to do and must wait for nobody.
  let pending = pendingMigrations(await readLedger(client, options.schema), options.schema);
  if (pending.length > 0) await checkOwner(client, options.schema, pending.at(-1)!.name);
  while (pending.length > 0) {
    const name = await inTurn(client, options, async () => {
      await createLedger(client, options.schema);
      pending = pendingMigrations(await readLedger(client, options.schema), options.schema);
      return pending[0] && apply(client, options.schema, pending[0]);
    });
    if (name !== undefined) applied.push(name);
    if (name !== undefined) options.log?.(`applied ${name} to schema "${options.schema}"`);
    pending = pending.slice(1);
  }
}

/** A transaction that no other migration of this schema overlaps, whatever timeouts and names the role brings along. */
async function inTurn<T>(client: pg.Client, options: MigrateOptions, work: () => Promise<T>): Promise<T> {
  await client.query(`begin isolation level read committed read write;
    set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0; set local search_path = '';
    set local client_min_messages = warning; set local lock_timeout = ${TURN_TIMEOUT_MS}`);
  try {
    await client.query("select pg_advisory_xact_lock(hashtextextended($1, 0))", [`perdure:migrate:${options.schema}`]);
    await client.query(`set local lock_timeout = ${Math.ceil(options.lockTimeoutMs ?? 2000)}`);
    const result = await work();
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
}

/** Only the owner changes a schema; another role does not try, as it would come half the way. */
async function checkOwner(client: pg.ClientBase, schema: string, needed: string): Promise<void> {
  const rights = await checkRights(client, schema);
  if (!rights || rights.owns) return;
  const text = `schema "${schema}" is behind ${needed}, and role "${rights.role}" does not own it: run migrate() as "${rights.owner}"`;
  throw new PerdureError("PERDURE_SCHEMA", text);
}

async function createLedger(client: pg.Client, schema: string): Promise<void> {
  // Looked up first: `create schema if not exists` asks for a right on the database even where the schema exists.
  const { rowCount } = await client.query("select from pg_namespace where nspname = $1", [schema]);
  if (rowCount === 0) await client.query(`create schema if not exists ${quoteSchema(schema)}`);
  await client.query(
    inSchema(
      `create table if not exists :SCHEMA.migrations (
        name text primary key,
        hash text not null,
        applied_at timestamptz not null default now()
      )`,
      schema,
    ),
  );
}

async function readLedger(client: pg.ClientBase, schema: string): Promise<LedgerRow[]> {
  const known = await client.query(
    "select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = 'migrations'",
    [schema],
  );
  if (known.rowCount === 0) return [];
  const { rows } = await client.query(inSchema("select name, hash from :SCHEMA.migrations order by name", schema));
  return rows;
}

async function apply(client: pg.Client, schema: string, migration: Migration): Promise<string> {
  await client.query(inSchema(migration.body, schema));
  await client.query(inSchema("select :SCHEMA.settle_rights()", schema));
  const ledger = inSchema("insert into :SCHEMA.migrations (name, hash) values ($1, $2)", schema);
  await client.query(ledger, [migration.name, migration.hash]);
  return migration.name;
}

/** Lock waits, deadlocks, a session cut off, no session free, and two processes that create one schema at once. */
function mayPass(error: unknown): boolean {
  const { code, table, cause } = error as { code?: string; table?: string; cause?: unknown };
  if (isOurs(error)) return cause !== undefined && mayPass(cause);
  if (code === "23505") return table === "pg_namespace" || table === "pg_class" || table === "pg_type";
  return /^(55P03|40P01|40001|53300|57P0|08)/.test(code ?? "") || (code === undefined && isConnectionLost(error));
}

const ROLE = `select current_user::text as role, not exists (
  select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = 'migrations') as making`;

async function refused(client: pg.Client, error: unknown, schema: string): Promise<PerdureError> {
  const role = await client.query(ROLE, [schema]).catch(() => undefined);
  return toPerdureError(error, `migrating schema "${schema}"`, { schema, ...role?.rows[0] });
}

function inWords(error: unknown, { schema }: MigrateOptions, attempts: number): PerdureError {
  const ours = toPerdureError(error, `migrating schema "${schema}"`);
  if (!mayPass(error)) return ours;
  const fix = "look in pg_stat_activity for a session that keeps its tables locked, then start again";
  return new PerdureError(ours.code, `${ours.message}; gave up after ${attempts} attempts: ${fix}`, {
    cause: ours.cause,
  });
}
