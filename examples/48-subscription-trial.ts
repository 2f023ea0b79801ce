/**
 * A trial of fourteen days: three days before its end comes a reminder, at its end the account is closed, unless the first payment comes or
 * the user leaves before. One `race` per span: who wins is recorded, so there is no moment at which a payment could meet the end and both
 * take effect. A payment that comes too late is refused to whoever sends it.
 */
import { type Duration, event, Perdure, RunFinishedError, race, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const paid = event<{ plan: string }>("paid");
const left = event<{ why: string }>("left");
const mail = step("mail", async (user: string, text: string) => console.log(`to ${user}: ${text}`));
const setPlan = step("set-plan", async (user: string, plan: string) => console.log(`${user} has plan "${plan}"`));

interface Spans {
  readonly untilReminder: Duration;
  readonly untilEnd: Duration;
}
const FOURTEEN_DAYS: Spans = { untilReminder: { days: 11 }, untilEnd: { days: 3 } };

const trial = workflow("trial", async (user: string, spans: Spans = FOURTEEN_DAYS) => {
  await setPlan(user, "trial");
  let end = await race({ paid, left, over: spans.untilReminder });
  if (end.winner === "over") {
    await mail(user, "three days are left");
    end = await race({ paid, left, over: spans.untilEnd });
  }
  switch (end.winner) {
    case "paid":
      await setPlan(user, end.value.data.plan);
      return "subscribed";
    case "left":
      await setPlan(user, "none");
      return `left: ${end.value.data.why}`;
    case "over":
      await setPlan(user, "none");
      return "trial is over";
  }
});

await fresh("example_48");
const perdure = new Perdure({ schema: "example_48", workflows: [trial] });
await perdure.launch();

const ada = await perdure.start(trial.with({ id: "trial-ada" }), "ada");
await ada.send(paid, { plan: "yearly" });
console.log(await ada.result());

const bob = await perdure.start(trial.with({ id: "trial-bob" }), "bob", {
  untilReminder: "5ms",
  untilEnd: { days: 3 },
});
while ((await bob.history()).every(({ name }) => name !== "mail")) await new Promise((done) => setTimeout(done, 5));
await bob.send(left, { why: "too many mails" });
console.log(await bob.result());

const eve = await perdure.start(trial.with({ id: "trial-eve" }), "eve", { untilReminder: "5ms", untilEnd: "5ms" });
console.log(await eve.result());
await eve
  .send(paid, { plan: "monthly" })
  .catch((error) => console.log(error instanceof RunFinishedError ? "too late" : error));
await perdure.shutdown();

// Output:
// ada has plan "trial"
// ada has plan "yearly"
// subscribed
// bob has plan "trial"
// to bob: three days are left
// bob has plan "none"
// left: too many mails
// eve has plan "trial"
// to eve: three days are left
// eve has plan "none"
// trial is over
// too late
