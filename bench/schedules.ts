/**
 * How late do schedules fire that are all due at once? One process has declared 10,000 for every minute; from the slot to the first and the
 * last run made, and to the last one finished by that process. How long the launch that declares them takes, the first time and again.
 */
import { setTimeout as pause } from "node:timers/promises";
import { schedule, workflow } from "../lib/index.ts";
import { number } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";

const MANY = 10_000;
const PATIENCE_MS = 150_000;

const report = workflow("report", async (tenant: string) => tenant);

export async function schedules(lab: Lab): Promise<void> {
  const schema = await lab.schema();
  const declared = Array.from({ length: MANY }, (_, n) =>
    schedule(`tenant-${n}`, { cron: "* * * * *" }, report, `tenant-${n}`),
  );
  const options = { schedules: declared, application: "bench", workflows: [report], worker: { concurrency: 200 } };
  const first = performance.now();
  await (await lab.engine(schema, options)).shutdown();
  const again = performance.now();
  await lab.engine(schema, options);
  const launched = performance.now();
  const [{ slot }] = await lab.sql(`select max(next_at) as slot from ${schema}.schedules`);
  const late = "extract(epoch from %s(created_at - slot_at)) * 1000";
  const figures = `select count(*)::int as made, count(finished_at)::int as finished, ${late.replace("%s", "min")} as first,
    ${late.replace("%s", "max")} as last, extract(epoch from max(finished_at - slot_at)) * 1000 as end from ${schema}.run where slot_at = $1`;
  for (;;) {
    const [{ made, finished, first: soonest, last, end }] = await lab.sql(figures, [slot]);
    if (made === MANY && finished === MANY) {
      lab.print(
        `  ${MANY} due at once, ms from the slot: first run made ${number(+soonest)}, last ${number(+last)}, last one finished ${number(+end)}`,
      );
      break;
    }
    if (performance.now() - launched > PATIENCE_MS) throw new Error(`${made} made and ${finished} finished of ${MANY}`);
    await pause(200);
  }
  lab.print(
    `  a launch that declares them, ms: ${number(again - first)}; one that finds them unchanged: ${number(launched - again)}`,
  );
}
