/** The client: one engine that starts, sends and waits, launched at its first use, and the database that workers share with it. */
import { ValueCodec } from "../core/codec.ts";
import { checkCodecs } from "../core/codecs.ts";
import { PerdureError } from "../core/errors.ts";
import { type EngineLog, engineLog } from "../core/logging.ts";
import { attempt, checkArray, isPlainObject, shorten } from "../core/options.ts";
import { StoredCodec } from "../core/stored.ts";
import { Perdure } from "../perdure.ts";
import type { PerdureOptions } from "../settings.ts";
import { ERRORS } from "./errors.ts";
import { infoConsole, type Logger, makeLogger, toCoreLogger } from "./logger.ts";
import { factsOf, type RunFacts } from "./run.ts";
import type { Handler } from "./server.ts";

/** Makes what `run.context` is, before every execution of a run, replays included. When it throws, the run is tried again later. */
export type ContextFactory<Context> = (run: RunFacts) => Context | Promise<Context>;

/** Options of a client: those of `new Perdure` for the database, and these. */
export interface ClientOptions<Context>
  extends Omit<
    PerdureOptions,
    "workflows" | "worker" | "schedules" | "application" | "shutdownOn" | "context" | "logger"
  > {
  /** Where all is written: a `Logger` of this layer, or one that `perdure` takes. Default: console, from `info` up. */
  logger?: PerdureOptions["logger"] | Logger | undefined;
  /** A Postgres URL. Any other is that of a server, of which there is none: `database` or DATABASE_URL counts then. */
  url?: string | undefined;
  /** The `handler` of a `server()`: its database counts. */
  handler?: Handler | undefined;
  context?: ContextFactory<Context> | undefined;
  /** Older names of `context`. */
  contextFactory?: ContextFactory<Context> | undefined;
  createContext?: ContextFactory<Context> | undefined;
  /** Taken and not used: there is no server to log in to, and no Redis. */
  apiKey?: unknown;
  redis?: unknown;
}

/** Starts runs, sends events and waits, on one database. */
export interface Client<Context = null> {
  readonly logger: Logger;
  /** Brings the schema up to date, as the first use does. Returns the names of what was applied. */
  migrate(): Promise<{ applied: string[] }>;
  /** Stops the workers that were started on this client, and ends its connections. Without it a process does not end. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
  /** @internal */
  readonly [CORE]: ClientCore<Context>;
}

/** Something that stops with its client. */
export interface Stoppable {
  stop(): Promise<void>;
}

const CORE: unique symbol = Symbol.for("perdure.aiki.client.1");

export class ClientCore<Context = unknown> {
  /** The context as an option of the engines that execute runs. */
  readonly context: Pick<PerdureOptions, "context">;
  readonly log: EngineLog;
  /** The hash of values as this client's engines store it, and as those do that have or write no key, or do already. */
  readonly hash: (values: readonly unknown[], what: () => string) => [own: string, plain: string];
  readonly #options: PerdureOptions;
  readonly #workers = new Set<Stoppable>();
  #engine: Promise<Perdure> | null = null;
  #uses = 0;
  /** True: with its last worker this client rests, until it is used again. */
  #rests = false;
  #closed = false;

  constructor(options: PerdureOptions, context: ContextFactory<Context> | undefined) {
    this.#options = options;
    this.log = engineLog(options.logger!);
    const codecs = options.codec === undefined ? [] : checkCodecs(options.codec, "codec of client()");
    const codec = new StoredCodec(new ValueCodec(), codecs);
    this.hash = (values, what) => [codec.hash(values, what), codec.hash(values, what, !codec.writesKeyed)];
    this.context = context ? { context: (run) => context(factsOf(run)) } : {};
  }

