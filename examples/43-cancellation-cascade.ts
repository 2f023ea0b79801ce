/**
 * A campaign starts a mailing for each country, and each mailing one for each city: three generations of runs. Cancelled at the top, all of
 * them end at once, and the step in flight is told by its signal. The invoice was started detached: what was sent is to be paid for.
 */
import { setTimeout as pause } from "node:timers/promises";
import { currentStep, event, Perdure, start, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const proceed = event("proceed");
let stopped = false;
const send = step("send", async (city: string) => {
  console.log(`${city}: sending`);
  await pause(60_000, null, { signal: currentStep().signal }).catch(() => console.log(`${city}: stopped`));
  stopped = true;
});
const mailCity = workflow("mail-city", async (city: string) => send(city));
const mailCountry = workflow("mail-country", async (country: string, cities: string[]) => {
  const mailings = await Promise.all(cities.map((city) => start(mailCity.with({ id: `${country}/${city}` }), city)));
  for (const mailing of mailings) await mailing.result();
});
const invoice = workflow("invoice", async (campaign: string) => {
  await proceed.wait();
  return `${campaign} is invoiced`;
});
const campaign = workflow("campaign", async (name: string) => {
  await start(invoice.with({ id: `${name}/invoice`, detached: true }), name);
  await mailCountry.with({ id: "France" })("France", ["Paris"]);
});

await fresh("example_43");
const workflows = [campaign, mailCountry, mailCity, invoice];
const perdure = new Perdure({ schema: "example_43", workflows });
await perdure.launch();

const run = await perdure.start(campaign.with({ id: "summer" }), "summer");
const isSending = async (): Promise<boolean> =>
  (await perdure.list({ workflow: mailCity, state: "running" })).runs.length > 0;
while (!(await isSending())) await pause(10);
await run.cancel("wrong prices");
while (!stopped) await pause(10);
for (const { id, state } of (await perdure.list()).runs.reverse()) console.log(`${id}: ${state}`);
await perdure.send("summer/invoice", proceed);
console.log(await perdure.get(invoice, "summer/invoice").result());
await perdure.shutdown();

// Output:
// Paris: sending
// Paris: stopped
// summer: cancelled
// summer/invoice: suspended
// France: cancelled
// France/Paris: cancelled
// summer is invoiced
