/** Replay: a body that goes on sees what it saw before, whatever the values, however long the history, whoever runs it. */
import { randomUUID } from "node:crypto";
import { test } from "tap";
import {
  currentRun,
  currentStep,
  event,
  NonRetryableError,
  now,
  PerdureError,
  RunConflictError,
  RunFailedError,
  random,
  runStep,
  sleep,
  step,
  transaction,
  uuid,
  workflow,
} from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { atGate, DEADLINE_MS, free, gate, latch, loseClaims, reached, settled, unhandled } from "../support/replay.ts";
import { needs } from "../support/without.ts";

test("two steps run once each, in order, and the result is stored", async (t) => {
  const ran: string[] = [];
  const a = step("a", async (n: number) => ran.push(`a ${n}`));
  const b = step("b", async (n: number) => ran.push(`b ${n}`));
  const both = workflow("both", async (n: number) => [await a(n), await b(n)]);
  const { perdure, another, sql } = await coldBench(t, { workflows: [both] });
  const run = await perdure.start(both, 7);
  t.strictSame(await run.result(), [1, 2]);
  t.strictSame(ran, ["a 7", "b 7"]);
  t.equal((await run.status()).state, "completed");
  const elsewhere = await another({ workflows: [] });
  t.strictSame(await elsewhere.get(run.id).result(), [1, 2], "another process reads the same result");
  t.strictSame(
    (await sql("select name, attempts from :SCHEMA.steps order by finished_at")).map((s) => s.name),
    ["a", "b"],
  );
});

test("a lost claim costs the step that was running and no other, and not one of its tries", async (t) => {
  const ran: string[] = [];
  const stuck = latch();
  const signals: boolean[] = [];
  const a = step("a", async () => void ran.push("a"));
  const b = step({ name: "b", retry: { type: "fixed", maxAttempts: 2, delay: 0 } }, async () => {
    ran.push(`b ${currentStep().attempt}`);
    if (ran.filter((line) => line.startsWith("b")).length === 1) {
      const { signal } = currentStep();
      await stuck.opened;
      signals.push(signal.aborted);
      return "zombie";
    }
    if (currentStep().attempt === 1) throw new Error("the first real failure");
    return "second claim";
  });
  const w = workflow("w", async () => {
    await a();
    return b();
  });
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await eventually(() => ran.includes("b 1"), DEADLINE_MS);
  await loseClaims(world);
  const result = await run.result();
  stuck.open();
  t.equal(result, "second claim");
  t.strictSame(ran, ["a", "b 1", "b 1", "b 2"], "the lost try keeps its number");
  await eventually(() => signals.length === 1, DEADLINE_MS);
  t.strictSame(signals, [true], "the step that was left behind was told to stop");
});

test("a step that must not run twice fails after a lost claim, and the body may catch it", async (t) => {
  let ran = 0;
  const stuck = latch();
  const once = step({ name: "once", onCrash: "fail" }, async (waits: boolean) => {
    ran += 1;
    if (waits) await stuck.opened;
    return "done";
  });
  const w = workflow("w", async () => [await once(false), await once(true).catch((error) => error.code)]);
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await eventually(() => ran === 2, DEADLINE_MS);
  await loseClaims(world);
  t.strictSame(await run.result(), ["done", "PERDURE_STEP_LOST"]);
  stuck.open();
  t.equal(ran, 2);
});

