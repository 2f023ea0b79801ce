/** A process that shuts down begins nothing more, whatever its suspended bodies do by themselves. */
import { test } from "tap";
import { event, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches } from "../support/gate.ts";

test("a suspended body that goes on during a shutdown begins no step here, and its run is handed back", async (t) => {
  const go = event("go");
  const [own, inside, held] = [gate(), gate(), gate()];
  let began = 0;
  const act = step("act", async () => {
    began += 1;
  });
  const works = step("works", () => {
    inside.open();
    return held.opened;
  });
  const beside = workflow("beside", async () => {
    await Promise.all([go.wait(), own.opened.then(() => act())]);
  });
  const long = workflow("long", () => works());
  const b = await bench(t, { workflows: [beside, long] });
  const run = await b.perdure.start(beside.with({ id: "beside" }));
  await reaches(run, "suspended");
  await b.perdure.start(long.with({ id: "long" }));
  await inside.opened;
  const over = b.perdure.shutdown({ timeout: "30s" });
  own.open();
  const again = "select from :SCHEMA.run where id = 'beside' and state = 'running'";
  await eventually(async () => (await b.sql(again)).length > 0, PATIENCE_MS);
  held.open();
  await over;
  t.equal(began, 0);
  t.same(await b.sql("select state from :SCHEMA.run order by id"), [{ state: "pending" }, { state: "completed" }]);
  const next = await b.another();
  await next.send("beside", go);
  await next.get("beside").result({ timeout: "20s" });
  t.equal(began, 1);
});

test("a run that a worker took by a statement that came after it had left is taken back", async (t) => {
  const quick = workflow("quick", async () => 1);
  const b = await bench(t, { workflows: [quick], worker: false });
  const run = await b.perdure.start(quick);
  await b.sql(
    "select from :SCHEMA.claim_runs(7, array['quick'], (select array_agg(distinct version) from :SCHEMA.run), array['default'], 1, 0)",
  );
  t.same(await b.sql("select worker from :SCHEMA.run"), [{ worker: "7" }], "there is no such worker any more");
  await b.another({ worker: {} });
  t.equal(await run.result({ timeout: "30s" }), 1);
});
