/** crashEverywhere: what is right comes to the same at every point, and what is wrong is found. */
import { AssertionError } from "node:assert";
import { type Test, test } from "tap";
import {
  currentRun,
  currentStep,
  event,
  NonRetryableError,
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
  value,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import {
  type CrashOptions,
  type CrashPoint,
  type CrashReport,
  crashEverywhere,
  standIn,
} from "../../lib/testing/index.ts";
import { collector } from "../support/engine.ts";
import { rejection } from "../support/gate.ts";
import { server } from "../support/postgres.ts";

const on = async (): Promise<{ database: string; logger: ReturnType<typeof collector> }> => ({
  database: await server(),
  logger: collector(),
});

const paid = event<{ amount: number }>("paid");
const go = event<string>("go");

/** A workflow that is right comes to this, with and without a crash. */
async function comesTo(
  t: Test,
  right: Workflow<[], unknown>,
  value: unknown,
  options: CrashOptions<[], unknown> = {},
): Promise<CrashReport> {
  const report = await crashEverywhere(right, { ...(await on()), ...options });
  t.match(report.end, { state: "completed", value });
  t.ok(report.points.length >= report.writes * 2 - 4, `${report.writes} writes, ${report.points.length} crashes`);
  return report;
}

test("steps of every kind come to the same at every point, on both sides of each commit", async (t) => {
  const add = step("add", async (a: number, b: number) => a + b);
  const refused = step("refused", async () => {
    throw new NonRetryableError("no");
  });
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 2, delay: "1h" } }, async () => {
    if (currentStep().attempt === 1) throw new Error("not yet");
    return "second";
  });
  const debit = transaction("debit", async (tx, cents: number) => {
    const { rows } = await tx.query("select $1::int as cents", [cents]);
    return rows[0].cents as number;
  });
  const steps = workflow("steps", async () => {
    const sums = await Promise.all([add(1, 2), add(3, 4), runStep("anonymous", () => new Map([["a", new Date(0)]]))]);
    const error = await refused().catch((thrown) => `${thrown.name}: ${thrown.message}`);
    return { sums, error, cents: await debit(100), flaked: await flaky(), at: now(), drawn: [uuid(), random()] };
  });
  const { points } = await comesTo(t, steps, {
    sums: [3, 7, Map],
    error: "NonRetryableError: no",
    cents: 100,
    flaked: "second",
  });
  t.match(points.map(({ what }) => what).join(), /transaction "debit".*try 1 of step "flaky".*end of the run/s);
});

test("waits of every kind come to the same at every point", async (t) => {
  const child = workflow("child", async (n: number) => {
    await sleep("10m");
    return n * 2;
  });
  const waits = workflow("waits", async () => {
    const { data } = await paid.wait({ timeout: "30m" }).then((received) => received!);
    const handle = await start(child, 21);
    const { winner } = await race({ handle, late: "1d" });
    return {
      ...data,
      winner,
      direct: await child(1),
      none: await go.wait({ timeout: "2h" }),
      slept: await sleep("1s"),
    };
  });
  const options = { workflows: [child], standIns: [standIn(paid, { amount: 99 })] };
  await comesTo(t, waits, { amount: 99, winner: "handle", direct: 2, none: null, slept: { woken: false } }, options);
});

test("what is published, patches and attempts of the whole come to the same at every point", async (t) => {
  const progress = value<string>("progress");
  const lines = stream<number>("lines");
  const fails = step("fails", async () => {
    if (currentRun().attempt === 1) throw new Error("again");
    return "once more";
  });
  const again = workflow({ name: "again", retry: { type: "fixed", maxAttempts: 2, delay: "1d" } }, async () => {
    await progress.set("begun");
    const changed = patched("change");
    await lines.write(1);
    const failed = await fails();
    await lines.close();
    return { changed, failed, at: now() };
  });
  await comesTo(t, again, { changed: true, failed: "once more" });
});

