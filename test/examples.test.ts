/** Every example runs as it stands, and prints what its last lines say. */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test, t as whole } from "tap";
import { freshDatabase } from "./support/postgres.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const examples = readdirSync(`${ROOT}examples`).filter((file) => /^\d\d-.*\.ts$/.test(file));

/** The block `// Output:` at the end of an example. */
function promised(file: string): string {
  const block = readFileSync(`${ROOT}examples/${file}`, "utf8").split("\n// Output:\n")[1];
  return (block ?? "").replace(/^\/\/ ?/gm, "");
}

/** A run that fails is warned of, and in some stories one does. */
const FAILED = /^perdure: run "[^"]+" of workflow "[^"]+" failed .*\n(?:[ }].*\n)*/gm;

// Some forty processes on a machine that may be busy.
whole.setTimeout(300_000);

/** An example waits more than it works. */
const SIDE_BY_SIDE = 3;

test("every example prints what its last lines say, and nothing else", async (t) => {
  t.ok(examples.length >= 33);
  const env = { ...process.env, DATABASE_URL: await freshDatabase(t) };
  const left = examples.values();
  const work = async (): Promise<void> => {
    for (const file of left) {
      const program = `${ROOT}dist/examples/${basename(file, ".ts")}.js`;
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [program], { env, timeout: 60_000 });
      t.equal(stdout, promised(file), file);
      t.equal(stderr.replace(FAILED, ""), "", `${file} warns of nothing else`);
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work));
});
