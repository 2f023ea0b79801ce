/** Versions side by side: a run stays on its own, who does not know it leaves it alone, and what nobody serves is seen and said. */
import { type Test, test } from "tap";
import { currentRun, event, type Perdure, sleep, start, step, workflow } from "../../lib/index.ts";
import { coldBench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches } from "../support/gate.ts";
import { atGate, gate } from "../support/replay.ts";

const order = (version: string, queue = "default") =>
  workflow({ name: "order", version, queue }, async () => {
    await gate.wait();
    return `by ${version}`;
  });

/** What launches of a schema warned of. */
async function launches(t: Test, workflows: Parameters<typeof coldBench>[1]["workflows"], options = {}) {
  const world = await coldBench(t, { workflows, ...options });
  const launch = async (more: Parameters<typeof world.another>[0]): Promise<{ engine: Perdure; warned: string[] }> => {
    const logger = collector();
    const engine = await world.another({ logger, ...more });
    return { engine, warned: logger.lines.filter((line) => line.includes("no process serves")) };
  };
  return { ...world, launch };
}

const unserved = (reason: string | null): boolean => reason === "unserved";

test("several versions of a workflow work side by side in one engine and over several, and a run stays on its version", async (t) => {
  const { perdure, another } = await coldBench(t, { workflows: [order("1"), order("2")] });
  const other = await another({ workflows: [order("2"), order("3")] });
  const runs = await Promise.all(
    ["1", "2", "3"].flatMap((version) =>
      Array.from({ length: 10 }, () => (version === "3" ? other : perdure).start(order(version))),
    ),
  );
  await Promise.all(runs.map((run) => atGate(run)));
  await perdure.send(
    runs.map(({ id }) => id),
    gate,
    null,
  );
  const results = await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })));
  t.strictSame(
    results,
    ["1", "2", "3"].flatMap((version) => Array.from({ length: 10 }, () => `by ${version}`)),
  );
  const statuses = await Promise.all(runs.map((run) => run.status()));
  t.ok(statuses.every(({ version }, at) => results[at] === `by ${version}`));
});

test("a start by name takes the version that was registered last", async (t) => {
  const { perdure, another, sql } = await coldBench(t, { workflows: [order("10"), order("9")] });
  t.equal((await (await perdure.start("order")).status()).version, "9");
  const turned = await another({ workflows: [order("9"), order("10"), order("2")] });
  t.equal((await (await turned.start("order")).status()).version, "2");
  const rows = await sql("select version from :SCHEMA.definition where workflow = 'order' order by first_seen desc");
  t.strictSame(
    rows.map(({ version }) => version),
    ["2", "9", "10"],
    "as the catalogue knows it",
  );
});

test("a run of a version that is not deployed any more is not executed by another, and is seen as unserved", async (t) => {
  const first = order("1");
  const { perdure, launch, sql } = await launches(t, [first]);
  const suspended = await perdure.start(first);
  await atGate(suspended);
  const delayed = await perdure.start(first.with({ delay: "1h" }));
  t.equal((await delayed.status()).reason, null, "somebody serves it");
  await perdure.shutdown();
  const before = await sql("select id, state, epoch, worker from :SCHEMA.run order by key");
  const { engine, warned } = await launch({ workflows: [order("2")] });
  await engine.send(suspended.id, gate, null);
  // It works, on what it knows.
  const own = await engine.start("order");
  await engine.send(own.id, gate, null);
  t.equal(await own.result({ timeout: PATIENCE_MS }), "by 2");
  t.match(await engine.get(suspended.id).status(), { state: "pending", version: "1", reason: "unserved" });
  t.match(await engine.get(delayed.id).status(), { state: "pending", waitingFor: "start", reason: "unserved" });
  const after = await sql("select id, state, epoch, worker from :SCHEMA.run where version = '1' order by key");
  t.strictSame(
    after.map(({ epoch }) => epoch),
    before.map(({ epoch }) => epoch),
    "nobody claimed it",
  );
  t.strictSame(
    (await engine.list({ version: "1" })).runs.map(({ reason }) => reason),
    ["unserved", "unserved"],
  );
  t.equal(warned.length, 1);
  t.match(
    warned[0],
    /workflow "order" version "1" in queue "default": only version "2" is registered here; register "1" beside it/,
  );
  const { engine: both, warned: quiet } = await launch({ workflows: [first, order("2")] });
  t.strictSame(quiet, []);
  t.equal(
    await both.get(suspended.id).result({ timeout: PATIENCE_MS }),
    "by 1",
    "and goes on once its version is back",
  );
});

