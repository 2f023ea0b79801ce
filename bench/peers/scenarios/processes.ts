/** Is a second process a gain? The same drain by one process and by two, in turn. */
import { spread, table } from "../../support/figures.ts";
import type { Arena, Site } from "../arena.ts";
import { within } from "../ratios.ts";
import { drained, inTurn } from "./drain.ts";

interface Pair {
  readonly one: number;
  readonly two: number;
}

/** Each of them is a pair of drains. */
const ROUNDS = 2;

export async function processes(arena: Arena, most: number = ROUNDS): Promise<void> {
  const contenders = await arena.contenders(["throughput", "default"]);
  const sites = await arena.sites(contenders.filter(({ name }) => name !== "bare"));
  const pair = async (site: Site, count: number): Promise<Pair> => ({
    one: (await drained(site, "one-step", count)).rate,
    two: (await drained(site, "one-step", count, 2)).rate,
  });
  const rounds = await inTurn(arena, sites, "one-step", pair, Math.min(most, arena.sizes.rounds));
  const rows = rounds.titles.map((title) => [
    title,
    spread(rounds.values(title, ({ one }) => one)),
    spread(rounds.values(title, ({ two }) => two)),
    within(rounds.values(title, ({ one, two }) => two / one)),
  ]);
  arena.print(table([["one-step runs/s", "one process", "two processes", "two are"], ...rows]));
}
