/** Golden histories: exported in any state, replayed against today's code, and nothing is done. */
import { AssertionError } from "node:assert";
import { test } from "tap";
import { encryption } from "../../lib/codec/index.ts";
import {
  currentRun,
  event,
  now,
  patched,
  race,
  random,
  runStep,
  sleep,
  start,
  step,
  stream,
  transaction,
  uuid,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import { bench, collector } from "../support/engine.ts";
import { rejection } from "../support/gate.ts";
import { server } from "../support/postgres.ts";
import {
  exportHistory,
  type GoldenHistory,
  type ReplayReport,
  replayHistory,
  type TestOptions,
  TestPerdure,
} from "../support/testing.ts";

const go = event<string>("go");

async function launched(t: { teardown(work: () => unknown): void }, options: TestOptions): Promise<TestPerdure> {
  const perdure = new TestPerdure({ database: await server(), logger: collector(), ...options });
  t.teardown(() => perdure.shutdown());
  await perdure.launch();
  return perdure;
}

/** As a file would hold it. */
const filed = async (perdure: TestPerdure, id: string): Promise<GoldenHistory> =>
  JSON.parse(JSON.stringify(await exportHistory(perdure, id)));

const replay = (golden: GoldenHistory, ...workflows: Workflow<any, any>[]): Promise<ReplayReport> =>
  replayHistory(golden, { workflows });

/** What a replay against other code is refused with. */
async function refused(golden: GoldenHistory, ...workflows: Workflow<any, any>[]): Promise<string> {
  const { error, message } = await rejection(replay(golden, ...workflows));
  if (!(error instanceof AssertionError)) throw error;
  return message;
}

test("a run with a call of every kind and values of every kind replays to the same, and nothing is executed", async (t) => {
  let executed = 0;
  class Declined extends Error {}
  const kinds = () => [
    new Date(0),
    new Map([["a", new Set([1n])]]),
    undefined,
    Number.NaN,
    -0,
    Buffer.from("x"),
    new Float64Array([1.5]),
    /a+/gi,
    new URL("https://example.test/"),
    "\0\ud800",
    1e300,
    Number.POSITIVE_INFINITY,
  ];
  const values = step("values", async () => {
    executed += 1;
    return kinds();
  });
  const declined = step("declined", async () => {
    executed += 1;
    throw new Declined("no");
  });
  const debit = transaction("debit", async (tx) => {
    executed += 1;
    return (await tx.query("select 1 as one")).rows;
  });
  const lines = stream<number>("lines");
  const child = workflow("child", async (n: number) => n * 2);
  const all = workflow("all", async (given: unknown) => {
    const [a, b] = await Promise.all([values(), runStep("anonymous", () => ++executed)]);
    const failed = await declined().catch((error) => error instanceof Declined);
    await lines.write(1);
    const handle = await start(child, 21);
    const won = await race({ handle, late: "1d" });
    const received = await go.wait();
    const rest = [await debit(), await child(1), await sleep("1h"), await go.wait({ timeout: "1m" }), patched("x")];
    return { given, a, b, failed, won, received, rest, drawn: [uuid(), random(), now()] };
  });
  const perdure = await launched(t, { workflows: [all, child], errors: [Declined] });
  const run = await perdure.start(all.with({ id: "all" }), kinds());
  await run.send(go, "data", { reference: "r" });
  await perdure.advance("2h");
  t.equal((await run.status()).state, "completed", (await run.status()).reason ?? "");
  const before = executed;
  const golden = await filed(perdure, "all");
  t.same(await filed(perdure, "all"), golden, "the same each time");
  const report = await replayHistory(golden, { workflows: [child, all], errors: [Declined] });
  t.same(report, { same: true, came: "completed", next: [] });
  t.equal(executed, before);
  t.match(golden, { format: "perdure-history", version: 1, run: { id: "all", workflow: "all", state: "completed" } });
  t.same(
    golden.outcomes.map(({ no }) => no).filter((no) => no !== null),
    [...golden.outcomes.keys()].map((at) => at + 1).slice(0, golden.outcomes.filter(({ no }) => no !== null).length),
    "in the order in which the body was handed them",
  );
});

test("what diverges is named: another call, another argument, one less, another end", async (t) => {
  const [reserve, charge, refund] = ["reserve", "charge", "refund"].map((name) =>
    step(name, async (id: string) => `${name} ${id}`),
  );
  const order = (body: (id: string) => Promise<unknown>) => workflow("order", body);
  const first = order(async (id) => {
    await reserve!(id);
    return charge!(id);
  });
  const perdure = await launched(t, { workflows: [first] });
  await (await perdure.start(first.with({ id: "o1" }), "42")).result();
  const golden = await filed(perdure, "o1");
  t.same(await replay(golden, first), { same: true, came: "completed", next: [] });
  const renamed = order(async (id) => {
    await reserve!(id);
    return refund!(id);
  });
  t.match(
    await refused(golden, renamed),
    /run "o1" of workflow "order" does not replay.*asked for "step:refund.*"step:charge.*recorded/s,
  );
  const other = order(async (id) => {
    await reserve!(`${id}!`);
    return charge!(id);
  });
  t.match(await refused(golden, other), /"step:reserve[^"]*" is near "step:reserve/);
  const less = order(async (id) => charge!(id));
  t.match(await refused(golden, less), /does not ask any more for "step:reserve/);
  const end = order(async (id) => {
    await reserve!(id);
    return `${await charge!(id)}!`;
  });
  t.match(
    await refused(golden, end),
    /has completed: 'charge 42'; today's code comes to another end, it completed: 'charge 42!'/,
  );
  const more = order(async (id) => {
    await reserve!(id);
    await charge!(id);
    return refund!(id);
  });
  t.match(await refused(golden, more), /has completed.*goes on with step "refund"/);
  const flexible = workflow({ name: "order", replay: "flexible" }, async (id: string) => charge!(id));
  t.same(await replay(golden, flexible), { same: true, came: "completed", next: [] });
});

test("an unfinished run rests where it stood, or goes on with what is new", async (t) => {
  const [a, b] = ["a", "b"].map((name) => step(name, async () => name));
  const child = workflow("child", async () => {
    await go.wait();
  });
  const waits = (after: () => Promise<unknown>) =>
    workflow("waits", async () => {
      await a!();
      await Promise.all([go.wait({ timeout: "1d" }), sleep("named", "2d"), child()]);
      return after();
    });
  const first = waits(async () => 1);
  const perdure = await launched(t, { workflows: [first, child] });
  const run = await perdure.start(first.with({ id: "w1" }));
  await perdure.settled();
  const resting = await filed(perdure, "w1");
  t.same(await replay(resting, first), { same: true, came: "waiting", next: [] });
  t.same(
    await replay(
      resting,
      waits(async () => b!()),
    ),
    { same: true, came: "waiting", next: [] },
  );
  const sooner = workflow("waits", async () => {
    await a!();
    await b!();
  });
  t.same(await replay(resting, sooner), { same: false, came: "onward", next: ['step "b"'] });
  const gone = workflow("waits", async () => b!());
  t.match(await refused(resting, gone), /asked for "step:b.*while "step:a/);
  await run.pause();
  await run.send(go, "x");
  const mailed = await filed(perdure, "w1");
  t.same(
    await replay(mailed, first),
    { same: false, came: "onward", next: ["event:go#0"] },
    "mail that it has not read",
  );
  await run.cancel();
  t.same(await replay(await filed(perdure, "w1"), first), { same: true, came: "waiting", next: [] }, "cancelled");
});

test("failed, retried and forked runs, runs whose time ran out and runs with failed tries", async (t) => {
  let down = true;
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 2, delay: "1h" } }, async (name: string) => {
    if (down) throw new TypeError(`${name} is down`);
    return name;
  });
  const add = step("add", async (n: number) => n + random0());
  const random0 = (): number => 1;
  const fails = workflow(
    { name: "fails", retry: { type: "fixed", maxAttempts: 2, delay: "1h" } },
    async (name: string) => {
      const sum = await add(1);
      const caught = await flaky("caught").catch(() => "caught");
      return [sum, caught, uuid(), await flaky(name)];
    },
  );
  const slow = workflow({ name: "slow", timeout: "1d" }, async () => {
    await add(2);
    await sleep("7d");
  });
  const perdure = await launched(t, { workflows: [fails, slow] });
  const run = await perdure.start(fails.with({ id: "f1" }), "x");
  await perdure.start(slow.with({ id: "s1" }));
  await perdure.settled();
  t.same(
    await replay(await filed(perdure, "f1"), fails),
    { same: true, came: "waiting", next: [] },
    "between two tries",
  );
  await perdure.advance("2d");
  t.equal((await run.status()).state, "failed");
  const failed = await filed(perdure, "f1");
  t.same(await replay(failed, fails), { same: true, came: "failed", next: [] });
  const kinder = workflow(
    { name: "fails", retry: { type: "fixed", maxAttempts: 2, delay: "1h" } },
    async (name: string) => {
      await add(1);
      await flaky("caught").catch(() => "caught");
      return flaky(name).catch(() => "caught");
    },
  );
  t.match(await refused(failed, kinder), /has failed: TypeError: x is down.*it completed: 'caught'/s);
  t.same(await replay(await filed(perdure, "s1"), slow), { same: true, came: "waiting", next: [] }, "its time ran out");
  down = false;
  await run.retry();
  await perdure.advance("1d");
  t.equal((await run.status()).state, "completed");
  t.same(await replay(await filed(perdure, "f1"), fails), { same: true, came: "completed", next: [] });
  const fork = await run.fork({ from: "flaky" });
  await perdure.advance("1d");
  t.equal((await fork.status()).state, "completed");
  t.same(await replay(await filed(perdure, fork.id), fails), { same: true, came: "completed", next: [] });
});

