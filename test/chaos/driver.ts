/** The clients of a chaos run: they start runs, send, cancel, wait for results, and note each call before and after. */
import { setTimeout as pause } from "node:timers/promises";
import { Perdure, type PerdureOptions, type RunHandle } from "../../lib/index.ts";
import { FaultyProxy } from "../support/proxy.ts";
import { SCHEMA } from "./audit.ts";
import type { Dice } from "./dice.ts";
import type { History } from "./history.ts";
import { NEWS, type Order, orderOf } from "./orders.ts";
import { news, sinks } from "./sink.ts";

/** What became of a run, as a client was told. */
export interface Told {
  state: "completed" | "failed" | "cancelled";
  value: unknown;
}

/** One run, as its client knows it. */
export interface Case {
  readonly kind: "sink" | "poison";
  readonly order: Order;
  readonly version: string;
  readonly cancels: boolean;
  /** The start was acknowledged. */
  started: boolean;
  /** The cancellation was acknowledged. */
  cancelled: boolean;
  /** Events whose sending was acknowledged. */
  readonly sent: number[];
  told: Told | undefined;
}

const nothing = { enter: async () => {} };
export const VERSIONS = [sinks("1", nothing), sinks("2", nothing)] as const;
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

export class Driver {
  readonly cases: Case[] = [];
  /** What the checker is told: calls that came to what they must not. */
  readonly wrong: string[] = [];
  readonly proxies: readonly FaultyProxy[];
  readonly engines: readonly Perdure[];
  /** Calls of which the client was not told what became of them. */
  unknown = 0;
  /** The version that new runs get. */
  version = 1;
  readonly #history: History;
  readonly #dice: Dice;
  readonly #running = new Set<Promise<void>>();
  #stopped = false;

  private constructor(parts: { proxies: FaultyProxy[]; engines: Perdure[]; history: History; dice: Dice }) {
    this.proxies = parts.proxies;
    this.engines = parts.engines;
    this.#history = parts.history;
    this.#dice = parts.dice;
  }

  /** Two clients, each behind a proxy of its own; the second hears no hints. */
  static async open(target: { host: string; port: number }, history: History, dice: Dice): Promise<Driver> {
    const proxies = [await FaultyProxy.open(target), await FaultyProxy.open(target)];
    const engines = proxies.map((proxy, at) => client(proxy.port, { notify: at === 0 }));
    for (const engine of engines) await engine.launch();
    return new Driver({ proxies, engines, history, dice });
  }

  /** Starts so many runs, evenly over the time, and returns once the last is under way. */
  async drive(runs: number, ms: number, poison: number): Promise<void> {
    const since = performance.now();
    for (let no = 0; no < runs && !this.#stopped; no += 1) {
      const deadly = poison > 0 && no % Math.ceil(runs / poison) === Math.floor(runs / poison / 2);
      if (deadly) this.#begin(this.#made(`poison-${no}`, "poison"));
      this.#begin(this.#made(`run-${no}`, "sink"));
      await pause(Math.max(0, since + ((no + 1) * ms) / runs - performance.now()));
    }
  }

  /** No run is begun any more. */
  stop(): void {
    this.#stopped = true;
  }

