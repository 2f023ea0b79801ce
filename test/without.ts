/**
 * `npm run test:without`: the engine's tests once for each thing that only makes it faster, with that left out, and a table of what came of
 * it. `npm run test:without -- lease told` asks for some; after `--`, the test files, in place of the engine's.
 */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { startPostgres } from "../lib/db/embedded.ts";
import { TEST_SERVER } from "./support/postgres.ts";
import { SWITCHES, type Switch } from "./support/without.ts";

/** The rooms whose tests run engines; the others do not know of a shortcut. */
const ROOMS =
  "children client control crash db engine events logging publish schedules sql using validation versions worker";

const here = dirname(fileURLToPath(import.meta.url));
const run = join(here, "run.js");
const given = process.argv.slice(2);
const end = given.includes("--") ? given.indexOf("--") : given.length;
const wanted = given.slice(0, end);
const unknown = wanted.filter((name) => !Object.hasOwn(SWITCHES, name));
if (unknown.length > 0) throw new Error(`no such switch: ${unknown}; there are ${Object.keys(SWITCHES)}`);
const switches = (wanted.length > 0 ? wanted : Object.keys(SWITCHES)) as Switch[];
const asked = given.slice(end + 1);
const files = asked.length > 0 ? asked : ROOMS.split(" ").flatMap(testsOf);

function testsOf(room: string): string[] {
  return (readdirSync(join(here, room)) as string[])
    .filter((file) => file.endsWith(".test.js"))
    .map((file) => join(here, room, file));
}

interface Ran {
  readonly name: Switch;
  readonly ok: boolean;
  readonly seconds: number;
  /** As tap counts them: assertions, not tests. */
  readonly counts: string;
  readonly red: readonly string[];
}

async function runWithout(name: Switch, url: string): Promise<Ran> {
  const start = performance.now();
  const env = { ...process.env, DATABASE_URL: url, PERDURE_TEST_WITHOUT: name };
  const child = spawn(process.execPath, [run, "--reporter=tap", "--jobs=4", ...files], {
    stdio: ["ignore", "pipe", "inherit"],
    env,
  });
  let text = "";
  for await (const chunk of child.stdout) text += chunk;
  const code = child.exitCode ?? (await new Promise<number | null>((done) => child.once("close", done)));
  const red = [...text.matchAll(/^ {4}not ok \d+ - (.*?)(?: # time.*)?$/gm)].map((match) => match[1]!);
  const counts = /^# (\{ total.*\})$/m.exec(text)?.[1] ?? "no figures";
  return { name, ok: code === 0, seconds: (performance.now() - start) / 1000, counts, red };
}

const print = (line: string): void => void process.stdout.write(`${line}\n`);
const postgres = process.env.DATABASE_URL ? undefined : await startPostgres(TEST_SERVER);
const url = postgres?.url ?? process.env.DATABASE_URL!;
const all: Ran[] = [];
for (const name of switches) {
  const ran = await runWithout(name, url);
  all.push(ran);
  print(
    `without ${name.padEnd(9)} ${ran.ok ? "green" : "RED  "} ${ran.seconds.toFixed(0).padStart(5)} s  ${ran.counts}`,
  );
  for (const test of ran.red) print(`  not ok: ${test}`);
}
await postgres?.stop();
process.exitCode = all.every(({ ok }) => ok) ? 0 : 1;
