/**
 * How fast does one process work off what was started before, and what does one cost? Timed from the beginning of the first body to the
 * end of the last one that the database knows of.
 */
import { setTimeout as pause } from "node:timers/promises";
import { spread, table } from "../../support/figures.ts";
import type { Kind } from "../adapter.ts";
import type { Arena, Site } from "../arena.ts";
import { titleOf } from "../contenders.ts";
import { middle, Rounds } from "../ratios.ts";
import type { Sizes } from "../sizes.ts";
import { clock } from "../teller.ts";
import type { WorkerProcess } from "../worker.ts";

/** A drain that takes longer than this has stalled. */
const STALLED_MS = 120_000;
/** So long a sample tells how fast a contender is. */
const TELLING_S = 0.7;

export interface Drained {
  /** Per second. */
  readonly rate: number;
  readonly starts: number;
  /** Of one workflow: statements, commits, bytes of log, microseconds. */
  readonly statements: number | null;
  readonly commits: number;
  readonly wal: number;
  readonly process: number;
  readonly postgres: number | null;
}

export const oneStep = (arena: Arena): Promise<void> => drains(arena, "one-step", 1);
export const tenSteps = (arena: Arena): Promise<void> => drains(arena, "ten-steps", 10);

async function drains(arena: Arena, kind: Kind, steps: number): Promise<void> {
  const contenders = await arena.contenders(["throughput", "default"]);
  const sites = await arena.sites(contenders.filter(({ adapter }) => steps === 1 || adapter.can.includes("steps")));
  const rounds = await inTurn(arena, sites, kind, (site, count) => drained(site, kind, count));
  arena.print(
    table([
      ["", steps === 1 ? "runs/s" : "runs/s of ten steps", "perdure is", "starts/s"],
      ...rounds.titles.map((title) => [
        title,
        spread(rounds.values(title, ({ rate }) => rate)),
        rounds.ahead(title, ({ rate }) => rate),
        middle(rounds.values(title, ({ starts }) => starts)),
      ]),
    ]),
  );
  arena.print(costs(rounds));
}

function costs(rounds: Rounds<Drained>): string {
  const picks: Readonly<Record<string, (of: Drained) => number | null>> = {
    statements: (of) => of.statements,
    commits: (of) => of.commits,
    "WAL bytes": (of) => of.wal,
    "Postgres CPU µs": (of) => of.postgres,
    "process CPU µs": (of) => of.process,
  };
  const row = (title: string): string[] => [
    title,
    ...Object.values(picks).map((pick) => middle(rounds.values(title, pick))),
    rounds.times(title, ({ process }) => process).replace(/ \(.*/, ""),
  ];
  return table([["one costs", ...Object.keys(picks), "of perdure's"], ...rounds.titles.map(row)]);
}

/** Every site once in every round, each round beginning with another, with a count that takes it some seconds. */
export async function inTurn<T>(
  arena: Arena,
  sites: readonly Site[],
  kind: Kind,
  measure: (site: Site, count: number) => Promise<T>,
  times: number = arena.sizes.rounds,
): Promise<Rounds<T>> {
  const [rounds, counts] = [new Rounds<T>(), new Map<Site, number>()];
  for (const site of sites) {
    const count = await arena.trying(site.contender, () => fitting(site, kind, arena));
    if (count) counts.set(site, count);
  }
  for (let round = 0; round < times; round += 1) {
    for (let turn = 0; turn < sites.length; turn += 1) {
      const site = sites[(turn + round) % sites.length]!;
      const count = counts.get(site);
      if (!count) continue;
      const figure = await arena.trying(site.contender, () => measure(site, count));
      if (figure) rounds.add(site.contender.name, figure);
      else counts.delete(site);
    }
  }
  return inOrder(rounds, sites);
}

/** The first round begins with the first of the sites, a later one with another: tables keep the order of the sites. */
function inOrder<T>(rounds: Rounds<T>, sites: readonly Site[]): Rounds<T> {
  const ordered = new Rounds<T>();
  for (const { contender } of sites)
    for (const figure of rounds.of(contender.name)) ordered.add(contender.name, figure);
  return ordered;
}

/** With how many of them a drain takes as long as it should. */
export async function fitting(site: Site, kind: Kind, { sizes, counts }: Arena): Promise<number> {
  const key = `${kind} ${titleOf(site.contender)}`;
  const count = counts.get(key) ?? (await tried(site, kind, sizes));
  counts.set(key, count);
  return count;
}

async function tried(site: Site, kind: Kind, sizes: Sizes): Promise<number> {
  if (sizes.sample === sizes.most) return sizes.most;
  for (let count = sizes.sample; ; ) {
    const { rate } = await drained(site, kind, count);
    if (count >= sizes.most || count / rate > TELLING_S) return bounded(rate * sizes.seconds, sizes);
    count = bounded(rate, { sample: count * 4, most: sizes.most });
  }
}

const bounded = (count: number, { sample, most }: { sample: number; most: number }): number =>
  Math.round(Math.min(most, Math.max(sample, count)));

/** Starts so many, then lets so many processes work them off. */
export async function drained(site: Site, kind: Kind, count: number, processes = 1): Promise<Drained> {
  const starts = await started(site, kind, count);
  await site.sql("vacuum analyze"); // the planner knows the tables
  const read = await site.meter();
  const workers = await site.workers(processes);
  const end = await worked(site, workers, count);
  const usages = await Promise.all(workers.map((worker) => worker.usage()));
  await Promise.all(workers.map((worker) => worker.stop()));
  const { statements, commits, wal, cpu } = await read();
  const each = (value: number | null): number | null => (value === null ? null : value / count);
  return {
    rate: (count * 1000) / (end - Math.min(...workers.map(({ began }) => began))),
    starts,
    statements: each(statements),
    commits: commits / count,
    wal: wal / count,
    process: usages.reduce((sum, usage) => sum + usage.cpu, 0) / count,
    postgres: each(cpu),
  };
}

async function started(site: Site, kind: Kind, count: number): Promise<number> {
  const client = await site.client();
  const start = clock();
  await client.startMany(kind, count);
  const rate = (count * 1000) / (clock() - start);
  await site.part();
  return rate;
}

/**
 * How many bodies end per second until so many have: of those that are there, or of as many that are started for it, which are all done
 * when this returns.
 */
export async function bodies(site: Site, count: number, which: "there" | "started"): Promise<number> {
  if (which === "started") {
    await started(site, "one-step", count);
    await site.sql("vacuum analyze");
  }
  const worker = await site.worker();
  await ended([worker], count);
  const rate = (worker.ended * 1000) / (clock() - worker.began);
  if (which === "started") await site.idle();
  await worker.stop();
  return rate;
}

/** Until all bodies have ended and the database knows of it: when that was. */
async function worked(site: Site, workers: readonly WorkerProcess[], count: number): Promise<number> {
  await ended(workers, count);
  await site.idle();
  return clock();
}

/** Until so many bodies have ended. */
async function ended(workers: readonly WorkerProcess[], count: number): Promise<void> {
  const deadline = clock() + STALLED_MS;
  while (workers.reduce((sum, worker) => sum + worker.ended, 0) < count) {
    for (const worker of workers) worker.check();
    const done = workers.map((worker) => worker.ended);
    if (clock() > deadline) throw new Error(`stalled: ${done.join(" + ")} of ${count} have ended`);
    await pause(5);
  }
}