/** What crashEverywhere says of a workflow that is wrong. */
async function found(
  of: Parameters<typeof crashEverywhere>[0],
  options: CrashOptions<[], unknown> = {},
): Promise<string> {
  const { error, message } = await rejection(crashEverywhere(of as never, { ...(await on()), ...options }));
  if (!(error instanceof AssertionError)) throw error;
  return message;
}

test("a body that branches at random is found", async (t) => {
  const [a, b, c] = ["a", "b", "c"].map((name) => step(name, async () => 1));
  // Not by chance here: the branch changes with every other pass.
  let passes = 0;
  const branches = workflow("branches", async () => {
    passes += 1;
    await a!();
    await (passes % 2 === 1 ? b! : c!)();
    return "same";
  });
  const message = await found(branches);
  t.match(message, /killed (before|after) the commit of the outcome of step/);
  t.match(message, /state: 'blocked'.*diverged: the code asked for "step:c|step:b.*recorded/s);
  t.match(message, /without a crash it came to \{ state: 'completed', value: 'same' \}/);
});

test("a counter of the module is found: by the result, or by what differs without a crash", async (t) => {
  let count = 0;
  const next = step("next", async (n: number) => n);
  const counts = workflow("counts", async () => next(++count));
  t.match(await found(counts), /run twice without a crash.*value: 1.*value: 2.*stand in for what is random/s);
  const inSteps = (): ReturnType<typeof workflow<[], unknown>> => {
    let calls = 0;
    const call = step("call", async () => ++calls);
    return workflow("calls", async () => [await call(), await call()]);
  };
  t.match(await found(inSteps), /killed (before|after) the commit of the outcome of step "call"/);
});

test("a step that relies on the memory of the process is found, where each process has a workflow of its own", async (t) => {
  const remembers = (): ReturnType<typeof workflow<[], unknown>> => {
    let token: string | undefined;
    const login = step("login", async () => {
      token = "secret";
      return "in";
    });
    const use = step("use", async () => token ?? "anonymous");
    return workflow("remembers", async () => {
      await login();
      return use();
    });
  };
  const message = await found(remembers);
  t.match(message, /killed after the commit of the outcome of step "login"/);
  t.match(message, /value: 'anonymous'.*without a crash it came to \{ state: 'completed', value: 'secret' \}/s);
});

test("drive sends, lets time pass and steers; a failed end is an end, and check takes the place of the comparison", async (t) => {
  const fails = workflow("fails", async () => {
    const { data } = await go.wait();
    await sleep("1d");
    throw new TypeError(`${data} failed`);
  });
  const seen: (CrashPoint | null)[] = [];
  const drive: CrashOptions<[], never>["drive"] = async (perdure, run) => {
    await perdure.settled();
    await run.send(go, "x");
    await perdure.advance("2d");
  };
  const { end, writes } = await crashEverywhere(fails, { ...(await on()), drive });
  t.match(end, { state: "failed", error: { name: "TypeError", message: "x failed" } });
  const report = await crashEverywhere(fails, { ...(await on()), drive, check: (_, point) => void seen.push(point) });
  t.equal(report.writes, writes);
  t.same(seen, [null, null, ...report.points]);
  t.match(await rejection(crashEverywhere(fails, await on())), {
    code: "PERDURE_STATE",
    message: /waits \(event\), and no timer is set.*stand-in/,
  });
});

test("bad options are refused before anything runs", async (t) => {
  const fine = workflow("fine", async () => 1);
  for (const [of, options, message] of [
    [fine, { args: 1 }, /args of crashEverywhere\(\) must be an array/],
    [fine, { drive: "home" }, /drive of crashEverywhere\(\) must be a function/],
    [fine, { retries: 1 }, /unknown option "retries"/],
    [7, {}, /needs a workflow, or a function that makes one, not 7/],
    [() => 7, {}, /the function gave 7/],
  ] as const) {
    t.match(await rejection(crashEverywhere(of as never, { ...(await on()), ...options } as never)), {
      code: "PERDURE_OPTION",
      message,
    });
  }
});
