/** The context of a run: made for each execution, typed, never recorded; a run whose context cannot be made is tried again and not lost. */
import { test } from "tap";
import { currentRun, event, Perdure, runStep, step, workflow } from "../../lib/index.ts";
import { coldBench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, reaches, rejection } from "../support/gate.ts";

const patient = { timeout: "20s" } as const;
const go = event("go");

interface Context {
  readonly tenant: string;
  readonly made: number;
}

test("it is made before every execution, for this run, and is there in the body and in its steps", async (t) => {
  const asked: object[] = [];
  let made = 0;
  const tenant = step("tenant", async () => currentRun<Context>().context.tenant);
  const order = workflow({ name: "order", version: "2" }, async () => {
    const seen: Context[] = [currentRun<Context>().context];
    const name = await tenant();
    await go.wait();
    seen.push(currentRun<Context>().context);
    return [name, seen[0] === seen[1], seen[1]!.made];
  });
  const context = async ({ id, workflow: name, version, attempt, context: before }: ReturnType<typeof currentRun>) => {
    asked.push([id, name, version, attempt, before]);
    made += 1;
    return { tenant: id.split("/")[0]!, made };
  };
  const { perdure } = await coldBench(t, { workflows: [order], context });
  const run = await perdure.start(order.with({ id: "acme/1" }));
  await reaches(run, "suspended");
  await run.send(go);
  t.same(await run.result(patient), ["acme", true, 2]);
  t.same(asked, [
    ["acme/1", "order", "2", 1, null],
    ["acme/1", "order", "2", 1, null],
  ]);
});

test("without the option it is null; what it returns is handed over as it is", async (t) => {
  const seen = workflow("seen", async () => currentRun().context === null);
  const { perdure, another } = await coldBench(t, { workflows: [seen] });
  t.equal(await (await perdure.start(seen)).result(patient), true);
  await perdure.shutdown();
  const db = new (class Db {
    #secret = 1;
    read = () => this.#secret;
  })();
  const reads = workflow("reads", async () => [
    currentRun<typeof db>().context === db,
    currentRun<typeof db>().context.read(),
  ]);
  const other = await another({ workflows: [reads], context: () => db });
  t.same(await (await other.start(reads)).result(patient), [true, 1]);
});

test("what makes it is outside of every run", async (t) => {
  const inner = workflow("inner", async () => currentRun<unknown>().context);
  const outer = workflow("outer", async () => inner());
  const context = async () => {
    const { code } = await rejection((async () => currentRun())());
    return code as string;
  };
  const { perdure } = await coldBench(t, { workflows: [inner, outer], context });
  t.equal(await (await perdure.start(outer)).result(patient), "PERDURE_CONTEXT");
});

test("a run whose context cannot be made is handed back with the reason, tried again later, and costs no attempt", async (t) => {
  const logger = collector();
  let broken = true;
  const order = workflow("order", async () => {
    await runStep("one", async () => {});
    await go.wait();
    return currentRun().attempt;
  });
  const context = () => {
    if (broken) throw new Error("no database");
    return {};
  };
  const { perdure, advance } = await coldBench(t, { workflows: [order], context, logger });
  const run = await perdure.start(order.with({ id: "r" }));
  const postponed = async () => {
    const status = await run.status();
    return status.state === "pending" && status.due && status;
  };
  const first = await eventually(postponed, 20_000);
  t.match(first, { waitingFor: "retry", reason: "its context could not be made: no database", attempt: 1 });
  t.match(logger.lines, [
    /run "r" of workflow "order" waits 1000 ms, as the function "context" of new Perdure\(\) threw: no database/,
  ]);
  await advance(1000);
  await eventually(() => logger.lines.length === 2, 20_000);
  t.match(logger.lines[1], /waits 2000 ms/, "longer each time");
  broken = false;
  await eventually(postponed, 20_000);
  await advance(2000);
  await reaches(run, "suspended");
  t.equal((await run.status()).reason, null);
  t.same(
    (await run.history()).map(({ slot }) => slot.split(":")[0]),
    ["run", "event"],
    "nothing of it is recorded",
  );
  await run.send(go);
  t.equal(await run.result(patient), 1);
});