  /** Resolves when every run that was started has come to its end as its client sees it. */
  async settled(ms: number): Promise<boolean> {
    const timer = new AbortController();
    const late = pause(ms, false, { signal: timer.signal }).catch(() => false);
    const done = Promise.all(this.#running).then(() => true);
    const result = await Promise.race([done, late]);
    timer.abort();
    return result;
  }

  async close(): Promise<void> {
    for (const engine of this.engines) await engine.shutdown({ timeout: "5s" });
    for (const proxy of this.proxies) await proxy.close();
  }

  #made(id: string, kind: Case["kind"]): Case {
    const order = orderOf(id, this.#dice);
    const cancels = kind === "sink" && this.#dice.chance(0.04);
    const version = `${kind === "poison" ? 1 : this.version}`;
    return { kind, order, version, cancels, started: false, cancelled: false, sent: [], told: undefined };
  }

  #begin(made: Case): void {
    this.cases.push(made);
    // Drawn here, so that what one run draws does not depend on when others go on.
    const drawn = {
      many: this.#dice.chance(0.05),
      delays: NEWS.map(() => this.#dice.between(0, 2500)),
      twice: this.#dice.chance(0.2),
      cancelMs: this.#dice.between(0, 5000),
    };
    const live = this.#live(made, drawn)
      .catch((error: unknown) => void this.wrong.push(`${made.order.id}: ${describe(error)}`))
      .finally(() => this.#running.delete(live));
    this.#running.add(live);
  }

  async #live(made: Case, drawn: { many: boolean; delays: number[]; twice: boolean; cancelMs: number }): Promise<void> {
    const { id } = made.order;
    const handle = await this.#start(made, drawn.many);
    made.started = true;
    if (made.kind === "poison") return;
    const end = this.#await(made, handle);
    const cancelling = made.cancels ? this.#cancel(made, drawn.cancelMs) : Promise.resolve();
    for (const [at, n] of NEWS.entries()) {
      await pause(drawn.delays[at]!);
      const reference = drawn.twice ? `news ${n}` : undefined;
      const send = (engine: Perdure): Promise<void> =>
        this.#insist("send", { id, n }, () =>
          engine.send(id, news, { n }, reference === undefined ? {} : { reference }),
        );
      try {
        // The same reference twice at once: one of the two is dropped.
        await Promise.all(drawn.twice ? this.engines.map(send) : [send(this.engines[at % 2]!)]);
        made.sent.push(n);
      } catch (error) {
        if (!(made.cancels && (error as { code?: string }).code === "PERDURE_FINISHED")) throw error;
      }
    }
    await Promise.all([end, cancelling]);
  }

  /** Now and then from many clients at once; with other input it is refused then. */
  async #start(made: Case, many: boolean): Promise<RunHandle<unknown>> {
    const { order, version, kind } = made;
    const { sink, poison } = VERSIONS[Number(version) - 1]!;
    const start = (engine: Perdure): Promise<RunHandle<unknown>> =>
      this.#insist<RunHandle<unknown>>("start", { id: order.id, version }, () =>
        kind === "poison"
          ? engine.start(poison.with({ id: order.id }))
          : engine.start(sink.with({ id: order.id }), order),
      );
    if (!many || kind === "poison") return start(this.engines[0]!);
    const handles = await Promise.all([0, 1, 2, 3].map((no) => start(this.engines[no % 2]!)));
    const other = { ...order, napMs: order.napMs + 1 };
    const refused = await this.#insist("start", { id: order.id, other: true }, () =>
      this.engines[1]!.start(sink.with({ id: order.id }), other),
    ).then(
      () => "accepted",
      (error: { code?: string }) => error.code,
    );
    if (refused !== "PERDURE_CONFLICT") this.wrong.push(`I17 ${order.id}: other input was ${refused}`);
    return handles[0]!;
  }

  async #cancel(made: Case, ms: number): Promise<void> {
    const { id } = made.order;
    await pause(ms);
    try {
      await this.#insist("cancel", { id }, () => this.engines[1]!.get(id).cancel("changed their mind"));
      made.cancelled = true;
    } catch (error) {
      if ((error as { code?: string }).code !== "PERDURE_STATE") throw error;
    }
  }

  /** As a client does that must have an answer: while the server cannot be reached it asks again, whatever became of the last time. */
  async #insist<T>(what: string, details: object, work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await this.#history.call(what, details, work);
      } catch (error) {
        if ((error as { code?: string }).code !== "PERDURE_CONNECTION") throw error;
        this.unknown += 1;
        await pause(100);
      }
    }
  }

  async #await(made: Case, handle: RunHandle<unknown>): Promise<void> {
    const { id } = made.order;
    made.told = await this.#insist("wait", { id }, () => handle.result()).then(
      (value): Told => ({ state: "completed", value }),
      (error: { code?: string; message: string }): Told => {
        if (error.code === "PERDURE_CANCELLED") return { state: "cancelled", value: null };
        if (error.code === "PERDURE_FAILED") return { state: "failed", value: error.message };
        throw error;
      },
    );
    await this.#history.write({ what: "result", id, state: made.told.state });
  }
}

/** An engine that works on nothing. */
export function client(port: number, options: PerdureOptions = {}): Perdure {
  const database = `postgres://postgres@127.0.0.1:${port}/postgres?application_name=chaos-client`;
  const workflows = VERSIONS.flatMap(({ sink, kid, tick, poison }) => [sink, kid, tick, poison]);
  return new Perdure({ database, schema: SCHEMA, worker: false, workflows, migrate: false, logger: quiet, ...options });
}

const describe = (error: unknown): string => {
  const { code, message } = error as { code?: string; message?: string };
  return `${code ?? "no code"}: ${message ?? String(error)}`;
};
