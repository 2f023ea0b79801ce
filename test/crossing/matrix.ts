/** All pairs of operations, in all situations, at all places where the first can be stopped; or some, drawn from a seed. */
import { numbersFrom } from "../crash/campaign.ts";
import { type Crossing, nameOf, type Stage } from "./cross.ts";
import { OPERATIONS } from "./operations.ts";
import { SITUATIONS, type Situation } from "./scene.ts";

export const situations = Object.keys(SITUATIONS) as Situation[];
export const operations = Object.keys(OPERATIONS);

export interface Crossed {
  readonly crossing: Crossing;
  readonly wrong: string | null;
}

/** Some crossings, no two of them of the same first operation until all had their turn. */
export async function* drawn(stage: Stage, seed: number, size: number): AsyncGenerator<Crossing> {
  const next = numbersFrom(seed);
  const draw = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)]!;
  const from = Math.floor(next() * operations.length);
  for (let n = 0; n < size; n += 1) {
    const situation = draw(situations);
    const first = operations[(from + n) % operations.length]!;
    const gates = await stage.gatesOf(situation, first, false);
    yield { situation, first, second: draw(operations), gate: draw(gates), rolledBack: next() < 0.2 };
  }
}

/** All crossings of a first operation in a situation. A roll back stands at the commit only: there most is held. */
export async function* allOf(stage: Stage, situation: Situation, first: string): AsyncGenerator<Crossing> {
  for (const gate of await stage.gatesOf(situation, first, true)) {
    for (const second of operations) {
      for (const rolledBack of gate === "commit" ? [false, true] : [false])
        yield { situation, first, second, gate, rolledBack };
    }
  }
}

export async function carryOut(
  stage: Stage,
  crossings: AsyncIterable<Crossing>,
  told: (crossed: Crossed) => void,
): Promise<void> {
  for await (const crossing of crossings) {
    const wrong = await stage.cross(crossing);
    told({ crossing, wrong: wrong && `${nameOf(crossing)}: ${wrong}` });
  }
}
