/** The committed migrations that travel in the code: parsed from graphile-migrate's format, each bound to the one before. */

import { createHash } from "node:crypto";
import { PerdureError } from "../core/errors.ts";
import { COMMITTED } from "./committed.ts";

export interface Migration {
  readonly name: string;
  readonly hash: string;
  readonly body: string;
  /** The oldest migration that a process has to know of to go on working once this one is applied. Null: the first, before which there is none. */
  readonly worksWith: string | null;
  /** The index that it builds beside the traffic, outside a transaction. Null: it runs in one. */
  readonly builds: string | null;
}

/** What the database says it has. */
export interface LedgerRow {
  readonly name: string;
  readonly hash: string;
  readonly works_with: string | null;
}

let verified: readonly Migration[] | undefined;

/** All of them in order, their hashes checked once. */
export function committedMigrations(): readonly Migration[] {
  verified ??= verifyChain(COMMITTED);
  return verified;
}

/** Refuses a file that was changed after its commit, left out, or put in another order. */
export function verifyChain(files: readonly { name: string; text: string }[]): readonly Migration[] {
  let previous = "-";
  return files.map(({ name, text }) => {
    const { headers, body } = parse(text);
    const hash = hashOf(body, previous);
    const broken = (what: string) => new PerdureError("PERDURE_SCHEMA", `migration ${name} ${what}: reinstall perdure`);
    if (headers.get("Previous") !== previous) throw broken(`does not follow ${previous}`);
    if (headers.get("Hash") !== hash) throw broken(`was changed after it was committed (its text gives ${hash})`);
    const worksWith = /^-- Works with: (\S+)$/m.exec(body)?.[1] ?? null;
    if ((worksWith === null) !== (previous === "-") || (worksWith ?? "") > name)
      throw broken("does not say which migration a process has to know of to work with it");
    previous = hash;
    return { name, hash, body, worksWith, builds: builtBy(body, broken) };
  });
}

/** Such a migration is one statement, of a kind that can be run again after it was broken off. */
function builtBy(body: string, broken: (what: string) => PerdureError): string | null {
  if (!/^--!\s*no-transaction\b/.test(body)) return null;
  const statement = body.replaceAll(/^--.*$/gm, "").trim();
  const [, index] = /^create (?:unique )?index concurrently if not exists (\w+) on [^;]*;?$/i.exec(statement) ?? [];
  if (index !== undefined) return index;
  throw broken("is outside a transaction, and not one `create index concurrently if not exists`");
}

function parse(text: string): { headers: Map<string, string>; body: string } {
  const lines = text.split("\n");
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, key, value] = /^--! ([A-Z]\w*)(?::(.*))?$/.exec(line) ?? [];
    if (key === undefined) break;
    headers.set(key, value?.trim() ?? "");
  }
  return { headers, body: lines.slice(headers.size).join("\n").trim() };
}

function hashOf(body: string, previous: string): string {
  const text = `${previous === "-" ? "" : previous}\n${body}`.trim();
  return `sha1:${createHash("sha1").update(`${text}\n`).digest("hex")}`;
}

/** What is still to apply. Refuses a database that another text has built, and one that is ahead in what this code cannot work with. */
export function pendingMigrations(
  ledger: readonly LedgerRow[],
  schema: string,
  migrations = committedMigrations(),
): readonly Migration[] {
  const newest = migrations.at(-1)?.name ?? "none";
  ledger.forEach((row, index) => {
    const ours = migrations[index];
    if (ours?.name === row.name && ours.hash === row.hash) return;
    // A newer release has been here, and left it so that this one works on.
    if (ours === undefined && row.works_with !== null && row.works_with <= newest) return;
    const has = `schema "${schema}" has migration ${row.name} (${row.hash})`;
    const fix = "upgrade the perdure package, or name another `schema`";
    if (ours?.name === row.name) {
      const text = `${has}, but this version of Perdure has it with another text (${ours.hash}): ${fix}`;
      throw new PerdureError("PERDURE_SCHEMA", text);
    }
    const needs = row.works_with === null ? "" : `, which works with no process that does not know ${row.works_with}`;
    throw new PerdureError(
      "PERDURE_SCHEMA",
      `${has}${needs}, but this version of Perdure knows none but those up to ${newest}: ${fix}`,
    );
  });
  return migrations.slice(ledger.length);
}

/** The newest migration that this code knows: what a process says of itself when it goes to work. */
export const newestMigration = (): string => committedMigrations().at(-1)!.name;
