/**
 * `npm run mutants`: each safeguard of the core is taken out of a copy of the compiled code, and the tests that hold it must turn
 * red. They must be green on an unchanged copy first, or red would say nothing.
 */
import { spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { startPostgres } from "../lib/db/embedded.ts";
import { copyWith, mutantFolder } from "./support/mutant.ts";
import { MUTANTS, TOLD } from "./support/mutant-list.ts";
import { TEST_SERVER } from "./support/postgres.ts";

/** A test that hangs without the safeguard has failed. */
const DEADLINE_S = 60;
const COPY = mutantFolder("tests");

const postgres = process.env.DATABASE_URL ? undefined : await startPostgres(TEST_SERVER);
const env = {
  ...process.env,
  DATABASE_URL: postgres?.url ?? process.env.DATABASE_URL,
  TAP_TIMEOUT: `${DEADLINE_S}`,
};

/** The names of the tests of a file that fail. A file with no green test at all tells of a broken copy, not of a safeguard. */
async function red(test: string): Promise<string[]> {
  const told = { ...env, ...TOLD[test] };
  const child = spawn(process.execPath, [join(COPY, "test", test)], { env: told, stdio: ["ignore", "pipe", "ignore"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), (DEADLINE_S + 20) * 1000);
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  clearTimeout(timer);
  const names = (verdict: string): string[] => [
    ...new Set([...output.matchAll(new RegExp(`^${verdict} \\d+ - (.*?)(?: # .*)?$`, "gm"))].map((match) => match[1]!)),
  ];
  if (names("ok").length === 0)
    throw new Error(`${test} has no green test: exit code ${code}\n${output.slice(0, 4000)}`);
  return names("not ok");
}

async function survivors(): Promise<string[]> {
  const left: string[] = [];
  await copyWith(COPY, "unchanged", []);
  for (const test of new Set(MUTANTS.map((mutant) => mutant.test))) {
    for (const name of await red(test)) left.push(`red without any mutant: ${test}: ${name}`);
  }
  for (const mutant of MUTANTS) {
    await copyWith(COPY, mutant.name, [mutant]);
    const names = await red(mutant.test);
    console.log(`${names.length > 0 ? "found" : "MISSED"}: ${mutant.name}`);
    for (const name of names) console.log(`    ${mutant.test}: ${name}`);
    if (names.length === 0) left.push(`no test of ${mutant.test} fails when ${mutant.name}`);
  }
  return left;
}

try {
  const left = await survivors();
  for (const line of left) console.error(line);
  process.exitCode = left.length > 0 ? 1 : 0;
} finally {
  await rm(COPY, { recursive: true, force: true });
  await postgres?.stop();
}
