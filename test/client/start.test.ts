/** Starting runs: identity, conflicts, delays, priorities, and engines that share a schema or do not. */
import { test } from "tap";
import { event, Perdure, type RunHandle, type Schema, step, transaction, workflow } from "../../lib/index.ts";
import { type Bench, bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const ping = event<number>("ping");
const echo = workflow("echo", async (value: unknown) => value);
const runsIn = async ({ sql }: Bench): Promise<number> => (await sql("select from :SCHEMA.run")).length;

test("fifty starts of one id at the same moment are one run, in one process and in three", async (t) => {
  const calls: number[] = [];
  const work = step("work", async (n: number) => calls.push(n));
  const once = workflow("once", async (n: number) => work(n));
  const b = await bench(t, { workflows: [once] });
  const engines = [b.perdure, await b.another(), await b.another({ worker: false })];
  const handles = await Promise.all(
    Array.from({ length: 50 }, (_, n) => engines[n % 3]!.start(once.with({ id: "the-one" }), 7)),
  );
  t.same(new Set(handles.map(({ id }) => id)), new Set(["the-one"]));
  t.same(await Promise.all(handles.map((run) => run.result())), Array(50).fill(1));
  const alone = await Promise.all(Array.from({ length: 50 }, () => b.perdure.start(once.with({ id: "alone" }), 8)));
  await Promise.all(alone.map((run) => run.result()));
  t.same(calls, [7, 8]);
  t.equal(await runsIn(b), 2);
});

test("the same id with equal input is the existing run, finished or not, and nothing runs again", async (t) => {
  const stop = gate();
  let bodies = 0;
  const slow = workflow("slow", async (input: { a: number; b: Date }) => {
    bodies += 1;
    await stop.opened;
    return input.a;
  });
  const b = await bench(t, { workflows: [slow] });
  const start = () => b.perdure.start(slow.with({ id: "x" }), { a: 1, b: new Date(5) });
  const first = await start();
  const again = await b.perdure.start(slow.with({ id: "x" }), { b: new Date(5), a: 1 });
  t.equal(again.id, first.id, "the order of keys does not matter");
  stop.open();
  t.equal(await again.result(), 1);
  t.equal(await (await start()).result(), 1, "finished: the stored result");
  t.equal(bodies, 1);
});

test("the same id with other input, or of another workflow, is refused or kept as the policy says", async (t) => {
  const other = workflow("other", async (value: unknown) => ({ other: value }));
  const b = await bench(t, { workflows: [echo, other] });
  const first = await b.perdure.start(echo.with({ id: "x" }), 1);
  await first.result();
  const conflict = await rejection(b.perdure.start(echo.with({ id: "x" }), 2));
  t.match(conflict, { name: "RunConflictError", code: "PERDURE_CONFLICT" });
  t.match(conflict.message, /run "x" is taken and was started with other input \(it is completed\)/);
  t.equal(conflict.error.runId, "x");
  for (const value of [new Date(1), "1", 1n, [1]]) {
    t.equal((await rejection(b.perdure.start(echo.with({ id: "x" }), value))).code, "PERDURE_CONFLICT");
  }
  const alien = await rejection(b.perdure.start(other.with({ id: "x" }), 1));
  t.match(alien, { code: "PERDURE_CONFLICT", message: /run "x" is taken and belongs to workflow "echo"/ });
  const kept = await b.perdure.start(echo.with({ id: "x", onConflict: "return_existing" }), 2);
  t.equal(await kept.result(), 1);
  const keptAlien = await b.perdure.start(other.with({ id: "x", onConflict: "return_existing" }), 2);
  t.equal(await keptAlien.result(), 1 as never, "also of another workflow");
  t.same(
    await b.sql("select id, workflow from :SCHEMA.run"),
    [{ id: "x", workflow: "echo" }],
    "the first is untouched",
  );
});

test("ids that nobody gives are unique and grow, and given ones are kept as they are", async (t) => {
  const b = await bench(t, { workflows: [echo], worker: false });
  const handles = await Promise.all(Array.from({ length: 500 }, (_, n) => b.perdure.start(echo, n)));
  t.equal(new Set(handles.map(({ id }) => id)).size, 500);
  t.match(handles[0]!.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  for (const id of ["ü/%' \"; --", "x".repeat(255)]) {
    t.equal((await b.perdure.start(echo.with({ id }), 1)).id, id);
    t.equal((await b.perdure.get(id).status()).id, id);
  }
});

test("input that does not fit, or cannot be stored, is refused before a run is made", async (t) => {
  const schema: Schema<{ n: number }> = {
    "~standard": {
      version: 1,
      vendor: "test",
      validate: async (value) => {
        const n = (value as { n?: unknown } | null)?.n;
        return Number(n) > 0 ? { value: { n: Number(n) } } : { issues: [{ message: "must be positive", path: ["n"] }] };
      },
    },
  };
  const checked = workflow({ name: "checked", input: schema }, async (input: { n: number }) => input);
  const b = await bench(t, { workflows: [checked, echo] });
  const start = (value: unknown) => rejection(b.perdure.start(checked, value as { n: number }));
  t.match(await start({ n: -1 }), {
    code: "PERDURE_INVALID",
    message: /input of workflow "checked".*n: must be positive/,
  });
  const unstorable = await rejection(b.perdure.start(echo, { items: [() => 1] }));
  t.match(unstorable, { code: "PERDURE_SERIALIZE", message: /items\[0\]: function/ });
  t.equal((await rejection(b.perdure.start(echo, "x".repeat(1_048_577)))).code, "PERDURE_TOO_LARGE");
  t.match(await rejection(b.perdure.start("ehco")), {
    code: "PERDURE_UNKNOWN_WORKFLOW",
    message: /did you mean "echo"/,
  });
  t.equal(await runsIn(b), 0);
  t.strictSame(await (await b.perdure.start(checked, { n: "5" } as never)).result(), { n: 5 });
});

test("a delayed run begins when it is due, by the database's clock, and not at the next poll", async (t) => {
  const clock = transaction("clock", async (tx) => {
    const { rows } = await tx.query("select extract(epoch from clock_timestamp())::float8 * 1000 as ms");
    return Number(rows[0].ms);
  });
  const late = workflow("late", async () => clock());
  const b = await bench(t, { workflows: [late] });
  const client = await b.another({ worker: false });
  const due = async (run: RunHandle): Promise<number> =>
    (await b.sql("select extract(epoch from due)::float8 * 1000 as due from :SCHEMA.run where id = $1", [run.id]))[0]
      .due;
  for (const engine of [b.perdure, client]) {
    const run = await engine.start(late.with({ delay: 200 }));
    const at = await due(run);
    t.equal((await run.status()).waitingFor, "start");
    const begun = await run.result({ timeout: PATIENCE_MS });
    t.ok(begun >= at, "not early");
    t.ok(begun - at < 1500, `woken for it: ${begun - at} ms`);
  }
  const [{ at }] = await b.sql("select now() + interval '300 milliseconds' as at");
  t.ok((await (await b.perdure.start(late.with({ startAt: at }))).result()) >= at.getTime());
  const past = await b.perdure.start(late.with({ startAt: new Date(0) }));
  await past.result({ timeout: PATIENCE_MS });
  const far = await b.perdure.start(late.with({ startAt: new Date("2999-01-01"), delay: "1h" }));
  t.equal(await due(far), new Date("2999-01-01").getTime(), "the later of the two");
  t.equal((await far.status()).state, "pending");
});

test("pending runs begin by priority, then in the order in which they were started", async (t) => {
  const stop = gate();
  const order: string[] = [];
  const block = workflow("block", async () => stop.opened);
  const note = workflow("note", async (name: string) => void order.push(name));
  const b = await bench(t, { workflows: [block, note], worker: { concurrency: 1 } });
  const blocking = await b.perdure.start(block);
  await reaches(blocking, "running");
  const runs: RunHandle[] = [];
  const starts: [string, number][] = [
    ["a", 0],
    ["b", 5],
    ["c", -32768],
    ["d", 0],
    ["e", 32767],
    ["f", -1],
  ];
  for (const [name, priority] of starts) runs.push(await b.perdure.start(note.with({ priority }), name));
  stop.open();
  await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })));
  t.same(order, ["c", "f", "a", "d", "b", "e"]);
});

