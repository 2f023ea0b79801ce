/**
 * `npm run migration -- <name>`: commits sql/current.sql with graphile-migrate, on a server of its own.
 * With --initial, history starts anew from sql/schema: for the time before the first release only.
 */

import { execFileSync } from "node:child_process";
import { chmod, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { commit } from "graphile-migrate";
import { startPostgres } from "../../lib/db/embedded.ts";
import { inDatabase } from "./postgres.ts";

const initial = process.argv.includes("--initial");
const name = process.argv.slice(2).find((argument) => !argument.startsWith("-")) ?? (initial ? "initial" : undefined);
if (name === undefined) throw new Error("usage: npm run migration -- <name> | --initial");

const settings = JSON.parse(await readFile("sql/.gmrc", "utf8"));
if (initial) await startHistory();

const postgres = await startPostgres({ durable: false });
try {
  await inDatabase(postgres.url, (client) => client.query("create database perdure_dev"));
  const at = (database: string) => Object.assign(new URL(postgres.url), { pathname: `/${database}` }).href;
  const connections = {
    connectionString: at("perdure_dev"),
    shadowConnectionString: at("perdure_shadow"),
    rootConnectionString: at("template1"),
  };
  await commit({ ...settings, ...connections }, name);
  // It keeps its pools for 200 ms, and ends the process when a server goes away under them.
  await pause(500);
} finally {
  await postgres.stop();
}
for (const file of await list("sql/committed")) await chmod(`sql/committed/${file}`, 0o644);
execFileSync(process.execPath, ["test/support/embed-sql.mjs"], { stdio: "inherit" });

async function list(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((file) => file.endsWith(".sql")).sort();
}

async function startHistory(): Promise<void> {
  for (const file of await list("sql/committed")) await rm(`sql/committed/${file}`);
  const texts = (await list("sql/schema")).map((file) => readFile(`sql/schema/${file}`, "utf8"));
  await writeFile("sql/current.sql", (await Promise.all(texts)).map((text) => text.trim()).join("\n\n"));
}
