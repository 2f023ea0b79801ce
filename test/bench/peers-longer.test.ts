/** The comparison with the peers, second part: the scenarios of which one takes several processes, or fills tables first. */
import { test } from "tap";
import { measures } from "../support/scenario.ts";
import { LONGER } from "./peers-longer.ts";

for (const [name, tables] of Object.entries(LONGER)) {
  test(`${name}: measures Perdure, and leaves nobody out`, (t) => measures(t, name, tables));
}
