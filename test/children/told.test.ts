/** Every end reaches who waits for it: past strangers that hold the parent, processes that die before they tell, without hints, in crowds. */
import { test } from "tap";
import { event, race, start, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches } from "../support/gate.ts";
import { stranger } from "../support/stranger.ts";

const patient = { timeout: PATIENCE_MS };
const go = event<string>("go");
const waiting = workflow("waiting", async (_n: number) => (await go.wait()).data);
const double = workflow("double", async (n: number) => n * 2);

for (const notify of [true, false]) {
  test(`a child that ends while a stranger holds its parent is told of afterwards, hints ${notify ? "on" : "off"}`, async (t) => {
    const parent = workflow("parent", async () => (await start(waiting.with({ id: "child" }), 1)).result());
    const b = await bench(t, { workflows: [parent, waiting], notify });
    const run = await b.perdure.start(parent);
    await reaches(run, "suspended");
    await reaches(b.perdure.get("child"), "suspended");
    const sql = await stranger(t, b);
    await sql("begin");
    await sql("select from :SCHEMA.run where id = $1 for update", [run.id]);
    await b.perdure.send("child", go, "grown");
    await reaches(b.perdure.get("child"), "completed");
    t.equal((await b.sql("select untold from :SCHEMA.run where id = 'child'"))[0].untold, true);
    await sql("commit");
    t.equal(await run.result(patient), "grown");
    await eventually(async () => (await b.sql("select from :SCHEMA.run where untold")).length === 0);
  });
}

test("a process that ends before it could tell leaves the telling to the leader", async (t) => {
  const parent = workflow("parent", async (id: string) =>
    (await start(waiting.with({ id }), 1)).result().catch((e) => e.reason),
  );
  const b = await bench(t, { workflows: [parent], worker: false });
  const first = await b.another({ workflows: [parent, waiting], worker: {} });
  const runs = [await first.start(parent, "ends"), await first.start(parent, "cancelled")];
  for (const run of [...runs, first.get("ends"), first.get("cancelled")]) await reaches(run, "suspended");
  const sql = await stranger(t, b);
  await sql("begin");
  await sql("select from :SCHEMA.run where workflow = 'parent' for update");
  await first.send("ends", go, "grown");
  await reaches(first.get("ends"), "completed");
  await first.get("cancelled").cancel("enough");
  await first.shutdown();
  await b.another({ workflows: [parent, waiting], worker: {} });
  await sql("commit");
  t.same(await Promise.all(runs.map((run) => b.perdure.get(run.id).result(patient))), ["grown", "enough"]);
});

test("a thousand children in two processes are joined without hints, past a stranger that holds the parent for a while", async (t) => {
  const many = workflow("many", async (n: number) => {
    const all = await Promise.all(Array.from({ length: n }, (_, i) => double(i)));
    return all.reduce((a, c) => a + c, 0);
  });
  const b = await bench(t, { workflows: [many, double], notify: false });
  const another = await b.another();
  const run = await another.start(many, 1000);
  const sql = await stranger(t, b);
  for (let times = 0; times < 5; times += 1) {
    await sql("begin");
    await sql("select from :SCHEMA.run where id = $1 for update", [run.id]);
    const ends = async () =>
      (await b.sql("select count(*)::int as n from :SCHEMA.run where finished_at is not null"))[0].n as number;
    const before = await ends();
    await eventually(async () => (await ends()) > before || before >= 1000, 2000).catch(() => {});
    await sql("commit");
  }
  t.equal(await run.result(patient), 999_000);
  await eventually(async () => (await b.sql("select from :SCHEMA.run where untold")).length === 0);
});

test("three hundred races at once, identical ones among them, each take one event or one child, and lose none", async (t) => {
  const flow = workflow("flow", async (n: number) => {
    const child = await start(double, 1);
    const races = Array.from({ length: n }, () => race({ go, late: "1h" }));
    const nested = Promise.all([race({ child, late: "1h" }), Promise.all([race({ go, child }), race({ child, go })])]);
    const won = await Promise.all(races);
    const [first, [second, third]] = await nested;
    const taken = [...won, second, third].flatMap(({ winner, value }) =>
      winner === "go" ? [(value as { data: string }).data] : [],
    );
    return [first.winner, taken, [second.winner, third.winner]];
  });
  const b = await bench(t, { workflows: [flow, double] });
  const another = await b.another();
  const run = await b.perdure.start(flow, 300);
  const sends = Array.from({ length: 302 }, (_, n) => (n % 2 ? b.perdure : another).send(run.id, go, `${n}`));
  await Promise.all(sends);
  const [first, taken, last] = (await run.result(patient)) as [string, string[], string[]];
  t.equal(first, "child");
  t.equal(new Set(taken).size, taken.length, "no event twice");
  t.equal(taken.length, 300 + last.filter((winner) => winner === "go").length);
  const unread = await b.sql("select from :SCHEMA.mail where slot is null");
  t.equal(unread.length, 302 - taken.length, "what was not taken is still there");
});

test("a race whose event and child arrive together has one winner, which it keeps, and the other goes to the next wait", async (t) => {
  const flow = workflow("flow", async (_n: number) => {
    const child = await start(waiting, _n);
    const won = await race({ go, child });
    const rest = won.winner === "go" ? await child.result() : (await go.wait()).data;
    return [won.winner, rest];
  });
  const b = await bench(t, { workflows: [flow, waiting] });
  const another = await b.another();
  const runs = await Promise.all(
    Array.from({ length: 100 }, (_, n) => b.perdure.start(flow.with({ id: `race ${n}` }), n)),
  );
  await eventually(
    async () => (await b.sql("select from :SCHEMA.run where state = 'suspended'")).length === 200,
    PATIENCE_MS,
  );
  const children = await b.sql(
    "select c.id as child, p.id as parent from :SCHEMA.run c join :SCHEMA.run p on p.key = c.parent",
  );
  await Promise.all(
    children.flatMap(({ child, parent }) => [b.perdure.send(child, go, "child"), another.send(parent, go, "event")]),
  );
  const results = (await Promise.all(runs.map((run) => run.result(patient)))) as [string, string][];
  for (const [winner, rest] of results) t.equal(rest, winner === "go" ? "child" : "event");
  t.comment(`${results.filter(([winner]) => winner === "go").length} of ${results.length} by the event`);
});