test("a worker that meets an unknown workflow, version or queue leaves it untouched", async (t) => {
  const { perdure, sql } = await coldBench(t, { workflows: [order("1")] });
  await sql(`with r as (insert into :SCHEMA.run (id, workflow, version, queue, priority, state, ready_at, created_at)
    select w || v || q, w, v, q, 0, 'pending', now(), now() from (values ('order', '2', 'default'), ('order', '1', 'far'), ('ordre', '1', 'default'), ('order ', '1', 'default')) as g(w, v, q) returning *)
    insert into :SCHEMA.ready select workflow, version, queue, priority, ready_at, key, 0 from r`);
  await sql("insert into :SCHEMA.input (run, args) select key, '{\"json\":[]}' from :SCHEMA.run");
  await sql("select :SCHEMA.hint('w')");
  const own = await perdure.start(order("1"));
  await own.send(gate, null);
  await own.result({ timeout: PATIENCE_MS });
  t.strictSame(await sql("select distinct state, epoch, crashes from :SCHEMA.run where id <> $1", [own.id]), [
    { state: "pending", epoch: 0, crashes: 0 },
  ]);
});

test("a launch names what nobody serves, with what was probably meant, once, and only that", async (t) => {
  const names = ["order", "invoice", "Import"];
  const { perdure, launch, sql } = await launches(
    t,
    names.map((name) => workflow(name, async () => void (await sleep("1h")))),
    { worker: false },
  );
  for (const name of names) await perdure.start(name);
  const far = workflow({ name: "far", queue: "slow" }, async () => 1);
  const { engine } = await launch({ workflows: [far], worker: false });
  await engine.start(far);
  await sql(
    "insert into :SCHEMA.run (id, workflow, version, queue, priority, state, created_at, finished_at) values ('done', 'old', '1', 'default', 0, 'completed', now(), now())",
  );
  const { warned } = await launch({
    workflows: [workflow("orders", async () => 1), workflow("invoice", async () => 1), far],
    worker: { queues: ["default"] },
  });
  t.strictSame(warned, [
    "perdure: there are unfinished runs that no process serves, and they wait until one does. " +
      'workflow "Import" version "1" in queue "default": no workflow of that name is registered here; ' +
      'workflow "far" version "1" in queue "slow": serve queue "slow" too; ' +
      'workflow "order" version "1" in queue "default": the nearest that is registered here is "orders"',
  ]);
  const client = await launch({ worker: false });
  t.strictSame(client.warned, [], "who does not work has nothing to deploy");
  const notUnique = await launch({ workflows: [workflow("order", async () => void (await sleep("1h")))] });
  t.notMatch(notUnique.warned[0], /"order"/);
});

test("a run that is left to others is warned of while it has none, once, and not where somebody serves it", async (t) => {
  const forgotten = workflow("forgotten", async () => 1);
  const elsewhere = workflow("elsewhere", async () => 1);
  const parent = workflow("parent", async () => {
    await start(elsewhere);
    await start(forgotten);
    await gate.wait();
  });
  const b = await coldBench(t, { workflows: [elsewhere] });
  const logger = collector();
  const engine = await b.another({ workflows: [parent], lease: "1s", logger });
  for (let n = 0; n < 2; n += 1) await engine.start(parent);
  const warned = (): string[] => logger.lines.filter((line) => line.includes("no process serves"));
  await eventually(() => warned().length > 0, PATIENCE_MS);
  t.match(
    warned()[0],
    /\. workflow "forgotten" version "1" in queue "default": no workflow of that name is registered here$/,
  );
  const beats = async (): Promise<number> =>
    (await b.sql("select extract(epoch from sum(beat_at - started_at))::float8 as sum from :SCHEMA.worker"))[0].sum;
  const before = await beats();
  await engine.start(parent);
  await eventually(async () => (await beats()) > before + 2, PATIENCE_MS);
  t.equal(warned().length, 1);
});

test("a run shows unserved only while no live process serves it: not before, nor after a crash is buried", async (t) => {
  const w = order("1", "heavy");
  const { perdure, another, sql } = await coldBench(t, { workflows: [w], worker: false });
  const run = await perdure.start(w);
  const shown = async (): Promise<string | null> => (await run.status()).reason;
  t.ok(unserved(await shown()), "a client does not serve");
  const elsewhere = await another({ worker: { queues: ["default"] } });
  t.ok(unserved(await shown()), "nor does one that serves another queue");
  await elsewhere.shutdown();
  const worker = await another({ worker: { queues: ["heavy", "heavy"] } });
  await reaches(run, "suspended");
  t.equal(await shown(), null);
  // As if it had died: it does not beat, and others bury it.
  await sql("update :SCHEMA.worker set dead_at = now() where id in (select worker from :SCHEMA.lane)");
  t.ok(unserved(await shown()));
  await eventually(async () => (await shown()) === null, PATIENCE_MS);
  t.pass("it was alive, and has entered again");
  await worker.shutdown();
  t.ok(unserved(await shown()));
  t.strictSame(await sql("select * from :SCHEMA.lane"), [], "its lanes have gone with it");
  await run.cancel("enough");
  t.equal(await shown(), "enough");
});

