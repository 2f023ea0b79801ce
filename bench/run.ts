/** `npm run bench`: every question in turn, or those that are named: `npm run bench -- throughput latency`. */
import { cpus } from "node:os";
import { children } from "./children.ts";
import { drain } from "./drain.ts";
import { idle } from "./idle.ts";
import { latency } from "./latency.ts";
import { linear } from "./linear.ts";
import { loops } from "./loop.ts";
import { memory } from "./memory.ts";
import { processes } from "./processes.ts";
import { publish } from "./publish.ts";
import { retention } from "./retention.ts";
import { scale } from "./scale.ts";
import { schedules } from "./schedules.ts";
import { starts } from "./starts.ts";
import { statements } from "./statements.ts";
import { Lab } from "./support/lab.ts";
import { takeover } from "./takeover.ts";
import { throughput } from "./throughput.ts";

const QUESTIONS = {
  throughput,
  drain,
  starts,
  processes,
  latency,
  loop: loops,
  publish,
  idle,
  takeover,
  schedules,
  memory,
  linear,
  children,
  scale,
  statements,
  retention,
};
/** These take minutes of their own, so they are asked by name only. */
const BY_NAME = ["scale", "statements", "retention"];

const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !Object.hasOwn(QUESTIONS, name));
if (unknown.length > 0) throw new Error(`no such benchmark: ${unknown}; there are ${Object.keys(QUESTIONS)}`);

const print = (text: string): void => void process.stdout.write(`${text}\n`);
const lab = await Lab.open(print);
print(
  `${await lab.machine()}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${new Date().toISOString().slice(0, 10)}`,
);
for (const [name, question] of Object.entries(QUESTIONS)) {
  if (asked.length > 0 ? !asked.includes(name) : BY_NAME.includes(name)) continue;
  const start = performance.now();
  print(`\n${name}`);
  try {
    await question(lab);
  } finally {
    await lab.clear();
  }
  print(`  (${((performance.now() - start) / 1000).toFixed(0)} s)`);
}
await lab.close();
