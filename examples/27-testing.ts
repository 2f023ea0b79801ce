/**
 * Two weeks of trial, tested in a second. The workflow sleeps for days, retries a bank that is down and waits for a person, and its test
 * waits for none of it: the clock is the test's, the bank and the person are stood in for. Then the process is killed at every write
 * of the run, before and after its commit, and each time the run comes to the same. At last a golden history: the code is changed, and the
 * test says, before a deploy, that a run which is on its way would not go on with it.
 */
import assert from "node:assert/strict";
import { event, now, sleep, step, workflow } from "perdure";
import { exportHistory, replayHistory, testPerdure } from "perdure/testing";

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

const t = await testPerdure({ workflows: [trial], now: new Date("2027-03-01T09:00:00Z"), replay: "always" });
t.stub(approved, { by: "Ada" });
let calls = 0;
t.stub(charge, async (user) => {
  calls += 1;
  if (calls === 1) throw new Error("the bank is down");
  return `charged ${user}`;
});
const run = await t.perdure.start(trial.with({ id: "trial-u1" }), "u1");

await t.advance({ days: 11 });
assert.deepEqual(t.calls(remind), []);
await t.advance({ days: 2 });
console.log("reminded at", t.calls(remind)[0]![1].toISOString());
const resting = await exportHistory(t.perdure, "trial-u1");

await t.advance({ days: 1 });
console.log(t.now().toISOString(), (await run.status()).waitingFor);
await t.advance({ hours: 1 });
console.log(t.now().toISOString(), await run.result());

// The bank of this test is down only once, so that all goes are alike.
const { points, end } = await t.crashEverywhere(trial, "u1");
console.log([...new Set(points.map(({ side }) => side))], end);
await t.stop();

console.log(await replayHistory(resting, { workflows: [trial] }));
const changed = workflow("trial", async (user: string) => charge(user));
await replayHistory(resting, { workflows: [changed] }).catch((error: Error) =>
  console.log(error.message.split(": the code")[0]),
);

// Output:
// reminded at 2027-03-13T09:00:00.000Z
// 2027-03-15T09:00:00.000Z retry
// 2027-03-15T10:00:00.000Z charged u1, approved by Ada
// [ 'before', 'after' ] { state: 'completed', value: 'charged u1, approved by Ada' }
// { same: true, came: 'waiting', next: [] }
// replayHistory: run "trial-u1" of workflow "trial" does not replay against today's code: diverged
