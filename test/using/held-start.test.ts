/** A start whose id stands in a stranger's open transaction waits for that transaction, and nothing else does. */
import pg from "pg";
import { type Test, test } from "tap";
import { event, type Perdure, step, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, rejection } from "../support/gate.ts";

const ping = event<number>("ping");
const first = step("first", async (n: number) => n);
const second = step("second", async (n: number) => n);
const work = workflow("work", async (n: number) => (await first(n)) + (await second(n)));
const listen = workflow("listen", async (n: number) => n + (await ping.wait()).data);

/** A transaction that has started runs of these ids and stays open. */
async function holding(t: Test, { url }: Bench, engine: Perdure, ids: readonly string[], n = 1) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  t.teardown(() => client.end());
  await client.query("begin");
  const using = engine.using(client);
  await Promise.all(ids.map((id) => using.start(listen.with({ id }), n)));
  return async (how: "commit" | "rollback") => void (await client.query(how));
}

/** What a promise has come to, without waiting for it. */
function watched<T>(promise: Promise<T>): { readonly promise: Promise<T>; over: boolean } {
  const state = { promise, over: false };
  const done = (): void => {
    state.over = true;
  };
  promise.then(done, done);
  return state;
}

const waitingFor = ({ schema, sql }: Bench, fn: string) =>
  sql("select from pg_stat_activity where wait_event_type = 'Lock' and query like $1", [`%"${schema}".${fn}(%`]);

test("a thousand other starts, runs in work and events go on while an id is held; the held start then gets its answer", async (t) => {
  const go = gate();
  const slow = workflow("slow", async (n: number) => {
    await first(n);
    await go.opened;
    return second(n);
  });
  const b = await bench(t, { workflows: [work, listen, slow] });
  const another = await b.another({ worker: false });
  const running = await b.perdure.start(slow, 5);
  const listening = await b.perdure.start(listen, 5);
  const release = await holding(t, b, another, ["held"]);
  const held = watched(b.perdure.start(listen.with({ id: "held" }), 1));
  const others = Array.from({ length: 1000 }, (_, n) => b.perdure.start(work.with({ id: `other-${n}` }), n));
  const since = performance.now();
  go.open();
  await listening.send(ping, 5);
  t.equal(await running.result({ timeout: PATIENCE_MS }), 5);
  t.equal(await listening.result({ timeout: PATIENCE_MS }), 10);
  const runs = await Promise.all(others);
  t.comment(`1000 starts in ${Math.round(performance.now() - since)} ms`);
  await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })));
  t.notOk(held.over, "all while the id is held");
  // A later batch knows: it does not wait again for what is waited for.
  const again = watched(b.perdure.start(listen.with({ id: "held" }), 1));
  const other = watched(b.perdure.start(listen.with({ id: "held" }), 2));
  const sent = watched(b.perdure.send("held", ping, 7));
  t.equal(await (await b.perdure.start(work, 1)).result({ timeout: PATIENCE_MS }), 2);
  t.notOk(held.over || again.over || other.over || sent.over);
  await release("commit");
  t.equal(await (await held.promise).result({ timeout: PATIENCE_MS }), 8);
  t.equal((await again.promise).id, "held");
  t.equal((await rejection(other.promise)).code, "PERDURE_CONFLICT");
  await sent.promise;
});

test("a start that waits for a held id longer than one wait lasts is made once the holder rolls back", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const release = await holding(t, b, b.perdure, ["held"], 100);
  const held = watched(b.perdure.start(listen.with({ id: "held" }), 1));
  const sent = watched(b.perdure.send("held", ping, 7));
  const waits = new Set<string>();
  const look = async (): Promise<number> => {
    for (const { since } of await b.sql(
      "select xact_start::text as since from pg_stat_activity where wait_event_type = 'Lock' and query like $1",
      [`%"${b.schema}".start_runs(%`],
    ))
      waits.add(since);
    return waits.size;
  };
  await eventually(async () => (await look()) > 2, PATIENCE_MS);
  t.notOk(held.over || sent.over);
  await release("rollback");
  t.equal(await (await held.promise).result({ timeout: PATIENCE_MS }), 8);
  await sent.promise;
});