test("a run that cannot begin can be cancelled and paused, and what it waits for is not forgotten", async (t) => {
  let broken = false;
  const order = workflow("order", async () => {
    await go.wait();
    return "went";
  });
  const context = async () => {
    if (broken) throw "text";
    return {};
  };
  const { perdure, advance } = await coldBench(t, { workflows: [order], context });
  const [one, two] = [await perdure.start(order), await perdure.start(order)];
  await Promise.all([reaches(one, "suspended"), reaches(two, "suspended")]);
  broken = true;
  await Promise.all([one.send(go), two.send(go)]);
  const pends = (run: typeof one) => async () => (await run.status()).reason === "its context could not be made: text";
  await Promise.all([eventually(pends(one), 20_000), eventually(pends(two), 20_000)]);
  await one.cancel("enough");
  t.match(await rejection(one.result(patient)), { name: "RunCancelledError" });
  await two.pause();
  t.equal((await two.status()).state, "paused");
  broken = false;
  await two.resume();
  await advance(60_000);
  t.equal(await two.result(patient), "went");
});

test("a pause while it is being made is a pause: the body does not begin when it comes late, or fails, and the resumed run gets another", async (t) => {
  let began = 0;
  let make = async (): Promise<object> => ({});
  const order = workflow("order", async () => {
    began += 1;
    return "went";
  });
  const { perdure, sql } = await coldBench(t, { workflows: [order], context: () => make() });
  const fails = async (): Promise<object> => {
    throw new Error("too late");
  };
  for (const [id, late] of Object.entries({ comes: async () => ({}), fails })) {
    began = 0;
    const [reached, held] = [gate(), gate()];
    make = async () => {
      reached.open();
      await held.opened;
      return late();
    };
    const run = await perdure.start(order.with({ id }));
    await reached.opened;
    await run.pause();
    await reaches(run, "paused");
    make = async () => ({});
    held.open();
    // Another run passes through this process meanwhile, from start to end.
    await (await perdure.start(order.with({ id: `after-${id}` }))).result(patient);
    t.equal(began, 1, "only the other run's");
    t.match(await sql("select state, reason from :SCHEMA.run where id = $1", [id]), [
      { state: "paused", reason: null },
    ]);
    await run.resume();
    t.equal(await run.result(patient), "went");
    t.equal(began, 2);
  }
});

test("a shutdown does not wait for a context that never comes, and the body does not begin when it comes late", async (t) => {
  const held = gate();
  let asked = 0;
  let began = 0;
  const order = workflow("order", async () => {
    began += 1;
  });
  const context = async () => {
    asked += 1;
    await held.opened;
    return {};
  };
  const { perdure, another } = await coldBench(t, { workflows: [order], context });
  const run = await perdure.start(order.with({ id: "r" }));
  await eventually(() => asked === 1);
  await perdure.shutdown();
  held.open();
  const other = await another({ context: () => ({}) });
  await other.get("r").result(patient);
  t.equal(began, 1);
  t.ok(run.id);
});

test("the run's timeout and its cancellation reach one whose context is being made", async (t) => {
  const signals: AbortSignal[] = [];
  const order = workflow("order", async () => {});
  const context = ({ signal }: ReturnType<typeof currentRun>) => {
    signals.push(signal);
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const { perdure } = await coldBench(t, { workflows: [order], context });
  const late = await perdure.start(order.with({ timeout: "50ms" }));
  t.match(await rejection(late.result(patient)), { error: { cause: { name: "TimeoutError" } } });
  const run = await perdure.start(order);
  await eventually(() => signals.length === 2);
  await run.cancel();
  await eventually(() => signals[1]!.aborted, 20_000);
});

test("options that are none are refused at the door", async (t) => {
  const refused = (options: object) => rejection((async () => new Perdure(options))());
  t.match(await refused({ context: {} }), {
    code: "PERDURE_OPTION",
    message: /context of new Perdure\(\) must be a function/,
  });
  t.match(await refused({ strict: "yes" }), {
    code: "PERDURE_OPTION",
    message: /option "strict" .* must be true or false/,
  });
  t.match(await refused({ strikt: true }), { message: /did you mean "strict"/ });
  t.match(await refused({ logger: { info() {} } }), { message: /logger of new Perdure\(\) must have the functions/ });
});
