/** What befalls a chaos run: a plan that follows from the seed, carried out and logged. */
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import type { FaultyProxy } from "../support/proxy.ts";
import { SCHEMA } from "./audit.ts";
import { Dice } from "./dice.ts";
import type { Driver } from "./driver.ts";
import type { Worker } from "./fleet.ts";
import type { History } from "./history.ts";
import { type Server, sql } from "./server.ts";
import type { Fault, Size } from "./size.ts";

export interface Planned {
  readonly fault: Fault;
  /** Milliseconds from the beginning. */
  readonly atMs: number;
  /** Which worker, and how long or how much: each fault takes what it needs. */
  readonly victim: number;
  readonly share: number;
}

/** Faults that only one thing at a time may do to the server. */
const OF_SERVER: readonly Fault[] = ["crash", "failover", "backend"];
const STALL_MS = 3000;
const SLOW_MS = 50;
const SLOW_FOR_MS = 5000;
/** What a half-open connection leaves behind on the server is cleared away after this, as by keepalive. */
const BURIED_MS = 8000;

/** The faults in the order of their times. */
export function planOf(size: Size): Planned[] {
  const dice = new Dice(size.seed ^ 0x5eed);
  const faults = Object.entries(size.faults).flatMap(([fault, many]) => new Array(many).fill(fault) as Fault[]);
  const shuffled = dice.shuffled(faults.filter((fault) => fault !== "deploy"));
  const width = (size.seconds * 1000) / shuffled.length;
  const planned = shuffled.map((fault, at) => ({
    fault,
    atMs: (at + dice.next()) * width,
    victim: dice.between(0, size.workers - 1),
    share: dice.next(),
  }));
  // To the other version in the first half, and back in the second.
  const deploys = Array.from({ length: size.faults.deploy }, (_, at) => ({
    fault: "deploy" as const,
    atMs: (size.seconds * 1000 * (at + 0.6)) / (size.faults.deploy + 0.2),
    victim: 0,
    share: 0,
  }));
  return [...planned, ...deploys].sort((one, other) => one.atMs - other.atMs);
}

/** What happened, for the checker and for who measures. Times in milliseconds since 1970. */
export interface Happened {
  readonly fault: Fault;
  readonly at: number;
  /** The process that it befell, as the engine names it. */
  readonly name?: string;
  /** When it was over. */
  readonly until?: number;
}

interface Parts {
  readonly size: Size;
  readonly workers: readonly Worker[];
  readonly driver: Driver;
  readonly server: Server;
  /** Of the server, through no fault. */
  readonly url: () => string;
  readonly log: History;
}

export class Nemesis {
  readonly happened: Happened[] = [];
  /** Answers to commits that reached nobody. */
  lost = 0;
  readonly #parts: Parts;
  readonly #lasting = new Set<Promise<void>>();
  #serverBusy: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Resolves when all that was planned has been done and is over. */
  async rage(plan: readonly Planned[]): Promise<void> {
    const since = performance.now();
    for (const planned of plan) {
      await pause(Math.max(0, since + planned.atMs - performance.now()));
      if (this.#stopped) break;
      this.#begin(planned);
    }
    while (this.#lasting.size > 0) await Promise.all(this.#lasting);
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Everything works again. */
  heal(): void {
    const { workers, driver } = this.#parts;
    for (const worker of workers) if (worker.process && worker.state === "frozen") worker.thaw(worker.process);
    for (const proxy of [...workers.map(({ proxy: own }) => own), ...driver.proxies]) {
      proxy.mode = "pass";
      proxy.latency = 0;
      proxy.onCommitted = () => "pass";
      proxy.bury();
    }
  }

  #begin(planned: Planned): void {
    const work = (): Promise<void> => this.#carryOut(planned);
    const begun = OF_SERVER.includes(planned.fault) ? this.#serverBusy.then(work) : work();
    const lasting = begun
      .catch((error: unknown) => this.#parts.log.write({ ...planned, failed: String(error) }))
      .finally(() => this.#lasting.delete(lasting));
    if (OF_SERVER.includes(planned.fault)) this.#serverBusy = lasting;
    this.#lasting.add(lasting);
  }

  async #carryOut(planned: Planned): Promise<void> {
    await this.#parts.log.write({ begins: planned });
    await this[`_${planned.fault}`](planned);
    await this.#parts.log.write({ over: planned });
  }

  #note(happened: Happened): void {
    this.happened.push(happened);
  }

  /** The victim, or the next one that is up; waits until there is one. */
  async #up({ victim }: Planned): Promise<Worker> {
    const { workers } = this.#parts;
    for (;;) {
      const order = workers.map((_, at) => workers[(victim + at) % workers.length]!);
      const found = order.find(({ state }) => state === "up");
      // Somebody has to be left who takes over.
      if (found && order.filter(({ state }) => state === "up").length > 1) return found;
      await pause(20);
    }
  }

  /** The proxy of a worker, or now and then of a client. */
  #proxy({ victim, share }: Planned): FaultyProxy {
    const { workers, driver } = this.#parts;
    return share < 0.2 ? driver.proxies[victim % driver.proxies.length]! : workers[victim]!.proxy;
  }

