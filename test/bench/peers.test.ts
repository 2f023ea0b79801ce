/** The comparison with the peers: Perdure's own part of it, and the bare statements beside it, run every scenario in tiny. */
import { test } from "tap";
import { Arena } from "../../bench/peers/arena.ts";
import { SCENARIOS } from "../../bench/peers/scenarios.ts";
import { TINY } from "../../bench/peers/sizes.ts";
import { Lab } from "../../bench/support/lab.ts";
import { server } from "../support/postgres.ts";

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

/** What each scenario measures of Perdure, by the title of its table; and whether the bare statements are measured too. */
const TABLES: Readonly<Record<string, readonly (readonly [title: string, bare: boolean])[]>> = {
  drain: [
    ["runs/s", true],
    ["one costs", true],
  ],
  "drain-ten": [["runs/s of ten steps", false]],
  latency: [
    ["start → result", true],
    ["start elsewhere", true],
    ["event sent", false],
    ["sleep of", false],
  ],
  idle: [["an idle process", false]],
  takeover: [["kill -9", false]],
  processes: [["one-step runs/s", false]],
  memory: [["each of", false]],
  scale: [["one-step runs/s", false]],
};

test("every scenario is tried here", (t) => {
  t.same(Object.keys(TABLES), Object.keys(SCENARIOS));
  t.end();
});

for (const [name, tables] of Object.entries(TABLES)) {
  test(`${name}: measures Perdure, and leaves nobody out`, async (t) => {
    const printed = await printedBy(name, tables.some(([, bare]) => bare) ? ["perdure", "bare"] : ["perdure"]);
    t.notMatch(printed.join("\n"), /left out|NaN/);
    for (const [title, bare] of tables) {
      const rows = rowsUnder(title, printed);
      t.match(rows.get("perdure"), /^[\d,.]/, `${title}: ${rows.get("perdure")}`);
      if (bare)
        t.ok(
          [...rows.keys()].some((row) => row.startsWith("bare")),
          `${title}: the bare statements`,
        );
    }
  });
}
