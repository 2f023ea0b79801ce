/** What runs and the engine log: bound to run and step, in the form that the logger takes, each line once however often a body replays. */
import { Writable } from "node:stream";
import { pino } from "pino";
import { type Test, test } from "tap";
import {
  currentRun,
  event,
  NonRetryableError,
  type PerdureOptions,
  runStep,
  sleep,
  step,
  value,
  workflow,
} from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, reaches, rejection } from "../support/gate.ts";

const patient = { timeout: "20s" } as const;
const go = event<string>("go");

/** A pino that writes into memory, and what it wrote. */
function memory() {
  const lines: any[] = [];
  const stream = new Writable({
    write(chunk, _, done) {
      for (const line of String(chunk).trim().split("\n")) lines.push(JSON.parse(line));
      done();
    },
  });
  return { lines, logger: pino({ level: "debug" }, stream) };
}

/** A console of the test's own: each call with its level and arguments. */
function recorder() {
  const calls: unknown[][] = [];
  const at =
    (level: string) =>
    (...args: unknown[]): void =>
      void calls.push([level, ...args]);
  const ofRuns = () => calls.filter(([, message]) => !String(message).startsWith("perdure:"));
  return { calls, ofRuns, logger: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") } };
}

const charge = step(
  { name: "charge", retry: { type: "fixed", maxAttempts: 2, delay: 1 } },
  async (_order: string, fails: { once: boolean }) => {
    const { log } = currentRun();
    log.info({ cents: 300 }, "charging");
    if (fails.once) {
      fails.once = false;
      throw new Error("declined");
    }
    return "paid";
  },
);

test("with pino a line has the run and the step as fields, an error under err, and placeholders filled", async (t) => {
  const { lines, logger } = memory();
  const fails = { once: true };
  const order = workflow({ name: "order", version: "3" }, async (id: string) => {
    const { log } = currentRun();
    log.info("begins");
    log.warn("not good", new RangeError("too far"), { cents: 1 }, "more");
    log.info("%d of %s", 1, "two");
    log.debug({ plain: true }, "as pino has it");
    log.error(new Error("bare"));
    return charge(id, { once: fails.once });
  });
  const { perdure } = await coldBench(t, { workflows: [order], logger });
  await (await perdure.start(order.with({ id: "order-42" }), "order-42")).result(patient);
  const run = { runId: "order-42", workflow: "order", version: "3", attempt: 1 };
  const own = lines.filter((line) => line.version === "3");
  t.ok(own.every((line) => Object.entries(run).every(([key, value]) => line[key] === value)));
  t.match(own, [
    { level: 30, msg: "begins" },
    { level: 40, msg: "not good", cents: 1, details: ["more"], err: { type: "RangeError", message: "too far" } },
    { level: 30, msg: "1 of two" },
    { level: 20, msg: "as pino has it", plain: true },
    { level: 50, msg: "bare", err: { message: "bare", stack: /log\.test/ } },
    { level: 30, msg: "charging", cents: 300, step: "charge", stepAttempt: 1 },
    { level: 30, msg: "charging", cents: 300, step: "charge", stepAttempt: 2 },
  ]);
  t.equal(own.length, 7);
  t.ok(own.slice(0, 5).every((line) => !("step" in line)));
});

test("console gets a prefix that names run, workflow and step, and what belongs to the message behind it", async (t) => {
  const { ofRuns, logger } = recorder();
  const error = new Error("declined");
  const order = workflow({ name: "process-order", version: "7" }, async (id: string) => {
    const { log } = currentRun();
    log.info("begins");
    log.warn("hm", error, { cents: 1 });
    log.info({ cents: 2 }, "as pino has it");
    log.error(error);
    await charge(id, { once: true });
    await runStep("late", async () => log.info("the body's log in a step"));
  });
  const { perdure } = await coldBench(t, { workflows: [order], logger });
  await (await perdure.start(order.with({ id: "50%s" }), "order-42")).result(patient);
  const run = "50%s process-order/7";
  const escaped = "50%%s process-order/7";
  t.same(ofRuns(), [
    ["info", `[${run}] begins`],
    ["warn", `[${escaped}] hm`, error, { cents: 1 }],
    ["info", `[${escaped}] as pino has it`, { cents: 2 }],
    ["error", `[${escaped}]`, error],
    ["info", `[${escaped} charge#1] charging`, { cents: 300 }],
    ["info", `[${escaped} charge#2] charging`, { cents: 300 }],
    ["info", `[${run} late#1] the body's log in a step`],
  ]);
});

test("a logger of winston's shape gets the message first, and errors as plain fields", async (t) => {
  const calls: any[] = [];
  const make = (bindings: object): any => {
    const say =
      (level: string) =>
      (...args: unknown[]) =>
        calls.push({ bindings, level, args });
    const levels = { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") };
    return { ...levels, log: say("log"), transports: [], child: (more: object) => make({ ...bindings, ...more }) };
  };
  const fails = workflow("fails", async () => {
    currentRun().log.info("said", { cents: 1 });
    currentRun().log.warn({ cents: 2 }, "fields first");
    throw new TypeError("no");
  });
  const { perdure } = await coldBench(t, { workflows: [fails], logger: make({}) });
  await rejection((await perdure.start(fails.with({ id: "w-1" }))).result(patient));
  await eventually(() => calls.length >= 3);
  t.match(calls, [
    { bindings: { runId: "w-1", attempt: 1 }, level: "info", args: ["said", { cents: 1 }] },
    { bindings: { runId: "w-1" }, level: "warn", args: ["fields first", { cents: 2 }] },
    {
      bindings: {},
      level: "warn",
      args: [/run "w-1" of workflow "fails" failed/, { runId: "w-1", err: { name: "TypeError", message: "no" } }],
    },
  ]);
});

test("the engine's own lines name the run, with the error: under err in pino, behind the message in console", async (t) => {
  const { lines, logger } = memory();
  const { calls, logger: plain } = recorder();
  const retry = { type: "fixed", maxAttempts: 2, delay: 1 } as const;
  const fails = workflow({ name: "fails", retry }, async () => {
    throw new NonRetryableError("for good");
  });
  const twice = workflow({ name: "twice", retry }, async () => {
    throw new Error("again");
  });
  const late = workflow({ name: "late", timeout: "1ms" }, async () => go.wait());
  const workflows = [fails, twice, late];
  for (const given of [logger, plain]) {
    const { perdure } = await coldBench(t, { workflows, logger: given });
    for (const one of workflows) {
      const run = await perdure.start(one.with({ id: `${"name" in one ? one.name : ""}-1` }));
      await rejection(run.result(patient));
    }
    await perdure.shutdown();
  }
  const said = lines.filter((line) => line.runId);
  t.match(said, [
    { level: 40, runId: "fails-1", workflow: "fails", msg: /run "fails-1" of workflow "fails" failed$/ },
    {
      level: 30,
      runId: "twice-1",
      msg: /attempt 1 of run "twice-1" of workflow "twice" failed; the next comes in 1 ms/,
    },
    { level: 40, runId: "twice-1", msg: /failed$/, err: { message: "again" } },
    { level: 40, runId: "late-1", msg: /failed$/, err: { type: "TimeoutError" } },
  ]);
  t.equal(said.length, 4, "each once");
  t.match(
    calls.map(([level, message, error]) => [level, message, (error as Error).message]),
    [
      ["warn", 'perdure: run "fails-1" of workflow "fails" failed', "for good"],
      ["info", /attempt 1 of run "twice-1"/, "again"],
      ["warn", 'perdure: run "twice-1" of workflow "twice" failed', "again"],
      ["warn", /run "late-1"/, /longer than its timeout/],
    ],
  );
});

test("a logger that throws loses its line and nothing else", async (t) => {
  const no = (): never => {
    throw new Error("disk full");
  };
  const logger = { debug: no, info: no, warn: no, error: no, child: no };
  const order = workflow("order", async (fails: boolean) => {
    currentRun().log.info("said");
    if (fails) throw new Error("no");
    return runStep("one", async () => {
      currentRun().log.info("said");
      return 1;
    });
  });
  const { perdure } = await coldBench(t, { workflows: [order], logger });
  t.equal(await (await perdure.start(order, false)).result(patient), 1);
  t.match(await rejection((await perdure.start(order, true)).result(patient)), { name: "RunFailedError" });
});

/** Runs to the end, suspended and woken as often as it likes, and every time in another engine. Returns what was logged. */
async function linesOf(t: Test, fn: () => Promise<unknown>, between: string[][], options: PerdureOptions = {}) {
  const { ofRuns, logger } = recorder();
  const made = workflow({ name: "made", retry: { type: "fixed", maxAttempts: 3, delay: 1 } }, fn);
  const { perdure, another, advance, sql } = await coldBench(t, { workflows: [made], logger, ...options });
  await perdure.start(made.with({ id: "r" }));
  let engine = perdure;
  for (const events of between) {
    await reaches(engine.get("r"), "suspended");
    await engine.shutdown();
    engine = await another();
    for (const name of events) {
      if (name === "wake") await advance(3_600_000);
      else await sql("select :SCHEMA.send_event('r', $1, '1')", [name]);
    }
  }
  await eventually(async () => /completed|failed/.test((await engine.get("r").status()).state), 20_000);
  return ofRuns().map(([, message]) => String(message).replace("[r made/1] ", ""));
}

test("a line is written once, however a run waits: around steps, sleeps, events, timeouts, in catch and finally", async (t) => {
  const fails = step("fails", async () => {
    throw new Error("no");
  });
  const [one, two] = ["one", "two"].map((name) => event(name));
  const board = value<string>("board");
  const say = (text: string): void => currentRun().log.info(text);
  const body = async () => {
    say("a");
    await one!.wait();
    say("b");
    await runStep("s", async () => say("in s"));
    say("c");
    try {
      say("d");
      await fails();
    } catch {
      say("caught");
      await sleep("1h");
      say("e");
    } finally {
      say("finally");
      await two!.wait({ timeout: "1h" });
      say("f");
    }
    await board.set("x");
    say("g");
    await one!.wait();
    say("h");
  };
  const lines = await linesOf(t, body, [["one"], ["wake"], ["two"], ["one"]]);
  const plain = lines.map((line) => line.replace("[r made/1 s#1] ", ""));
  t.same(plain, ["a", "b", "in s", "c", "d", "caught", "e", "finally", "f", "g", "h"]);
});

test("a line is written once in parallel branches that wait for different things", async (t) => {
  const say = (text: string): void => currentRun().log.info(text);
  const branch = async (name: string) => {
    say(`${name} begins`);
    await runStep(`${name} step`, async () => {});
    say(`${name} waits`);
    await event(name).wait();
    say(`${name} goes on`);
    await sleep("1h");
    say(`${name} ends`);
  };
  const body = async () => {
    await Promise.all(["p", "q"].map(branch));
    say("all");
  };
  const lines = await linesOf(t, body, [["q"], ["p"], ["wake"]]);
  const wanted = ["p", "q"].flatMap((n) => ["begins", "waits", "goes on", "ends"].map((what) => `${n} ${what}`));
  t.same(lines.sort(), [...wanted, "all"].sort());
});

test("an attempt of the workflow writes what follows its last recorded outcome, and not what comes before", async (t) => {
  const say = (text: string): void => currentRun().log.info(text);
  const body = async () => {
    say("a");
    await runStep("s", async () => {});
    say("b");
    if (currentRun().attempt < 3) throw new Error("again");
    say("third time");
    await go.wait();
    say("c");
  };
  const lines = await linesOf(t, body, [["go"]]);
  t.same(lines, ["a", "b", "b", "b", "third time", "c"]);
});

test("nothing is lost where a crash cut the pass short", async (t) => {
  const { ofRuns, logger } = recorder();
  const held = gate();
  let crashed = false;
  const order = workflow("order", async () => {
    await runStep("one", async () => {});
    currentRun().log.info("after one");
    await runStep("two", async () => {
      if (crashed) return;
      crashed = true;
      await held.opened;
    });
    currentRun().log.info("after two");
  });
  const { perdure, another, sql } = await coldBench(t, { workflows: [order], logger });
  const run = await perdure.start(order.with({ id: "r" }));
  await eventually(() => crashed);
  await another();
  // As others do with the runs of a process that is gone.
  await sql(
    "update :SCHEMA.worker set beat_at = beat_at - interval '1h' where id = (select worker from :SCHEMA.run where id = 'r')",
  );
  await sql("select :SCHEMA.take_back(null, null, false)");
  await sql("select :SCHEMA.hint('wc')");
  t.equal(await run.result(patient), undefined);
  held.open();
  const lines = ofRuns().map(([, message]) => message);
  t.equal(lines.filter((line) => line === "[r order/1] after two").length, 1);
  t.equal(
    lines.filter((line) => line === "[r order/1] after one").length,
    2,
    "a second time, as nobody knows whether it was written",
  );
});
