/** A scenario of bench:peers in tiny, by Perdure and perhaps the bare statements, on the server of the tests. */
import type { Test } from "tap";
import { Arena } from "../../bench/peers/arena.ts";
import { SCENARIOS } from "../../bench/peers/scenarios.ts";
import { TINY } from "../../bench/peers/sizes.ts";
import { Lab } from "../../bench/support/lab.ts";
import { inDatabase, server } from "./postgres.ts";

/** The title of a table that it prints, whether the bare statements are in it too, and whether its first column counts statements. */
export type Printed = readonly [title: string, bare: boolean, counts?: boolean];

/** Statements are counted only where the server has loaded what counts them. */
const countsStatements = async (): Promise<boolean> =>
  inDatabase(await server(), async (client) => {
    const { rows } = await client.query("show shared_preload_libraries");
    return rows[0].shared_preload_libraries.includes("pg_stat_statements");
  });

/** The rows of the table that a scenario prints under this title, by contender. */
function rowsUnder(title: string, printed: readonly string[]): Map<string, string> {
  const table = printed.find((text) => text.trimStart().startsWith(title)) ?? "";
  const rows = table.split("\n").slice(1);
  return new Map(rows.map((row) => row.trim().split(/ {2,}/)).map(([name, first]) => [name!, first!]));
}

async function printedBy(name: string, contenders: readonly string[]): Promise<string[]> {
  const printed: string[] = [];
  const lab = new Lab(
    await server(),
    (text) => void printed.push(text),
    async () => {},
  );
  const arena = await Arena.open(lab, contenders, TINY);
  try {
    await SCENARIOS[name]!(arena);
  } finally {
    await arena.clear();
    await lab.close();
  }
  return printed;
}

/** It measures Perdure, by a figure in each of its tables, and leaves nobody out. */
export async function measures(t: Test, name: string, tables: readonly Printed[]): Promise<void> {
  const printed = await printedBy(name, tables.some(([, bare]) => bare) ? ["perdure", "bare"] : ["perdure"]);
  t.notMatch(printed.join("\n"), /left out|NaN/);
  for (const [title, bare, counts = false] of tables) {
    const rows = rowsUnder(title, printed);
    const figure = !counts || (await countsStatements()) ? /^[\d,.]/ : /^–$/;
    t.match(rows.get("perdure"), figure, `${title}: ${rows.get("perdure")}`);
    if (bare)
      t.ok(
        [...rows.keys()].some((row) => row.startsWith("bare")),
        `${title}: the bare statements`,
      );
  }
}
