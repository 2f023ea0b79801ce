/**
 * `npm run crashpoints`: a run of the workflow that uses everything fails at each of its statements, in each way, and must come to the
 * same. Prints a table. `npm run crashpoints -- commit` tries the statements whose name holds that, `--lanes 4` more side by side.
 */
import { parseArgs } from "node:util";
import pg from "pg";
import { startPostgres } from "../lib/db/embedded.ts";
import { allOf, carryOut, nameOf, openLanes, rehearse, type Tried } from "./crash/campaign.ts";
import { TEST_SERVER } from "./support/postgres.ts";
import { FAILURES } from "./support/wire.ts";

const { values, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: { lanes: { type: "string", default: "3" } },
});
const print = (line: string): void => void process.stdout.write(`${line}\n`);
const postgres = process.env.DATABASE_URL ? undefined : await startPostgres(TEST_SERVER);
process.env.DATABASE_URL = postgres?.url ?? process.env.DATABASE_URL!;

const ends: (() => unknown)[] = [];
const scope = { teardown: (end: () => unknown) => void ends.unshift(end) } as Parameters<typeof openLanes>[0];

async function deadlocks(): Promise<number> {
  const client = new pg.Client(process.env.DATABASE_URL);
  await client.connect();
  const { rows } = await client.query("select sum(deadlocks)::int as n from pg_stat_database");
  await client.end();
  return rows[0].n;
}

function table(statements: number, done: readonly Tried[], seconds: number): void {
  print("");
  print(`${"failure".padEnd(20)}${["tried", "took place", "violations"].map((head) => head.padStart(12)).join("")}`);
  const row = (name: string, of: readonly Tried[]): void => {
    const counts = [
      of.length,
      of.filter(({ hit }) => hit).length,
      of.filter((one) => one.violations.length > 0).length,
    ];
    print(`${name.padEnd(20)}${counts.map((count) => `${count}`.padStart(12)).join("")}`);
  };
  for (const failure of FAILURES)
    row(
      failure,
      done.filter((one) => one.failure === failure),
    );
  row("all", done);
  print(`${statements} statements, ${seconds.toFixed(0)} s`);
}

try {
  const since = performance.now();
  const before = await deadlocks();
  const lanes = await openLanes(scope, Number(values.lanes));
  const points = (await rehearse(lanes[0]!)).filter(({ name }) => positionals.every((word) => name.includes(word)));
  const trials = allOf(points);
  let count = 0;
  const done = await carryOut(lanes, trials, (tried) => {
    count += 1;
    if (tried.violations.length > 0) print(`VIOLATION: ${nameOf(tried)}: ${tried.violations.join("; ")}`);
    if (count % 100 === 0) print(`${count} of ${trials.length}`);
  });
  table(points.length, done, (performance.now() - since) / 1000);
  const met = (await deadlocks()) - before;
  print(`${met} deadlocks`);
  process.exitCode = met > 0 || done.some(({ violations }) => violations.length > 0) ? 1 : 0;
} finally {
  for (const end of ends) await end();
  await postgres?.stop();
}
