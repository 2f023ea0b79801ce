/** Does a step cost more the more came before it? Runs of ever more steps, one after the other; and as many in parts of a hundred at once. */
import { step, workflow } from "../lib/index.ts";
import { median, number, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";

const STEPS = [1000, 10_000];
const CHUNK = 100;
const ROUNDS = 3;

const addOne = step("add-one", async (n: number) => n + 1);
const SHAPES = {
  "one after the other": workflow("sequence", async (steps: number) => {
    for (let at = 0; at < steps; at += 1) await addOne(at);
  }),
  [`${CHUNK} at once`]: workflow("parts", async (steps: number) => {
    for (let at = 0; at < steps; at += CHUNK) {
      await Promise.all(Array.from({ length: CHUNK }, (_, i) => addOne(at + i)));
    }
  }),
};

export async function linear(lab: Lab): Promise<void> {
  const perdure = await lab.engine(await lab.schema(), { workflows: Object.values(SHAPES) });
  const times = new Map<string, number[]>();
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const [shape, flow] of Object.entries(SHAPES)) {
      for (const steps of round < 0 ? STEPS.slice(0, 1) : STEPS) {
        const begun = performance.now();
        await (await perdure.start(flow, steps)).result();
        const key = `${shape} ${steps}`;
        if (round >= 0) times.set(key, [...(times.get(key) ?? []), ((performance.now() - begun) * 1000) / steps]);
      }
    }
  }
  const most = STEPS.at(-1)!;
  const rows = Object.keys(SHAPES).map((shape) => {
    const of = (steps: number): number[] => times.get(`${shape} ${steps}`)!;
    const growth = median(of(most).map((micros, round) => micros / of(STEPS[0]!)[round]!));
    return [`steps ${shape}`, ...STEPS.map((steps) => number(median(of(steps)))), `${number(growth)} ×`];
  });
  const title = ["µs a step, of a run of", ...STEPS.map((steps) => steps.toLocaleString("en-US"))];
  lab.print(table([[...title, "the longest, of the shortest"], ...rows]));
}
