/** One chaos run from beginning to end: what is set up, driven, broken, healed, checked and measured. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { Perdure } from "../../lib/index.ts";
import { eventually } from "../support/eventually.ts";
import { FaultyProxy } from "../support/proxy.ts";
import { LEDGER, SCHEMA, TRIGGERS } from "./audit.ts";
import { CHECKS, type Ground } from "./checks.ts";
import { Dice } from "./dice.ts";
import { Driver } from "./driver.ts";
import { Worker } from "./fleet.ts";
import { History } from "./history.ts";
import { Nemesis, planOf } from "./nemesis.ts";
import { note, Observers } from "./observers.ts";
import { type Figures, measure, tooGentle } from "./report.ts";
import { Server } from "./server.ts";
import type { Size } from "./size.ts";

export interface Outcome {
  /** What was broken, by invariant. */
  readonly violations: readonly string[];
  /** What did not happen often enough for the rest to say much. */
  readonly gentle: readonly string[];
  readonly figures: Figures;
  /** Histories and logs. */
  readonly folder: string;
}

export interface Telling {
  say(line: string): void;
  /** Stops as soon as something is broken: for builds that must break. */
  readonly hasty?: boolean;
}

/** Everything that a chaos run needs, and its end. */
class World {
  readonly folder: string;
  readonly size: Size;
  readonly server: Server;
  readonly front: FaultyProxy;
  readonly pool: pg.Pool;
  readonly workers: Worker[] = [];
  readonly history: History;
  readonly log: History;
  driver!: Driver;
  listens = 0;

  private constructor(parts: {
    folder: string;
    size: Size;
    server: Server;
    front: FaultyProxy;
    history: History;
    log: History;
  }) {
    this.folder = parts.folder;
    this.size = parts.size;
    this.server = parts.server;
    this.front = parts.front;
    this.history = parts.history;
    this.log = parts.log;
    this.pool = new pg.Pool({ connectionString: this.url, max: 3, connectionTimeoutMillis: 5000 });
    this.pool.on("error", () => {});
  }

  static async make(size: Size): Promise<World> {
    const folder = await mkdtemp(join(tmpdir(), `perdure-chaos-${size.seed}-`));
    const server = await Server.start(folder, size.faults.failover > 0);
    const front = await FaultyProxy.open(server.target);
    const [history, log] = [
      await History.open(join(folder, "history.jsonl")),
      await History.open(join(folder, "nemesis.jsonl")),
    ];
    const world = new World({ folder, size, server, front, history, log });
    try {
      await world.#prepare();
    } catch (error) {
      await world.end();
      throw error;
    }
    return world;
  }

  /** To the server, whichever it is, through no fault. */
  get url(): string {
    return `postgres://postgres@127.0.0.1:${this.front.port}/postgres?application_name=chaos-ground`;
  }

  async sql(text: string, values: unknown[] = []): Promise<any[]> {
    return (await this.pool.query(text, values)).rows;
  }

  async #prepare(): Promise<void> {
    await new Perdure({ database: this.url, schema: SCHEMA }).migrate();
    await this.sql(LEDGER);
    await this.sql(TRIGGERS);
    const { size, folder } = this;
    for (let no = 0; no < size.workers; no += 1) {
      const proxy = await FaultyProxy.open(this.server.target);
      proxy.onSent = (bytes) => {
        if (bytes.includes("LISTEN ")) this.listens += 1;
      };
      const worker = new Worker(no, proxy, { ledger: () => this.url, leaseMs: size.leaseMs, logs: folder });
      this.workers.push(worker);
      worker.start();
    }
    this.driver = await Driver.open(this.server.target, this.history, new Dice(size.seed));
    await eventually(() => this.workers.every(({ state }) => state === "up"), 60_000);
  }

  async end(): Promise<void> {
    await this.driver?.close();
    await Promise.all(this.workers.map((worker) => worker.end("SIGKILL")));
    await this.pool.end();
    await this.front.close();
    await this.server.stop();
    await this.history.close();
    await this.log.close();
  }
}

export async function chaos(size: Size, telling: Telling): Promise<Outcome> {
  const world = await World.make(size);
  let ended = false;
  const end = async (): Promise<void> => {
    if (!ended) await world.end();
    ended = true;
  };
  try {
    await writeFile(join(world.folder, "size.json"), JSON.stringify(size, null, 2));
    return await run(world, telling, end);
  } finally {
    await end();
  }
}

