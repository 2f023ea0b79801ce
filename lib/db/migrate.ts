/**
 * Brings a schema up to date under whatever traffic it has: any number of processes may call it at once, each migration is applied once. What
 * others do waits for a migration no longer than BUDGET_MS, whoever holds what the migration waits for: then it gives way, and tries again.
 */
import type pg from "pg";
import { PerdureError } from "../core/errors.ts";
import { checkSchemaName } from "../core/options.ts";
import { committedMigrations, type LedgerRow, type Migration, pendingMigrations } from "./migration-files.ts";
import { Patience } from "./migration-patience.ts";
import { isConnectionLost, isOurs, toPerdureError } from "./pg-errors.ts";
import { checkRights } from "./rights.ts";
import { inSchema, quoteSchema } from "./schema-name.ts";

export interface MigrateOptions {
  /** Opens a direct connection, which migrate ends. */
  readonly connect: () => Promise<pg.Client>;
  readonly schema: string;
  /** How long one statement waits for a lock before all is tried again, as others queue behind it. Default 1300: the server cancels an autovacuum that is in the way after 1000. */
  readonly lockTimeoutMs?: number;
  /** How often all is tried, within two minutes at most. Default 100. */
  readonly attempts?: number;
  /** Default: those of this release. */
  readonly migrations?: readonly Migration[];
  readonly log?: (message: string) => void;
}

/** How long a migration may take in all beside processes at work, its waits for locks included. */
const BUDGET_MS = 1800;
const LOCK_TIMEOUT_MS = 1300;
/** Another process may be applying: its work is waited for, but not without end. */
const TURN_TIMEOUT_MS = 60_000;

/** Whatever timeouts and names the role brings along. */
const BEGIN = `begin isolation level read committed read write;
  set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0; set local search_path = '';
  set local client_min_messages = warning; set local lock_timeout =`;

/** Applies what is missing and gives its names. */
export async function migrate(options: MigrateOptions): Promise<{ applied: string[] }> {
  checkSchemaName(options.schema);
  const applied: string[] = [];
  const doing = `migrating schema "${options.schema}"`;
  const patience = new Patience({ doing, ...options });
  const once = async (client: pg.Client): Promise<void> => {
    // Without a lock first: the usual start finds nothing to do and must wait for nobody.
    const pending = await pendingIn(client, options);
    if (pending.length === 0) return;
    await checkOwner(client, options.schema, pending.at(-1)!.name);
    await inTurn(client, options, (work) => applyPending(work, options, patience, applied));
  };
  await patience
    .through(mayPass, () => withClient(options, once))
    .catch((error) => {
      throw toPerdureError(error, doing);
    });
  return { applied };
}

/** For an application that migrates by itself: refuses a schema that is behind, or too far ahead. */
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

/**
 * No other migration of this schema overlaps. The turn is a transaction that does nothing, so it holds neither a snapshot nor a lock that
 * anybody needs; the work is done on a connection beside it, and the turn is kept while that pauses.
 */
async function inTurn(
  client: pg.Client,
  options: MigrateOptions,
  work: (client: pg.Client) => Promise<void>,
): Promise<void> {
  await client.query(`${BEGIN} ${TURN_TIMEOUT_MS}`);
  // Without parameters: the portal of a query that has some keeps its snapshot, for which the build of an index would wait.
  const key = client.escapeLiteral(`perdure:migrate:${options.schema}`);
  await client.query(`select pg_advisory_xact_lock(hashtextextended(${key}, 0))`);
  await withClient(options, work);
  await client.query("commit");
}

const pendingIn = async (client: pg.Client, { schema, migrations }: MigrateOptions): Promise<readonly Migration[]> =>
  pendingMigrations(await readLedger(client, schema), schema, migrations);

async function applyPending(
  client: pg.Client,
  options: MigrateOptions,
  patience: Patience,
  applied: string[],
): Promise<void> {
  for (;;) {
    const [next] = await pendingIn(client, options);
    if (!next) return;
    const apply = next.builds === null ? applyInOne : build;
    await patience.through(isInTheWay, () => apply(client, options, next));
    applied.push(next.name);
    // That there is a schema now is no news.
    if (next.worksWith !== null) options.log?.(`applied ${next.name} to schema "${options.schema}"`);
  }
}

