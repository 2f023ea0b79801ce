/**
 * How long does one thing take on an idle system? In turn, so that all see the same machine: a single-row commit, a notification's
 * round trip, start → result, start elsewhere → body, send → body, send elsewhere → body. Then fifty sleeps at once: how late each ends.
 */
import type { Client } from "pg";
import { event, type Perdure, sleep, step, workflow } from "../lib/index.ts";
import { percentiles, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";

const ITERATIONS = 300;
/** Before each: a process hints at most once in 10 ms, and what came before is not to be waited for. */
const APART_MS = 12;
const SLEEPS = 50;
const SLEEP_MS = 1000;
const SLEEP_ROUNDS = 3;

/** Told by bodies: what they have reached, by the id they were given. */
const reached = new Map<string, () => void>();

const work = step("work", async (n: number) => n + 1);
const short = workflow("short", async (n: number) => work(n));
const told = workflow("told", async (mark: string) => reached.get(mark)?.());
const news = event<number>("news");
const waiter = workflow("waiter", async (mark: string) => {
  await news.wait();
  reached.get(mark)?.();
});

export async function latency(lab: Lab): Promise<void> {
  const schema = await lab.schema();
  const perdure = await lab.engine(schema, { workflows: [short, told, waiter, sleeper] });
  const outside = await lab.engine(schema, { worker: false });
  const client = await lab.client();
  const times = new Map<string, number[]>();
  const measures = await measuresOf(lab, perdure, outside, schema);
  for (let iteration = -20; iteration < ITERATIONS; iteration += 1) {
    for (const [name, measure] of Object.entries(measures)) {
      await rest(client);
      const ms = await measure(`${name} ${iteration}`);
      if (iteration >= 0) times.set(name, [...(times.get(name) ?? []), ms]);
    }
  }
  times.set(`sleep of 1 s, ${SLEEPS} at once: late by`, await sleeps(perdure));
  lab.print(table([["ms: p50 / p95 / p99", ""], ...[...times].map(([name, values]) => [name, percentiles(values)])]));
}

/** Nothing happens in the schema, but the machine stays awake: a virtual processor that sleeps takes half a millisecond to wake, whatever is measured. */
async function rest(client: Client): Promise<void> {
  for (const end = performance.now() + APART_MS; performance.now() < end; ) await client.query("select 1");
}

type Measure = (mark: string) => Promise<number>;

async function measuresOf(
  lab: Lab,
  perdure: Perdure,
  outside: Perdure,
  schema: string,
): Promise<Record<string, Measure>> {
  const client = await lab.client();
  await client.query(`create table ${schema}.single (n bigint generated always as identity primary key, t text)`);
  const insert = { name: "single", text: `insert into ${schema}.single (t) values ($1)`, values: ["x"] };
  return {
    "single-row commit": async () => taking(() => client.query(insert)),
    "LISTEN/NOTIFY, there and back": await roundTrip(lab),
    "start → result, one step": () => taking(async () => (await perdure.start(short, 1)).result()),
    "start elsewhere → body runs": (mark) => takingUntil(mark, () => outside.start(told, mark)),
    "start elsewhere → result known there": () => taking(async () => (await outside.start(short, 1)).result()),
    "send → body goes on": (mark) => sending(perdure, perdure, mark),
    "send elsewhere → body goes on": (mark) => sending(perdure, outside, mark),
  };
}

async function taking(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

/** Until the body with this mark has reached its point. */
async function takingUntil(mark: string, action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  const at = new Promise<number>((resolve) => reached.set(mark, () => resolve(performance.now())));
  await action();
  const ms = (await at) - start;
  reached.delete(mark);
  return ms;
}

async function sending(perdure: Perdure, sender: Perdure, mark: string): Promise<number> {
  const run = await perdure.start(waiter, mark);
  while ((await run.status()).state !== "suspended") await new Promise((resolve) => setTimeout(resolve, 1));
  const ms = await takingUntil(mark, () => sender.send(run.id, news, 1));
  await run.result();
  return ms;
}

async function roundTrip(lab: Lab): Promise<Measure> {
  const [listener, sender] = [await lab.client(), await lab.client()];
  await listener.query("listen bench");
  return async () => {
    const start = performance.now();
    const heard = new Promise<number>((resolve) => listener.once("notification", () => resolve(performance.now())));
    await sender.query({ name: "notify", text: "select pg_notify($1, $2)", values: ["bench", "x"] });
    return (await heard) - start;
  };
}

/** When each sleep was asked for, by mark: a body that is resumed asks again. */
const asked = new Map<string, number>();
const overshoots: number[] = [];
const sleeper = workflow("sleeper", async (mark: string) => {
  if (!asked.has(mark)) asked.set(mark, performance.now());
  await sleep(SLEEP_MS);
  overshoots.push(performance.now() - asked.get(mark)! - SLEEP_MS);
});

async function sleeps(perdure: Perdure): Promise<number[]> {
  for (let round = 0; round < SLEEP_ROUNDS; round += 1) {
    const starts = Array.from({ length: SLEEPS }, (_, at) => perdure.start(sleeper, `${round}/${at}`));
    const runs = await Promise.all(starts);
    await Promise.all(runs.map((run) => run.result()));
  }
  return overshoots;
}