  /** An engine on this client's database that is not launched yet. */
  engine(more: PerdureOptions): Perdure {
    if (this.#closed) throw closed();
    return new Perdure({ ...this.#options, ...more });
  }

  /** Lets the client's own engine do something, launched if need be. */
  async use<T>(work: (perdure: Perdure) => Promise<T>): Promise<T> {
    if (this.#closed) throw closed();
    this.#uses += 1;
    try {
      this.#engine ??= this.#launch();
      return await work(await this.#engine);
    } finally {
      this.#uses -= 1;
      if (this.#idle) await this.#rest();
    }
  }

  async #launch(): Promise<Perdure> {
    const perdure = this.engine({ worker: false });
    try {
      await perdure.launch();
      return perdure;
    } catch (error) {
      this.#engine = null;
      throw error;
    }
  }

  get #idle(): boolean {
    return this.#rests && this.#uses === 0 && this.#workers.size === 0;
  }

  async #rest(): Promise<void> {
    const engine = this.#engine;
    this.#engine = null;
    await (await engine?.catch(() => undefined))?.shutdown();
  }

  join(worker: Stoppable): void {
    this.#workers.add(worker);
  }

  async leave(worker: Stoppable): Promise<void> {
    this.#workers.delete(worker);
    this.#rests = true;
    if (this.#idle) await this.#rest();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#workers].map((worker) => worker.stop()));
    await this.#rest();
  }
}

function closed(): PerdureError {
  return new PerdureError("PERDURE_STATE", "this client is closed; make a new one with client()");
}

/**
 * A client. Nothing is connected before its first use. With the last of its workers stopped, and nothing waited for, its connections end,
 * and come back when it is used again; one without workers is ended by `close()`.
 *
 * @throws PERDURE_OPTION.
 * @example const aiki = client({ database: process.env.DATABASE_URL, context: (run) => ({ traceId: run.id }) });
 */
export function client<Context = null>(options: ClientOptions<Context> = {}): Client<Context> {
  if (!attempt(() => isPlainObject(options as unknown)))
    throw new PerdureError("PERDURE_OPTION", `options of client() must be a plain object, not ${shorten(options)}`);
  const { url, handler, context, contextFactory, createContext, apiKey: _, redis: __, ...core } = options;
  const engineOptions: PerdureOptions = {
    ...core,
    ...databaseFrom(core.database, url, handler),
    errors: [...ERRORS, ...checkArray(core.errors ?? [], "errors of client()")],
    logger: core.logger === undefined ? infoConsole : toCoreLogger(core.logger),
  };
  const contextOf = context ?? contextFactory ?? createContext;
  if (contextOf !== undefined && typeof contextOf !== "function") {
    const text = `context of client() must be a function, (run) => ({ … }), not ${shorten(contextOf)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  if (handler !== undefined && !attempt(() => handler.clients instanceof Set)) {
    const text = `handler of client() must be that of server(), not ${shorten(handler)}; name a database instead, client({ database })`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  // What is wrong with an option is said at once.
  void new Perdure({ ...engineOptions, worker: false });
  const made = new ClientCore<Context>(engineOptions, contextOf);
  const result: Client<Context> = {
    logger: makeLogger((level, message, fields) => made.log[level](message, undefined, fields)),
    migrate: () => made.engine({ worker: false }).migrate(),
    close: () => made.close(),
    [Symbol.asyncDispose]: () => made.close(),
    [CORE]: made,
  };
  handler?.clients?.add(made);
  return result;
}

/** The database that is named, `database` before `url` before `handler`; none: the core's default. */
function databaseFrom(
  database: PerdureOptions["database"],
  url: unknown,
  handler: Handler | undefined,
): Pick<PerdureOptions, "database"> {
  if (database !== undefined) return { database };
  if (typeof url === "string" && /^postgres(ql)?:/.test(url)) return { database: url };
  return handler ? { database: handler.database } : {};
}

/** What is behind a client. Throws PERDURE_OPTION for anything else. */
export function coreOf<Context>(given: Client<Context>): ClientCore<Context> {
  const core = attempt(() => given[CORE]);
  if (core) return core;
  throw new PerdureError("PERDURE_OPTION", `a client made by client() is needed here, not ${shorten(given)}`);
}
