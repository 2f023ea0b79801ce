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
  t.equal(examples.length, 7);
  const database = await freshDatabase(t);
  for (const file of examples) {
    const program = `${ROOT}dist/examples/${basename(file, ".ts")}.js`;
    const env = { ...process.env, DATABASE_URL: database };
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [program], { env, timeout: 60_000 });
    t.equal(stdout, promised(file), file);
    t.equal(stderr, "", `${file} warns of nothing`);
  }
});

test("the demo survives two kills, and says which steps did not run again", async (t) => {
  const env = { ...process.env, DATABASE_URL: await freshDatabase(t) };
  const program = `${ROOT}dist/examples/demo.js`;
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [program], { env, timeout: 60_000 });
  t.equal(stderr, "");
  t.match(stdout, /kill -9: process 1 dies inside the step reserve-inventory\.\n {6}process 2 runs reserve-inventory/);
  t.match(stdout, /kill -9: process 2 dies while the order waits\./);
  t.match(stdout, /send_event\('order-42', 'payment-received', '\{"amount": 99\}'\)\n {6}process 3 runs fulfill-order/);
  t.match(stdout, /Result: paid 99/);
  t.match(stdout, /create-order +once: it did not run again\n +reserve-inventory +2 times/);
});