test("two engines on one schema share the work, and each run is executed once", async (t) => {
  const ran = new Map<number, number>();
  const stop = gate();
  const work = step("work", async (n: number) => {
    ran.set(n, (ran.get(n) ?? 0) + 1);
    await stop.opened;
    return n;
  });
  const shared = workflow("shared", async (n: number) => work(n));
  const b = await bench(t, { workflows: [shared], worker: { concurrency: 5 } });
  await b.another();
  const client = await b.another({ worker: false });
  const runs = await Promise.all(Array.from({ length: 40 }, (_, n) => client.start(shared, n)));
  await eventually(() => ran.size === 10, PATIENCE_MS);
  t.same(
    await b.sql("select count(*)::int as n from :SCHEMA.run where worker is not null group by worker"),
    [{ n: 5 }, { n: 5 }],
    "both fill their slots and not more",
  );
  stop.open();
  t.same(
    await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS }))),
    runs.map((_, n) => n),
  );
  t.ok([...ran.values()].every((count) => count === 1));
});

test("engines on two schemas know nothing of each other", async (t) => {
  const listen = workflow("listen", async (n: number) => [n, (await ping.wait()).data]);
  const [one, two] = [await bench(t, { workflows: [listen] }), await bench(t, { workflows: [listen] })];
  const a = await one.perdure.start(listen.with({ id: "same" }), 1);
  const b = await two.perdure.start(listen.with({ id: "same" }), 2);
  await a.send(ping, 10);
  t.same(await a.result(), [1, 10]);
  t.equal((await b.status()).finishedAt, null);
  await two.perdure.send("same", ping, 20);
  t.same(await b.result(), [2, 20]);
  await one.perdure.start(listen.with({ id: "only-one" }), 3);
  t.equal((await rejection(two.perdure.get("only-one").status())).code, "PERDURE_NOT_FOUND");
});

