/** Children at the edges: odd ids and inputs, handles in odd places, limits, and failures that are mended from outside. */
import { test } from "tap";
import {
  event,
  RunConflictError,
  RunFailedError,
  race,
  sleep,
  start,
  step,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const patient = { timeout: PATIENCE_MS };
const go = event<string>("go");
const double = workflow("double", async (n: number) => n * 2);
const waiting = workflow("waiting", async (_n: number) => (await go.wait()).data);

test("a child that failed, was retried from a step of its parent, and is awaited again gives its new end", async (t) => {
  let broken = true;
  const flaky = workflow("flaky", async () => {
    if (broken) throw new Error("broken");
    return "well";
  });
  const mend = step("mend", async (id: string) => {
    broken = false;
    await b.perdure.get(id).retry();
    await b.perdure.get(id).result(patient);
  });
  const parent = workflow("parent", async (how: string) => {
    const child = await start(flaky.with({ id: `flaky ${how}` }));
    const first = await child.result().catch((e) => e.name);
    await mend(child.id);
    const second = how === "race" ? (await race({ child, late: "1h" })).value : await child.result();
    return [first, second];
  });
  const b = await coldBench(t, { workflows: [parent, flaky] });
  for (const how of ["result", "race"]) {
    broken = true;
    t.same(await (await b.perdure.start(parent, how)).result(patient), ["RunFailedError", "well"], how);
  }
});

test("a handle of a child with the longest id sends, cancels and waits", async (t) => {
  const parent = workflow("parent", async () => {
    const child = await start(waiting.with({ id: "x".repeat(255) }), 1);
    await child.send(go, "on");
    const other = await start(waiting.with({ id: "y".repeat(255) }), 1);
    await other.cancel("no");
    return [await child.result(), await other.result().catch((e) => e.reason)];
  });
  const b = await coldBench(t, { workflows: [parent, waiting] });
  t.same(await (await b.perdure.start(parent)).result(patient), ["on", "no"]);
});

test("a race of hundreds, with long names, is won and replayed", async (t) => {
  const parent = workflow("parent", async () => {
    const children = await Promise.all(Array.from({ length: 300 }, (_, n) => start(waiting, n)));
    const racers = Object.fromEntries(children.map((child, n) => [`${n} ${"long".repeat(20)}`, child]));
    const { winner, value } = await race(racers);
    await sleep(1);
    return [winner.split(" ")[0], value];
  });
  const b = await coldBench(t, { workflows: [parent, waiting] });
  const run = await b.perdure.start(parent);
  await eventually(async () => (await run.status()).state === "suspended", PATIENCE_MS);
  const [{ id }] = (await b.sql(
    "select id from :SCHEMA.run where parent is not null order by key offset 250 limit 1",
  )) as [{ id: string }];
  await b.perdure.send(id, go, "first");
  const [, value] = (await run.result(patient)) as [string, string];
  t.equal(value, "first");
});

test("two runs that name each other are told so, and neither waits for ever", async (t) => {
  const pair: Workflow<[other: string], string> = workflow("pair", async (other: string): Promise<string> => {
    await go.wait();
    return (await pair
      .with({ id: other, onConflict: "return_existing" })("")
      .catch((e) => e)) instanceof RunConflictError
      ? "refused"
      : "waited";
  });
  const b = await coldBench(t, { workflows: [pair] });
  const [a, c] = await Promise.all([
    b.perdure.start(pair.with({ id: "a" }), "c"),
    b.perdure.start(pair.with({ id: "c" }), "a"),
  ]);
  await b.perdure.send(["a", "c"], go, "on");
  t.same((await Promise.all([a.result(patient), c.result(patient)])).sort(), ["refused", "waited"]);
});

test("hundreds of nested children have ids of their own, and the end comes back up", async (t) => {
  const nest: Workflow<[depth: number], number> = workflow(
    "nest",
    async (depth: number): Promise<number> => (depth === 0 ? 0 : 1 + (await nest(depth - 1))),
  );
  const b = await coldBench(t, { workflows: [nest] });
  t.equal(await (await b.perdure.start(nest, 200)).result(patient), 200);
  const [{ n, longest }] = (await b.sql(
    "select count(*)::int as n, max(octet_length(id)) as longest from :SCHEMA.run",
  )) as [{ n: number; longest: number }];
  t.equal(n, 201);
  t.ok(longest <= 255);
});

test("what cannot be a child is refused at the call, as an error that the parent can catch, and nothing is started", async (t) => {
  const strict = workflow(
    {
      name: "strict",
      input: {
        "~standard": {
          version: 1,
          vendor: "test",
          validate: (value: unknown) =>
            typeof value === "number" ? { value } : { issues: [{ message: "must be a number", path: ["n"] }] },
        },
      },
    },
    async (n: any) => n,
  );
  const parent = workflow("parent", async () => {
    const said = (promise: () => Promise<unknown>) =>
      Promise.resolve()
        .then(promise)
        .then(
          () => "nothing",
          (e) => `${e.code}: ${e.message}`,
        );
    const child = await start(double, 1);
    return [
      await said(() => strict("two" as never)),
      await said(() => start(strict, "two" as never)),
      await said(() => double((() => 1) as never)),
      await said(() => double.with({ id: "z".repeat(256) })(1)),
      await said(() => race({ child: JSON.parse(JSON.stringify(child)) as never, late: 1 })),
      await said(() => start({} as never)),
      await child.result(),
    ];
  });
  const b = await coldBench(t, { workflows: [parent, strict, double] });
  const run = await b.perdure.start(parent);
  const said = (await run.result(patient)) as string[];
  t.match(said, [
    /must be a number/,
    /must be a number/,
    /PERDURE_SERIALIZE: .*function/,
    /PERDURE_NAME: /,
    /PERDURE_OPTION: .*"child" in race\(\)/,
    /PERDURE_OPTION: start\(\) needs a workflow/,
    2,
  ]);
  t.equal((await b.sql("select from :SCHEMA.run")).length, 2);
});

test("a child of a workflow that nobody serves waits for who does, and the parent with it", async (t) => {
  const foreign = workflow("foreign", async () => "served");
  const parent = workflow("parent", async () => foreign());
  const b = await coldBench(t, { workflows: [parent] });
  const run = await b.perdure.start(parent);
  await reaches(run, "suspended");
  t.equal((await b.sql("select state from :SCHEMA.run where workflow = 'foreign'"))[0].state, "pending");
  await b.another({ workflows: [foreign] });
  t.equal(await run.result(patient), "served");
});

test("a delayed child begins in its time, a child that takes too long fails in its time, and none outlives its parent's time", async (t) => {
  const never = workflow("never", async () => void (await go.wait()));
  const parent = workflow({ name: "parent", timeout: "1h" }, async () => {
    const delayed = await start(double.with({ id: "delayed", delay: "10m" }), 4);
    const late = await never
      .with({ id: "late", timeout: "20m" })()
      .catch((e) => [e instanceof RunFailedError, e.cause?.name]);
    await start(never.with({ id: "limited", timeout: "10h" }));
    await start(never.with({ id: "free", detached: true }));
    return [await delayed.result(), late];
  });
  const b = await coldBench(t, { workflows: [parent, double, never] });
  const run = await b.perdure.start(parent);
  await eventually(async () => (await b.sql("select from :SCHEMA.run where state = 'suspended'")).length === 2);
  await b.advance(600_000);
  await reaches(b.perdure.get("delayed"), "completed");
  t.equal((await b.perdure.get("late").status()).state, "suspended");
  await b.advance(600_000);
  t.same(await run.result(patient), [8, [true, "TimeoutError"]]);
  await eventually(async () => (await b.sql("select from :SCHEMA.run where state = 'suspended'")).length === 2);
  await b.advance(2_400_000);
  await reaches(b.perdure.get("limited"), "failed");
  t.equal((await b.perdure.get("free").status()).state, "suspended");
});

test("a handle that outlives its parent, or leaves its body, does nothing and says so", async (t) => {
  let kept: any;
  const parent = workflow("parent", async () => {
    kept = await start(double, 1);
    return kept.result();
  });
  const b = await coldBench(t, { workflows: [parent, double] });
  await (await b.perdure.start(parent)).result(patient);
  for (const verb of [() => kept.result(), () => kept.cancel(), () => kept.send(go, "x")]) {
    t.match(await rejection(Promise.resolve().then(verb)), { code: "PERDURE_CONTEXT" });
  }
});

test("under repeat: cached, equal calls share one child, live and on replay", async (t) => {
  const parent = workflow({ name: "parent", repeat: "cached" }, async () => {
    const both = await Promise.all([double(1), double(1), start(double, 2).then((c) => c.result())]);
    await sleep(1);
    const [again, and_again] = [await start(double, 2), await start(double, 2)];
    return [...both, await double(1), again.id === and_again.id];
  });
  const b = await coldBench(t, { workflows: [parent, double] });
  t.same(await (await b.perdure.start(parent)).result(patient), [2, 2, 4, 2, true]);
  t.equal((await b.sql("select from :SCHEMA.run where workflow = 'double'")).length, 2);
});

test("a child's id used for another input follows the policy, live and on replay", async (t) => {
  let passes = 0;
  const parent = workflow("parent", async () => {
    passes += 1;
    const first = await double.with({ id: "one" })(1);
    const differs = await double
      .with({ id: "one" })(2)
      .catch((e) => e.code);
    const kept = await double.with({ id: "one", onConflict: "return_existing" })(3);
    const again = await start(double.with({ id: "one" }), 1);
    const other = await start(double.with({ id: "one" }), 5).catch((e) => e.code);
    await sleep(1);
    await go.wait();
    return [first, differs, kept, await again.result(), other];
  });
  const b = await coldBench(t, { workflows: [parent, double] });
  const run = await b.perdure.start(parent);
  await eventually(async () => (await run.status()).waitingFor === "event", PATIENCE_MS);
  await run.send(go, "on");
  t.same(await run.result(patient), [2, "PERDURE_CONFLICT", 2, 2, "PERDURE_CONFLICT"]);
  t.ok(passes > 1, "it was replayed");
  t.equal((await b.sql("select from :SCHEMA.run where workflow = 'double'")).length, 1);
});

test("a retry of the workflow keeps a child that still runs, and one whose failure was caught; only what escaped starts anew", async (t) => {
  const begun: string[] = [];
  const slow = workflow("slow", async () => (await go.wait()).data);
  const failing = workflow("failing", async (name: string) => {
    begun.push(name);
    if (begun.filter((n) => n === "escapes").length < 3) throw new Error(name);
    return name;
  });
  const parent = workflow({ name: "parent", retry: { type: "fixed", maxAttempts: 4, delay: 1 } }, async () => {
    const caught = await failing("caught").catch((e) => e.cause.message);
    const [data, escaped] = await Promise.all([slow(), failing("escapes")]);
    return [caught, data, escaped];
  });
  const b = await coldBench(t, { workflows: [parent, slow, failing] });
  const run = await b.perdure.start(parent);
  await eventually(() => begun.filter((n) => n === "escapes").length === 3, PATIENCE_MS);
  const [{ id }] = (await b.sql("select id from :SCHEMA.run where workflow = 'slow'")) as [{ id: string }];
  await b.perdure.send(id, go, "done");
  t.same(await run.result(patient), ["caught", "done", "escapes"]);
  t.same(begun.toSorted(), ["caught", "escapes", "escapes", "escapes"]);
  t.equal((await b.sql("select from :SCHEMA.run where workflow = 'slow'")).length, 1);
});

test("a start that nobody awaited is named when the workflow returns", async (t) => {
  const parent = workflow("parent", async () => void start(double, 1));
  const b = await coldBench(t, { workflows: [parent, double] });
  t.match((await rejection((await b.perdure.start(parent)).result(patient))).message, /nobody awaited start "double"/);
});

test("a blocked child is visible, its parent waits, and goes on once the child is mended", async (t) => {
  let old = true;
  const one = step("one", async () => 1);
  const two = step("two", async () => 2);
  const child = workflow("child", async () => {
    const n = old ? await one() : await two();
    await go.wait();
    return n;
  });
  const parent = workflow("parent", async () => child.with({ id: "child" })());
  const b = await coldBench(t, { workflows: [parent, child] });
  const run = await b.perdure.start(parent);
  await reaches(b.perdure.get("child"), "suspended");
  old = false;
  await b.perdure.send("child", go, "on");
  await reaches(b.perdure.get("child"), "blocked");
  t.match(await run.status(), { state: "suspended", waitingFor: "child" });
  old = true;
  await b.perdure.get("child").retry();
  t.equal(await run.result(patient), 1);
});

test("a child's cancel that loses its connection is asked again: the parent does not fail of it", async (t) => {
  const never = event("never");
  const child = workflow("patient", async () => void (await never.wait()));
  const parent = workflow("parent", async () => {
    const started = await start(child);
    await started.cancel("enough");
    return "told";
  });
  const { perdure, sql } = await coldBench(t, { workflows: [parent, child] });
  await sql("create sequence :SCHEMA.cancels");
  const name = (await sql("select ':SCHEMA.cancels' as name"))[0].name;
  await sql(`create function :SCHEMA.lose() returns trigger language plpgsql as $$ begin
    if nextval('${name}') = 1 then raise exception 'terminating connection' using errcode = '57P01'; end if;
    return new;
  end $$`);
  await sql(
    `create trigger lose before update on :SCHEMA.run for each row when (new.state = 'cancelled') execute function :SCHEMA.lose()`,
  );
  t.equal(await (await perdure.start(parent)).result({ timeout: 60_000 }), "told");
  t.same(await sql("select state, reason from :SCHEMA.run where workflow = 'patient'"), [
    { state: "cancelled", reason: "enough" },
  ]);
});