test("what a claim that is over wants to record is refused, whoever ended it", async (t) => {
  const ends: Record<string, string> = {
    "another worker took the run": "update :SCHEMA.run set epoch = epoch + 1, worker = 1 where id = $1",
    "the run was cancelled":
      "update :SCHEMA.run set state = 'cancelled', worker = null, finished_at = :SCHEMA.clock() where id = $1",
    "the run was handed back": "update :SCHEMA.run set state = 'pending', worker = null where id = $1",
  };
  const doors = new Map<string, ReturnType<typeof latch>>();
  const told: string[] = [];
  const [plain, commit, fails] = [
    step("plain", async (id: string) => doors.get(id)!.opened),
    transaction("commit", async (_, id: string) => doors.get(id)!.opened),
    step("fails", async (id: string) => {
      await doors.get(id)!.opened;
      throw new Error("too late");
    }),
  ];
  const w = workflow("w", async (id: string) => {
    currentRun().signal.addEventListener("abort", () => told.push(id));
    await Promise.allSettled([plain(id), commit(id), fails(id)]);
    return "too late";
  });
  // Only the refusal tells it: no hint, and no poll in time.
  const { perdure, sql } = await coldBench(t, { workflows: [w] });
  for (const [id, end] of Object.entries(ends)) {
    doors.set(id, latch());
    await reached(await perdure.start(w.with({ id }), id), "running");
    await sql(end, [id]);
    const before = await sql("select * from :SCHEMA.run where id = $1", [id]);
    doors.get(id)!.open();
    await eventually(() => told.includes(id), DEADLINE_MS);
    t.strictSame(await sql("select from :SCHEMA.checkpoint"), [], id);
    t.strictSame(await sql("select * from :SCHEMA.run where id = $1", [id]), before, "nor is the run changed");
  }
});

test("a recorded step is not run again after a sleep, and its values are those it had", async (t) => {
  let ran = 0;
  const seen: string[] = [];
  const make = step("make", async () => {
    ran += 1;
    return randomUUID();
  });
  const w = workflow("w", async () => {
    seen.push(await make());
    t.strictSame(await sleep("1h"), { woken: false });
    t.strictSame(await event("never").wait({ timeout: "1h" }), null);
    await gate.wait();
    return seen.at(-1);
  });
  const { perdure, advance } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await reached(run, "suspended");
  await advance(3_600_000);
  await eventually(async () => seen.length === 2 && (await run.status()).waitingFor === "event", DEADLINE_MS);
  await advance(3_600_000);
  await eventually(async () => seen.length === 3 && (await run.status()).waitingFor === "event", DEADLINE_MS);
  await run.send(gate);
  await run.result();
  t.equal(ran, 1);
  t.equal(seen.length, 4, "every pass asked");
  t.equal(new Set(seen).size, 1, "and was told the same");
});

class PaymentDeclined extends Error {
  readonly reason: string;
  constructor(reason: string) {
    super(`declined: ${reason}`);
    this.name = "PaymentDeclined";
    this.reason = reason;
  }
}
class Unregistered extends RangeError {}

test("instanceof takes the same branch live and on replay", async (t) => {
  const failures: Record<string, () => unknown> = {
    registered: () => new PaymentDeclined("no funds"),
    builtIn: () => new TypeError("not a number", { cause: new RangeError("deep") }),
    final: () => new NonRetryableError("give up", { cause: new PaymentDeclined("inner") }),
    coded: () => Object.assign(new Error("gone"), { code: "ECONNRESET", errno: -104 }),
    unregistered: () => new Unregistered("mine alone"),
    many: () => new AggregateError([new PaymentDeclined("one"), new SyntaxError("two")], "several"),
    text: () => "only a string",
  };
  const fail = step("fail", async (which: string): Promise<void> => {
    throw failures[which]!();
  });
  const describe = (error: any): unknown => ({
    classes: [
      PaymentDeclined,
      TypeError,
      RangeError,
      NonRetryableError,
      PerdureError,
      Unregistered,
      AggregateError,
      Error,
    ]
      .filter((type) => error instanceof type)
      .map((type) => type.name),
    ...(error instanceof Error
      ? {
          name: error.name,
          message: error.message,
          code: (error as { code?: unknown }).code,
          reason: (error as { reason?: unknown }).reason,
          cause: error.cause && describe(error.cause),
          errors: (error as AggregateError).errors?.map(describe),
        }
      : { error }),
  });
  const passes: unknown[][] = [];
  const w = workflow("w", async () => {
    const seen: unknown[] = [];
    passes.push(seen);
    for (const which of Object.keys(failures)) await fail(which).catch((error) => seen.push(describe(error)));
    await gate.wait();
  });
  const { perdure, another } = await coldBench(t, { workflows: [w], errors: [PaymentDeclined] });
  const run = await perdure.start(w);
  await atGate(run);
  await perdure.shutdown();
  const next = await another({ workflows: [w], errors: [PaymentDeclined] });
  await next.send(run.id, gate, null);
  await next.get(run.id).result();
  t.equal(passes.length, 2);
  t.strictSame(passes[1], passes[0]);
  t.strictSame(
    (passes[0] as { classes: string[] }[]).map((seen) => seen.classes),
    [
      ["PaymentDeclined", "Error"],
      ["TypeError", "Error"],
      ["NonRetryableError", "PerdureError", "Error"],
      ["Error"],
      ["RangeError", "Error"],
      ["AggregateError", "Error"],
      [],
    ],
    "a class that is not registered is the built-in one that it extends, live as well",
  );
});

