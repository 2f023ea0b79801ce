/** A copy of the compiled code with something taken out of it, for the tests that must notice. */
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
/** Refuses migrations whose text is not the committed one: not in a copy. */
const HASHED = "db/migration-files.js";

/** One text of a file under lib, wherever it stands there, and what is to stand in its place. */
export interface Edit {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** Where the copies are: beside `dist`, so that they find what it finds. */
export const mutantFolder = (name: string): string => join(ROOT, ".mutants", name);

/** Makes the copy anew. Throws if a file does not hold its text. */
export async function copyWith(folder: string, name: string, edits: readonly Edit[]): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await cp(join(ROOT, "dist"), folder, { recursive: true });
  for (const { file, find, replace } of edits) {
    await edit(join(folder, "lib", file), (text) => {
      const parts = text.split(find);
      if (parts.length < 2) throw new Error(`"${name}": ${file} does not hold its text`);
      return parts.join(replace);
    });
  }
  if (edits.length > 0)
    await edit(join(folder, "lib", HASHED), (text) => text.replaceAll(/if \(headers\.get\(/g, "if (false && ("));
}

async function edit(path: string, change: (text: string) => string): Promise<void> {
  await writeFile(path, change(await readFile(path, "utf8")));
}