test("a workflow called outside runs on the one launched engine that registers it, and else names perdure.start", async (t) => {
  const lonely = workflow("lonely", async (n: number) => n + 1);
  t.match(await rejection(lonely(1)), {
    code: "PERDURE_STATE",
    message: /workflow "lonely".*no launched engine registers it.*perdure\.start/,
  });
  const b = await bench(t, { workflows: [lonely, echo] });
  t.equal(await lonely(1), 2);
  t.equal(await lonely.with({ id: "named" })(2), 3);
  t.equal(await lonely.with({ id: "named" })(2), 3, "the same run again");
  t.same(await b.sql("select count(*)::int as n, bool_and(state = 'completed') as done from :SCHEMA.run"), [
    { n: 2, done: true },
  ]);
  const impostor = workflow("lonely", async (n: number) => n);
  t.equal((await rejection(impostor(1))).code, "PERDURE_STATE", "a namesake is another workflow");
  const failing = await rejection(lonely.with({ id: "named" })(3));
  t.equal(failing.code, "PERDURE_CONFLICT");

  const second = await b.another({ workflows: [lonely] });
  t.match(await rejection(lonely(1)), {
    code: "PERDURE_STATE",
    message: /2 launched engines could run it.*perdure\.start/,
  });
  t.equal(await echo("only one has this"), "only one has this");
  await second.shutdown();
  t.equal(await lonely(5), 6);
  await b.perdure.shutdown();
  t.equal((await rejection(lonely(1))).code, "PERDURE_STATE");
});

test("a start by name on a pure client says what to pass instead", async (t) => {
  const { perdure } = await bench(t, { worker: false });
  t.match(await rejection(perdure.start("order", 1)), {
    code: "PERDURE_UNKNOWN_WORKFLOW",
    message:
      'start() cannot know workflow "order", as this engine registers none; pass the workflow itself in place of its name',
  });
});

test("a transaction called outside a workflow commits in the launched engine, or not at all", async (t) => {
  const b = await bench(t, { workflows: [] });
  await b.sql("create table :SCHEMA.account (id text primary key, cents int)");
  const credit = transaction("credit", async (tx, id: string, cents: number) => {
    await tx.query(`insert into "${b.schema}".account values ($1, $2)`, [id, cents]);
    if (cents < 0) throw new RangeError("negative");
    return cents;
  });
  const careless = transaction("careless", async (tx, id: string) => {
    await tx.query(`insert into "${b.schema}".account values ($1, 1)`, [id]);
    await tx.query("select 1 / 0").catch(() => {});
    return "done";
  });
  t.equal(await credit("a", 5), 5);
  t.match(await rejection(credit("b", -5)), { name: "RangeError", message: "negative" });
  t.match(await rejection(careless("c")), { code: "PERDURE_STATE", message: /aborted by an error/ });
  t.same(await b.sql("select * from :SCHEMA.account"), [{ id: "a", cents: 5 }]);
  const second = await b.another();
  t.match(await rejection(credit("d", 1)), {
    code: "PERDURE_STATE",
    message: /transaction "credit".*2 launched engines/,
  });
  await second.shutdown();
  await b.perdure.shutdown();
  t.match(await rejection(credit("e", 1)), {
    code: "PERDURE_STATE",
    message:
      'transaction "credit" was called outside a workflow, but no engine is launched; call it from a workflow, or while one engine is launched',
  });
});

test("an engine that is not launched, or was shut down, says so", async (t) => {
  const b = await bench(t, { workflows: [echo] });
  const idle = new Perdure({ database: b.url, schema: b.schema, workflows: [echo], logger: collector() });
  t.match(await rejection(idle.start(echo, 1)), {
    code: "PERDURE_STATE",
    message: /call launch\(\) and await it first/,
  });
  await b.perdure.shutdown();
  t.match(await rejection(b.perdure.start(echo, 1)), { code: "PERDURE_STATE", message: /was shut down/ });
  t.match(await rejection(b.perdure.send("x", ping, 1)), { code: "PERDURE_STATE", message: /was shut down/ });
  t.equal(await runsIn(b), 0);
});

test("what runs while its engine is still being launched may use it", async (t) => {
  const launched: { engine?: Perdure } = {};
  const ask = step("ask", async (n: number) => {
    const started = await launched.engine!.start(echo, n);
    return (await launched.engine!.get(started.id).status()).workflow;
  });
  const asking = workflow("asking", async (n: number) => ask(n));
  const b = await bench(t, { workflows: [echo, asking], worker: false });
  const runs = await Promise.all(Array.from({ length: 30 }, (_, n) => b.perdure.start(asking, n)));
  launched.engine = new Perdure({ database: b.url, schema: b.schema, workflows: [echo, asking], logger: collector() });
  t.teardown(() => launched.engine!.shutdown());
  await launched.engine.launch();
  t.same(
    await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS }))),
    runs.map(() => "echo"),
  );
});
