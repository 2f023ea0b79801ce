/**
 * Reports every night, by the clocks of each tenant: declared in code for the shop itself, put at run time for tenants as they come. Each slot
 * fires once, however many processes run. A schedule of every second shows that slots keep their distance.
 */
import { currentRun, Perdure, schedule, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const send = step("send", async (tenant: string, what: string) => console.log(`${tenant}: ${what}`));

const report = workflow("report", async (tenant: string) => {
  const { scheduledFor } = currentRun();
  await send(tenant, scheduledFor ? "the report of the night" : "a report at once");
});

const slots: number[] = [];
const tick = workflow("tick", async () => void slots.push(currentRun().scheduledFor!.getTime()));

await fresh("example_11");
const perdure = new Perdure({
  schema: "example_11",
  workflows: [report, tick],
  application: "shop",
  schedules: [schedule("nightly", { cron: "30 2 * * *", timezone: "Europe/Berlin" }, report, "shop")],
});
await perdure.launch();

// A tenant in a zone whose clocks go forward by half an hour only, and one who wants working days.
await perdure.schedules.put(
  schedule("report-howe", { cron: "15 2 * * *", timezone: "Australia/Lord_Howe" }, report, "howe"),
);
await perdure.schedules.put(
  schedule("report-acme", { cron: "0 7 * * MON-FRI", timezone: "America/New_York" }, report, "acme"),
);
for (const { name, cron, timezone } of await perdure.schedules.list({ prefix: "report-" })) {
  console.log(`${name}: ${cron} in ${timezone}`);
}

const run = await perdure.schedules.trigger("report-acme");
await run.result();

// The same name: it is changed.
await perdure.schedules.put(schedule("report-acme", { cron: "0 8 * * *" }, report, "acme"));
await perdure.schedules.pause("report-amce").catch((error) => console.log(error.message));

await perdure.schedules.put(schedule("tick", { every: "1s", overlap: "allow", catchUp: "all" }, tick));
while (slots.length < 2) await new Promise((resolve) => setTimeout(resolve, 50));
await perdure.shutdown();
const [first, second] = slots.sort();
console.log(`${(second! - first!) / 1000} s from slot to slot`);

// Output:
// report-acme: 0 7 * * MON-FRI in America/New_York
// report-howe: 15 2 * * * in Australia/Lord_Howe
// acme: a report at once
// there is no schedule "report-amce"; did you mean "report-acme"?
// 1 s from slot to slot
