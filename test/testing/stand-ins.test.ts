/** Stand-ins, what they were called with, and forced replay. */
import { test } from "tap";
import {
  currentStep,
  durable,
  event,
  named,
  now,
  race,
  runStep,
  sleep,
  start,
  step,
  transaction,
  workflow,
} from "../../lib/index.ts";
import { collector } from "../support/engine.ts";
import { rejection } from "../support/gate.ts";
import { server } from "../support/postgres.ts";
import { standIn, type TestOptions, TestPerdure } from "../support/testing.ts";

async function launched(t: { teardown(work: () => unknown): void }, options: TestOptions): Promise<TestPerdure> {
  const perdure = new TestPerdure({ database: await server(), logger: collector(), ...options });
  t.teardown(() => perdure.shutdown());
  await perdure.launch();
  return perdure;
}

test("a stand-in takes the function's place, and everything else stays: retries, checks, the record", async (t) => {
  const charge = step(
    { name: "charge", retry: { type: "fixed", maxAttempts: 3, delay: "1h" } },
    async (_id: string): Promise<string> => t.fail("the real one") as never,
  );
  const debit = transaction("debit", async (_tx, _cents: number): Promise<number> => t.fail("the real one") as never);
  const child = workflow("child", async (_id: string): Promise<string> => t.fail("the real one") as never);
  const real = step("real", async (n: number) => n);
  const all = workflow("all", async (id: string) => {
    const charged = await charge.with({ timeout: "1m" })(id);
    const [first, second] = await Promise.all([child(id), start(child, `${id}!`)]);
    return [
      charged,
      await debit(7),
      first,
      await second.result(),
      await runStep("anonymous", () => "real"),
      await real(1),
    ];
  });
  let tries = 0;
  const perdure = await launched(t, {
    workflows: [all],
    standIns: [
      standIn(charge, async (id) => {
        tries += 1;
        if (tries < 3) throw new Error("not yet");
        return `charged ${id} at try ${currentStep().attempt}`;
      }),
      standIn(debit, async (cents) => (await currentStep().tx!.query("select $1::int * 2 as n", [cents])).rows[0].n),
      standIn(child, async (id) => {
        await sleep("1h");
        return `child of ${id}`;
      }),
      standIn("anonymous", () => "stood in"),
    ],
  });
  const run = await perdure.start(all.with({ id: "a1" }), "u1");
  await perdure.advance("1d");
  t.same(await run.result(), ["charged u1 at try 3", 14, "child of u1", "child of u1!", "stood in", 1]);
  t.same(perdure.calls(charge), [["u1"], ["u1"], ["u1"]]);
  t.same(perdure.calls(debit), [[7]]);
  t.same(perdure.calls(child).sort(), [["u1"], ["u1!"]]);
  t.same(perdure.calls(all), [["u1"]]);
  t.same([perdure.calls("anonymous"), perdure.calls(real), perdure.calls("none")], [[[]], [[1]], []]);
  const [entry] = await run.history();
  t.match(entry, { kind: "step", name: "charge", attempts: 3, outcome: "completed" });
  const other = new TestPerdure({ database: await server(), workflows: [all] });
  t.same(other.calls(charge), [], "nothing is shared");
  await other.shutdown();
});

test("an event with a stand-in comes as soon as it is waited for, once for each wait", async (t) => {
  const paid = event<{ amount: number }>("paid");
  const other = event("other");
  const order = workflow("order", async (n: number) => {
    const amounts: unknown[] = [];
    for (let at = 0; at < n; at++) amounts.push((await paid.wait({ timeout: "1d" }))?.data.amount);
    const { winner } = await race({ other, paid, late: "1d" });
    return [...amounts, winner, await other.wait({ timeout: "1h" })];
  });
  const asked: string[] = [];
  const make = (run: { id: string }): { amount: number } | undefined => {
    asked.push(run.id);
    return asked.length === 2 ? undefined : { amount: asked.length };
  };
  for (const replay of ["usual", "always"] as const) {
    asked.length = 0;
    const perdure = await launched(t, { workflows: [order], standIns: [standIn(paid, make)], replay });
    const run = await perdure.start(order.with({ id: "o1" }), 3);
    await perdure.advance("2d");
    t.same(await run.result(), [1, undefined, 3, "paid", null], replay);
    t.same(asked, ["o1", "o1", "o1", "o1"]);
  }
  const wrong = new Error("the stand-in is wrong");
  const throws = await launched(t, {
    workflows: [order],
    standIns: [
      standIn(paid, () => {
        throw wrong;
      }),
    ],
  });
  await throws.start(order, 1);
  t.equal((await rejection(throws.settled())).error, wrong);
});

