/**
 * `npm run bench:peers`: every scenario in turn, or those that are named, with every contender, or those that are named beside Perdure:
 * `npm run bench:peers -- drain dbos pg-boss`.
 */
import { cpus } from "node:os";
import { Lab } from "../support/lab.ts";
import type { Setup } from "./adapter.ts";
import { Arena } from "./arena.ts";
import { INSTALLED, loadAdapter, NAMES } from "./contenders.ts";
import { install, versions } from "./packages.ts";
import { BY_NAME, SCENARIOS } from "./scenarios.ts";
import { FULL } from "./sizes.ts";

const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !Object.hasOwn(SCENARIOS, name) && !NAMES.includes(name));
if (unknown.length > 0) {
  throw new Error(`neither a scenario nor a contender: ${unknown}; there are ${Object.keys(SCENARIOS)} and ${NAMES}`);
}

const print = (text: string): void => void process.stdout.write(`${text}\n`);
const named = NAMES.filter((name) => asked.includes(name));
const names = takingPart(named.length === 0 ? NAMES : ["perdure", ...named.filter((name) => name !== "perdure")]);
const scenarios = Object.entries(SCENARIOS).filter(([name]) =>
  asked.some((one) => Object.hasOwn(SCENARIOS, one)) ? asked.includes(name) : !BY_NAME.includes(name),
);

if (names.some((name) => INSTALLED.includes(name))) install(print);
/** No checkpoint within the minutes that it takes: a page's first change after one is logged as the whole page. */
const SETTINGS = {
  shared_preload_libraries: "pg_stat_statements",
  max_connections: "400",
  checkpoint_timeout: "1h",
};
const lab = await Lab.open(print, SETTINGS);
print(
  `${await lab.machine()}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${new Date().toISOString().slice(0, 10)}`,
);
if (names.some((name) => INSTALLED.includes(name))) print(versions());
await tellSettings();
const arena = await Arena.open(lab, names, FULL);
try {
  for (const [name, scenario] of scenarios) {
    const start = performance.now();
    print(`\n${name}`);
    try {
      await scenario(arena);
    } finally {
      await arena.clear();
    }
    print(`  (${((performance.now() - start) / 1000).toFixed(0)} s)`);
  }
} finally {
  await lab.close();
}

/** Absurd's package lacks its SQL file. */
function takingPart(all: readonly string[]): string[] {
  if (process.env.ABSURD_SQL || !all.includes("absurd")) return [...all];
  print("absurd is left out: its package lacks its SQL file; ABSURD_SQL=<path of its absurd.sql> lets it take part");
  return all.filter((name) => name !== "absurd");
}

async function tellSettings(): Promise<void> {
  for (const name of names) {
    const { setups } = await loadAdapter(name);
    for (const setup of Object.keys(setups) as Setup[]) print(`  ${name}, ${setup}: ${setups[setup]}`);
  }
}
