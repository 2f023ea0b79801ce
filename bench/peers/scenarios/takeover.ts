/**
 * How long from the kill -9 of the process that runs a workflow until another one goes on with it? Perdure several times; then all
 * others side by side, with their default settings and with those for recovery, for a minute at most.
 */
import { setTimeout as pause } from "node:timers/promises";
import { median, number, table } from "../../support/figures.ts";
import type { Arena, Site } from "../arena.ts";
import { titleOf } from "../contenders.ts";
import { clock } from "../teller.ts";

export async function takeover(arena: Arena): Promise<void> {
  const { kills, patience } = arena.sizes;
  const contenders = await arena.contenders(["default", "recovery"], true);
  const sites = await arena.sites(contenders);
  const rows: string[][] = [];
  for (const site of sites.filter(({ contender }) => contender.name === "perdure")) {
    const times: number[] = [];
    for (let at = 0; at < kills; at += 1) times.push(await killed(site, `held-${at}`, patience));
    rows.push([titleOf(site.contender), `${told(median(times))} (n=${kills}, at most ${told(Math.max(...times))})`]);
  }
  const others = sites.filter(({ contender }) => contender.name !== "perdure");
  const times = await Promise.all(
    others.map((site) => arena.trying(site.contender, () => killed(site, "held", patience))),
  );
  others.forEach(({ contender }, at) => {
    if (times[at] !== null) rows.push([titleOf(contender), told(times[at]!, patience)]);
  });
  arena.print(table([["kill -9 → another goes on", ""], ...rows]));
}

const told = (ms: number, patience?: number): string =>
  Number.isFinite(ms) ? `${number(ms)} ms` : `not within ${patience! / 1000} s`;

/** From the kill to the step of the other process, in ms; infinite when it does not come in time. */
async function killed(site: Site, mark: string, patience: number): Promise<number> {
  const { adapter, setup } = site.contender;
  const after = adapter.restarts === true && setup === "recovery";
  const owner = await site.worker({ holds: true });
  await (await site.client()).start("held", mark);
  await owner.reached("holds", mark);
  let other = after ? undefined : await site.worker();
  await site.part();
  // Not always at the same point of the other's watch.
  await pause(1000 + Math.random() * 1000);
  const start = clock();
  owner.kill();
  other ??= await site.worker();
  const at = await other.reached("holds", mark, patience).catch(() => Number.POSITIVE_INFINITY);
  await other.stop();
  return at - start;
}
