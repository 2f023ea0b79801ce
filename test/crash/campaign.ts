/** Which statements fail how, and what came of it: all of them, or a part drawn from a seed. */
import type { Test } from "tap";
import { FAILURES, type Failure, type Point } from "../support/wire.ts";
import { Lane } from "./points.ts";

export interface Trial {
  readonly point: Point;
  readonly failure: Failure;
}

export interface Tried extends Trial {
  /** Whether it came to the failure: another order of what runs side by side may take a statement less. */
  readonly hit: boolean;
  readonly violations: readonly string[];
}

/** What stays in the memory of the processes, so that each go begins as the one before. */
const REHEARSALS = 4;

/** The statements of runs in which nothing fails. */
export async function rehearse(lane: Lane): Promise<Point[]> {
  const points = new Map<string, Point>();
  for (let n = 0; n < REHEARSALS; n += 1) {
    const { seen, violations } = await lane.go(null, "cut after");
    if (violations.length > 0) throw new Error(`nothing has failed, and yet ${violations.join("; ")}`);
    for (const point of seen) points.set(`${point.name}#${point.nth}`, point);
  }
  return [...points.values()];
}

export const allOf = (points: readonly Point[], failures: readonly Failure[] = FAILURES): Trial[] =>
  points.flatMap((point) => failures.map((failure) => ({ point, failure })));

/** Numbers from 0 to 1 that follow from a seed (mulberry32). */
export function numbersFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Each failure at one of the statements of every name, and more of those that are sent often. */
export function sampleOf(points: readonly Point[], seed: number, size: number): Trial[] {
  const next = numbersFrom(seed);
  const draw = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)]!;
  const names = [...new Set(points.map(({ name }) => name))];
  const drawn = names.map((name): Trial => {
    return { point: draw(points.filter((point) => point.name === name)), failure: draw(FAILURES) };
  });
  while (drawn.length < size) drawn.push({ point: draw(points), failure: draw(FAILURES) });
  return drawn;
}

/** Tries all, each lane one after the other. */
export async function carryOut(
  lanes: readonly Lane[],
  trials: readonly Trial[],
  told: (tried: Tried) => void,
): Promise<Tried[]> {
  const left = [...trials].reverse();
  const done: Tried[] = [];
  const work = async (lane: Lane): Promise<void> => {
    for (let trial = left.pop(); trial; trial = left.pop()) {
      const { hit, violations } = await lane.go(trial.point, trial.failure);
      const tried = { ...trial, hit, violations };
      done.push(tried);
      told(tried);
    }
  };
  await Promise.all(lanes.map(work));
  return done;
}

export const openLanes = (t: Pick<Test, "teardown">, count: number): Promise<Lane[]> =>
  Promise.all(Array.from({ length: count }, () => Lane.open(t)));

export const nameOf = ({ point, failure }: Trial): string => `${failure} "${point.name}" no. ${point.nth}`;
