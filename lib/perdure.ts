/** The engine as an application holds it. */
import { type BulkParts, type ControlledMany, control } from "./client/bulk.ts";
import { isFlexible, type RetryOptions } from "./client/control.ts";
import { explain } from "./client/explain.ts";
import { type HandleParts, handleOf, makeHandle, type RunHandle } from "./client/handle.ts";
import { type ListOptions, list, type RunPage } from "./client/list.ts";
import {
  deleteSchedule,
  listSchedules,
  pauseSchedule,
  putSchedule,
  resumeSchedule,
  type ScheduleListOptions,
  type ScheduleStatus,
  triggerSchedule,
} from "./client/schedules.ts";
import type { EventLike, SendArguments, SendOptions, SentMany } from "./client/send.ts";
import { startRun } from "./client/start.ts";
import { callerVerbs } from "./client/using.ts";
import { plainly, refuseInBody } from "./core/context.ts";
import { type Duration, toMs } from "./core/duration.ts";
import { engines, type Launched, registeredName } from "./core/engines.ts";
import { PerdureError } from "./core/errors.ts";
import { attempt, checkInstant, checkInteger, checkKeys, checkReason, shorten } from "./core/options.ts";
import { UNFINISHED_STATES } from "./core/states.ts";
import type { CallerClient, RunFilter, ScheduleDefinition } from "./core/types.ts";
import { connectClient, connectDatabase } from "./db/connect.ts";
import { migrate } from "./db/migrate.ts";
import { publicationOf } from "./define/publish.ts";
import type { ArgumentsOf, Started, StartedByName } from "./define/refused.ts";
import { findWorkflow, type Startee } from "./define/registry.ts";
import { type Schedule, scheduleOf } from "./define/schedule.ts";
import { internalsOf, type Startable } from "./define/workflow.ts";
import { Engine, engineOf } from "./launched.ts";
import { checkOptions, checkServed, type PerdureOptions, type Settings } from "./settings.ts";
import { endBy } from "./signals.ts";

/** What `perdure.using()` does in a transaction of the caller's. */
export type CallerTransaction = Pick<Perdure, "start" | "send"> & {
  /** Cancels a run: see `RunHandle`. */
  cancel(id: string, reason?: string): Promise<void>;
};

/** What `perdure.schedules` does. An unknown name: PERDURE_NOT_FOUND, with the nearest. */
export interface Schedules {
  /**
   * Schedules in the order of their names, at most 100.
   *
   * @example const tenants = await perdure.schedules.list({ prefix: "tenant-", after: lastOfThePageBefore, limit: 500 });
   */
  list(options?: ScheduleListOptions): Promise<ScheduleStatus[]>;
  /** Fires no more until `resume`. Paused again, it stays so; a launch that declares it leaves it paused. */
  pause(name: string): Promise<void>;
  /** Goes on with the next slot from now; those that passed meanwhile are not made up. */
  resume(name: string): Promise<void>;
  /** Starts a run at once, also while it is paused or another run is unfinished; its slots stay as they are. */
  trigger(name: string): Promise<RunHandle>;
  /**
   * Makes a schedule at run time, for one of many tenants for example, or changes one that was made so; a launch never touches it. One whose times
   * change begins anew, a paused one stays paused.
   *
   * @throws PERDURE_CONFLICT when code declares a schedule of that name; PERDURE_UNKNOWN_WORKFLOW; PERDURE_SERIALIZE; PERDURE_TOO_LARGE.
   * @example await perdure.schedules.put(schedule(`report-${tenant}`, { cron: "0 7 * * *", timezone }, sendReport, tenant));
   */
  put(schedule: Schedule): Promise<void>;
  /** Removes it; its runs stay. One that code declares comes back with the next launch. */
  delete(name: string): Promise<void>;
}

interface Handles {
  readonly engine: Engine;
  readonly found: HandleParts;
  readonly started: HandleParts;
}

const SHUTDOWN_TIMEOUT_MS = 30_000;
const SHUT_DOWN = "this engine was shut down; make a new one with new Perdure()";

/** Options of `drain()`. */
export interface DrainOptions {
  /** How many runs to take up at most. Default: no limit. */
  max?: number | undefined;
  /** How long to go on, or until when by this process's clock; then no step begins any more. Default: no limit. */
  deadline?: Duration | Date | undefined;
}

