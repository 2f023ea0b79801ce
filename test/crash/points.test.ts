/**
 * Crash points: a run of the workflow that uses everything, with a failure at one statement between its process and Postgres. `npm run
 * crashpoints` tries all; here a part is tried, drawn from a seed. PERDURE_POINTS_SEED draws the same again; PERDURE_POINTS, such as
 * "cut after commit", tries all whose name holds that.
 */
import { test } from "tap";
import { allOf, carryOut, nameOf, openLanes, rehearse, sampleOf } from "./campaign.ts";
import { Lane } from "./points.ts";

const LANES = 3;
const SIZE = 48;

/** What a worker and a client write and ask, by function. One row alone goes by a statement of its own, named `:swift`. */
const KINDS =
  "start_runs start:swift claim_runs claim:swift begin_waits wake:swift record_steps record:swift record_deliveries record_tries publish suspend_runs next_attempts finish_runs send:swift cancel_runs look_runs hint tell_start read_published";

test("a run that uses everything sends statements of every kind, and comes to the same each time", async (t) => {
  const names = new Set((await rehearse(await Lane.open(t))).map(({ name }) => name.replace(/:lone$/, "")));
  for (const kind of KINDS.split(" ")) t.ok(names.has(kind), kind);
});

test("whatever statement a process or its connection fails at, a run comes to the same, and its transactions take effect once", async (t) => {
  const seed = Number(process.env.PERDURE_POINTS_SEED ?? Date.now() % 1_000_000);
  const wanted = process.env.PERDURE_POINTS?.split(" ");
  const lanes = await openLanes(t, LANES);
  const points = await rehearse(lanes[0]!);
  const trials = wanted
    ? allOf(points).filter((trial) => wanted.every((word) => nameOf(trial).includes(word)))
    : sampleOf(points, seed, SIZE);
  t.ok(trials.length > 0, `there are trials of ${points.length} statements`);
  const done = await carryOut(lanes, trials, (tried) => {
    if (tried.violations.length > 0) t.fail(`${nameOf(tried)} (seed ${seed}): ${tried.violations.join("; ")}`);
  });
  const hits = done.filter(({ hit }) => hit).length;
  t.comment(
    `seed ${seed}: ${trials.length} of ${4 * points.length} failures at ${points.length} statements, ${hits} took place`,
  );
  t.ok(hits > trials.length / 2, `${hits} of ${trials.length} failures took place`);
});