test("values come back equal, and of their own kind, live and on replay", async (t) => {
  const values = {
    date: new Date(86_400_000),
    map: new Map<unknown, unknown>([[{ a: 1 }, new Set([1, "1"])]]),
    nothing: undefined,
    nan: Number.NaN,
    minusZero: -0,
    big: 2n ** 70n,
    bytes: new Uint8Array([0, 255]),
    pattern: /a+b/giu,
    url: new URL("https://example.org/a?b#c"),
    text: "NUL \u0000, half a pair \ud800",
    holes: [undefined, null, Infinity],
  };
  const give = step("give", async (key: keyof typeof values) => values[key]);
  const passes: unknown[][] = [];
  const w = workflow("w", async () => {
    const seen: unknown[] = [];
    passes.push(seen);
    for (const key of Object.keys(values)) seen.push(await give(key as keyof typeof values));
    await gate.wait();
    return Object.fromEntries(Object.keys(values).map((key, at) => [key, seen[at]]));
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await run.send(gate);
  t.strictSame(await run.result(), values, "and so does the result");
  t.strictSame(passes[0], Object.values(values));
  t.strictSame(passes[1], Object.values(values));
});

test("what a body does to a value it was given is not seen by replay", async (t) => {
  const seen: string[] = [];
  const shared = { list: ["of the step"] };
  const give = step("give", async () => shared);
  const w = workflow("w", async (input: { list: string[] }) => {
    const given = await give();
    given.list.push("of the body");
    input.list.push("of the body");
    seen.push(JSON.stringify([given, input]));
    await gate.wait();
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const input = { list: ["of the caller"] };
  const run = await perdure.start(w, input);
  await atGate(run);
  await run.send(gate);
  await run.result();
  t.equal(seen.length, 2);
  t.equal(seen[0], seen[1]);
  t.strictSame([shared.list.length, input.list.length], [1, 1], "nor by whoever gave it");
});

test("now(), uuid() and random() are the same on replay", async (t) => {
  const passes: string[][] = [];
  const a = step("a", async () => {});
  const tx = transaction("tx", async (client) => void (await client.query("select pg_sleep(0.02)")));
  const w = workflow("w", async () => {
    const seen: string[] = [];
    passes.push(seen);
    const note = (what: string): void =>
      void seen.push(`${what} ${now().toISOString()} ${uuid()} ${uuid("order")} ${random()} ${random("dice")}`);
    note("start");
    for (let i = 0; i < 20; i += 1) {
      await a();
      note(`step ${i}`);
      await tx();
      note(`transaction ${i}`);
    }
    await sleep(1);
    note("sleep");
    await Promise.all([tx(), a(), tx(), a()]);
    note("together");
    await gate.wait();
    note("event");
    await gate.wait();
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await eventually(() => passes.some((seen) => seen.length === 43), DEADLINE_MS);
  await atGate(run);
  await run.send(gate);
  await eventually(() => passes.some((seen) => seen.length === 44), DEADLINE_MS);
  await atGate(run);
  await run.send(gate);
  await run.result();
  const whole = passes.at(-1)!;
  t.ok(passes.length >= 3);
  for (const seen of passes) t.strictSame(seen, whole.slice(0, seen.length));
  t.equal(new Set(whole.map((line) => line.split(" ").at(-3))).size, 44, "every call gives another value");
});

test("twelve thousand steps in one run replay, and none is executed again", needs("batch"), async (t) => {
  let ran = 0;
  const passes: number[][] = [];
  const a = step("a", async (n: number) => {
    ran += 1;
    return { n, text: "x".repeat(500) };
  });
  const w = workflow("w", async () => {
    const seen: number[] = [];
    passes.push(seen);
    for (let from = 0; from < 12_000; from += 3000) {
      const batch = Array.from({ length: 3000 }, (_, i) => a(from + i).then(({ n }) => seen.push(n)));
      await Promise.all(batch);
    }
    await gate.wait();
    return seen.length;
  });
  const { perdure, sql } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  const [{ count }] = await sql("select count(*)::integer as count from :SCHEMA.checkpoint");
  t.equal(count, 12_000, "more than a claim brings, in rows and in bytes");
  await run.send(gate);
  t.equal(await run.result(), 12_000);
  t.equal(ran, 12_000);
  t.equal(passes.length, 2);
  t.strictSame(passes[1], passes[0], "and reach the body in the same order");
});

test("a catch-all around waits and steps never sees a suspension", async (t) => {
  const seen: string[] = [];
  const a = step("a", async () => {});
  const caught = async (what: string, wait: () => Promise<unknown>): Promise<void> => {
    try {
      await wait();
    } catch (error) {
      seen.push(`${what} threw ${error}`);
    } finally {
      seen.push(`${what} ended`);
    }
  };
  const w = workflow("w", async () => {
    seen.length = 0;
    await caught("sleep", () => sleep("1h"));
    await caught("event", () => gate.wait());
    await caught("step", () => a());
  });
  const { perdure, advance } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await reached(run, "suspended");
  t.strictSame(seen, []);
  await advance(3_600_000);
  await atGate(run);
  t.strictSame(seen, ["sleep ended"]);
  await run.send(gate);
  await run.result();
  t.strictSame(seen, ["sleep ended", "event ended", "step ended"]);
});

test("repeat decides whether a second identical call runs again or returns the first outcome", async (t) => {
  const counts = { again: 0, cached: 0 };
  const again = step("again", async (_: string) => (counts.again += 1));
  const cached = step("cached", async (_: string) => (counts.cached += 1));
  const passes: unknown[] = [];
  const wAgain = workflow("again", async () => {
    const seen = [await again("x"), await again("x"), ...(await Promise.all([again("x"), again("y")]))];
    passes.push(seen);
    await gate.wait();
    return seen;
  });
  const wCached = workflow({ name: "cached", repeat: "cached" }, async () => {
    const seen = [
      await cached("x"),
      await cached("x"),
      ...(await Promise.all([cached("x"), cached("y"), cached("y")])),
    ];
    await gate.wait();
    return [...seen, await cached("x")];
  });
  const { perdure } = await coldBench(t, { workflows: [wAgain, wCached] });
  const runs = [await perdure.start(wAgain), await perdure.start(wCached)] as const;
  for (const run of runs) {
    await atGate(run);
    await run.send(gate);
  }
  t.strictSame(await runs[0].result(), [1, 2, 3, 4]);
  t.strictSame(passes, [
    [1, 2, 3, 4],
    [1, 2, 3, 4],
  ]);
  t.strictSame(await runs[1].result(), [1, 1, 1, 2, 2, 1]);
  t.strictSame(counts, { again: 4, cached: 2 });
});

test("a failure is cached too, and a shared call is one call", async (t) => {
  let ran = 0;
  const fail = step("fail", async () => {
    ran += 1;
    throw new TypeError("once");
  });
  const w = workflow({ name: "w", repeat: "cached" }, async () => {
    const outcomes = await Promise.allSettled([fail(), fail()]);
    outcomes.push(...(await Promise.allSettled([fail()])));
    return outcomes.map((o) => o.status === "rejected" && o.reason.message);
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  t.strictSame(await (await perdure.start(w)).result(), ["once", "once", "once"]);
  t.equal(ran, 1);
});

test("a reference with another input is a conflict, live and on replay", async (t) => {
  const rejections = unhandled(t);
  const ran: number[] = [];
  const pack = step("pack", async (n: number) => void ran.push(n));
  const seen: unknown[] = [];
  const w = workflow("w", async () => {
    await pack.with({ reference: "parcel" })(1);
    const conflict = pack.with({ reference: "parcel" })(2);
    await pack.with({ reference: "parcel" })(1);
    await new Promise((resolve) => setTimeout(resolve, 5));
    seen.push(await conflict.catch((error) => [error instanceof RunConflictError, error.code, error.message]));
    await gate.wait();
    await pack.with({ reference: { id: "parcel", onConflict: "error" } })(3);
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await run.send(gate);
  const { error } = (await settled(run.result())) as { error: RunFailedError };
  t.ok(error instanceof RunFailedError);
  t.ok(error.cause instanceof RunConflictError, "uncaught, it fails the run");
  t.match(error.message, /step "pack" .*reference "parcel" was used with another input/);
  t.strictSame(ran, [1]);
  t.equal(seen.length, 2);
  t.strictSame(seen[0], seen[1]);
  t.match(seen[0], [true, "PERDURE_CONFLICT", /parcel/]);
  t.strictSame(rejections, [], "a conflict that is awaited later does not reach the process");
});

test("a reference with another input in new code is a conflict on replay", async (t) => {
  const pack = step("pack", async (n: number) => n);
  const code = (n: number, onConflict: "error" | "return_existing") =>
    workflow("w", async () => {
      const first = await pack.with({ reference: { id: "parcel", onConflict } })(n);
      await gate.wait();
      return first;
    });
  const { perdure, another } = await coldBench(t, { workflows: [code(1, "error")] });
  const runs = [await perdure.start(code(1, "error")), await perdure.start(code(1, "error"))] as const;
  for (const run of runs) await atGate(run);
  await perdure.shutdown();
  const strict = await another({ workflows: [code(2, "error")] });
  await strict.send(runs[0].id, gate, null);
  t.match(await settled(strict.get(runs[0].id).result()), { error: { cause: { code: "PERDURE_CONFLICT" } } });
  await strict.shutdown();
  const lenient = await another({ workflows: [code(2, "return_existing")] });
  await lenient.send(runs[1].id, gate, null);
  t.equal(await lenient.get(runs[1].id).result(), 1);
});

test("a reference that returns what exists never runs its step again", async (t) => {
  const ran: number[] = [];
  const pack = step("pack", async (n: number) => {
    ran.push(n);
    return n;
  });
  const w = workflow("w", async () => {
    const kept = pack.with({ reference: { id: "parcel", onConflict: "return_existing" } });
    const seen = [await kept(1), await kept(2), ...(await Promise.all([kept(3), kept(4)]))];
    await gate.wait();
    return [...seen, await kept(5)];
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await run.send(gate);
  t.strictSame(await run.result(), [1, 1, 1, 1, 1]);
  t.strictSame(ran, [1]);
});

test("calls with the same input and different references each run, and keep their own outcomes", async (t) => {
  let ran = 0;
  const pack = step("pack", async (_: string) => (ran += 1));
  const passes: number[][] = [];
  const w = workflow("w", async () => {
    const [b, a] = await Promise.all([pack.with({ reference: "b" })("same"), pack.with({ reference: "a" })("same")]);
    passes.push([a, b]);
    await gate.wait();
    return [await pack.with({ reference: "a" })("same"), await pack.with({ reference: "b" })("same")];
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await run.send(gate);
  t.strictSame(await run.result(), passes[0]);
  t.strictSame(passes[1], passes[0]);
  t.equal(ran, 2);
});

test("arguments that differ in kind take different slots, and the order of keys does not matter", async (t) => {
  const a = step("a", async (_: unknown) => {});
  const different = [
    new Date(1),
    new Date(2),
    Number.NaN,
    null,
    new Map(),
    new Set(),
    {},
    [],
    "1",
    1,
    1n,
    undefined,
    -0,
    0,
  ];
  const w = workflow("w", async () => {
    for (const value of different) await a(value);
    await a({ x: 1, y: { p: 1, q: 2 } });
    await a({ y: { q: 2, p: 1 }, x: 1 });
  });
  const { perdure, sql } = await coldBench(t, { workflows: [w] });
  await (await perdure.start(w)).result();
  const slots = (await sql("select slot from :SCHEMA.steps")).map(({ slot }) => slot as string);
  t.equal(slots.length, different.length + 2);
  const repeated = slots.filter((slot) => slot.endsWith("#1"));
  t.equal(repeated.length, 1, "only the two that differ in the order of keys share an address");
  t.ok(slots.includes(repeated[0]!.replace("#1", "#0")));
});

test("a step's failure is recorded, and thrown again on replay without running the step", async (t) => {
  let ran = 0;
  const fail = step("fail", async () => {
    ran += 1;
    throw Object.assign(new RangeError("out of stock"), { sku: "x-1" });
  });
  const seen: unknown[] = [];
  const w = workflow("w", async () => {
    await fail().catch((error) => seen.push([error.name, error.message, error.sku, error instanceof RangeError]));
    await gate.wait();
    return "went on";
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await run.send(gate);
  t.equal(await run.result(), "went on");
  t.equal(ran, 1);
  t.strictSame(seen, Array(2).fill(["RangeError", "out of stock", "x-1", true]));
});

test("a body that throws fails the run, which is not tried again by itself", async (t) => {
  let ran = 0;
  const w = workflow("w", async () => {
    ran += 1;
    throw Object.assign(new TypeError("no such order"), { code: "E_ORDER", order: { id: 7 } });
  });
  const { perdure, another } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  for (const engine of [perdure, await another({ workflows: [w] })]) {
    const { error } = (await settled(engine.get(run.id).result())) as { error: RunFailedError };
    t.ok(error instanceof RunFailedError);
    t.equal(error.runId, run.id);
    t.ok(error.cause instanceof TypeError);
    t.match(error.cause, { name: "TypeError", message: "no such order", code: "E_ORDER", order: { id: 7 } });
  }
  t.equal((await run.status()).state, "failed");
  t.equal(ran, 1);
});

test("what cannot be stored is refused where it is, with its path, and leaves nothing half done", async (t) => {
  let ran = 0;
  const bad = step({ name: "bad", retry: { type: "fixed", maxAttempts: 3, delay: 0 } }, async (): Promise<unknown> => {
    ran += 1;
    return { items: [{ price: () => 1 }] };
  });
  const step1 = workflow("step1", async () => bad());
  const result = workflow("result", async () => ({ deep: [Symbol("s")] }));
  const input = workflow("input", async (_: unknown) => {});
  const argument = workflow("argument", async () => step("a", async (_: unknown) => {})({ at: [new WeakMap()] }));
  class Money {}
  const { perdure, sql } = await coldBench(t, { workflows: [step1, result, input, argument] });
  await t.rejects(perdure.start(input, { list: [1, () => 2] }), { code: "PERDURE_SERIALIZE", message: /list\[1\]/ });
  await t.rejects(perdure.start(input, { money: new Money() }), { code: "PERDURE_SERIALIZE", message: /money/ });
  t.strictSame(await sql("select id from :SCHEMA.run"), [], "no run");
  for (const [w, path] of [
    [step1, /items\[0\]\.price/],
    [result, /deep\[0\]/],
    [argument, /at\[0\]/],
  ] as const) {
    const run = await perdure.start(w as typeof result);
    const { error } = (await settled(run.result())) as { error: RunFailedError };
    t.match(error?.cause, { code: "PERDURE_SERIALIZE", message: path });
  }
  t.equal(ran, 1, "the same value would be refused again");
  t.strictSame(await sql("select distinct state from :SCHEMA.run"), [{ state: "failed" }]);
});

test("an anonymous step is known by its name and ordinal", async (t) => {
  const passes: number[][] = [];
  let ran = 0;
  const w = workflow("w", async () => {
    const seen: number[] = [];
    passes.push(seen);
    for (const n of [1, 2, 3]) seen.push(await runStep("sum", () => n + 10 * ran++));
    await gate.wait();
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await run.send(gate);
  await run.result();
  t.strictSame(passes, [
    [1, 12, 23],
    [1, 12, 23],
  ]);
});

test("a stored value that cannot be read blocks the run, which goes on once it can", async (t) => {
  const a = step("a", async () => "value");
  const w = workflow("w", async () => {
    const value = await a();
    await gate.wait();
    return value;
  });
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await atGate(run);
  await world.sql("alter table :SCHEMA.checkpoint disable trigger check_checkpoint");
  await world.sql(`update :SCHEMA.checkpoint set value = '{"json":{},"meta":{"v":99,"values":["no-such-kind"]}}'`);
  await run.send(gate);
  await reached(run, "blocked");
  t.match((await run.status()).reason, /result of step "a"/);
  await world.sql(`update :SCHEMA.checkpoint set value = '{"json":"value"}'`);
  await free(world, run.id);
  t.equal(await run.result(), "value");
});
