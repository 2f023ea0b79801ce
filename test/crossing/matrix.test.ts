/**
 * Operations that cross at each place where one can be stopped: no deadlock, no lost update, and where it leads is where one after the other
 * leads. `npm run crossings` tries all; here some are tried, drawn from a seed. PERDURE_CROSSINGS_SEED draws the same again.
 */
import { test } from "tap";
import { Stage } from "./cross.ts";
import { carryOut, drawn } from "./matrix.ts";

const STAGES = 3;
const SIZE = 60;

test("two operations that cross come to what one after the other comes to, wherever the first is stopped", async (t) => {
  const seed = Number(process.env.PERDURE_CROSSINGS_SEED ?? Date.now() % 1_000_000);
  let count = 0;
  const work = async (n: number): Promise<void> => {
    const stage = await Stage.open(t);
    await carryOut(stage, drawn(stage, seed + n, SIZE), ({ wrong }) => {
      count += 1;
      if (wrong) t.fail(`seed ${seed}: ${wrong}`);
    });
  };
  await Promise.all(Array.from({ length: STAGES }, (_, n) => work(n)));
  t.equal(count, STAGES * SIZE);
  t.comment(`seed ${seed}: ${count} crossings`);
});
