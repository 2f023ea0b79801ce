/**
 * `npm test`: one PostgreSQL for the whole run; first what must not share the machine, then the rest side by side; the worst exit
 * code. Arguments are test files, in place of all, and options of tap.
 */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { startPostgres } from "../lib/db/embedded.ts";
import { TEST_SERVER } from "./support/postgres.ts";

/** They hold promises about time, or break so much that little else gets done. */
const ALONE = ["crash/kill.test.js", "db/listener.test.js", "crash/database.test.js", "chaos/chaos.test.js"];
/** Most tests wait more than they work: more of them at once than the machine has processors. */
const JOBS = 4;

const here = dirname(fileURLToPath(import.meta.url));
const tap = join(dirname(fileURLToPath(import.meta.resolve("tap"))), "run.mjs");
const postgres = process.env.DATABASE_URL ? undefined : await startPostgres(TEST_SERVER);
const env = { ...process.env, DATABASE_URL: postgres?.url ?? process.env.DATABASE_URL };

function run(args: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [tap, ...args], { stdio: "inherit", env });
  // A Ctrl-C reaches tap itself: it ends first, then the server.
  const pass = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, pass);
  return new Promise((done) => child.on("close", (code) => done(code ?? 1)));
}

const given = process.argv.slice(2);
const isTest = (file: string): boolean => file.endsWith(".test.js");
const options = given.filter((argument) => !isTest(argument));
const all = (readdirSync(here, { recursive: true }) as string[]).filter(isTest).sort();
const files = given.some(isTest)
  ? given.filter(isTest).map((file) => resolve(file))
  : all.map((file) => join(here, file));
const isAlone = (file: string): boolean => ALONE.some((name) => file === join(here, name));
const [alone, rest] = [files.filter(isAlone), files.filter((file) => !isAlone(file))];
const codes: number[] = [];
if (alone.length > 0) codes.push(await run(["--jobs=1", ...options, ...alone]));
if (rest.length > 0) codes.push(await run([`--jobs=${JOBS}`, ...options, ...rest]));
await postgres?.stop();
process.exitCode = Math.max(...codes);
