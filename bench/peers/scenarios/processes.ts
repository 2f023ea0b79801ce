/** Is a second process a gain? The same drain by one process and by two, in turn. */
import { spread, table } from "../../support/figures.ts";
import type { Arena } from "../arena.ts";
import { within } from "../ratios.ts";
import { drained, inTurn } from "./drain.ts";

export async function processes(arena: Arena): Promise<void> {
  const contenders = await arena.contenders(["throughput", "default"]);
  const sites = await arena.sites(contenders.filter(({ name }) => name !== "bare"));
  const rounds = await inTurn(arena, sites, "one-step", async (site, count) => {
    const one = await drained(site, "one-step", count);
    const two = await drained(site, "one-step", count, 2);
    return { one: one.rate, two: two.rate };
  });
  const rows = rounds.titles.map((title) => [
    title,
    spread(rounds.values(title, ({ one }) => one)),
    spread(rounds.values(title, ({ two }) => two)),
    within(rounds.values(title, ({ one, two }) => two / one)),
  ]);
  arena.print(table([["one-step runs/s", "one process", "two processes", "two are"], ...rows]));
}