test("a run of any engine can be exported, before it has begun too; what is no history is refused", async (t) => {
  const a = step("a", async () => 1);
  const one = workflow("one", async () => a());
  const { perdure, sql } = await bench(t, { workflows: [one] });
  await (await perdure.start(one.with({ id: "done" }))).result();
  const golden = await exportHistory(perdure, "done");
  t.same(await replay(golden, one), { same: true, came: "completed", next: [] });
  await perdure.start(one.with({ id: "later", delay: "1d" }));
  t.same(await replay(await exportHistory(perdure, "later"), one), { same: false, came: "onward", next: ['step "a"'] });
  await sql("select :SCHEMA.start_run('one', '[]', id => 'from-sql', delay => '1 day')");
  t.equal((await replay(await exportHistory(perdure, "from-sql"), one)).came, "onward");
  t.match(await rejection(exportHistory(perdure, "nobody")), { code: "PERDURE_NOT_FOUND" });
  const two = workflow("two", async () => 1);
  const newer = workflow({ name: "one", version: "2" }, async () => 1);
  for (const [of, workflows, code, message] of [
    [golden, [two], "PERDURE_UNKNOWN_WORKFLOW", /workflow "one" of version "1" is not among/],
    [golden, [newer], "PERDURE_UNKNOWN_WORKFLOW", /in the run's version/],
    [{}, [one], "PERDURE_OPTION", /needs what exportHistory\(\) gave/],
    [null, [one], "PERDURE_OPTION", /needs what exportHistory\(\) gave/],
    [{ ...golden, version: 9 }, [one], "PERDURE_OPTION", /is of version 9/],
  ] as const) {
    t.match(await rejection(replay(of as never, ...workflows)), { code, message });
  }
  const idle = workflow("one", () => new Promise<number>(() => {}));
  t.match(await rejection(replay(golden, idle)), {
    code: "PERDURE_TIMEOUT",
    message: /not durable; put that into a step/,
  });
});

test("an encrypted history stays encrypted in its file, and replays with its key; a context is made for the replay too", async (t) => {
  const key = (byte: number): Uint8Array => Buffer.alloc(32, byte);
  const codec = encryption({ keys: { a: key(1) }, current: "a", hashKey: key(2) });
  const reserve = step("reserve", async (card: string) => `reserved ${card}`);
  const order = workflow("order", async (card: string) => {
    const { greeting } = currentRun().context as { greeting: string };
    const { data } = await go.wait();
    return `${greeting} ${data}: ${await reserve(card)}`;
  });
  const context = () => ({ greeting: "hello" });
  const perdure = await launched(t, { workflows: [order], codec, context });
  const run = await perdure.start(order.with({ id: "o1" }), "4242");
  await run.send(go, "secret-data");
  await perdure.settled();
  t.equal(await run.result(), "hello secret-data: reserved 4242");
  const golden = await filed(perdure, "o1");
  t.notMatch(JSON.stringify(golden), /4242|secret-data/);
  t.same(await replayHistory(golden, { workflows: [order], codec, context }), {
    same: true,
    came: "completed",
    next: [],
  });
  const { error } = await rejection(replayHistory(golden, { workflows: [order], context }));
  t.ok(error instanceof AssertionError);
  t.match(error.message, /does not replay.*undecodable.*codec "encrypt"/s);
});
