/**
 * Two weeks of trial, tested in a second. The workflow sleeps for days, retries a bank that is down and waits for a person, and its test
 * waits for none of it: the clock is the test's, the bank and the person are stood in for. Then the process is killed at every write
 * of the run, before and after its commit, and each time the run comes to the same. At last a golden history: the code is changed, and the
 * test says, before a deploy, that a run which is on its way would not go on with it.
 */
import assert from "node:assert/strict";
import { event, now, sleep, step, workflow } from "perdure";
import { crashEverywhere, exportHistory, replayHistory, standIn, TestPerdure } from "perdure/testing";

const remind = step("remind", async (user: string, _at: Date) => `mail to ${user}`);
const charge = step(
  { name: "charge", retry: { type: "fixed", maxAttempts: 3, delay: "1h" } },
  async (_user: string): Promise<string> => {
    throw new Error("no test calls the bank");
  },
);
const approved = event<{ by: string }>("approved");

const trial = workflow("trial", async (user: string) => {
  await sleep({ days: 12 });
  await remind(user, now());
  await sleep({ days: 2 });
  const { data } = await approved.wait();
  return `${await charge(user)}, approved by ${data.by}`;
});

let calls = 0;
const standIns = [
  standIn(approved, { by: "Ada" }),
  standIn(charge, async (user) => {
    calls += 1;
    if (calls % 2 === 1) throw new Error("the bank is down");
    return `charged ${user}`;
  }),
];

const perdure = new TestPerdure({
  workflows: [trial],
  standIns,
  now: new Date("2027-03-01T09:00:00Z"),
  replay: "always",
});
await perdure.launch();
const run = await perdure.start(trial.with({ id: "trial-u1" }), "u1");

await perdure.advance({ days: 11 });
assert.deepEqual(perdure.calls(remind), []);
await perdure.advance({ days: 2 });
console.log("reminded at", perdure.calls(remind)[0]![1].toISOString());
const resting = await exportHistory(perdure, "trial-u1");

await perdure.advance({ days: 1 });
console.log(perdure.now().toISOString(), (await run.status()).waitingFor);
await perdure.advance({ hours: 1 });
console.log(perdure.now().toISOString(), await run.result());
await perdure.shutdown();

// The bank of this test answers every call: what it remembers would differ from go to go.
const answers = [standIns[0]!, standIn(charge, async (user) => `charged ${user}`)];
const { points, end } = await crashEverywhere(trial, { args: ["u1"], standIns: answers });
console.log(
  points.every(({ side }, at) => side === (at % 2 === 0 ? "before" : "after")),
  end,
);

console.log(await replayHistory(resting, { workflows: [trial] }));
const changed = workflow("trial", async (user: string) => charge(user));
await replayHistory(resting, { workflows: [changed] }).catch((error: Error) =>
  console.log(error.message.split(": the code")[0]),
);

// Output:
// reminded at 2027-03-13T09:00:00.000Z
// 2027-03-15T09:00:00.000Z retry
// 2027-03-15T10:00:00.000Z charged u1, approved by Ada
// true { state: 'completed', value: 'charged u1, approved by Ada' }
// { same: true, came: 'waiting', next: [] }
// replayHistory: run "trial-u1" of workflow "trial" does not replay against today's code: diverged
