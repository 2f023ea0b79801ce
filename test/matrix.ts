/**
 * `npm run matrix`: the engine's tests once under everything that test/support/matrix.ts names, and a table of what came of it.
 * `npm run matrix -- pg14 serializable` asks for some, `pg14+serializable` for both at once; after `--`, the rooms or files, in place of
 * all that run engines.
 */
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type RunningPostgres, startPostgres } from "../lib/db/embedded.ts";
import { nodeOf, postgresOf } from "./support/fetched.ts";
import { ENTRIES, type Entry, entryOf } from "./support/matrix.ts";
import { startPgBouncer } from "./support/pgbouncer.ts";
import { TEST_SERVER } from "./support/postgres.ts";

/** The rooms whose tests run engines; the others do not know of their surroundings. */
const ROOMS =
  "children client control crash db engine events logging publish retention schedules sql using validation versions worker";

const here = dirname(fileURLToPath(import.meta.url));
const given = process.argv.slice(2);
const end = given.includes("--") ? given.indexOf("--") : given.length;
const names = end > 0 ? given.slice(0, end) : Object.keys(ENTRIES);
// All of them, before the first takes its time.
const entries = names.map((name) => ({ name, entry: entryOf(name) }));
const asked = given.slice(end + 1);
const files = (asked.length > 0 ? asked : ROOMS.split(" ")).flatMap(testsOf);

/** A room's tests, or the file itself. */
function testsOf(room: string): string[] {
  if (room.endsWith(".test.js")) return [existsSync(room) ? room : join(here, room)];
  return (readdirSync(join(here, room)) as string[])
    .filter((file) => file.endsWith(".test.js"))
    .map((file) => join(here, room, file));
}

interface Ran {
  readonly verdict: "green" | "RED" | "skipped";
  readonly seconds: number;
  /** Why it was skipped, or as tap counts: assertions, not tests. */
  readonly counts: string;
  readonly red: readonly string[];
}

/** Why an entry cannot be run on this machine. */
class Missing extends Error {}

const missing = (error: unknown): never => {
  throw new Missing((error as Error).message);
};

async function runUnder(entry: Entry): Promise<Ran> {
  const start = performance.now();
  const stops: (() => Promise<void>)[] = [];
  try {
    const { env, node } = await surroundings(entry, (stop) => stops.unshift(stop));
    return { ...(await runTests(node, env)), seconds: (performance.now() - start) / 1000 };
  } catch (error) {
    if (!(error instanceof Missing)) throw error;
    return { verdict: "skipped", counts: error.message, seconds: 0, red: [] };
  } finally {
    for (const stop of stops) await stop();
  }
}

async function surroundings(entry: Entry, onStop: (stop: () => Promise<void>) => void) {
  const node = entry.node ? await nodeOf(entry.node).catch(missing) : process.execPath;
  const server = await serverOf(entry);
  onStop(server.stop);
  const env: NodeJS.ProcessEnv = { ...process.env, DATABASE_URL: server.url };
  env.PERDURE_TEST_WITHOUT = (entry.without ?? []).join();
  if (entry.pooled) {
    const pooler = await startPgBouncer(server.url);
    if (!pooler) throw new Missing("there is no pgbouncer on this machine");
    onStop(pooler.stop);
    env.PERDURE_TEST_POOLER = pooler.host;
  }
  if (entry.aheadMs !== undefined) {
    env.PERDURE_TEST_AHEAD_MS = `${entry.aheadMs}`;
    env.PERDURE_TEST_NODE_OPTIONS = `--import=${pathToFileURL(join(here, "support", "clock-ahead.js"))}`;
    env.NODE_OPTIONS = `${process.env.NODE_OPTIONS ?? ""} ${env.PERDURE_TEST_NODE_OPTIONS}`.trim();
  }
  return { env, node };
}

async function serverOf({ postgres, settings }: Entry): Promise<Pick<RunningPostgres, "url" | "stop">> {
  if (!postgres && !settings && process.env.DATABASE_URL)
    return { url: process.env.DATABASE_URL, stop: async () => {} };
  const binaries = postgres ? { binaries: await postgresOf(postgres).catch(missing) } : {};
  return startPostgres({ ...TEST_SERVER, settings: { ...TEST_SERVER.settings, ...settings }, ...binaries });
}

async function runTests(node: string, env: NodeJS.ProcessEnv): Promise<Omit<Ran, "seconds">> {
  const child = spawn(node, [join(here, "run.js"), "--reporter=tap", ...files], {
    stdio: ["ignore", "pipe", "inherit"],
    env,
  });
  let text = "";
  for await (const chunk of child.stdout) {
    text += chunk;
    if (process.env.PERDURE_MATRIX_LOG) process.stderr.write(chunk);
  }
  const code = child.exitCode ?? (await new Promise<number | null>((done) => child.once("close", done)));
  const red = [...text.matchAll(/^ {4}not ok \d+ - (.*?)(?: # time.*)?$/gm)].map((match) => match[1]!);
  const counts = [...text.matchAll(/^# (\{ total.*\})$/gm)].map((match) => match[1]!).join(" ") || "no figures";
  return { verdict: code === 0 ? "green" : "RED", counts, red };
}

const print = (line: string): void => void process.stdout.write(`${line}\n`);
const table: string[] = [];
let failed = false;
for (const { name, entry } of entries) {
  const { verdict, seconds, counts, red } = await runUnder(entry);
  failed ||= verdict === "RED";
  table.push(`${name.padEnd(18)} ${verdict.padEnd(7)} ${seconds.toFixed(0).padStart(5)} s  ${counts}`);
  print(`${table.at(-1)}\n  ${entry.what}; ${files.length} files`);
  for (const test of red) print(`  not ok: ${test}`);
}
if (table.length > 1) print(`\n${table.join("\n")}`);
process.exitCode = failed ? 1 : 0;
