/** `npm run demo` shows what it says. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test } from "tap";
import { freshDatabase } from "../support/postgres.ts";

const DEMO = fileURLToPath(new URL("../../examples/demo/main.js", import.meta.url));

test("the demo kills two processes, and shows which steps did not run again", async (t) => {
  const env = { ...process.env, DATABASE_URL: await freshDatabase(t), NODE_OPTIONS: "" };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [DEMO], { env });
  t.equal(stderr, "");
  t.equal(stdout.match(/kill -9 \d+/g)?.length, 2);
  t.match(stdout, /kill -9 \d+ +inside reserve-inventory: worker A is gone/);
  t.match(stdout, /another process went on \d+ ms after the kill/);
  t.match(stdout, /kill -9 \d+ +while the order waits: worker B is gone/);
  t.match(stdout, /select perdure_demo\.send_event\('order-42', 'payment-received'/);
  t.match(stdout, /result +"order-42 is on its way, 99 paid"/);
  t.match(stdout, /create-order +1 +worker A +did NOT run again/);
  t.match(stdout, /reserve-inventory +2 +worker A, then worker B +ran again/);
  t.match(stdout, /fulfill-order +1 +worker C +ran once/);
  t.notMatch(stdout, "\u001b", "no colours where there is no terminal");
});
