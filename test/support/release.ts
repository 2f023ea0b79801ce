/** Another release of the library: a copy of what was built, with migrations that come after ours and with other code. */
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Test } from "tap";
import { COMMITTED } from "../../lib/db/committed.ts";
import { type Migration, verifyChain } from "../../lib/db/migration-files.ts";

const DIST = fileURLToPath(new URL("../../", import.meta.url));

export interface File {
  readonly name: string;
  readonly text: string;
}

/** Our files, and these behind them, as graphile-migrate commits them. Name → body. */
export function committedWith(bodies: Readonly<Record<string, string>>): readonly File[] {
  const files = [...COMMITTED];
  let previous = verifyChain(files).at(-1)!.hash;
  for (const [name, body] of Object.entries(bodies)) {
    const hash = `sha1:${createHash("sha1").update(`${previous}\n${body.trim()}`.trim()).update("\n").digest("hex")}`;
    files.push({ name, text: `--! Previous: ${previous}\n--! Hash: ${hash}\n\n${body.trim()}\n` });
    previous = hash;
  }
  return files;
}

/** The same, as the migrator has them. */
export const migrationsWith = (bodies: Readonly<Record<string, string>>): readonly Migration[] =>
  verifyChain(committedWith(bodies));

export interface ReleaseOptions {
  readonly migrations: Readonly<Record<string, string>>;
  /** File below dist → what stands for what in it. */
  readonly code?: Readonly<Record<string, readonly [from: string, to: string]>>;
}

/** The folder of a release, with `dist/lib` and the members of crews; gone after the test. */
export function release(t: Pick<Test, "teardown">, { migrations, code = {} }: ReleaseOptions): string {
  const folder = mkdtempSync(join(tmpdir(), "perdure-release-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  for (const part of ["lib", "test/crash", "test/support"])
    cpSync(join(DIST, part), join(folder, "dist", part), { recursive: true });
  symlinkSync(join(DIST, "..", "node_modules"), join(folder, "node_modules"));
  writeFileSync(join(folder, "package.json"), '{ "name": "perdure", "type": "module" }');
  const text = `export const COMMITTED = ${JSON.stringify(committedWith(migrations))};`;
  writeFileSync(join(folder, "dist/lib/db/committed.js"), text);
  for (const [file, [from, to]] of Object.entries(code)) {
    const path = join(folder, "dist", file);
    const before = readFileSync(path, "utf8");
    if (!before.includes(from)) throw new Error(`${file} has no ${from}`);
    writeFileSync(path, before.replaceAll(from, to));
  }
  return folder;
}

/** What stands in the SQL of today's schema, from a beginning to an end. */
export function cutOut(file: string, from: string, to: string): string {
  const text = readFileSync(join(DIST, "..", "sql/schema", file), "utf8");
  const start = text.indexOf(from);
  const end = text.indexOf(to, start);
  if (start < 0 || end < 0) throw new Error(`${file} has no ${from} … ${to}`);
  return text.slice(start, end + to.length);
}
