/**
 * How long from the kill -9 of the process that owns a run until its next step starts elsewhere? Two processes with default settings;
 * one starts a run and is killed inside its second step; the clock runs from the signal until the other one says that the step runs
 * there. A fresh process then takes the place of the dead one.
 */
import type { ChildProcess } from "node:child_process";
import { setTimeout as pause } from "node:timers/promises";
import { number, percentile } from "./support/figures.ts";
import { type Lab, message } from "./support/lab.ts";

const KILLS = 10;

interface Told {
  readonly ready?: true;
  readonly step?: number;
}

export async function takeover(lab: Lab): Promise<void> {
  const schema = await lab.schema();
  const times: number[] = [];
  let owner = await worker(lab, schema);
  for (let kill = 0; kill < KILLS; kill += 1) {
    const other = await worker(lab, schema);
    times.push(await killed(owner, other, `run-${kill}`));
    owner = other;
  }
  const at = (share: number): string => number(percentile(times, share));
  lab.print(`  kill -9 → next step elsewhere, ms: p50 ${at(0.5)}, p95 ${at(0.95)}, max ${at(1)} (n=${times.length})`);
}

async function worker(lab: Lab, schema: string): Promise<ChildProcess> {
  const child = lab.fork("worker-process.js", [schema]);
  await message<Told>(child);
  return child;
}

async function killed(owner: ChildProcess, other: ChildProcess, id: string): Promise<number> {
  owner.send(id);
  while ((await message<Told>(owner)).step !== 1);
  // Not always at the same point of the other's watch.
  await pause(500 + Math.random() * 1000);
  const start = performance.now();
  owner.kill("SIGKILL");
  while ((await message<Told>(other)).step !== 1);
  return performance.now() - start;
}
