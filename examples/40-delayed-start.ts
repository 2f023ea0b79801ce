/**
 * A reminder that is to begin later. The run is durable at once and waits as a row until its time comes: `delay` counts from the start by
 * the database's clock, `startAt` names an instant. What is not needed any more is cancelled before it begins, and has then done nothing.
 */
import { Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const notify = step("notify", async (text: string) => console.log(text));
const remind = workflow("remind", async (text: string) => notify(`reminder: ${text}`));

await fresh("example_40");
const perdure = new Perdure({ schema: "example_40", workflows: [remind] });
await perdure.launch();

const soon = await perdure.start(remind.with({ id: "tea", delay: "50ms" }), "the tea is ready");
const { waitingFor, due, createdAt } = await soon.status();
console.log(`tea: waits for its ${waitingFor}, due ${due!.getTime() - createdAt.getTime()} ms after it was made`);
await soon.result();

// An instant that is past: begins at once.
await (await perdure.start(remind.with({ startAt: new Date("2020-01-01") }), "buy a newer calendar")).result();

const party = await perdure.start(remind.with({ id: "party", startAt: new Date("2099-12-31T18:00:00Z") }), "the party");
await party.cancel("called off");
const { state, reason, startedAt } = await party.status();
console.log(`party: ${state}, ${reason}, ${startedAt ? "had begun" : "never begun"}`);
await perdure.shutdown();

// Output:
// tea: waits for its start, due 50 ms after it was made
// reminder: the tea is ready
// reminder: buy a newer calendar
// party: cancelled, called off, never begun
