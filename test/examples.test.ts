/** Every example runs as it stands, and prints what its last lines say. */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test } from "tap";
import { freshDatabase } from "./support/postgres.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const examples = readdirSync(`${ROOT}examples`).filter((file) => /^\d\d-.*\.ts$/.test(file));

/** The block `// Output:` at the end of an example. */
function promised(file: string): string {
  const block = readFileSync(`${ROOT}examples/${file}`, "utf8").split("\n// Output:\n")[1];
  return (block ?? "").replace(/^\/\/ ?/gm, "");
}

test("every example prints what its last lines say, and nothing else", async (t) => {
  t.ok(examples.length >= 18);
  const database = await freshDatabase(t);
  for (const file of examples) {
    const program = `${ROOT}dist/examples/${basename(file, ".ts")}.js`;
    const env = { ...process.env, DATABASE_URL: database };
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [program], { env, timeout: 60_000 });
    t.equal(stdout, promised(file), file);
    t.equal(stderr, "", `${file} warns of nothing`);
  }
});