/** The migration and its row in the ledger: one transaction. */
async function applyInOne(client: pg.Client, options: MigrateOptions, migration: Migration): Promise<void> {
  const { schema } = options;
  await client.query(`${BEGIN} ${Math.ceil(options.lockTimeoutMs ?? LOCK_TIMEOUT_MS)}`);
  try {
    if (migration.worksWith === null) await createLedger(client, schema);
    // First of all: whoever applies it too waits here, and finds it done.
    await note(client, schema, migration);
    const text = inSchema(`${migration.body};\nselect :SCHEMA.settle_rights();`, schema);
    if (migration.worksWith === null) await client.query(text);
    else await runWithin(client, text, await roomFor(client, schema, migration));
    await client.query("commit");
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
}

/** All of it as one statement, so that its timeout counts for the whole. */
async function runWithin(client: pg.Client, text: string, budgetMs: number): Promise<void> {
  await client.query("select set_config('perdure.migration', $1, true)", [text]);
  await client.query(`set local statement_timeout = ${budgetMs}`);
  await client.query("do $$ begin execute current_setting('perdure.migration'); end $$");
}

/** How long it may take; 0: nobody is at work. Refuses what a process at work could not live with. */
async function roomFor(client: pg.Client, schema: string, { name, worksWith }: Migration): Promise<number> {
  // Beats and launches wait, and find it applied: who is too old for it does not get in between.
  if (worksWith !== committedMigrations()[0]?.name)
    await client.query(inSchema("lock table :SCHEMA.worker in share row exclusive mode", schema));
  const alive = inSchema(
    `select name, knows, knows collate "C" < $1 as old from :SCHEMA.worker where dead_at is null and beat_at + lease > clock_timestamp() order by name`,
    schema,
  );
  const { rows } = await client.query<{ name: string; knows: string; old: boolean }>(alive, [worksWith]);
  const old = rows.filter((row) => row.old);
  if (old.length > 0) {
    const who = old.map((row) => `${row.name} (${row.knows})`).join(", ");
    const text = `schema "${schema}" is not migrated: ${name} works with no process that does not know ${worksWith}, and of these are at work: ${who}; stop them, or deploy the release before this one everywhere, then start again`;
    throw new PerdureError("PERDURE_SCHEMA", text);
  }
  return rows.length === 0 ? 0 : BUDGET_MS;
}

/** An index, beside the traffic: it waits for the transactions that are open, and nobody for it. */
async function build(client: pg.Client, { schema }: MigrateOptions, migration: Migration): Promise<void> {
  await client.query("set statement_timeout = '2min'; set lock_timeout = 0");
  try {
    await dropBroken(client, schema, migration.builds!);
    await client.query(inSchema(migration.body, schema));
    await note(client, schema, migration);
  } finally {
    await client.query("reset statement_timeout; reset lock_timeout").catch(() => {});
  }
}

/** What an attempt that was broken off has left has its name, and is of no use. */
async function dropBroken(client: pg.Client, schema: string, index: string): Promise<void> {
  const broken = await client.query(
    `select from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = $1 and c.relname = $2 and not i.indisvalid`,
    [schema, index],
  );
  if (broken.rowCount !== 0) await client.query(inSchema(`drop index concurrently :SCHEMA.${index}`, schema));
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
        works_with text,
        applied_at timestamptz not null default now()
      )`,
      schema,
    ),
  );
}

async function note(client: pg.Client, schema: string, { name, hash, worksWith }: Migration): Promise<void> {
  const ledger = inSchema("insert into :SCHEMA.migrations (name, hash, works_with) values ($1, $2, $3)", schema);
  await client.query(ledger, [name, hash, worksWith]);
}

async function readLedger(client: pg.ClientBase, schema: string): Promise<LedgerRow[]> {
  const known = await client.query(
    "select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = 'migrations'",
    [schema],
  );
  if (known.rowCount === 0) return [];
  const text = `select name, hash, works_with from :SCHEMA.migrations order by name collate "C"`;
  return (await client.query(inSchema(text, schema))).rows;
}

/** Whether somebody's lock is in the way, so that the same statement may succeed later. */
function isInTheWay(error: unknown): boolean {
  return /^(55P03|57014|40P01)$/.test(codeOf(error) ?? "");
}

/** What is in the way, a session cut off, no session free, and two processes that create one schema at once. */
function mayPass(error: unknown): boolean {
  const { table, cause } = error as { table?: string; cause?: unknown };
  const code = codeOf(error);
  if (isOurs(error)) return cause !== undefined && mayPass(cause);
  if (code === "23505") return /^(pg_namespace|pg_class|pg_type|migrations)$/.test(table ?? "");
  return /^(55P03|57014|40P01|40001|53300|57P0|08)/.test(code ?? "") || (code === undefined && isConnectionLost(error));
}

const codeOf = (error: unknown): string | undefined => (error as { code?: string }).code;

const ROLE = `select current_user::text as role, not exists (
  select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = 'migrations') as making`;

async function refused(client: pg.Client, error: unknown, schema: string): Promise<PerdureError> {
  const role = await client.query(ROLE, [schema]).catch(() => undefined);
  return toPerdureError(error, `migrating schema "${schema}"`, { schema, ...role?.rows[0] });
}
