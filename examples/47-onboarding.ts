/**
 * A new user gets a mail, a day later a second one, and has three days to finish the profile: who does is welcomed, who does not is reminded once
 * and then left alone. A day of sleep and a wait of three days are a row each. Here the day is ended early by `wake()`, as support might do it, and
 * those who keep silent get milliseconds.
 */
import { type Duration, event, Perdure, type RunHandle, sleep, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const mail = step("mail", async (to: string, subject: string) => console.log(`to ${to}: ${subject}`));
const profileDone = event<{ city: string }>("profile-done");

const onboard = workflow(
  "onboard",
  async (user: string, day: Duration = { days: 1 }, patience: Duration = { days: 3 }) => {
    await mail(user, "welcome");
    await sleep("a day", day);
    await mail(user, "five things to try");
    let profile = await profileDone.wait({ timeout: patience });
    if (!profile) {
      await mail(user, "your profile is almost done");
      profile = await profileDone.wait({ timeout: patience });
    }
    if (!profile) return `${user} left`;
    await mail(user, `what is on in ${profile.data.city}`);
    return `${user} stays`;
  },
);

async function asleep(run: RunHandle<unknown>): Promise<void> {
  while ((await run.status()).waitingFor !== "sleep") await new Promise((resolve) => setTimeout(resolve, 5));
}

await fresh("example_47");
const perdure = new Perdure({ schema: "example_47", workflows: [onboard] });
await perdure.launch();

const ada = await perdure.start(onboard.with({ id: "ada" }), "ada");
await asleep(ada);
const { due, startedAt } = await ada.status();
console.log(`asleep for ${Math.round((due!.getTime() - startedAt!.getTime()) / 3_600_000)} hours`);
await ada.send(profileDone, { city: "London" }); // early: it waits in the mailbox
await ada.wake();
console.log(await ada.result());

const bob = await perdure.start(onboard.with({ id: "bob" }), "bob", "1ms", "10ms");
console.log(await bob.result());
await perdure.shutdown();

// Output:
// to ada: welcome
// asleep for 24 hours
// to ada: five things to try
// to ada: what is on in London
// ada stays
// to bob: welcome
// to bob: five things to try
// to bob: your profile is almost done
// bob left
