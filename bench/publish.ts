/**
 * How soon does another process see what a run publishes, and how much can one run write? Writes 25 ms apart, each the time of its writing,
 * as a value and as a stream's item, read in a process of its own; then one run that writes as fast as it can, from a step and from its body.
 */
import { setTimeout as pause } from "node:timers/promises";
import { event, type Perdure, step, stream, value, workflow } from "../lib/index.ts";
import { number, percentiles, spread, table } from "./support/figures.ts";
import { type Lab, message } from "./support/lab.ts";

const TICKS = 300;
const WRITES = 20_000;
const ROUNDS = 5;

const tick = value<number>("tick");
const ticks = stream<number>("ticks");
const go = event("go");
const stamp = (): number => performance.timeOrigin + performance.now();

const beat = step("beat", async (count: number) => {
  for (let n = 0; n < count; n += 1) {
    await pause(25);
    await ticks.write(stamp());
    await pause(25);
    await tick.set(stamp());
  }
});
/** Ten writes until the reader has come to rest, which do not count. */
const ticking = workflow("ticking", async () => {
  await ticks.write(stamp());
  await tick.set(stamp());
  await go.wait();
  await beat(TICKS + 10);
});

const tokens = stream<number>("tokens");
const fill = step("fill", async () => {
  for (let n = 0; n < WRITES; n += 1) await tokens.write(n);
});
const fromStep = workflow("from-step", () => fill());
const fromBody = workflow("from-body", async () => {
  for (let n = 0; n < WRITES; n += 1) await tokens.write(n);
});

export async function publish(lab: Lab): Promise<void> {
  const schema = await lab.schema();
  const perdure = await lab.engine(schema, { workflows: [ticking, fromStep, fromBody] });
  const { items, values } = await lateness(lab, perdure, schema);
  const late = (all: readonly number[]): string => percentiles(all.slice(-TICKS));
  lab.print(
    table([
      ["written → read in another process, ms: p50 / p95 / p99", ""],
      ["a stream's item", late(items)],
      ["a value", late(values)],
    ]),
  );
  const rows = [["writes per second of one run", "rate", "CPU µs a write"]];
  for (const [name, body] of [
    ["from a step", fromStep],
    ["from the body", fromBody],
  ] as const) {
    const rates: number[] = [];
    const cpu: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const [start, used] = [performance.now(), process.cpuUsage()];
      await (await perdure.start(body)).result();
      const { user, system } = process.cpuUsage(used);
      rates.push((WRITES / (performance.now() - start)) * 1000);
      cpu.push((user + system) / WRITES);
    }
    rows.push([name, spread(rates), number(Math.min(...cpu))]);
  }
  lab.print(table(rows));
}

interface Lateness {
  readonly items: readonly number[];
  readonly values: readonly number[];
}

async function lateness(lab: Lab, perdure: Perdure, schema: string): Promise<Lateness> {
  const run = await perdure.start(ticking.with({ id: "ticking" }));
  const reader = lab.fork("reader-process.js", [schema, "ticking"]);
  await message(reader);
  await run.send(go);
  for (;;) {
    const told = await message<Partial<Lateness>>(reader);
    if (told.items) return told as Lateness;
  }
}
