/**
 * What does a run cost Postgres, statement by statement? The CPU time of the one backend that executes them, per run, alone and 200 at a
 * time, beside the same rows written by bare `pg` in turns with them. Needs a server on this machine: the kernel keeps the time
 * (/proc/<pid>/schedstat), which other work on the machine moves little.
 */
import { readFileSync } from "node:fs";
import { setImmediate as turn } from "node:timers/promises";
import type pg from "pg";
import { uuidv7 } from "../lib/db/start-row.ts";
import { call, statement } from "../lib/db/statement.ts";
import { ENDS, type WriteKind } from "../lib/db/writes.ts";
import { Bare, PLANNED } from "./support/bare.ts";
import { median, number, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";

const WORKER = "1";
const LANES = { workflows: ["one-step"], versions: ["1"], queues: ["default"] };
const SIZES: readonly (readonly [size: number, rounds: number])[] = [
  [1, 300],
  [200, 40],
];

export async function statements(lab: Lab): Promise<void> {
  const columns: Map<string, number>[] = [];
  for (const [size, rounds] of SIZES) {
    const schema = await lab.schema();
    const meter = await Meter.on(await lab.client({ options: PLANNED }));
    const own = new Own(schema, await Meter.on(await lab.client()));
    const bare = new Bare(schema);
    for (let round = -rounds / 4; round < rounds; round += 1) {
      if (round === 0) for (const one of [meter, own.meter]) one.forget();
      await own.leased(size);
      await own.claimed(size);
      await bareRounds(bare, meter, size);
      await own.waiting(size);
      await bareClaims(bare, meter, size);
    }
    columns.push(new Map([...own.meter.medians(size), ...meter.medians(size)]));
  }
  const names = [...new Set(columns.flatMap((column) => [...column.keys()]))].sort();
  lab.print(
    table([
      ["µs of Postgres per run", ...SIZES.map(([size]) => `${size} at a time`)],
      ...names.map((name) => [name, ...columns.map((column) => (column.has(name) ? number(column.get(name)!) : ""))]),
    ]),
  );
}

/** The statements of the library, as its batches send them. */
class Own {
  readonly meter: Meter;
  readonly #schema: string;

  constructor(schema: string, meter: Meter) {
    this.#schema = schema;
    this.meter = meter;
  }

  /** Started where slots are free; then the last step and the end, which are one statement. */
  async leased(size: number): Promise<void> {
    const started = await this.#batch("leased: ", { start: starts(size, true) });
    const [steps, ends] = [stepsOf(started.start!), endsOf(started.start!)];
    const column = (rows: readonly object[], name: string) => rows.map((row) => (row as Record<string, unknown>)[name]);
    const arrays = [...ENDS.step.map((name) => column(steps, name)), ...ENDS.end.map((name) => column(ends, name))];
    await this.meter.measure("leased: step and end, lone", call(this.#schema, ENDS.fn, [...arrays, false]));
  }

  /** Started without a worker, and claimed; a step and the end, each by itself. */
  async claimed(size: number): Promise<void> {
    await this.waiting(size);
    const { claim } = await this.#batch("claimed: ", { claim: [{ limit: () => size, warmFrom: () => null }] });
    if (claim!.length !== size) throw new Error(`${claim!.length} runs were claimed, not ${size}`);
    await this.#batch("claimed: ", { record: stepsOf(claim!), finish: endsOf(claim!) });
  }

  /** Started without a worker, for others to claim. */
  async waiting(size: number): Promise<void> {
    await this.#batch("claimed: ", { start: starts(size, false) });
  }

  async #batch(label: string, rows: Partial<Record<WriteKind, readonly object[]>>): Promise<Record<string, any[]>> {
    const context = {
      schema: this.#schema,
      worker: WORKER,
      lanes: LANES,
      named: true,
      again: false,
      lockMs: null,
      apart: false,
    };
    const answers: Record<string, any[]> = {};
    await this.meter.measure(`${label}begin`, "begin isolation level read committed read write");
    for (const [kind, of] of Object.entries(rows)) {
      const items = of.map((row) => ({ row }));
      answers[kind] = await this.meter.measure(`${label}${kind}`, statement(kind as WriteKind, items, context));
    }
    await this.meter.measure(`${label}commit`, "commit");
    return answers;
  }
}

function stepsOf(runs: readonly { key: string }[]): object[] {
  const at = Date.now();
  const step = { slot: "step:add-one/0123456789abcdef#1", attempt: 1, no: 1, kind: "step", name: "add-one" };
  const outcome = { outcome: "completed", value: '{"json":2}', hash: null, tries: 1, started: at, at, mail: null };
  return runs.map(({ key }) => ({ run: key, epoch: 1, ...step, ...outcome }));
}

function endsOf(runs: readonly { key: string }[]): object[] {
  return runs.map(({ key }) => ({ run: key, epoch: 1, state: "completed", value: '{"json":2}', reopened: null }));
}

function starts(size: number, leased: boolean): object[] {
  return Array.from({ length: size }, () => ({
    id: uuidv7(),
    workflow: LANES.workflows[0],
    version: LANES.versions[0],
    queue: LANES.queues[0],
    priority: 0,
    args: '{"json":[1]}',
    hash: "0123456789abcdef",
    keep: false,
    detached: false,
    lease: () => leased,
  }));
}

/** The rows of a run leased at birth, a commit for each statement. */
async function bareRounds(bare: Bare, meter: Meter, size: number): Promise<void> {
  const client = meter.as("bare: ");
  await (size === 1 ? bare.single(client, 1) : bare.batch(client, size, 1));
}

/** Claimed, worked on and finished. */
async function bareClaims(bare: Bare, meter: Meter, size: number): Promise<void> {
  const client = meter.as("bare claimed: ");
  await bare.finishBatch(client, await bare.claimBatch(client, LANES.workflows[0]!, size), 1);
}

/** A client whose backend's CPU time is read around each statement. */
class Meter {
  readonly #client: pg.Client;
  readonly #stat: string;
  readonly #used = new Map<string, number[]>();

  static async on(client: pg.Client): Promise<Meter> {
    const [{ pid }] = (await client.query("select pg_backend_pid() as pid")).rows;
    return new Meter(client, `/proc/${pid}/schedstat`);
  }

  constructor(client: pg.Client, stat: string) {
    this.#client = client;
    this.#stat = stat;
  }

  async measure(name: string, query: string | pg.QueryConfig): Promise<any[]> {
    const before = await this.#cpu();
    const { rows } = await this.#client.query(query as pg.QueryConfig);
    const used = this.#used.get(name) ?? [];
    used.push((await this.#cpu()) - before);
    this.#used.set(name, used);
    return rows;
  }

  /** What bare `pg` takes for a client. */
  as(label: string): pg.Client {
    const query = async (given: pg.QueryConfig) => ({ rows: await this.measure(`${label}${given.name}`, given) });
    return { query } as unknown as pg.Client;
  }

  forget(): void {
    this.#used.clear();
  }

  medians(size: number): [string, number][] {
    return [...this.#used].map(([name, used]) => [name, median(used) / size]);
  }

  /** Microseconds on a CPU. The backend has come to rest a turn after its answer. */
  async #cpu(): Promise<number> {
    await turn();
    return Number(readFileSync(this.#stat, "latin1").split(" ")[0]) / 1000;
  }
}
