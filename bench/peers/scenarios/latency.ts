/**
 * How long does one thing take on an idle system? Start → result in one process; started elsewhere → the body runs; event sent
 * elsewhere → the body goes on; how late fifty sleeps of a second end. Each contender is visited once a round, alone on the machine.
 */
import { setTimeout as pause } from "node:timers/promises";
import { median, number, percentile, table } from "../../support/figures.ts";
import { SLEEP_MS } from "../adapter.ts";
import type { Arena, Site } from "../arena.ts";
import { titleOf } from "../contenders.ts";
import { Rounds } from "../ratios.ts";
import type { Sizes } from "../sizes.ts";
import { clock } from "../teller.ts";
import type { WorkerProcess } from "../worker.ts";

type Measure = (site: Site, worker: WorkerProcess, sizes: Sizes, round: number) => Promise<number[]>;

interface Question {
  readonly title: string;
  readonly can: "results" | "events" | "sleeps" | null;
  readonly measure: Measure;
}

const QUESTIONS: readonly Question[] = [
  { title: "start → result, one step, ms", can: "results", measure: results },
  { title: "start elsewhere → body runs, ms", can: null, measure: dispatches },
  { title: "event sent → body goes on, ms", can: "events", measure: events },
  { title: `sleep of ${SLEEP_MS / 1000} s, many at once: late by, ms`, can: "sleeps", measure: sleeps },
];
/** Whoever has told that it waits is waiting by then, in the database too. */
const PARKED_MS = 500;

export async function latency(arena: Arena): Promise<void> {
  const sites = await arena.sites(await arena.contenders(["default", "latency"], true));
  const times = QUESTIONS.map(() => new Rounds<readonly number[]>());
  const lost = new Set<Site>();
  for (let round = 0; round < arena.sizes.rounds; round += 1) {
    for (const site of sites) {
      if (lost.has(site)) continue;
      const figures = await arena.trying(site.contender, () => visit(site, arena.sizes, round));
      if (!figures) lost.add(site);
      figures?.forEach((values, at) => {
        if (values.length > 0) times[at]!.add(titleOf(site.contender), values);
      });
    }
  }
  QUESTIONS.forEach(({ title }, at) => {
    arena.print(report(title, times[at]!));
  });
}

/** All questions to one contender; empty where it cannot. */
async function visit(site: Site, sizes: Sizes, round: number): Promise<number[][]> {
  const worker = await site.worker();
  await site.client();
  await pause(300);
  const figures: number[][] = [];
  for (const { can, measure } of QUESTIONS) {
    const able = can === null || site.contender.adapter.can.includes(can);
    figures.push(able ? await measure(site, worker, sizes, round) : []);
  }
  await worker.stop();
  await site.part();
  return figures;
}

/** What takes long is measured a few times at least; what does not is warmed up before. */
const AT_LEAST = 4;
const WARM_MS = 100;

/** Again and again until the time is up, each time at another point of the periods of who polls. */
async function again(sizes: Sizes, measure: (at: number) => Promise<number>): Promise<number[]> {
  const times: number[] = [];
  let end = clock() + sizes.budget;
  for (let at = 0; times.length < AT_LEAST || (times.length < sizes.times && clock() < end); at += 1) {
    const ms = await measure(at);
    if (at < 3 && ms < WARM_MS) end = clock() + sizes.budget;
    else times.push(ms);
    await pause(Math.random() * Math.min(1000, 5 + ms));
  }
  return times;
}

function results(_site: Site, worker: WorkerProcess, sizes: Sizes): Promise<number[]> {
  return again(sizes, () => worker.once());
}

async function dispatches(site: Site, worker: WorkerProcess, sizes: Sizes, round: number): Promise<number[]> {
  const client = await site.client();
  return again(sizes, async (at) => {
    const mark = `told-${round}-${at}`;
    const start = clock();
    await client.start("told", mark);
    return (await worker.reached("tells", mark)) - start;
  });
}

async function events(site: Site, worker: WorkerProcess, sizes: Sizes, round: number): Promise<number[]> {
  const client = await site.client();
  const marks = Array.from({ length: sizes.events }, (_, at) => `waiter-${round}-${at}`);
  await Promise.all(marks.map((mark) => client.start("waiter", mark)));
  await Promise.all(marks.map((mark) => worker.reached("waits", mark)));
  await pause(PARKED_MS);
  const times: number[] = [];
  for (const mark of marks) {
    const start = clock();
    await client.send(mark);
    times.push((await worker.reached("tells", mark)) - start);
    await pause(Math.random() * 30);
  }
  return times;
}

async function sleeps(site: Site, worker: WorkerProcess, sizes: Sizes, round: number): Promise<number[]> {
  const client = await site.client();
  const marks = Array.from({ length: sizes.sleepers }, (_, at) => `sleeper-${round}-${at}`);
  await Promise.all(marks.map((mark) => client.start("sleeper", mark)));
  return Promise.all(
    marks.map(async (mark) => {
      const asked = await worker.reached("sleeps", mark);
      return (await worker.reached("tells", mark)) - asked - SLEEP_MS;
    }),
  );
}

function report(question: string, rounds: Rounds<readonly number[]>): string {
  const rows = rounds.titles.map((title) => {
    const all = rounds.of(title).flat();
    const at = (share: number): string => number(percentile(all, share));
    return [title, at(0.5), at(0.95), at(0.99), `${all.length}`, rounds.times(title, median)];
  });
  return table([[question, "p50", "p95", "p99", "n", "p50 of perdure's"], ...rows]);
}