/**
 * An engine: starts runs, works on them, and sees them from outside. Several can live in one process.
 *
 * @example
 * const perdure = new Perdure({ database: process.env.DATABASE_URL, workflows: [processOrder] });
 * await perdure.launch();
 * const run = await perdure.start(processOrder, "order-42");
 * await run.result();
 * await perdure.shutdown();
 */
export class Perdure {
  readonly #settings: Settings;
  readonly #signalled: (signal: NodeJS.Signals) => void;
  readonly #launched: Launched;
  #engine: Engine | null = null;
  #shared: Handles | null = null;
  #launching: Promise<void> | null = null;
  #ending: Promise<void> | null = null;

  /** Checks the options and nothing else. Throws PERDURE_OPTION, PERDURE_NAME or PERDURE_DUPLICATE. */
  constructor(options: PerdureOptions = {}) {
    this.#settings = checkOptions(options);
    const end = (raised: Promise<void>): Promise<void> =>
      (this.#ending ??= this.#shutdown(SHUTDOWN_TIMEOUT_MS, raised));
    this.#signalled = (signal) => void endBy(signal, end);
    this.#launched = {
      registered: ({ name, version }) => this.#settings.workflows.get(registeredName(name, version)),
      call: async (definition, startOptions, args) => {
        const { engine, started } = this.#handles();
        return handleOf(await startRun(definition, startOptions, args, engine.starter), started).result();
      },
      transact: (definition, args) =>
        this.#live().transactor.plain((tx) => plainly(definition.name, tx, () => definition.fn(tx, ...args))),
      outside: this.#settings.outside,
      warn: (message) => this.#settings.logger.warn(`perdure: ${message}`),
    };
  }

