/** The package as its users have it: the tarball in a folder of its own. `npm run consumers` tries what needs downloads, too. */
import { test } from "tap";
import { LOCAL } from "./consumers/cases.ts";
import { Stage } from "./consumers/stage.ts";

test("a user's first minutes, whatever they use", async (t) => {
  const stage = new Stage(t);
  for (const { name, work } of LOCAL) {
    const began = performance.now();
    await t.resolves(work(stage), name);
    t.comment(`${Math.round(performance.now() - began)} ms`);
  }
});
