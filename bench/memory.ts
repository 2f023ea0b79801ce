/**
 * What does a suspended run keep in the process, and how long does a long run take to come back? Heap and buffers after a full
 * collection, 10,000 suspended runs against 2,000 before; runs of up to 100,000 steps that wait for an event and are replayed when it comes.
 */
import { number, table } from "./support/figures.ts";
import { type Lab, message } from "./support/lab.ts";

const RUNS = 10_000;

interface Told {
  readonly bytes: number;
  readonly rss: number;
  readonly statements: number;
  readonly longRuns: readonly { steps: number; run: number; resume: number; peak: number }[];
}

export async function memory(lab: Lab): Promise<void> {
  const child = lab.fork("memory-process.js", [await lab.schema(), String(RUNS)], ["--expose-gc"]);
  const told = await message<Told>(child);
  lab.print(
    `  ${RUNS} suspended runs: ${number(told.bytes)} bytes of heap each (${number(told.rss)} of resident memory), ` +
      `${number(told.statements)} statements/s while they wait`,
  );
  const rows = told.longRuns.map(({ steps, run, resume, peak }) => [
    `a run of ${steps} steps`,
    number(run),
    number((run * 1000) / steps),
    number(resume),
    number((resume * 1000) / steps),
    number(peak / 1e6),
  ]);
  lab.print(table([["", "ms to run", "µs/step", "ms to resume", "µs/step", "MB of heap at most"], ...rows]));
}
