/**
 * A pipeline that takes days: data is extracted, rests until the upstream's corrections are in, is approved by a person within three days, and
 * is published. Between its stages it is a row and nothing else. The process stops while it waits, and another one takes it up: the
 * extraction, which is costly, does not run again.
 */
import { type Duration, event, Perdure, sleep, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const extract = step("extract", async (day: string) => {
  console.log(`extracting ${day}`);
  return { day, rows: 1200 };
});
const publish = step("publish", async (day: string, rows: number) => console.log(`published ${rows} rows of ${day}`));
const approved = event<{ by: string }>("approved");

const pipeline = workflow("pipeline", async (day: string, rest: Duration, patience: Duration = { days: 3 }) => {
  const { rows } = await extract(day);
  await sleep("until corrections are in", rest);
  const approval = await approved.wait({ timeout: patience });
  if (!approval) return "nobody approved it";
  await publish(day, rows);
  return `approved by ${approval.data.by}`;
});

await fresh("example_41");
const options = { schema: "example_41", workflows: [pipeline] };
const monday = new Perdure(options);
await monday.launch();
const first = await monday.start(pipeline.with({ id: "2026-08-03" }), "2026-08-03", "100ms");
while ((await first.status()).state !== "suspended") await new Promise((resolve) => setTimeout(resolve, 5));
await monday.shutdown();

// The next process. It is sent the approval while the pipeline still rests: the event waits in its mailbox.
const tuesday = new Perdure(options);
await tuesday.launch();
await tuesday.send("2026-08-03", approved, { by: "Ada" });
console.log(await tuesday.get(pipeline, "2026-08-03").result());
console.log(await (await tuesday.start(pipeline, "2026-08-04", "1ms", "10ms")).result());
await tuesday.shutdown();

// Output:
// extracting 2026-08-03
// published 1200 rows of 2026-08-03
// approved by Ada
// extracting 2026-08-04
// nobody approved it