  async _kill(planned: Planned): Promise<void> {
    // One in five is killed while it is frozen, or has hardly begun.
    const { workers } = this.#parts;
    const any = workers[planned.victim]!;
    const worker = planned.share < 0.2 && any.state !== "down" ? any : await this.#up(planned);
    this.#note({ fault: "kill", at: Date.now(), name: worker.name });
    worker.kill();
  }

  async _freeze(planned: Planned): Promise<void> {
    const [least, most] = this.#parts.size.freezeMs;
    const worker = await this.#up(planned);
    const { name, process: frozen } = worker;
    const at = Date.now();
    worker.freeze();
    await pause(least + planned.share * (most - least));
    worker.thaw(frozen!);
    this.#note({ fault: "freeze", at, name, until: Date.now() });
  }

  async _crash(): Promise<void> {
    const at = Date.now();
    await this.#parts.server.crash();
    this.#note({ fault: "crash", at, until: Date.now() });
  }

  async _backend(planned: Planned): Promise<void> {
    const { victim } = planned;
    const at = Date.now();
    const pid = await this.#backendOf(`chaos-${victim}`, "true");
    process.kill(pid, "SIGKILL");
    await this.#untilAccepting();
    this.#note({ fault: "backend", at, until: Date.now() });
  }

  async _failover(): Promise<void> {
    const { server, workers, driver } = this.#parts;
    const at = Date.now();
    await server.failover();
    const { target } = server;
    for (const { proxy } of workers) proxy.target = target;
    for (const proxy of driver.proxies) proxy.target = target;
    this.onFailover(target);
    this.#note({ fault: "failover", at, until: Date.now() });
    await server.rebuild();
  }

  /** Whoever else reaches the server goes to the new one. */
  onFailover: (target: { host: string; port: number }) => void = () => {};

  async _listener({ victim }: Planned): Promise<void> {
    // The session of the worker's own that holds no lock.
    const text = "a.pid not in (select l.pid from pg_locks l where l.locktype = 'advisory')";
    await this.#terminate("listener", `chaos-${victim}-direct`, text);
  }

  async _certificate({ victim }: Planned): Promise<void> {
    const text = "a.pid in (select l.pid from pg_locks l where l.locktype = 'advisory')";
    await this.#terminate("certificate", `chaos-${victim}-direct`, text);
  }

