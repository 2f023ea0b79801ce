/**
 * `npm run crossings`: all pairs of operations, in all situations, with the first stopped at each place where it writes, commits or waits for a
 * row. Prints a table. `npm run crossings -- --situation running --first cancel` tries a part, `--size 3000 --seed 7` so many that are drawn.
 */
import { parseArgs } from "node:util";
import { startPostgres } from "../lib/db/embedded.ts";
import { Stage } from "./crossing/cross.ts";
import { allOf, type Crossed, carryOut, drawn, operations, situations } from "./crossing/matrix.ts";
import { inDatabase, TEST_SERVER } from "./support/postgres.ts";

const { values } = parseArgs({
  options: {
    stages: { type: "string", default: "4" },
    situation: { type: "string" },
    first: { type: "string" },
    seed: { type: "string", default: `${Date.now() % 1_000_000}` },
    size: { type: "string" },
  },
});
const print = (line: string): void => void process.stdout.write(`${line}\n`);
const postgres = process.env.DATABASE_URL ? undefined : await startPostgres(TEST_SERVER);
const url = postgres?.url ?? process.env.DATABASE_URL!;
process.env.DATABASE_URL = url;
const ends: (() => unknown)[] = [];
const scope = { teardown: (end: () => unknown) => void ends.unshift(end) } as Parameters<typeof Stage.open>[0];

const deadlocks = (): Promise<number> =>
  inDatabase(url, async (client) => {
    const { rows } = await client.query("select sum(deadlocks)::int as n from pg_stat_database");
    return rows[0].n;
  });

const counts = new Map<string, { tried: number; wrong: number }>();
function tell({ crossing, wrong }: Crossed): void {
  const count = counts.get(crossing.situation) ?? { tried: 0, wrong: 0 };
  counts.set(crossing.situation, { tried: count.tried + 1, wrong: count.wrong + (wrong ? 1 : 0) });
  if (wrong) print(`WRONG: ${wrong}`);
}

try {
  const since = performance.now();
  const before = await deadlocks();
  const stages = await Promise.all(Array.from({ length: Number(values.stages) }, () => Stage.open(scope)));
  const left = situations
    .filter((name) => values.situation === undefined || name === values.situation)
    .flatMap((situation) => operations.map((first) => ({ situation, first })))
    .filter(({ first }) => values.first === undefined || first === values.first);
  const work = async (stage: Stage, n: number): Promise<void> => {
    if (values.size) {
      const size = Math.ceil(Number(values.size) / stages.length);
      return carryOut(stage, drawn(stage, Number(values.seed) + n, size), tell);
    }
    for (let part = left.pop(); part; part = left.pop())
      await carryOut(stage, allOf(stage, part.situation, part.first), tell);
  };
  await Promise.all(stages.map(work));
  print(`${"situation".padEnd(16)}${"crossings".padStart(12)}${"wrong".padStart(8)}`);
  for (const [name, { tried, wrong }] of counts)
    print(`${name.padEnd(16)}${`${tried}`.padStart(12)}${`${wrong}`.padStart(8)}`);
  const sum = (of: "tried" | "wrong"): number => [...counts.values()].reduce((all, count) => all + count[of], 0);
  print(`${"all".padEnd(16)}${`${sum("tried")}`.padStart(12)}${`${sum("wrong")}`.padStart(8)}`);
  const met = (await deadlocks()) - before;
  const seconds = ((performance.now() - since) / 1000).toFixed(0);
  print(`${operations.length} operations, ${met} deadlocks, ${seconds} s${values.size ? `, seed ${values.seed}` : ""}`);
  process.exitCode = met > 0 || sum("wrong") > 0 ? 1 : 0;
} finally {
  for (const end of ends) await end();
  await postgres?.stop();
}
