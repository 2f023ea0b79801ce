/** `npm run consumers`: every way to use the package, one line each; exit code 1 when one fails. With a word: the cases whose names hold it. */
import { startPostgres } from "../../lib/db/embedded.ts";
import { TEST_SERVER } from "../support/postgres.ts";
import { LOCAL, REMOTE } from "./cases.ts";
import { Stage } from "./stage.ts";

const wanted = process.argv[2] ?? "";
const postgres = process.env.DATABASE_URL ? undefined : await startPostgres(TEST_SERVER);
process.env.DATABASE_URL ??= postgres!.url;

const teardowns: (() => unknown)[] = [];
const stage = new Stage({ teardown: (work) => void teardowns.unshift(work) });
const failures: string[] = [];
for (const { name, work } of [...LOCAL, ...REMOTE].filter((one) => one.name.includes(wanted))) {
  const began = performance.now();
  let verdict = "ok  ";
  try {
    await work(stage);
  } catch (error) {
    verdict = "FAIL";
    failures.push(`${name}\n${error instanceof Error ? error.stack : String(error)}`);
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(1).padStart(5);
  console.log(`${verdict} ${seconds} s  ${name}`);
}
for (const work of teardowns) await work();
await postgres?.stop();
for (const failure of failures) console.error(`\n${failure}`);
process.exitCode = failures.length > 0 ? 1 : 0;