async function run(world: World, { say, hasty = false }: Telling, end: () => Promise<void>): Promise<Outcome> {
  const { size, driver, workers } = world;
  const nemesis = new Nemesis({ size, workers, driver, server: world.server, url: () => world.url, log: world.log });
  nemesis.onFailover = (target) => {
    world.front.target = target;
    world.front.cut();
  };
  const observers = new Observers({
    engines: driver.engines,
    url: () => world.url,
    seed: size.seed,
    cases: driver.cases,
  });
  const since = performance.now();
  const progress = setInterval(() => void say(progressOf(world, nemesis, since)), 10_000);
  const watch = hasty ? setInterval(() => void stopOnceBroken(world, nemesis), 1000) : undefined;
  try {
    await Promise.all([driver.drive(size.runs, size.seconds * 1000, size.poison), nemesis.rage(planOf(size))]);
    nemesis.heal();
    const healed = performance.now();
    await calmDown(world, hasty ? 20_000 : size.patienceMs);
    say(`healed: ${((performance.now() - healed) / 1000).toFixed(1)} s until all was done`);
  } finally {
    clearInterval(progress);
    clearInterval(watch);
    await observers.stop();
  }
  for (const one of observers.all) await lookAtAll(one, driver);
  await Promise.all(workers.map((worker) => worker.end("leave")));
  const ground: Ground = {
    sql: (text, values) => world.sql(text, values),
    driver,
    observers: observers.all,
    cases: driver.cases,
    serverLog: "",
    replays: Math.min(300, Math.ceil(size.runs / 20)),
  };
  const violations = await checked(ground, false);
  const figures = await measure(world, nemesis, (text, values) => world.sql(text, values));
  await end();
  violations.push(...(await checked({ ...ground, serverLog: await logsIn(world.folder) }, true)));
  const gentle = size.rough ? tooGentle(figures, size) : [];
  await mkdir(world.folder, { recursive: true });
  await writeFile(join(world.folder, "violations.txt"), violations.join("\n"));
  if (violations.length === 0 && gentle.length === 0) await rm(world.folder, { recursive: true });
  return { violations, gentle, figures, folder: world.folder };
}

/** Those that read the logs of the servers, or all others. */
async function checked(ground: Ground, afterwards: boolean): Promise<string[]> {
  const found: string[] = [];
  for (const check of CHECKS.filter(({ reads }) => (reads === "logs") === afterwards)) {
    const lines = await check.find(ground).catch((error: Error) => [`the check failed: ${error.stack}`]);
    found.push(...lines.map((line) => `${check.invariant} ${check.says}: ${line}`));
  }
  return found;
}

/** Waits for the end of all runs; a person retries what was quarantined by the faults alone. */
async function calmDown(world: World, ms: number): Promise<void> {
  const { driver } = world;
  const person = driver.engines[0]!;
  let done = false;
  const settled = driver.settled(ms).finally(() => {
    done = true;
  });
  while (!done) {
    const blocked = await world.sql(
      `select id from ${SCHEMA}.run where state = 'blocked' and crashes >= 5 and workflow <> 'poison'`,
    );
    if (blocked.length > 0) await person.retry(blocked.map(({ id }) => id));
    await Promise.race([settled, pause(200)]);
  }
  for (const name of ["interval", "cron"]) await person.schedules.pause(name);
  const open = `select 1 from ${SCHEMA}.run where state not in ('completed', 'failed', 'cancelled', 'blocked') limit 1`;
  await eventually(async () => (await world.sql(open)).length === 0, 20_000).catch(() => {});
  const deadly = `select 1 from ${SCHEMA}.run where workflow = 'poison' and state <> 'blocked' limit 1`;
  await eventually(async () => (await world.sql(deadly)).length === 0, 20_000).catch(() => {});
}

async function lookAtAll(one: Observers["all"][number], driver: Driver): Promise<void> {
  const ids = driver.cases.filter(({ started }) => started).map(({ order }) => order.id);
  for (let at = 0; at < ids.length; at += 8) {
    const some = ids.slice(at, at + 8);
    note(one, await eventually(() => one.look(some), 20_000));
  }
}

async function stopOnceBroken(world: World, nemesis: Nemesis): Promise<void> {
  const rows = await world.sql("select 1 from chaos.violation limit 1").catch(() => []);
  if (rows.length === 0) return;
  nemesis.stop();
  world.driver.stop();
}

async function logsIn(folder: string): Promise<string> {
  const names = (await readdir(folder)).filter((name) => /^pg-\d+\.log$/.test(name));
  return (await Promise.all(names.map((name) => readFile(join(folder, name), "utf8")))).join("\n");
}

function progressOf({ driver, workers }: World, nemesis: Nemesis, since: number): string {
  const told = driver.cases.filter(({ told: known }) => known).length;
  const states = workers.map(({ state }) => state[0]).join("");
  return `${((performance.now() - since) / 1000).toFixed(0).padStart(4)} s  ${driver.cases.length} runs, ${told} ended, ${nemesis.happened.length} faults, workers ${states}`;
}