test("the sweep takes the lanes of the long dead", async (t) => {
  const { sql } = await coldBench(t, { workflows: [order("1")], worker: { queues: ["default"] } });
  await sql(
    "insert into :SCHEMA.worker (id, name, started_at, beat_at, lease, dead_at, knows) values (7, 'old', now(), now(), '30s', now() - interval '2 days', '')",
  );
  await sql("insert into :SCHEMA.lane values ('order', '1', 'default', 7)");
  await sql("select :SCHEMA.sweep()");
  t.strictSame(await sql("select count(*)::int as n from :SCHEMA.lane"), [{ n: 1 }]);
});

test("the catalogue holds what each launch registered, and when it was first and last seen", async (t) => {
  const retry = { type: "exponential", maxAttempts: 3, baseDelay: "1s", shouldRetry: () => true } as const;
  const rich = workflow(
    { name: "rich", version: "7", queue: "q", timeout: "1m", retry, replay: "flexible" },
    async () => 1,
  );
  const { another, sql } = await coldBench(t, { workflows: [rich, order("1")] });
  const read = () => sql("select * from :SCHEMA.definition order by workflow");
  const [first, second] = await read();
  t.match(first, {
    workflow: "order",
    version: "1",
    queue: "default",
    timeout_ms: null,
    options: null,
    replay: "strict",
  });
  t.match(second, { workflow: "rich", version: "7", queue: "q", timeout_ms: 60_000, replay: "flexible" });
  t.match(second.options, { retry: { type: "exponential", maxAttempts: 3, baseDelay: 1000, factor: 2 } });
  const changed = workflow({ name: "rich", version: "7", queue: "other" }, async () => 1);
  await another({ workflows: [changed], worker: false });
  const [, again] = await read();
  t.match(again, { queue: "other", timeout_ms: null, options: null, replay: "strict" });
  t.strictSame(again.first_seen, second.first_seen);
  t.ok(again.last_seen > second.last_seen);
  await Promise.all(Array.from({ length: 8 }, () => another({ workflows: [order("1"), rich] })));
  t.equal((await read()).length, 2, "launches at the same time do not stand in each other's way");
});

test("a run that waits for a blocked child says so, one of few and one of many", async (t) => {
  const go = event("go");
  const extra = step("extra", async () => 1);
  const child = workflow("child", async (n: number) => {
    await extra();
    await go.wait();
    return n;
  });
  const parent = workflow("parent", async (count: number) => {
    const children = await Promise.all(Array.from({ length: count }, (_, n) => start(child, n)));
    return (await Promise.all(children.map((one) => one.result()))).length;
  });
  const { perdure, sql } = await coldBench(t, { workflows: [parent, child] });
  for (const count of [2, 40]) {
    const run = await perdure.start(parent, count);
    await reaches(run, "suspended");
    const children = await sql(
      "select c.id from :SCHEMA.run c join :SCHEMA.run p on p.key = c.parent where p.id = $1 order by c.key",
      [run.id],
    );
    await Promise.all(children.map(({ id }) => reaches(perdure.get(id), "suspended")));
    t.equal((await run.status()).reason, null);
    await sql("update :SCHEMA.run set state = 'pending', topics = null, due = null where id = $1", [children[1].id]);
    await sql("update :SCHEMA.run set state = 'blocked', reason = 'diverged' where id = $1", [children[1].id]);
    t.equal((await run.status()).reason, `child "${children[1].id}" is blocked`);
    t.equal((await perdure.get(children[0].id).status()).parentId, run.id);
    await perdure.retry([children[1].id]);
    await perdure.send(
      children.map(({ id }) => id),
      go,
      null,
    );
    t.equal(await run.result({ timeout: PATIENCE_MS }), count);
  }
});

test("a run in work that is to be paused says so", async (t) => {
  let release!: () => void;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  t.teardown(() => release());
  const long = step("long", async () => held);
  const w = workflow("w", async () => {
    await long();
    await gate.wait();
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await reaches(run, "running");
  await run.pause();
  t.match(await run.status(), { state: "running", reason: "pausing" });
  release();
  await reaches(run, "paused");
  t.equal((await run.status()).reason, null);
});

test("a run knows its queue, whether it was leased at its start, claimed, or taken up again", async (t) => {
  const tell = workflow({ name: "tell", queue: "own" }, async () => {
    const before = currentRun().queue;
    await sleep(1);
    return [before, currentRun().queue];
  });
  const { perdure, another } = await coldBench(t, { workflows: [tell], worker: false });
  const claimed = [await perdure.start(tell), await perdure.start(tell.with({ queue: "other" }))];
  const worker = await another({ worker: { queues: ["own", "other"] } });
  t.strictSame(await claimed[0]!.result(), ["own", "own"]);
  t.strictSame(await claimed[1]!.result(), ["other", "other"]);
  t.strictSame(await (await worker.start(tell.with({ queue: "other" }))).result(), ["other", "other"]);
});
