/** From the option `database` to a pool that survives lost connections, and the settings for connections beside it. */

import { resolve } from "node:path";
import pg from "pg";
import { PerdureError } from "../core/errors.ts";
import type { DatabaseConfig, DatabaseOption, DatabasePool } from "./database-option.ts";
import { pause } from "./deadline.ts";
import { startPostgres } from "./embedded.ts";
import { toPerdureError } from "./pg-errors.ts";
import { TYPES } from "./reading.ts";

export interface Database {
  readonly pool: pg.Pool;
  readonly ownsPool: boolean;
  /** A pooler answers for the server: what one statement leaves in its session, the next may not find. Known once the server was checked. */
  pooled: boolean;
  /** Settings for a client of its own, such as the listener's: those of the pool, then `overrides`. */
  clientConfig(overrides?: pg.ClientConfig): pg.ClientConfig;
  /** Runs `work` on a client of the pool; one that fails is not used again. */
  beside<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T>;
  /** Present when an embedded server was started for want of another. */
  readonly stopEmbedded?: () => Promise<void>;
  /** Ends what was opened here: our listeners, our pool, the embedded server. A pool that was given stays open. */
  close(): Promise<void>;
}

const NO_DATABASE =
  "no database is given: pass `database` (a URL, a pg config or a pg Pool) or set DATABASE_URL, such as postgres://user:password@host:5432/app";
const NOT_A_DATABASE =
  "option `database` is not a Postgres URL such as postgres://user:password@host:5432/app, nor a pg config, nor a pg Pool";

const SETTINGS = { application_name: "perdure", keepAlive: true, keepAliveInitialDelayMillis: 10_000 } as const;
/** How long clients that are out may take to come back when the pool ends. */
const GOODBYE_MS = 2000;
const POOL = { max: 10, connectionTimeoutMillis: 5000 } as const;

/** Opens no connection; the embedded server, where it is needed, is started. */
export async function connectDatabase(option?: DatabaseOption): Promise<Database> {
  const given = option ?? (process.env.DATABASE_URL || undefined);
  if (given === undefined) return connectEmbedded();
  if (isPool(given)) return database(given as unknown as pg.Pool, false);
  return database(makePool(configOf(given)), true);
}

async function connectEmbedded(): Promise<Database> {
  if (process.env.NODE_ENV === "production") throw new PerdureError("PERDURE_OPTION", NO_DATABASE);
  const server = await startPostgres({ dataDir: resolve(".perdure") });
  return database(makePool({ connectionString: server.url }), true, server.stop);
}

function isPool(value: DatabaseOption): value is DatabasePool {
  try {
    return typeof value === "object" && value !== null && "totalCount" in value && typeof value.connect === "function";
  } catch {
    return false;
  }
}

function configOf(value: string | DatabaseConfig): pg.PoolConfig {
  if (typeof value === "string" && /^(postgres(ql)?|socket):|^\//.test(value)) return { connectionString: value };
  const isConfig = typeof value === "object" && value !== null && !("query" in value) && !Array.isArray(value);
  if (!isConfig) throw new PerdureError("PERDURE_OPTION", NOT_A_DATABASE);
  const config: pg.PoolConfig = { ...(value as pg.PoolConfig) };
  // By name: where the settings were taken from another pool, its password is hidden from the copy above.
  if (value.password !== undefined) config.password = value.password;
  return config;
}

function makePool(config: pg.PoolConfig): pg.Pool {
  try {
    // The driver reads a URL only when it makes a client, and its error would show the URL.
    new pg.Client(config);
  } catch {
    throw new PerdureError("PERDURE_OPTION", NOT_A_DATABASE);
  }
  const pool = new pg.Pool({ ...SETTINGS, ...POOL, ...config, ...passwordOf(config) });
  return pool;
}

const passwordOf = (config: pg.ClientConfig): pg.ClientConfig =>
  config.password === undefined ? {} : { password: config.password };

function database(pool: pg.Pool, ownsPool: boolean, stopEmbedded?: () => Promise<void>): Database {
  const clients = surviveLostConnections(pool);
  let closing: Promise<void> | undefined;
  const close = async () => {
    if (ownsPool) await endPool(pool, clients.open);
    clients.deafen();
    await stopEmbedded?.();
  };
  return {
    pool,
    ownsPool,
    pooled: false,
    clientConfig: (overrides) => ({ ...pool.options, ...passwordOf(pool.options), ...SETTINGS, ...overrides }),
    beside: (work) => beside(pool, work),
    ...(stopEmbedded && { stopEmbedded }),
    close() {
      closing ??= close();
      return closing;
    },
  };
}

/** Gives a client back that is not used again. A half-open socket does not answer a goodbye, so it is cut. */
export function discard(client: pg.PoolClient): void {
  client.release(true);
  (client as unknown as pg.Client).connection.stream.destroy();
}

async function beside<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  try {
    const result = await work(client);
    client.release();
    return result;
  } catch (error) {
    discard(client);
    throw error;
  }
}

