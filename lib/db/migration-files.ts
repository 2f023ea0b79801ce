/** The committed migrations that travel in the code: parsed from graphile-migrate's format, each bound to the one before. */

import { createHash } from "node:crypto";
import { PerdureError } from "../core/errors.ts";
import { COMMITTED } from "./committed.ts";

export interface Migration {
  readonly name: string;
  readonly hash: string;
  readonly body: string;
}

/** What the database says it has. */
export interface LedgerRow {
  readonly name: string;
  readonly hash: string;
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
    if (/^--!\s*no-transaction\b/.test(body)) throw broken("asks to run outside a transaction, which is not supported");
    previous = hash;
    return { name, hash, body };
  });
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

/** What is still to apply. Refuses a database that is ahead of this code, or that another text has built. */
export function pendingMigrations(
  ledger: readonly LedgerRow[],
  schema: string,
  migrations = committedMigrations(),
): readonly Migration[] {
  const newest = migrations.at(-1)?.name ?? "none";
  ledger.forEach((row, index) => {
    const ours = migrations[index];
    if (ours?.name === row.name && ours.hash === row.hash) return;
    const has = `schema "${schema}" has migration ${row.name} (${row.hash})`;
    const fix = "upgrade the perdure package, or name another `schema`";
    if (ours?.name === row.name) {
      const text = `${has}, but this version of Perdure has it with another text (${ours.hash}): ${fix}`;
      throw new PerdureError("PERDURE_SCHEMA", text);
    }
    throw new PerdureError(
      "PERDURE_SCHEMA",
      `${has}, but this version of Perdure knows none but those up to ${newest}: ${fix}`,
    );
  });
  return migrations.slice(ledger.length);
}
