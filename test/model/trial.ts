/** Many programs, on one rig: what fails is made shorter, and printed so that it can be played again. */
import fc from "fast-check";
import { type Program, programs } from "./program.ts";
import { Rig } from "./rig.ts";
import { type Played, play } from "./world.ts";

export interface Given {
  readonly runs: number;
  readonly seed?: number | undefined;
  /** Of a failure: leads to the program itself. */
  readonly path?: string | undefined;
  /** No new program after so long, beside the first. */
  readonly timeMs?: number | undefined;
  /** A failure is made shorter for so long, as each try of a shorter program takes a while. Default: a minute. */
  readonly shrinkMs?: number | undefined;
  /** These, one after the other, instead of any at random. */
  readonly programs?: readonly Program[] | undefined;
}

export interface Trial {
  readonly failed: boolean;
  readonly text: string;
  readonly played: number;
}

/** As many at a time as `lanes`, each with a rig and a seed of its own: most of the time a program waits. */
export async function trials(given: Given, lanes: number): Promise<Trial[]> {
  const seed = given.seed ?? Math.floor(Math.random() * 2 ** 31);
  const runs = Math.ceil(given.runs / lanes);
  return Promise.all(Array.from({ length: lanes }, (_, n) => trial({ ...given, runs, seed: seed + n })));
}

export async function trial({
  runs,
  seed = Math.floor(Math.random() * 2 ** 31),
  path,
  timeMs = Infinity,
  shrinkMs = 60_000,
  programs: chosen,
}: Given): Promise<Trial> {
  const rig = await Rig.open();
  const total = { programs: 0, rounds: 0, orders: 0, runs: 0, lost: 0 };
  let failedAt = 0;
  let first: Error | undefined;
  const add = (played: Played): void => {
    total.programs += 1;
    for (const key of ["rounds", "orders", "runs", "lost"] as const) total[key] += played[key];
  };
  const began = performance.now();
  const figuresOf = (): string => {
    const seconds = ((performance.now() - began) / 1000).toFixed(0);
    const { programs: played, orders, rounds, runs: made, lost } = total;
    return `${played} programs, ${orders} orders in ${rounds} rounds, ${made} runs, ${lost} processes or servers lost, ${seconds} s`;
  };
  try {
    if (chosen) for (const program of chosen) add(await play(rig, program));
    if (chosen) return { failed: false, text: figuresOf(), played: total.programs };
    const property = fc.asyncProperty(programs(), async (made) => {
      const now = performance.now();
      if (failedAt > 0 ? now - failedAt > shrinkMs : total.programs > 0 && now - began > timeMs) return;
      try {
        add(await play(rig, made));
      } catch (error) {
        failedAt ||= performance.now();
        first ??= error as Error;
        throw error;
      }
    });
    const details = await fc.check(property, { numRuns: runs, seed, ...(path && { path }) });
    const figures = `seed ${seed}: ${figuresOf()}`;
    if (!details.failed) return { failed: false, text: figures, played: total.programs };
    const again = `again: npm run model -- --seed ${seed} --path ${details.counterexamplePath} --runs 1`;
    const error = details.errorInstance as Error | undefined;
    const text = `${figures}\n${error?.message ?? error}\n${again}\nAt first it was:\n${first?.message}`;
    return { failed: true, text, played: total.programs };
  } finally {
    await rig.close();
  }
}