test("many held ids keep neither slots nor connections from others", async (t) => {
  const b = await bench(t, { workflows: [work, listen], worker: { concurrency: 2 } });
  const ids = Array.from({ length: 30 }, (_, n) => `held-${n}`);
  const another = await b.another({ worker: false });
  const release = await holding(t, b, another, ids);
  const held = ids.map((id) => watched(b.perdure.start(listen.with({ id }), 1)));
  for (let round = 0; round < 3; round += 1) {
    const runs = await Promise.all(Array.from({ length: 20 }, (_, n) => b.perdure.start(work, n)));
    await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })));
  }
  t.notOk(held.some(({ over }) => over));
  t.ok((await waitingFor(b, "start_runs")).length <= 2, "two sessions wait for all");
  await release("commit");
  const runs = await Promise.all(held.map(({ promise }) => promise));
  t.same(
    runs.map(({ id }) => id),
    ids,
  );
  await b.perdure.send(ids, ping, 1);
  await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })));
});

test("an engine that shuts down while a start waits says so to the caller, and leaves nothing behind", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const another = await b.another({ worker: false });
  const release = await holding(t, b, another, ["held"]);
  const held = rejection(b.perdure.start(listen.with({ id: "held" }), 1));
  await eventually(async () => (await waitingFor(b, "start_runs")).length > 0, PATIENCE_MS);
  await b.perdure.shutdown({ timeout: 0 });
  t.match(await held, { name: "PerdureError", code: "PERDURE_STATE", message: /shut down/ });
  await release("rollback");
  t.same(await b.sql("select from :SCHEMA.run"), []);
  const sessions = "select from pg_stat_activity where query like $1 and state <> 'idle'";
  await eventually(async () => (await b.sql(sessions, [`%"${b.schema}".start_runs(%`])).length === 0, PATIENCE_MS);
});

test("a thousand starts beside a held one are written apart, each with its own verdict", async (t) => {
  const b = await bench(t, { workflows: [listen], worker: false });
  const release = await holding(t, b, b.perdure, ["held"]);
  await b.perdure.start(listen.with({ id: "there" }), 1);
  const since = performance.now();
  const held = b.perdure.start(listen.with({ id: "held" }), 1);
  const starts = Array.from({ length: 998 }, (_, n) => b.perdure.start(listen.with({ id: `n-${n}` }), n));
  const [same, other] = [
    b.perdure.start(listen.with({ id: "there" }), 1),
    rejection(b.perdure.start(listen.with({ id: "there" }), 2)),
  ];
  await Promise.all(starts);
  t.comment(`998 starts in ${Math.round(performance.now() - since)} ms`);
  t.equal((await same).id, "there");
  t.equal((await other).code, "PERDURE_CONFLICT");
  await release("commit");
  await held;
  t.equal((await b.sql("select count(*)::int as n from :SCHEMA.run"))[0].n, 1000);
});

test("a child whose id is held keeps its parent's later writes behind it, and both go on afterwards", async (t) => {
  const parent = workflow("parent", async (n: number, id: string | null) => {
    const child = id === null ? work(n) : work.with({ id })(n);
    const [ended] = await Promise.all([child, first(n)]);
    return ended;
  });
  const b = await bench(t, { workflows: [parent, work, listen] });
  const another = await b.another({ worker: false });
  t.equal(await (await b.perdure.start(parent.with({ id: "p-0" }), 1, null)).result({ timeout: PATIENCE_MS }), 2);
  const [{ id }] = await b.sql("select id from :SCHEMA.runs where parent_id = 'p-0'");
  for (const [name, held, chosen] of [
    ["p-1", id.replace("p-0", "p-1"), null],
    ["p-2", "chosen", "chosen"],
  ] as const) {
    const release = await holding(t, b, another, [held]);
    const run = await b.perdure.start(parent.with({ id: name }), 1, chosen);
    await eventually(async () => (await waitingFor(b, "start_runs")).length > 0, PATIENCE_MS);
    t.equal(await (await b.perdure.start(work, 4)).result({ timeout: PATIENCE_MS }), 8, "others go on");
    t.same(await b.sql("select from :SCHEMA.wait"), [], "the parent does not wait for a child that does not exist");
    t.same(await b.sql("select from :SCHEMA.steps where run_id = $1", [name]), []);
    await release("rollback");
    t.equal(await run.result({ timeout: PATIENCE_MS }), 2);
  }
});
