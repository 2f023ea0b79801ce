/** Where contenders meet: each in a database of its own on one server, with its worker processes, and the counts of what it cost. */
import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import type { Lab } from "../support/lab.ts";
import type { Client, Setup } from "./adapter.ts";
import { type Contender, loadAdapter, titleOf } from "./contenders.ts";
import { between, Meter, type Reading } from "./meter.ts";
import type { Sizes } from "./sizes.ts";
import { type WorkerOptions, WorkerProcess } from "./worker.ts";

export class Arena {
  readonly lab: Lab;
  readonly sizes: Sizes;
  readonly print: (text: string) => void;
  readonly #meter: Meter;
  readonly #names: readonly string[];
  readonly #sites: Site[] = [];
  /** How many a contender drains in the time that a drain should take, by kind and title: asked once. */
  readonly counts: Map<string, number> = new Map();

  /** An arena for these contenders. */
  static async open(lab: Lab, names: readonly string[], sizes: Sizes): Promise<Arena> {
    return new Arena(lab, await Meter.on(lab), names, sizes);
  }

  private constructor(lab: Lab, meter: Meter, names: readonly string[], sizes: Sizes) {
    this.lab = lab;
    this.sizes = sizes;
    this.print = lab.print;
    this.#meter = meter;
    this.#names = names;
  }

  /** All who take part, in the first of these setups that they have; or in each of them. */
  async contenders(setups: readonly Setup[], each: boolean = false): Promise<Contender[]> {
    const found: Contender[] = [];
    for (const name of this.#names) {
      const adapter = await loadAdapter(name);
      const has = setups.filter((setup) => setup in adapter.setups);
      for (const setup of each ? has : has.slice(0, 1)) found.push({ name, setup, adapter });
    }
    return found;
  }

  /** A database of its own for a contender, its tables made. */
  async site(contender: Contender): Promise<Site> {
    const site = await Site.open(this.lab, this.#meter, contender);
    this.#sites.push(site);
    return site;
  }

  /** Sites for those of the contenders whose tables can be made; who fails is told of, and left out. */
  async sites(contenders: readonly Contender[]): Promise<Site[]> {
    const sites: Site[] = [];
    for (const contender of contenders) {
      const site = await this.trying(contender, () => this.site(contender));
      if (site) sites.push(site);
    }
    return sites;
  }

  /** What the work comes to, or null when it fails: one contender less, not the end of all. */
  async trying<T>(contender: Contender, work: () => Promise<T>): Promise<T | null> {
    try {
      return await work();
    } catch (error) {
      this.print(`  ${titleOf(contender)} is left out: ${(error as Error).message}`);
      return null;
    }
  }

  /** Ends what a scenario opened. */
  async clear(): Promise<void> {
    for (const site of this.#sites.splice(0)) await site.close();
  }
}

export class Site {
  readonly contender: Contender;
  readonly #lab: Lab;
  readonly #meter: Meter;
  readonly #database: string;
  readonly #url: string;
  readonly #pool: pg.Pool;
  readonly #workers: WorkerProcess[] = [];
  #client: Client | undefined;
  /** Statements of the measuring itself in this database. */
  #own = 0;

  static async open(lab: Lab, meter: Meter, contender: Contender): Promise<Site> {
    const database = `bench_${randomBytes(5).toString("hex")}`;
    await lab.sql(`create database ${database} template template0`);
    const site = new Site(lab, meter, contender, database);
    try {
      await contender.adapter.prepare(site.#url, contender.setup);
    } catch (error) {
      await site.close();
      throw error;
    }
    return site;
  }

  private constructor(lab: Lab, meter: Meter, contender: Contender, database: string) {
    this.#lab = lab;
    this.#meter = meter;
    this.contender = contender;
    this.#database = database;
    this.#url = Object.assign(new URL(lab.url), { pathname: `/${database}` }).href;
    this.#pool = new pg.Pool({ connectionString: this.#url, max: 1 });
    this.#pool.on("error", () => {});
  }

  /** The client that starts and sends, until it is parted from. */
  async client(): Promise<Client> {
    this.#client ??= await this.contender.adapter.connect(this.#url);
    return this.#client;
  }

  /** Closes the client, so that its counts are told to the server and it takes no CPU. */
  async part(): Promise<void> {
    await this.#client?.close();
    this.#client = undefined;
  }

  /** A process at work. */
  async worker(options: WorkerOptions = {}): Promise<WorkerProcess> {
    const [worker] = await this.workers(1, options);
    return worker!;
  }

  /** So many processes, which begin together. */
  async workers(count: number, options: WorkerOptions = {}): Promise<WorkerProcess[]> {
    const { name, setup } = this.contender;
    const args = [name, this.#url, setup] as const;
    const workers = await Promise.all(Array.from({ length: count }, () => WorkerProcess.start(args, options)));
    this.#workers.push(...workers);
    await Promise.all(workers.map((worker) => worker.go()));
    return workers;
  }

  async sql(text: string): Promise<any[]> {
    this.#own += 1;
    return (await this.#pool.query(text)).rows;
  }

  /** Until nothing is left to do. */
  async idle(): Promise<void> {
    while ((await this.sql(this.contender.adapter.left))[0].left) await pause(2);
  }

  /** What the server did for this database until the returned function is called. */
  async meter(): Promise<() => Promise<Reading>> {
    const [before, own] = [await this.#read(), this.#own];
    return async () => between(before, await this.#read(), this.#own - own);
  }

  /** Counts of this session are told to the server first; what counts others tell when their sessions end. */
  async #read(): Promise<Reading> {
    await this.sql("select pg_stat_force_next_flush()").catch(() => {}); // PostgreSQL 15 and newer
    return this.#meter.read(this.#database);
  }

  async close(): Promise<void> {
    for (const worker of this.#workers.splice(0)) worker.kill();
    await this.part().catch(() => {});
    await this.#pool.end();
    await this.#lab.sql(`drop database ${this.#database} with (force)`);
  }
}
