/** A chaos run of the small size. A seed that fails is replayed by `npm run chaos -- --small --seed <seed>`. */
import { test } from "tap";
import { chaos } from "./chaos.ts";
import { Dice } from "./dice.ts";
import { planOf } from "./nemesis.ts";
import { told } from "./report.ts";
import { FULL, SMALL, scaled } from "./size.ts";

test("a seed brings back the same dice and the same plan, with as many faults as its size says", (t) => {
  const draw = (seed: number): number[] => {
    const dice = new Dice(seed);
    return Array.from({ length: 5 }, () => dice.between(0, 1_000_000));
  };
  t.strictSame(draw(7), draw(7));
  t.notSame(draw(7), draw(8));
  const size = { ...FULL, seed: 7 };
  const plan = planOf(size);
  t.strictSame(plan, planOf(size));
  t.notSame(plan, planOf({ ...size, seed: 8 }));
  t.equal(plan.filter(({ fault }) => fault === "kill").length, FULL.faults.kill);
  t.ok(plan.every(({ atMs }, at) => atMs <= size.seconds * 1000 && (at === 0 || plan[at - 1]!.atMs <= atMs)));
  t.equal(scaled(FULL, 0.1).faults.kill, 20);
  t.end();
});

test("chaos: processes die and freeze, Postgres crashes, connections break, and every promise holds", {
  timeout: 280_000,
}, async (t) => {
  const seed = Number(process.env.CHAOS_SEED ?? Math.floor(Math.random() * 1_000_000_000));
  t.comment(`seed ${seed}`);
  const { violations, gentle, figures, folder } = await chaos({ ...SMALL, seed }, { say: (line) => t.comment(line) });
  for (const line of told(figures)) t.comment(line);
  t.strictSame(violations.slice(0, 20), [], `nothing is violated: seed ${seed}, histories and logs in ${folder}`);
  t.strictSame(gentle, [], `it was rough: seed ${seed}`);
});
