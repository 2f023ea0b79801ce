/** What a program that ran a server of its own asks for: here its database is all there is. */
import { PerdureError } from "../core/errors.ts";
import { attempt, isPlainObject, shorten } from "../core/options.ts";
import type { DatabaseOption } from "../db/database-option.ts";
import { client } from "./client.ts";

/** Where the runs are: what `database()` returns, a URL, a pg config or a pg Pool. */
export type ServerDatabase = DatabaseOption | { readonly provider: "pg"; readonly url: string };

/** Something to close with the server. */
interface Closable {
  close(): Promise<void>;
}

/** Stands for a server in `client({ handler })`. Called with a request it answers 501. */
export interface Handler {
  (request: Request): Promise<Response>;
  /** @internal */
  readonly database: DatabaseOption;
  /** @internal */
  readonly clients: Set<Closable>;
}

/** A server that was started: `stop` closes the clients that were made with its handler. */
export interface RuntimeHandle {
  stop(): Promise<void>;
}

/**
 * The database of a server. Only Postgres is there.
 *
 * @example const own = database({ provider: "pg", url: process.env.DATABASE_URL! });
 */
export function database(options: { provider: "pg"; url: string }): ServerDatabase {
  const { provider, url } = attempt(() => ({ ...options })) ?? ({} as Partial<typeof options>);
  if (provider === "pg" && typeof url === "string") return { provider, url };
  const text = `database() needs { provider: "pg", url: "postgres://…" }, not ${shorten(options)}`;
  throw new PerdureError("PERDURE_OPTION", text);
}

/**
 * There is no server: the workers do its work. This keeps the shape of programs that run one, and names the database.
 *
 * @param options `db`; everything else is taken and not used.
 * @example
 * const aikiServer = server({ db: database({ provider: "pg", url: process.env.DATABASE_URL! }) });
 * const runtime = aikiServer.runtime.start();
 * const aiki = client({ handler: aikiServer.handler });
 * await runtime.stop();
 */
export function server(options: { db: ServerDatabase; [other: string]: unknown }): {
  readonly handler: Handler;
  readonly runtime: { start(): RuntimeHandle & Promise<RuntimeHandle> };
} {
  if (!isPlainObject(options)) {
    const text = `server() needs its database, server({ db: "postgres://…" }), not ${shorten(options)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  const clients = new Set<Closable>();
  const db = databaseOf(options.db);
  const answer = async (_request: Request): Promise<Response> =>
    new Response("there is no server: give client() the database itself", { status: 501 });
  const handler: Handler = Object.assign(answer, { database: db, clients });
  const start = (): RuntimeHandle & Promise<RuntimeHandle> => {
    const own = client({ handler });
    const stop = async (): Promise<void> => {
      await Promise.all([...clients].map((each) => each.close()));
    };
    const started = own.migrate().then(() => ({ stop }));
    // Who does not await it hears of it from the first use of a client.
    started.catch(() => {});
    return Object.assign(started, { stop });
  };
  return { handler, runtime: { start } };
}

function databaseOf(given: unknown): DatabaseOption {
  if (isPlainObject(given) && "provider" in given) {
    if (given.provider === "pg" && typeof given.url === "string") return given.url;
    const text = `db of server() must be Postgres with a URL: { provider: "pg", url }, not provider ${shorten(given.provider)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  if (typeof given === "string" || (typeof given === "object" && given !== null)) return given as DatabaseOption;
  throw new PerdureError(
    "PERDURE_OPTION",
    `db of server() must be a URL, a pg config or a Pool, not ${shorten(given)}`,
  );
}

/** Stands for a part of a server with which there is nothing to do. */
export interface Unused {
  readonly unused: string;
}

const unused =
  (name: string) =>
  (..._given: unknown[]): Unused => ({ unused: name });

/**
 * Taken by a worker or a server and not used: there is no Redis, and timers stand in the database.
 *
 * @example const subscriber = redisSubscriber({ url: "redis://localhost:6379" });
 */
export const redisSubscriber = unused("redisSubscriber");
/**
 * See `redisSubscriber`.
 *
 * @example const publisher = redisPublisher({ url: "redis://localhost:6379" });
 */
export const redisPublisher = unused("redisPublisher");
/**
 * See `redisSubscriber`.
 *
 * @example const timers = redisTimerPriorityQueue({ url: "redis://localhost:6379" });
 */
export const redisTimerPriorityQueue = unused("redisTimerPriorityQueue");
/**
 * See `redisSubscriber`.
 *
 * @example const timers = inMemoryTimerPriorityQueue();
 */
export const inMemoryTimerPriorityQueue = unused("inMemoryTimerPriorityQueue");
/**
 * See `redisSubscriber`.
 *
 * @example const queue = inMemoryQueue();
 */
export const inMemoryQueue = unused("inMemoryQueue");
