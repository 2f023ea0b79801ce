/** The comparison with the peers: Perdure's own part of it, and the bare statements beside it, run its scenarios in tiny. */
import { test } from "tap";
import { SCENARIOS } from "../../bench/peers/scenarios.ts";
import { measures, type Printed } from "../support/scenario.ts";
import { LONGER } from "./peers-longer.ts";

const SHORTER: Readonly<Record<string, readonly Printed[]>> = {
  drain: [
    ["runs/s", true],
    ["one costs", true, true],
  ],
  "drain-ten": [["runs/s of ten steps", false]],
  latency: [
    ["start → result", true],
    ["start elsewhere", true],
    ["event sent", false],
    ["sleep of", false],
  ],
  idle: [["an idle process", false, true]],
  takeover: [["kill -9", false]],
};

test("every scenario is tried", (t) => {
  t.same([...Object.keys(SHORTER), ...Object.keys(LONGER)].sort(), Object.keys(SCENARIOS).sort());
  t.end();
});

for (const [name, tables] of Object.entries(SHORTER)) {
  test(`${name}: measures Perdure, and leaves nobody out`, (t) => measures(t, name, tables));
}
