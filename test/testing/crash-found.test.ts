/** crashEverywhere: what is wrong is found, and what a test drives and checks by itself. */
import { AssertionError } from "node:assert";
import { test } from "tap";
import { event, sleep, step, workflow } from "../../lib/index.ts";
import { collector } from "../support/engine.ts";
import { rejection } from "../support/gate.ts";
import { server } from "../support/postgres.ts";
import { type CrashOptions, type CrashPoint, crashEverywhere } from "../support/testing.ts";

const go = event<string>("go");

const on = async (): Promise<{ database: string; logger: ReturnType<typeof collector> }> => ({
  database: await server(),
  logger: collector(),
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
  const check = (_: unknown, point: CrashPoint | null): void => void seen.push(point);
  const { end, points } = await crashEverywhere(fails, { ...(await on()), drive, check });
  t.match(end, { state: "failed", error: { name: "TypeError", message: "x failed" } });
  t.same(seen, [null, null, ...points]);
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
