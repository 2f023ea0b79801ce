/** What does a process that has nothing to do ask of the database? All at once, for what is counted does not depend on the load. */
import { setTimeout as pause } from "node:timers/promises";
import { number, table } from "../../support/figures.ts";
import type { Arena } from "../arena.ts";
import { titleOf } from "../contenders.ts";

export async function idle(arena: Arena): Promise<void> {
  const { settle, watch } = arena.sizes;
  const contenders = await arena.contenders(["default", "latency"], true);
  const sites = await arena.sites(contenders.filter(({ name }) => name !== "bare"));
  const workers = await Promise.all(sites.map((site) => site.worker()));
  await pause(settle * 1000);
  const reads = await Promise.all(sites.map((site) => site.meter()));
  const before = await Promise.all(workers.map((worker) => worker.usage()));
  await pause(watch * 1000);
  const readings = await Promise.all(reads.map((read) => read()));
  const after = await Promise.all(workers.map((worker) => worker.usage()));
  const rows = sites.map(({ contender }, at) => {
    const { statements } = readings[at]!;
    const cpu = (after[at]!.cpu - before[at]!.cpu) / watch / 10_000;
    return [
      titleOf(contender),
      statements === null ? "–" : number(statements / watch),
      number(cpu),
      number(after[at]!.rss / 2 ** 20),
    ];
  });
  arena.print(table([["an idle process", "statements/s", "CPU, %", "resident, MB"], ...rows]));
}
