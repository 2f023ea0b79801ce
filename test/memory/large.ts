/** A process of a test: a hundred runs at once of values of one MiB, whose memory is what the test lets it have. Prints what it came to. */
import { Perdure, step, workflow } from "../../lib/index.ts";

const RUNS = 100;
const MIB = 1024 * 1024;

/** As large as a value may be, with the quotes around it; no two alike. */
const big = (n: number): string => `${n}:`.padEnd(MIB - 64, "abcdefghij");

const grow = step("grow", async (text: string) => `${text.slice(0, -1)}!`);
const carry = workflow("carry", async (text: string) => grow(text));

let rss = 0;
const watch = setInterval(() => {
  rss = Math.max(rss, process.memoryUsage.rss());
}, 20);

const perdure = new Perdure({ database: process.argv[2]!, schema: process.argv[3]!, workflows: [carry] });
await perdure.launch();
const idle = process.memoryUsage.rss();
const handles = await Promise.all(Array.from({ length: RUNS }, (_, n) => perdure.start(carry, big(n))));
const results = await Promise.all(handles.map((handle) => handle.result()));
const wrong = results.filter((text, n) => text !== `${big(n).slice(0, -1)}!`).length;
clearInterval(watch);
await perdure.shutdown();
process.stdout.write(
  JSON.stringify({ runs: results.length, wrong, idleMiB: Math.round(idle / MIB), rssMiB: Math.round(rss / MIB) }),
);