  /**
   * Brings the schema up to date. Many processes may do so at once; it needs no launch. Returns the names of what was applied. Throws as
   * `launch` does.
   */
  async migrate(): Promise<{ applied: string[] }> {
    const database = await connectDatabase(this.#settings.database);
    try {
      return await migrate({ connect: () => connectClient(database.clientConfig()), schema: this.#settings.schema });
    } finally {
      await database.close();
    }
  }

  /**
   * Connects, migrates and goes to work. Safe to call twice; after an error, again.
   *
   * @throws what is wrong with the server, the login or the schema: PERDURE_CONNECTION, PERDURE_AUTH, PERDURE_SCHEMA and others.
   */
  async launch(): Promise<void> {
    if (this.#ending) throw new PerdureError("PERDURE_STATE", SHUT_DOWN);
    this.#launching ??= this.#launch();
    await this.#launching;
  }

  async #launch(): Promise<void> {
    try {
      await Engine.launch(this.#settings, (engine) => {
        this.#engine = engine;
        engineOf.set(this, engine);
        engines.add(this.#launched);
      });
    } catch (error) {
      engines.delete(this.#launched);
      this.#engine = null;
      this.#launching = null;
      throw error;
    }
    for (const signal of this.#settings.shutdownOn) process.on(signal, this.#signalled);
  }

  #live(): Engine {
    if (this.#engine && !this.#ending) return this.#engine;
    const text = this.#ending ? SHUT_DOWN : "this engine is not launched; call launch() and await it first";
    throw new PerdureError("PERDURE_STATE", text);
  }

  /**
   * Starts a run; it is durable when the promise resolves. The same id with equal input gives the existing run.
   *
   * @param workflow A workflow, a configured copy of one, or the name of a registered one.
   * @throws RunConflictError when the id is taken by other input; PERDURE_UNKNOWN_WORKFLOW; PERDURE_SERIALIZE; PERDURE_TOO_LARGE.
   * @example const run = await perdure.start(processOrder.with({ id: "order-42" }), "order-42");
   */
  async start<A extends unknown[], R>(workflow: Startable<A, R>, ...args: A): Promise<RunHandle<R>>;
  async start<W>(name: W & StartedByName<W>, ...args: unknown[]): Promise<RunHandle>;
  async start<W>(workflow: W & Started<W>, ...args: ArgumentsOf<W>): Promise<RunHandle>;
  async start(workflow: unknown, ...args: unknown[]): Promise<RunHandle> {
    refuseInBody("perdure.start()", "call the workflow itself or start() for a child, or perdure.start() in a step");
    const { definition, options } = this.#find(workflow);
    // Taken first: a shutdown meanwhile hides no durable run.
    const { engine, started } = this.#handles();
    return handleOf(await startRun(definition, options, args, engine.starter), started);
  }

  #find(workflow: unknown): Startee {
    const { workflows, works } = this.#settings;
    return findWorkflow(workflow, workflows, works);
  }

  /**
   * A run by its id. The run is not looked up until the handle is used. With its workflow, the result has its type.
   *
   * @example const total = await perdure.get(processOrder, "order-42").result();
   */
  get<R = unknown>(id: string): RunHandle<R>;
  get<A extends unknown[], R>(workflow: Startable<A, R>, id: string): RunHandle<R>;
  get(...given: unknown[]): RunHandle {
    if (given.length > 1 && !internalsOf(given[0])) {
      const text = `get(workflow, id) needs a workflow made by workflow() first, not ${shorten(given[0])}; get(id) needs none`;
      throw new PerdureError("PERDURE_OPTION", text);
    }
    return makeHandle(given.at(-1) as string, this.#handles().found);
  }

  /**
   * Sends an event into a run; it is in the mailbox for good when the promise resolves.
   *
   * @throws PERDURE_NOT_FOUND; RunFinishedError unless `ignoreFinished`. With many ids those are returned as `failed`.
   * @example await perdure.send("order-42", paymentReceived, { amount: 99 });
   */
  async send<T, S = T>(
    ids: readonly string[],
    event: EventLike<T, S>,
    ...rest: SendArguments<NoInfer<S>>
  ): Promise<SentMany>;
  async send<T, S = T>(id: string, event: EventLike<T, S>, ...rest: SendArguments<NoInfer<S>>): Promise<void>;
  async send(
    ids: string | readonly string[],
    event: EventLike<unknown>,
    data?: unknown,
    options?: SendOptions,
  ): Promise<unknown> {
    refuseInBody("perdure.send()", "call it in a step, or send() of a child's handle");
    const { sender } = this.#live();
    return typeof ids === "string" ? sender.one(ids, event, data, options) : sender.many(ids, event, data, options);
  }

  /**
   * A page of runs, newest first: those that fit all of the filter.
   *
   * @throws PERDURE_OPTION, for an `after` that is not the `next` of a page with the same filter too.
   * @example const { runs, next } = await perdure.list({ workflow: processOrder, state: ["failed", "blocked"] });
   */
  async list(options: ListOptions = {}): Promise<RunPage> {
    return list(options, { store: this.#live().store, schema: this.#settings.schema, nameOf });
  }

  /**
   * Cancels runs, each as its handle would: these, or all unfinished ones that fit the filter as it is called. Works in pages of 500: when
   * it throws, those before are cancelled, and the same call goes on.
   *
   * @param runs Ids, or a filter, which must not be empty.
   * @returns What became of each; a run that had finished is in `failed`.
   * @example await perdure.cancel({ workflow: "import", tags: ["tenant-7"] }, { reason: "tenant left" });
   */
  async cancel(
    runs: RunFilter | readonly string[],
    options: { reason?: string | undefined } = {},
  ): Promise<ControlledMany> {
    const { reason } = checkKeys(options, ["reason"], "cancel()");
    const args = [checkReason(reason, "cancel()")];
    return control(runs, { verb: "cancel", args, states: UNFINISHED_STATES }, this.#bulk());
  }

  /**
   * Lets runs go on that failed or are blocked, each as its handle would: these, or all that fit the filter. Works in pages as `cancel` does.
   *
   * @param options.replay `"flexible"`: what the code asks for from here on may differ from what is recorded.
   * @example await perdure.retry({ state: "blocked", workflow: processOrder });
   */
  async retry(runs: RunFilter | readonly string[], options: RetryOptions = {}): Promise<ControlledMany> {
    const args = [isFlexible(options, "retry()")];
    return control(runs, { verb: "retry", args, states: ["failed", "blocked"] }, this.#bulk());
  }

  #bulk(): BulkParts {
    const engine = this.#live();
    return { store: engine.store, nameOf, onChange: () => engine.changed() };
  }

  /**
   * Works off what is due, then returns: for serverless functions and plain cron, on an engine launched with `worker: false`. After
   * `deadline` no step begins any more; those in flight are waited for, and what is left is handed back.
   *
   * @returns How many runs were taken up, and when to call again at the latest: the next timer; null: there is none.
   * @example app.post("/drain", async () => Response.json(await perdure.drain({ deadline: "50s" })));
   */
  async drain(options: DrainOptions = {}): Promise<{ runs: number; next: Date | null }> {
    const where = "drain()";
    const { max = Number.MAX_SAFE_INTEGER, deadline } = checkKeys(options, ["max", "deadline"], where);
    const most = checkInteger(max, `max of ${where}`, 1, Number.MAX_SAFE_INTEGER);
    const ms = attempt(() => deadline instanceof Date)
      ? Math.max(0, checkInstant(deadline, `deadline of ${where}`).getTime() - Date.now())
      : deadline === undefined
        ? null
        : toMs(deadline as Duration, `deadline of ${where}`);
    const engine = this.#live();
    const { runs, nextMs } = await explain("draining", () => engine.drain(most, ms)).catch((error: unknown) => {
      this.#live();
      throw error;
    });
    return { runs, next: nextMs === null ? null : new Date(Date.now() + nextMs) };
  }

  /**
   * Starts, sends and cancels in a transaction of yours: it takes effect when you commit, and a rollback leaves nothing.
   *
   * The verbs are those of the engine, with the same errors; none of these ends your transaction, except where the database itself does
   * (`error.cause.code` is then its SQLSTATE: roll back, and for 40001 and 40P01 run the transaction again). A run exists for others, and
   * for the methods of its handle, once you commit. `send` and `cancel` hold the run's row until then, so keep the transaction short.
   *
   * @param client A pg client (not a Pool) in a transaction, or what an adapter of `perdure/adapters` makes of an ORM's transaction.
   * @throws PERDURE_STATE when the client is in no transaction, or in one that an error has aborted; PERDURE_READ_ONLY.
   * @example
   * await client.query("begin");
   * await client.query("insert into orders values ($1)", [id]);
   * await perdure.using(client).start(processOrder.with({ id }), id);
   * await client.query("commit");
   */
  using(client: CallerClient): CallerTransaction {
    const { schema, notify } = this.#settings;
    return callerVerbs(client, { ...this.#handles().found, schema, notify, find: (workflow) => this.#find(workflow) });
  }

  /** Schedules at run time: see `schedule`. */
  get schedules(): Schedules {
    const parts = () => this.#live().schedules;
    return {
      list: async (options = {}) => listSchedules(options, parts()),
      pause: async (name) => pauseSchedule(name, parts()),
      resume: async (name) => resumeSchedule(name, parts()),
      trigger: async (name) => this.get(await triggerSchedule(name, parts())),
      put: async (given) => putSchedule(this.#scheduled(given), parts()),
      delete: async (name) => deleteSchedule(name, parts()),
    };
  }

  #scheduled(given: unknown): ScheduleDefinition {
    const definition = scheduleOf(given);
    if (definition) return checkServed(definition, this.#settings.workflows, this.#settings.works);
    const text = `schedules.put() needs a schedule made by schedule(), not ${shorten(given)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }

  /** What handles need, made once for all of them: of runs that are known to exist, and of others. */
  #handles(): Handles {
    const engine = this.#live();
    if (this.#shared?.engine !== engine) {
      const found: HandleParts = {
        store: engine.store,
        codec: engine.codec,
        ancestors: (run) => engine.store.ancestors(run),
        publications: engine.publications,
        publicationOf,
        results: engine.results,
        sender: engine.sender,
        onChange: () => engine.changed(),
        checkLive: () => void this.#live(),
        exists: false,
      };
      this.#shared = { engine, found, started: { ...found, exists: true } };
    }
    return this.#shared;
  }

  /**
   * Ends the work of this engine: takes nothing new, lets attempts in flight end, hands back what is left, and closes what it opened.
   *
   * @param options.timeout How long attempts may take to end; those that have not are aborted and run again elsewhere. Default 30s.
   */
  async shutdown(options: { timeout?: Duration | undefined } = {}): Promise<void> {
    const { timeout } = checkKeys(options, ["timeout"], "shutdown()");
    const timeoutMs = timeout === undefined ? SHUTDOWN_TIMEOUT_MS : toMs(timeout, "timeout of shutdown()");
    this.#ending ??= this.#shutdown(timeoutMs);
    await this.#ending;
  }

  async #shutdown(timeoutMs: number, over?: Promise<void>): Promise<void> {
    await this.#launching?.catch(() => {});
    engines.delete(this.#launched);
    for (const signal of this.#settings.shutdownOn) process.off(signal, this.#signalled);
    await this.#engine?.shutdown(timeoutMs, over);
  }

  /** `await using perdure = new Perdure(…)`: shuts down at the end of the block. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }
}

const nameOf = (workflow: unknown): string | undefined => internalsOf(workflow)?.definition.name;