test("under replay: always, the body begins anew after every checkpoint, and comes to the same", async (t) => {
  let passes = 0;
  const add = step("add", async (a: number, b: number) => a + b);
  const sum = workflow("sum", async () => {
    passes += 1;
    let total = 0;
    for (let n = 1; n <= 5; n++) total = await add(total, n);
    const both = await Promise.all([add(total, 1), add(total, 2)]);
    return [total, ...both, now().getTime()];
  });
  const usual = await launched(t, { workflows: [sum] });
  await (await usual.start(sum)).result();
  t.equal(passes, 1);
  passes = 0;
  const always = await launched(t, { workflows: [sum], replay: "always" });
  const run = await always.start(sum);
  t.same(await run.result({ timeout: "20s" }), [15, 16, 17, always.now().getTime()]);
  t.equal(passes, 7, "after each of the five, after the two side by side, and at first");
  t.equal(always.calls(add).length, 7, "no step ran twice");
});

test("a body that does not ask for the same again shows at once under replay: always", async (t) => {
  const add = step("add", async (n: number) => n);
  let count = 0;
  const counts = workflow("counts", async () => {
    await add(++count);
    await add(++count);
  });
  const perdure = await launched(t, { workflows: [counts], replay: "always" });
  const run = await perdure.start(counts.with({ id: "c1" }));
  t.match(await rejection(perdure.settled()), { code: "PERDURE_STATE", message: /run "c1" is blocked: diverged/ });
  t.match(await run.status(), { state: "blocked", reason: /diverged/ });
  count = 0;
  const usual = await launched(t, { workflows: [counts] });
  await (await usual.start(counts)).result({ timeout: "20s" });
});

test("what is no stand-in, or stands in twice, is refused", async (t) => {
  const charge = step("charge", async () => 1);
  const child = workflow("child", async () => 1);
  const paid = event("paid");
  for (const [of, by, message] of [
    [charge, 7, /standIn\(\) of step "charge" needs a function, not 7/],
    [child, undefined, /standIn\(\) of workflow "child" needs a function/],
    [() => {}, () => {}, /standIn\(\) needs a step/],
    ["", () => {}, /name in standIn\(\)/],
  ] as const) {
    t.throws(() => standIn(of as never, by as never), { message });
  }
  for (const twice of [
    [standIn(charge, () => 1), standIn(charge.with({ timeout: 1 }), () => 2)],
    [standIn(child, () => 1), standIn(child, () => 2)],
    [standIn(paid, null), standIn(paid, null)],
    [standIn("charge", () => 1), standIn("charge", () => 2)],
  ]) {
    t.throws(() => new TestPerdure({ standIns: twice }), {
      code: "PERDURE_DUPLICATE",
      message: /is stood in for twice/,
    });
  }
  const perdure = new TestPerdure({ standIns: [standIn(charge, () => 1)] });
  t.throws(() => perdure.calls(paid as never), { message: /calls\(\) needs a step/ });
});

test("a decorated method is stood in for on its instance, and no other", async (t) => {
  class Checkout {
    readonly #region: string;
    constructor(region: string) {
      this.#region = region;
    }
    async charge(id: string): Promise<string> {
      return `${id} in ${this.#region}`;
    }
    async process(id: string): Promise<string> {
      return this.charge(id);
    }
  }
  decorate(Checkout, "charge", step());
  decorate(Checkout, "process", workflow());
  const [eu, us] = [named("eu", new Checkout("eu")), named("us", new Checkout("us"))];
  const perdure = await launched(t, {
    workflows: [eu, us],
    standIns: [standIn(eu.charge, async (id) => `stood in ${id}`)],
  });
  t.equal(await (await perdure.start(durable(eu.process), "1")).result(), "stood in 1");
  t.equal(await (await perdure.start(durable(us.process), "2")).result(), "2 in us");
  t.same([perdure.calls(eu.charge), perdure.calls(us.charge), perdure.calls(eu.process)], [[["1"]], [["2"]], [["1"]]]);
});

/** As experimentalDecorators does. */
function decorate(of: { prototype: object }, key: string, by: (...given: any[]) => unknown): void {
  const descriptor = Object.getOwnPropertyDescriptor(of.prototype, key)!;
  const made = by(of.prototype, key, descriptor) as PropertyDescriptor | undefined;
  if (made) Object.defineProperty(of.prototype, key, made);
}
