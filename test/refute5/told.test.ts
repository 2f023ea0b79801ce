/** What is woken soon, though no batch of its own process tells of it. */
import { test } from "tap";
import { event, sleep, start, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches } from "../support/gate.ts";
import { stranger } from "../support/stranger.ts";

const MANY = 17;

test("a run that waits for many children hears of one that is cancelled by a hint, and not at the next poll", async (t) => {
  const go = event("go");
  const child = workflow("child", async (_n: number) => void (await go.wait()));
  const parent = workflow("parent", async () => {
    const children = await Promise.all(Array.from({ length: MANY }, (_, n) => start(child, n)));
    await Promise.all(children.map((one) => one.result()));
  });
  const { perdure, sql } = await bench(t, { workflows: [parent, child] });
  let took = 0;
  for (let round = 0; round < 4; round += 1) {
    const run = await perdure.start(parent.with({ id: `parent-${round}` }));
    const suspended = "select from :SCHEMA.run where id like $1 and state = 'suspended'";
    await eventually(async () => (await sql(suspended, [`${run.id}%`])).length === MANY + 1, PATIENCE_MS);
    const [{ id }] = await sql("select id from :SCHEMA.run where id like $1", [`${run.id}/%`]);
    const since = performance.now();
    await perdure.get(id).cancel();
    await t.rejects(run.result(), { cause: { name: "RunCancelledError" } });
    took += performance.now() - since;
  }
  // Four polls take some 10 s.
  t.ok(took < 5000, `${Math.round(took)} ms`);
});

test("a run whose row somebody holds as its timer rings goes on soon after, and not at the next poll", async (t) => {
  const rests = workflow("rests", async () => void (await sleep(300)));
  const b = await bench(t, { workflows: [rests] });
  const other = await stranger(t, b);
  let took = 0;
  for (let round = 0; round < 4; round += 1) {
    const run = await b.perdure.start(rests.with({ id: `rests-${round}` }));
    await reaches(run, "suspended");
    await other("begin");
    await other("select from :SCHEMA.run where id = $1 for no key update", [run.id]);
    const past = "select from :SCHEMA.run where id = $1 and due < clock_timestamp() - interval '100 milliseconds'";
    await eventually(async () => (await b.sql(past, [run.id])).length > 0, PATIENCE_MS);
    await other("rollback");
    const since = performance.now();
    await run.result();
    took += performance.now() - since;
  }
  // Four polls take some 10 s.
  t.ok(took < 5000, `${Math.round(took)} ms`);
});