  async _backends({ victim }: Planned): Promise<void> {
    const names = [`chaos-${victim}`, `chaos-${victim}-direct`];
    await this.#insist(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = any($1)",
      [names],
      (rows) => rows.length > 0,
    );
    this.#note({ fault: "backends", at: Date.now() });
  }

  async _reset(planned: Planned): Promise<void> {
    this.#note({ fault: "reset", at: Date.now() });
    this.#proxy(planned).cut();
  }

  /** At the next commit: the server says that it is done, and nobody hears it. */
  async _lost(planned: Planned): Promise<void> {
    const proxy = this.#proxy(planned);
    let told = false;
    const at = performance.now();
    // Of a worker half of the time an outcome that it has recorded, otherwise whatever it writes next.
    const wanted = planned.share > 0.6 ? ["record_steps", ":record:", "end_runs", ":end:"] : [""];
    proxy.onCommitted = (_batch, sent) => {
      if (told || !wanted.some((name) => sent.includes(name))) return "pass";
      told = true;
      this.lost += 1;
      return planned.share % 0.1 < 0.03 ? "silence" : "reset";
    };
    while (!told && performance.now() - at < 10_000) await pause(50);
    proxy.onCommitted = () => "pass";
    if (told) this.#note({ fault: "lost", at: Date.now() });
    await pause(BURIED_MS);
    proxy.bury();
  }

  async _silent(planned: Planned): Promise<void> {
    const proxy = this.#proxy(planned);
    this.#note({ fault: "silent", at: Date.now() });
    proxy.freeze();
    await pause(BURIED_MS);
    proxy.bury();
  }

  async _stall(planned: Planned): Promise<void> {
    this.#note({ fault: "stall", at: Date.now() });
    this.#proxy(planned).stall(STALL_MS);
    await pause(STALL_MS);
  }

  async _slow(planned: Planned): Promise<void> {
    const proxy = this.#proxy(planned);
    this.#note({ fault: "slow", at: Date.now() });
    proxy.latency = SLOW_MS;
    await pause(SLOW_FOR_MS);
    proxy.latency = 0;
  }

  async _clock(planned: Planned): Promise<void> {
    const worker = await this.#up(planned);
    this.#note({ fault: "clock", at: Date.now(), name: worker.name });
    worker.build = { ...worker.build, clock: planned.share < 0.5 ? "-2h" : "+2h" };
    worker.kill();
  }

  /** A stranger's snapshot: what is dead stays, and index scans grow longer. The server may go away under it, and then it has been. */
  async _snapshot(): Promise<void> {
    const client = await this.#connected();
    try {
      await client.query("begin isolation level repeatable read");
      await client.query(`select count(*) from ${SCHEMA}.run`);
      this.#note({ fault: "snapshot", at: Date.now() });
      await pause(this.#parts.size.snapshotMs);
    } finally {
      await client.end().catch(() => {});
    }
  }

  async #connected(): Promise<pg.Client> {
    for (const end = performance.now() + 30_000; performance.now() < end; await pause(50)) {
      const client = new pg.Client({ connectionString: this.#parts.url(), connectionTimeoutMillis: 5000 });
      client.on("error", () => {});
      try {
        await client.connect();
        return client;
      } catch {
        await client.end().catch(() => {});
      }
    }
    throw new Error("no connection within 30 s");
  }

  /** Forward, worker by worker; then back, all but one, which goes on with what the new version has begun. */
  async _deploy(): Promise<void> {
    const { workers, driver, size } = this.#parts;
    const forward = driver.version === 1;
    for (const [at, worker] of workers.slice(0, size.deployed).entries()) {
      if (!forward && at === 0) continue;
      while (worker.state !== "up") await pause(20);
      await worker.exchange({ version: forward ? 2 : 1, clock: worker.build.clock });
      // Who starts runs is deployed too.
      if (at === 0 || !forward) driver.version = forward ? 2 : 1;
    }
    this.#note({ fault: "deploy", at: Date.now() });
  }

  async #terminate(fault: Fault, name: string, which: string): Promise<void> {
    await this.#insist(
      `select pg_terminate_backend(a.pid) from pg_stat_activity a where a.application_name = $1 and ${which} limit 1`,
      [name],
      (rows) => rows.length > 0,
    );
    this.#note({ fault, at: Date.now() });
  }

  async #backendOf(name: string, which: string): Promise<number> {
    const rows = await this.#insist(
      `select a.pid from pg_stat_activity a where a.application_name = $1 and ${which} limit 1`,
      [name],
      (found) => found.length > 0,
    );
    return rows[0].pid;
  }

  async #untilAccepting(): Promise<void> {
    // It may still answer, from before.
    await pause(50);
    await this.#insist("select 1", [], () => true);
  }

  /** Asks until the server is there and the answer is good. */
  async #insist(text: string, values: unknown[], good: (rows: any[]) => boolean): Promise<any[]> {
    for (const end = performance.now() + 30_000; performance.now() < end; await pause(20)) {
      try {
        const rows = await sql(this.#parts.url(), text, values);
        if (good(rows)) return rows;
      } catch {}
    }
    throw new Error(`not within 30 s: ${text}`);
  }
}
