/**
 * What does a workflow that waits for an event keep in the process, and what does it ask of the database? All contenders at once: first
 * a tenth of them wait, then the rest; heap and buffers after collections, against those of the tenth.
 */
import { setTimeout as pause } from "node:timers/promises";
import { number, table } from "../../support/figures.ts";
import { oneByOne } from "../adapter.ts";
import type { Arena, Site } from "../arena.ts";
import type { Sizes } from "../sizes.ts";
import type { WorkerProcess } from "../worker.ts";

interface Kept {
  readonly heap: number;
  readonly rss: number;
  readonly statements: number | null;
}

export async function memory(arena: Arena): Promise<void> {
  const { waiters } = arena.sizes;
  const contenders = await arena.contenders(["waiting", "throughput", "default"]);
  const sites = await arena.sites(contenders.filter(({ adapter }) => adapter.can.includes("events")));
  const kept = await Promise.all(sites.map((site) => arena.trying(site.contender, () => keeping(site, arena.sizes))));
  const rows = sites.flatMap(({ contender }, at) => {
    const found = kept[at];
    if (!found) return [];
    const { heap, rss, statements } = found;
    return [[contender.name, number(heap), number(rss), statements === null ? "–" : number(statements)]];
  });
  const title = `each of ${waiters.toLocaleString("en-US")} that wait`;
  arena.print(table([[title, "heap, bytes", "resident, bytes", "all: statements/s"], ...rows]));
}

async function keeping(site: Site, { waiters, parked, watch }: Sizes): Promise<Kept> {
  const worker = await site.worker({ gc: true });
  const few = Math.round(waiters / 10);
  await park(site, worker, 0, few, parked);
  const before = await worker.usage();
  await park(site, worker, few, waiters + few, parked);
  const after = await worker.usage();
  const read = await site.meter();
  await pause(watch * 1000);
  const { statements } = await read();
  return {
    heap: (after.heap - before.heap) / waiters,
    rss: (after.rss - before.rss) / waiters,
    statements: statements === null ? null : statements / watch,
  };
}

async function park(site: Site, worker: WorkerProcess, from: number, to: number, parked: number): Promise<void> {
  const client = await site.client();
  const marks = Array.from({ length: to - from }, (_, at) => `waiter-${from + at}`);
  let at = 0;
  await oneByOne(marks.length, () => client.start("waiter", marks[at++]!));
  await site.part();
  for (const mark of marks) await worker.reached("waits", mark, 120_000);
  await pause(parked);
}
