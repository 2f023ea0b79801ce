/** `npm test`: one PostgreSQL for the whole run, tap with the arguments given, tap's exit code. */

import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { startPostgres } from "../lib/db/embedded.ts";
import { TEST_SERVER } from "./support/postgres.ts";

const postgres = process.env.DATABASE_URL ? undefined : await startPostgres(TEST_SERVER);
const tap = join(dirname(fileURLToPath(import.meta.resolve("tap"))), "run.mjs");
const run = spawn(process.execPath, [tap, ...process.argv.slice(2)], {
  stdio: "inherit",
  env: { ...process.env, DATABASE_URL: postgres?.url ?? process.env.DATABASE_URL },
});
// A Ctrl-C reaches tap itself: it ends first, then the server.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => run.kill(signal));
process.exitCode = await new Promise<number>((done) => run.on("close", (code) => done(code ?? 1)));
await postgres?.stop();
