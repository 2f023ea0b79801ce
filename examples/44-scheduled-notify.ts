/**
 * A digest goes out every second (every morning, in life). The mail server fails now and then, so each run has a retry of its own. One digest is
 * slow: the slot that comes meanwhile is left out (`overlap: "skip"`) rather than sent twice. The engine warns of that, and `schedule_history` keeps it.
 */
import { currentRun, event, Perdure, schedule, step, transaction, workflow } from "perdure";
import { fresh } from "./fresh.ts";

let failures = 1;
const notify = step("notify", async (team: string) => {
  if (failures-- > 0) throw new Error("the mail server is busy");
  return `${team} is notified`;
});
const calm = event("calm");
const digest = workflow(
  { name: "digest", retry: { type: "fixed", maxAttempts: 3, delay: "20ms" } },
  async (team: string) => {
    const done = await notify(team);
    await calm.wait(); // the slow part
    return `${done}, at attempt ${currentRun().attempt}`;
  },
);
const everySecond = schedule("digest", { every: "1s", overlap: "skip" }, digest, "the night shift");

// For SQL: what became of slots is a view.
const skipped = transaction("skipped", async (tx) => {
  const { rows } = await tx.query("select what from example_44.schedule_history where what = 'skipped'");
  return rows.length;
});

// Any logger of four methods, such as pino. This one keeps what it is told.
const said: string[] = [];
const logger = { debug() {}, info() {}, warn: (text: string) => void said.push(text), error: console.error };

await fresh("example_44");
const perdure = new Perdure({
  schema: "example_44",
  workflows: [digest],
  schedules: [everySecond],
  application: "mail",
  logger,
});
await perdure.launch();
while ((await skipped()) === 0) await new Promise((resolve) => setTimeout(resolve, 50));
await perdure.schedules.pause("digest");

const [slow, ...others] = (await perdure.list({ workflow: digest })).runs;
console.log(`runs: ${1 + others.length}, named by schedule and slot: ${/^digest@\d{4}-/.test(slow!.id)}`);
await perdure.send(slow!.id, calm);
console.log(await perdure.get(slow!.id).result());
console.log(`warned: ${said.some((text) => text.includes("leaves out its slots"))}`);
await perdure.shutdown();

// Output:
// runs: 1, named by schedule and slot: true
// the night shift is notified, at attempt 2
// warned: true