/** An error event that nobody hears ends the process. Whoever uses the client learns of the loss from its query. */
function surviveLostConnections(pool: pg.Pool): { readonly open: Set<pg.PoolClient>; readonly deafen: () => void } {
  const heard = new WeakSet<pg.PoolClient>();
  const open = new Set<pg.PoolClient>();
  const ignore = () => {};
  const hear = (client: pg.PoolClient) => {
    if (heard.has(client)) return;
    heard.add(client);
    open.add(client);
    client.on("error", ignore);
  };
  const forget = (client: pg.PoolClient) => open.delete(client);
  // acquire too: a pool that was given may hold clients that connected before.
  pool.on("error", ignore).on("connect", hear).on("acquire", hear).on("remove", forget);
  const deafen = () => {
    pool.off("error", ignore).off("connect", hear).off("acquire", hear).off("remove", forget);
  };
  return { open, deafen };
}

/** A pool's end waits for clients that are out; a step that never gives its client back is not waited for. */
async function endPool(pool: pg.Pool, open: ReadonlySet<pg.PoolClient>): Promise<void> {
  const stop = new AbortController();
  void pool.end().finally(() => stop.abort());
  await pause(GOODBYE_MS, stop.signal);
  for (const client of open) client.connection.stream.destroy();
}

/** Opens a client of its own; the caller ends it. `options`: settings of its session, beside those of the config or its URL. */
export async function connectClient(config: pg.ClientConfig, options?: string): Promise<pg.Client> {
  const client = new pg.Client(config);
  const { connectionParameters } = client as unknown as { connectionParameters: { options?: string } };
  if (options) connectionParameters.options = `${connectionParameters.options ?? ""} ${options}`.trim();
  client.on("error", () => {});
  try {
    await client.connect();
    return client;
  } catch (error) {
    await client.end().catch(() => {});
    throw toPerdureError(error, `connecting to ${addressOf(client)}`);
  }
}

const SERVER = `select current_setting('server_version_num')::int as version, current_setting('server_version') as name,
  pg_is_in_recovery() as standby, pg_backend_pid() as pid, current_setting('transaction_read_only')::boolean as readonly`;

/** Refuses a server that is too old, a standby, or one where this role cannot write. Returns whether a pooler stands in front of it: that gives the client another session's number. */
export async function checkServer(client: pg.ClientBase): Promise<{ readonly pooled: boolean }> {
  const at = addressOf(client);
  const { rows } = await client.query({ text: SERVER, types: TYPES } as pg.QueryConfig).catch((error) => {
    throw toPerdureError(error, `looking at the server ${at}`);
  });
  const server = rows[0] as { version: number; name: string; standby: boolean; readonly: boolean; pid: number };
  if (server.version < 140000) {
    const text = `the server ${at} is PostgreSQL ${server.name}, but Perdure needs 14 or newer: upgrade the server`;
    throw new PerdureError("PERDURE_SERVER_VERSION", text);
  }
  const pooled = server.pid !== (client as unknown as { processID: number | null }).processID;
  if (!server.standby && !server.readonly) return { pooled };
  const what = server.standby ? "is a standby" : "is read-only for this role";
  throw new PerdureError(
    "PERDURE_READ_ONLY",
    `the server ${at} ${what}: connect to the primary, with a role that may write`,
  );
}

function addressOf(client: pg.ClientBase): string {
  const { host, port } = client as pg.Client;
  return `${host}:${port}`;
}
