/** Races: the first of several waits wins, the winner is recorded, and what loses is left for later waits. */
import { test } from "tap";
import { event, RunFailedError, race, sleep, start, workflow } from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches } from "../support/gate.ts";
import { free, gate } from "../support/replay.ts";

const patient = { timeout: PATIENCE_MS };
const paid = event<{ amount: number }>("paid");
const refused = event("refused");
const parcel = workflow("parcel", async (days: number) => {
  if (days < 0) throw new Error("lost");
  return days;
});
const never = workflow("never", async () => (await refused.wait()).id);

test("an event wins, and on replay it has won", async (t) => {
  const flow = workflow("flow", async () => {
    const won = await race({ paid, refused, late: "1h" });
    await gate.wait();
    return won.winner === "paid" ? won.value.data.amount : won.winner;
  });
  const b = await coldBench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await reaches(run, "suspended");
  t.equal((await run.status()).waitingFor, "several");
  await run.send(paid, { amount: 5 });
  await eventually(async () => (await run.status()).waitingFor === "event");
  await run.send(gate, null);
  t.equal(await run.result(patient), 5);
});

test("what loses is left untouched: a later wait gets the event, a later result() the child's", async (t) => {
  const flow = workflow("flow", async () => {
    const child = await start(parcel, 3);
    const first = await race({ refused, paid });
    const second = await race({ paid, child });
    return [first.winner, second.winner, (await paid.wait()).data.amount, await child.result()];
  });
  const b = await coldBench(t, { workflows: [flow, parcel] });
  const run = await b.perdure.start(flow);
  await eventually(async () => (await b.sql("select from :SCHEMA.run where state = 'completed'")).length === 1);
  await run.pause();
  for (const amount of [1, 2, 3]) await b.perdure.send(run.id, paid, { amount });
  await run.resume();
  t.same(await run.result(patient), ["paid", "paid", 3, 3]);
});

test("a timer wins with null, once, and a restart does not wind it up again", async (t) => {
  const flow = workflow("flow", async () => race({ paid, late: { hours: 1 }, later: "2h" }));
  const b = await coldBench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await reaches(run, "suspended");
  await b.advance(1_800_000);
  await free(b, run.id);
  await reaches(run, "suspended");
  await b.advance(1_800_000);
  t.same(await run.result(patient), { winner: "late", value: null });
});

test("timers alone race too, and the run rests meanwhile", async (t) => {
  const flow = workflow("flow", async () => (await race({ slow: "2h", fast: "1h" })).winner);
  const b = await coldBench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await reaches(run, "suspended");
  await b.advance(3_600_000);
  t.equal(await run.result(patient), "fast");
});

test("a child wins with its result, or by failing, which throws", async (t) => {
  const flow = workflow("flow", async (days: number) => {
    const [child, slow] = [await start(parcel, days), await start(never)];
    try {
      const { winner, value } = await race({ slow, child, late: "1h" });
      return [winner, value];
    } catch (error) {
      return [error instanceof RunFailedError, (error as Error).message];
    } finally {
      await slow.cancel("not needed");
    }
  });
  const b = await coldBench(t, { workflows: [flow, parcel, never] });
  t.same(await (await b.perdure.start(flow, 4)).result(patient), ["child", 4]);
  t.match(await (await b.perdure.start(flow, -1)).result(patient), [true, /failed: Error: lost/]);
});

test("a loop over an event reads the mailbox in order", async (t) => {
  const flow = workflow("flow", async () => {
    let sum = 0;
    for await (const { data } of paid) {
      sum += data.amount;
      if (sum >= 6) break;
    }
    return sum;
  });
  const b = await coldBench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  for (const amount of [1, 2, 3, 4]) await run.send(paid, { amount });
  t.equal(await run.result(patient), 6);
});

test("a race of nothing, or of what nobody can wait for, is refused by name", async (t) => {
  const flow = workflow("flow", async (kind: string) => {
    const odd = kind === "promise" ? sleep("1h") : { weeks: 3 };
    const racers: Record<string, any> = kind === "none" ? {} : { paid, odd };
    return race(racers).catch((e: Error) => e.message);
  });
  const b = await coldBench(t, { workflows: [flow] });
  const said = async (kind: string) =>
    (await b.perdure.start(flow, kind)).result(patient).catch((e: Error) => e.message);
  t.match(await said("none"), /race\(\) needs an object of events, children or durations/);
  t.match(await said("odd"), /"odd" in race\(\)/);
  t.match(await said("promise"), /"odd" in race\(\) is a promise.*pass the event, the child's handle or the duration/);
});
