/** What the engine offers outside of runs is refused in a body, where nothing records it, and says what to call there. */
import { test } from "tap";
import { event, runStep, start, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { rejection } from "../support/gate.ts";

const patient = { timeout: "20s" } as const;
const go = event<number>("go");

test("start, send and cancel of an engine or of a handle that it gave are refused in a body, with what to call instead", async (t) => {
  const waits = workflow("waits", async () => (await go.wait()).data);
  const tries = workflow("tries", async () => {
    const run = perdure.get("other");
    const refused = await Promise.all([
      rejection(perdure.start(waits.with({ id: "started" }))),
      rejection(perdure.send("other", go, 1)),
      rejection(perdure.cancel(["other"])),
      rejection(run.send(go, 1)),
      rejection(run.cancel()),
    ]);
    return refused.map(({ code, message }) => [code, message]);
  });
  const { perdure, sql } = await bench(t, { workflows: [waits, tries] });
  await perdure.start(waits.with({ id: "other" }));
  const refused = (await (await perdure.start(tries.with({ id: "t-1" }))).result(patient)) as string[][];
  t.same(
    refused.map(([code]) => code),
    refused.map(() => "PERDURE_CONTEXT"),
  );
  t.match(refused, [
    [
      String,
      /^perdure\.start\(\) is not recorded, so every replay of workflow "tries" \(run "t-1"\) would do it again; .*start\(\) for a child/,
    ],
    [String, /^perdure\.send\(\) .*call it in a step, or send\(\) of a child's handle/],
    [String, /^perdure\.cancel\(\) .*in a step/],
    [String, /^send\(\) of a handle that start\(\) of a workflow did not give/],
    [String, /^cancel\(\) of a handle/],
  ]);
  t.same(await sql("select from :SCHEMA.events"), []);
  t.same(await sql("select from :SCHEMA.runs where id = 'started'"), []);
});

test("in a step they work, and so do a child's handle and a workflow that is called in a body", async (t) => {
  const waits = workflow("waits", async () => (await go.wait()).data);
  const sends = step("sends", async (id: string) => {
    await perdure.send(id, go, 1);
    await perdure.get(id).send(go, 2);
  });
  const all = workflow("all", async () => {
    const id = await runStep("start", async () => (await perdure.start(waits.with({ id: "by-step" }))).id);
    await sends(id);
    const child = await start(waits);
    await child.send(go, 3);
    return child.result();
  });
  const { perdure } = await bench(t, { workflows: [waits, all] });
  t.equal(await (await perdure.start(all)).result(patient), 3);
  t.equal(await perdure.get("by-step").result(patient), 1);
});
