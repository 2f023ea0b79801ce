/** What a stranger's programs found of children, values, schedules, control and SQL: each is one promise that did not hold. */
import { test } from "tap";
import { currentRun, now, patched, random, runStep, schedule, step, uuid, workflow } from "../lib/index.ts";
import { bench } from "./support/engine.ts";
import { eventually } from "./support/eventually.ts";
import { rejection } from "./support/gate.ts";

const patient = { timeout: "20s" } as const;

test("a fork repeats what the code drew before its step, the clock, uuid and random, and draws anew after it", async (t) => {
  const note = step("note", async (drawn: unknown) => drawn);
  const draw = () => [uuid(), random("dice"), now().getTime()];
  const drawing = workflow("drawing", async () => {
    const all = [];
    for (let n = 0; n < 4; n += 1) {
      all.push(await note(draw()));
      await runStep(`turn ${n}`, () => n);
    }
    return all;
  });
  const { perdure } = await bench(t, { workflows: [drawing] });
  const run = await perdure.start(drawing);
  const first = await run.result(patient);
  const forked = await run.fork({ from: "turn 2" });
  const second = await forked.result(patient);
  t.same(second.slice(0, 3), first.slice(0, 3));
  const again = await (await forked.fork({ from: "turn 1" })).result(patient);
  t.same(again.slice(0, 2), first.slice(0, 2), "a fork of a fork, from further back");
  const last = await (await forked.fork({ from: "turn 3" })).result(patient);
  t.same(last, second, "a fork of a fork, from further on");
  const ids = [first[3], second[3], again[2], again[3]].map((drawn) => (drawn as string[])[0]);
  t.equal(new Set(ids).size, 4, "no two of them draw the same id after the step");
});

test("a fork of a schedule's run knows the slot, and is no run of the schedule", async (t) => {
  const slotted = workflow("slotted", async () => {
    const slot = currentRun().scheduledFor?.getTime();
    await runStep(`for ${slot}`, () => 1);
    await runStep("end", () => 1);
    return slot;
  });
  const { perdure, sql } = await bench(t, { workflows: [slotted], application: "a" });
  await perdure.schedules.put(schedule("often", { every: "1s" }, slotted));
  await sql("update :SCHEMA.schedule set next_at = next_at - interval '1s', due_at = now()");
  const find = async () => (await perdure.list({ workflow: slotted })).runs[0]?.id;
  const id = await eventually(find, 20_000);
  await perdure.schedules.delete("often");
  const run = perdure.get<number>(id);
  const slot = await run.result(patient);
  t.ok(slot);
  const forked = await run.fork({ from: "end" });
  t.equal(await forked.result(patient), slot);
  t.same(await sql("select schedule from :SCHEMA.run where id = $1", [forked.id]), [{ schedule: null }]);
});

test("what fork cannot begin from is refused in words, and no run is made", async (t) => {
  const small = workflow("small", async () => {
    patched("by-mail");
    return runStep("only", () => 1);
  });
  const { perdure, sql } = await bench(t, { workflows: [small] });
  const run = await perdure.start(small);
  await run.result(patient);
  for (const [from, code] of [
    ["a\0b", "PERDURE_OPTION"],
    ["", "PERDURE_OPTION"],
    ["x".repeat(1_000_000), "PERDURE_NOT_FOUND"],
    ["patch:by-mail#0", "PERDURE_NOT_FOUND"],
  ] as const) {
    const refused = await rejection(run.fork({ from }));
    t.equal(refused.code, code, from.slice(0, 20));
    t.ok(refused.message.length < 300, refused.message);
    t.notMatch(refused.message, 'did you mean "patch:');
  }
  t.same(await sql("select count(*)::int as n from :SCHEMA.run"), [{ n: 1 }]);
});
