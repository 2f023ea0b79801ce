/**
 * Whatever is handed in, it works and comes back as it was, or it is refused in words of ours, and nothing of it is stored. Values are made
 * of recipes, which print and shrink. PERDURE_FUZZ: how many times as long (default 1); PERDURE_SEED and PERDURE_FUZZ_PATH: what a failure
 * printed, to see it again.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { type Test, test } from "tap";
import { compression, encryption } from "../../lib/codec/index.ts";
import { ERROR_CODES, PerdureError } from "../../lib/core/errors.ts";
import * as perdureNames from "../../lib/index.ts";
import {
  currentRun,
  durable,
  event,
  named,
  Perdure,
  patched,
  race,
  random,
  runStep,
  schedule,
  sleep,
  sleepUntil,
  start,
  step,
  stream,
  transaction,
  uuid,
  value,
  workflow,
} from "../../lib/index.ts";
import { type Bench, coldBench, collector } from "../support/engine.ts";
import { build, isComparable, optionsWith, type Recipe, recipe, text } from "../support/recipes.ts";
import { stranger } from "../support/stranger.ts";

const TIMES = Number(process.env.PERDURE_FUZZ ?? 1);
const SEED = Number(process.env.PERDURE_SEED ?? Date.now() % 2 ** 31);
const LONGEST_MESSAGE = 4000;
const PATIENCE = { timeout: "60s" } as const;
/** What only a database says. */
const RAW =
  /invalid byte sequence|unsupported Unicode|SQLSTATE|DatabaseError|syntax error at|duplicate key value|violates .* constraint|PL\/pgSQL|out of range for type|value too long for type|stack depth limit|invalid input syntax/;

/** Why an error is none that a user may see; null: it is one of ours. */
function complaint(error: unknown): string | null {
  let ours: boolean;
  try {
    ours = error instanceof PerdureError;
  } catch {
    ours = false;
  }
  if (!ours) return `not one of ours: ${error instanceof Error ? error.stack : typeof error}`;
  const { code, message } = error as PerdureError;
  if (!(code in ERROR_CODES) || code === "PERDURE_DATABASE" || code === "PERDURE_CONNECTION")
    return `${code}: ${message}`;
  if (RAW.test(message)) return `raw: ${message}`;
  return message.length > LONGEST_MESSAGE ? `${message.length} characters: ${message.slice(0, 300)}` : null;
}

/** Throws what is wrong with the error of a call; true: the call was carried out. */
async function judged(what: string, call: () => unknown): Promise<boolean> {
  try {
    await call();
    return true;
  } catch (error) {
    const problem = complaint(error);
    if (problem !== null) throw new Error(`${what}: ${problem}`);
    return false;
  }
}

/** As many runs as are asked for, and the seed where one fails. */
async function fuzz<A extends [unknown, ...unknown[]]>(
  t: Test,
  runs: number,
  property: fc.IAsyncPropertyWithHooks<A>,
): Promise<void> {
  t.comment(`PERDURE_SEED=${SEED}`);
  const path = process.env.PERDURE_FUZZ_PATH;
  const numRuns = Math.ceil(runs * TIMES);
  await fc.assert(property, { seed: SEED, numRuns, ...(path === undefined ? {} : { path }) });
  t.equal(polluted(), "", "Object.prototype and its like are untouched");
  t.pass(`${numRuns} runs`);
}

const before = new Map(
  [Object, Array, Function, Map, Set, Error, Promise, Date].map(({ prototype }) => [prototype, keysOf(prototype)]),
);

function keysOf(prototype: object): string {
  return Reflect.ownKeys(prototype).map(String).join();
}

const polluted = (): string =>
  [...before].map(([prototype, keys]) => (keysOf(prototype) === keys ? "" : keysOf(prototype))).join("");

const noop = async (): Promise<void> => {};
const echo = workflow("echo", async (given: unknown) => given);

// ---- definitions: nothing is connected

const DEFINITIONS: Record<string, (a: any, b: any) => unknown> = {
  step: (a, b) => step(a, b),
  "step of options": (a) => step(a, noop),
  "step.with": (a) => step("s", noop).with(a),
  "step called": (a, b) => step("s", async () => 1)(...([a, b] as never as [])),
  transaction: (a, b) => transaction(a, b),
  workflow: (a, b) => workflow(a, b),
  "workflow of options": (a) => workflow(a, noop),
  "workflow.with": (a) => echo.with(a),
  "workflow called": (a) => echo(a),
  event: (a) => event(a),
  "event.wait": (a) => event("e").wait(a),
  value: (a) => value(a),
  "value.set": (a) => value("v").set(a),
  stream: (a) => stream(a),
  "stream.write": (a) => stream<unknown>("s").write(a),
  schedule: (a, b) => schedule(a, b, echo as any, b),
  "schedule of what": (a, b) => schedule("s", b, a),
  sleep: (a, b) => sleep(a, b),
  sleepUntil: (a, b) => sleepUntil(a, b),
  start: (a, b) => start(a, b),
  race: (a) => race(a),
  runStep: (a, b) => runStep(a, typeof b === "function" ? noop : b),
  uuid: (a) => uuid(a),
  random: (a) => random(a),
  patched: (a) => patched(a),
  named: (a, b) => named(a, b),
  durable: (a) => durable(a),
  "@step": (a, b) => step(a)(b, {} as any, {} as any),
  "@transaction": (a, b) => transaction()(a, b, a as any),
  "@workflow": (a, b) => (workflow as any)(a)(b, a),
  "new Perdure": (a) => new Perdure(a),
  encryption: (a) => encryption(a),
  compression: (a) => compression(a),
};

/** Before `new Perdure` they do not look at what they cannot use. */
const PERDURE_KEYS = [
  "schema",
  "listenUrl",
  "workflows",
  "schedules",
  "worker",
  "errors",
  "codec",
  "logger",
  "context",
  "strict",
  "migrate",
  "lease",
  "retention",
  "notify",
  "outside",
  "application",
  "shutdownOn",
];
const OPTION_KEYS = [
  ["name", "retry", "timeout", "input", "output", "onCrash", "version", "queue", "replay", "repeat", "schema"],
  ["id", "onConflict", "queue", "priority", "delay", "startAt", "retry", "timeout", "tags", "detached", "reference"],
  ["cron", "timezone", "every", "overlap", "catchUp"],
  ["type", "maxAttempts", "delay", "baseDelay", "factor", "maxDelay", "shouldRetry"],
  ["days", "hours", "minutes", "seconds", "milliseconds"],
  ["keys", "current", "hashKey", "plaintext", "above", "method"],
  PERDURE_KEYS,
];
const options = fc.oneof(...OPTION_KEYS.map((keys) => optionsWith(...keys)));

test("whatever a definition is handed, it is made, or refused in words of ours", async (t) => {
  const unheard: unknown[] = [];
  const hear = (reason: unknown): void => void unheard.push(reason);
  process.on("unhandledRejection", hear);
  t.teardown(() => void process.off("unhandledRejection", hear));
  const names = Object.keys(DEFINITIONS);
  const property = fc.asyncProperty(fc.constantFrom(...names), options, options, async (name, first, second) => {
    // A promise, so that what a call returns is awaited and what it throws is seen alike.
    await judged(name, () => settled(DEFINITIONS[name]!(build(first), build(second))));
  });
  await fuzz(t, 1000, property);
  await new Promise((resolve) => setImmediate(resolve));
  t.same(unheard, []);
  const untried = Object.keys(perdureNames).filter(
    (name) => /^[a-z]/.test(name) && !names.some((tried) => tried.split(/\W/).includes(name)),
  );
  // They take nothing.
  t.same(untried, ["currentRun", "currentStep", "now"], "every public function is tried");
});

/** Definitions are returned as they are: one may have a `then` that was handed in. */
async function settled(returned: unknown): Promise<void> {
  if (returned instanceof Promise) await returned;
}

// ---- an engine from outside

const news = event<unknown>("news");
const shown = value<unknown>("shown");
const items = stream<unknown>("items");
const waits = workflow("waits", async () => (await news.wait()).data);

/** Starts, sends and schedules that were told to be there. */
interface Told {
  starts: number;
  sends: number;
}

function callsOf(world: Bench, done: string, open: string): Record<string, (a: any, b: any, told: Told) => unknown> {
  const perdure = world.perdure as any;
  const counted = async (told: Told, work: () => Promise<any>): Promise<void> => {
    const run = await work();
    told.starts += run === undefined ? 0 : 1;
  };
  const each: Record<string, (a: any, b: any, told: Told) => unknown> = {
    start: (a, b, told) => counted(told, () => perdure.start(a, b)),
    "start.with": (a, b, told) => counted(told, () => perdure.start(echo.with(a), b)),
    "start of a value": (a, _, told) => counted(told, () => perdure.start(echo, a)),
    get: (a, b) => perdure.get(a, b),
    "get(id)": (a) => perdure.get(a).status(),
    send: async (a, b, told) => {
      await perdure.send(open, news, a, b);
      told.sends += 1;
    },
    "send to": (a, b) => perdure.send(a, news, 1, b),
    "send to many": (a, b) => perdure.send([a, b], news, 1),
    "send what": (a, b) => perdure.send(open, a, b),
    list: (a) => perdure.list(a),
    "list after": (a) => perdure.list({ after: a }),
    cancel: (a, b) => perdure.cancel(a, b),
    "cancel these": (a, b) => perdure.cancel([a], { reason: b }),
    retry: (a, b) => perdure.retry(a, b),
    drain: (a) => perdure.drain(a),
    "drain until": (a) => perdure.drain({ deadline: a }),
    using: (a) => perdure.using(a),
    "schedules.list": (a) => perdure.schedules.list(a),
    "schedules.pause": (a) => perdure.schedules.pause(a),
    "schedules.resume": (a) => perdure.schedules.resume(a),
    "schedules.trigger": (a) => perdure.schedules.trigger(a),
    "schedules.delete": (a) => perdure.schedules.delete(a),
    "schedules.put": (a) => perdure.schedules.put(a),
    "schedules.put of": async (a, b) => {
      await perdure.schedules.put(schedule("fuzzed", a, echo, b));
      await perdure.schedules.delete("fuzzed");
    },
  };
  for (const id of [done, "nobody"]) {
    const handle = perdure.get(id);
    for (const verb of ["result", "cancel", "retry", "get"]) each[`${verb} of ${id}`] = (a) => handle[verb](a);
    for (const verb of ["status", "history", "pause", "resume", "wake"])
      each[`${verb} of ${id}`] = () => handle[verb]();
    each[`send to ${id}`] = (a, b) => handle.send(a, b);
    each[`fork of ${id}`] = (a, _, told) => counted(told, () => handle.fork(a));
    each[`watch of ${id}`] = (a, b) => handle.watch(a, b)[Symbol.asyncIterator]().next();
    each[`watch with of ${id}`] = (a) => handle.watch(shown, a)[Symbol.asyncIterator]().next();
    each[`read of ${id}`] = (a, b) => handle.read(a, b)[Symbol.asyncIterator]().next();
    each[`read with of ${id}`] = (a) => handle.read(items, a)[Symbol.asyncIterator]().next();
  }
  return each;
}

const CALL_KEYS = [
  ["id", "onConflict", "queue", "priority", "delay", "startAt", "retry", "timeout", "tags", "detached"],
  ["reference", "ignoreFinished", "timeout", "signal", "from", "version", "replay", "reason", "max", "deadline"],
  [
    "workflow",
    "version",
    "state",
    "queue",
    "tags",
    "idPrefix",
    "createdAfter",
    "createdBefore",
    "limit",
    "after",
    "prefix",
  ],
  ["cron", "timezone", "every", "overlap", "catchUp"],
];
const callOptions = fc.oneof(...CALL_KEYS.map((keys) => optionsWith(...keys)));

test("whatever an engine or a handle is handed, it is done, or refused in words of ours with nothing stored", async (t) => {
  const world = await coldBench(t, { workflows: [echo, waits] });
  await (await world.perdure.start(echo.with({ id: "done" }), 1)).result();
  const count = async (): Promise<string> => {
    const [row] =
      await world.sql(`select (select count(*) from :SCHEMA.run) || ' runs, ' || (select count(*) from :SCHEMA.input)
      || ' inputs, ' || (select count(*) from :SCHEMA.mail) || ' events, ' || (select count(*) from :SCHEMA.schedule) || ' schedules' as n`);
    return row.n;
  };
  let rounds = 0;
  const names = Object.keys(callsOf(world, "done", "open"));
  const call = fc.tuple(fc.constantFrom(...names), callOptions, callOptions);
  const property = fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 8 }), async (calls) => {
    rounds += 1;
    const open = `open-${rounds}`;
    await world.perdure.start(waits.with({ id: open, delay: "10d" }));
    const [runs, mails] = (await count()).match(/\d+/g)!.map(Number) as [number, number, number, number];
    const told: Told = { starts: 0, sends: 0 };
    const all = callsOf(world, "done", open);
    const one = async (name: string, a: Recipe, b: Recipe): Promise<void> => {
      // A signal's own reason is what its user threw.
      await judged(name, () => quietlyAborted(() => all[name]!(build(a), build(b), told)));
    };
    await Promise.all(calls.map(([name, a, b]) => one(name, a, b)));
    const [runsNow, inputs, , schedules] = (await count()).match(/\d+/g)!.map(Number) as [
      number,
      number,
      number,
      number,
    ];
    const [{ n: sent }] = await world.sql(
      "select count(*)::integer as n from :SCHEMA.mail m join :SCHEMA.run r on r.key = m.run where r.id = $1",
      [open],
    );
    void mails;
    // Equal ids are one run; a start of a taken id with equal input is that run.
    assert.ok(runsNow <= runs + told.starts, `${runsNow - runs} runs after ${told.starts} starts`);
    assert.equal(inputs, runsNow, "a run has its input");
    assert.ok(sent <= told.sends, `${sent} events after ${told.sends} sends`);
    assert.equal(schedules, 0);
  });
  await fuzz(t, 60, property);
  t.equal(await (await world.perdure.start(echo, "still works")).result(PATIENCE), "still works");
});

async function quietlyAborted(work: () => unknown): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Error && error.message === "aborted by the test")) throw error;
  }
}

// ---- values through a run

const copy = step("copy", async (given: unknown) => given);
const carry = workflow("carry", async (given: unknown) => {
  const returned = await copy(given);
  await shown.set(given);
  await items.write(given);
  const { data } = await news.wait();
  return { given, returned, data };
});

test("whatever is passed on comes back equal from a start, a step, an event, a value and a stream, or is refused at the call", async (t) => {
  const { perdure, sql } = await coldBench(t, { workflows: [carry] });
  let ids = 0;
  const one = async (given: Recipe): Promise<void> => {
    ids += 1;
    const id = `run-${ids}`;
    const accepted = await judged("start", () => perdure.start(carry.with({ id }), build(given)));
    const [{ n }] = await sql("select count(*)::integer as n from :SCHEMA.run where id = $1", [id]);
    assert.equal(n, accepted ? 1 : 0);
    // An error is always stored, as much of it as goes; as an argument it needs a hash too.
    if (!accepted && /deep causes|"error/.test(JSON.stringify(given))) return;
    if (!accepted) {
      await perdure.start(carry.with({ id }), "good");
      assert.equal(await judged("send", () => perdure.send(id, news, build(given))), false);
      await perdure.send(id, news, "good");
      const good = { given: "good", returned: "good", data: "good" };
      assert.deepEqual(await perdure.get(id).result(PATIENCE), good);
      return;
    }
    await perdure.send(id, news, build(given));
    const result = await perdure.get(carry, id).result(PATIENCE).catch(failureOf);
    if (!isComparable(given) || isPerdures(result)) return;
    const expected = build(given);
    assert.deepStrictEqual(result, { given: expected, returned: expected, data: expected ?? null });
    assert.deepStrictEqual(await perdure.get(id).get(shown), expected);
    const read = await perdure.get(id).read(items)[Symbol.asyncIterator]().next();
    assert.deepStrictEqual(read.value, expected);
    const [entry] = (await perdure.get(id).history()).filter(({ name }) => name === "copy") as any;
    assert.deepStrictEqual(entry.value, expected);
  };
  const property = fc.asyncProperty(fc.array(recipe, { minLength: 1, maxLength: 10 }), async (given) => {
    await Promise.all(given.map(one));
  });
  await fuzz(t, 20, property);
});

/** A run may fail where three copies together are too large or too deep. */
function failureOf(error: Error): unknown {
  const problem = complaint(error) ?? complaint(error.cause);
  if (problem !== null) throw new Error(`result: ${problem}`);
  return error.cause;
}

const isPerdures = (given: unknown): boolean => given instanceof PerdureError;

// ---- inside a body

type Op = readonly [verb: string, a: Recipe, b: Recipe];

let called = new Map<string, number>();

const child = workflow("child", async (given: unknown) => given);
const asleep = workflow("asleep", async () => void (await sleep("10d")));

const VERBS: Record<string, (a: any, b: any, at: string) => unknown> = {
  step: (a, b, at) => step(a, async () => ran(at, b))(),
  "step of": (a, _, at) => step("s", async (given: unknown) => ran(at, given))(a),
  "step.with": (a, b, at) => step("s", async () => ran(at, 1)).with(a)(...([b] as never as [])),
  runStep: (a, b, at) => runStep(a, () => ran(at, b)),
  transaction: (a, b, at) => transaction(a, async () => ran(at, b))(),
  throws: (a) =>
    runStep("throws", () => {
      throw a;
    }).catch((error) => typeof error),
  sleep: (a) => sleep(a, 0),
  "sleep for": (a) => sleep(soon(a)),
  sleepUntil: (a) => sleepUntil(a),
  "sleepUntil by name": (a) => sleepUntil(a, new Date(0)),
  wait: (a) => event(a).wait({ timeout: 0 }),
  "wait for": (a) => news.wait({ timeout: soon(a) }),
  set: (a, b) => value(a).set(b),
  write: (a, b) => stream(a).write(b),
  uuid: (a) => uuid(a),
  random: (a) => random(a),
  patched: (a) => patched(a),
  child: (a) => child(a),
  start: async (a) => (await start(child, a)).result(),
  "child.with": async (a, b) => (await start(child.with({ ...at(a, ["id", "tags", "queue", "priority"]) }), b)).id,
  "child.send": async (a, b) => (await start(asleep.with({ detached: true }))).send(a, b as never),
  "child.cancel": async (a) => (await start(asleep)).cancel(a),
  "child.result": async (a) => (await start(child, 1)).result(a),
  race: (a) => race({ a, timer: 0 } as any),
  "race among": (a) => race({ ...at(a, ["id", "tags", "queue", "key"]), timer: 0 }),
  log: (a, b) => currentRun().log.info(a, b),
};

function ran<T>(at: string, returned: T): T {
  called.set(at, (called.get(at) ?? 0) + 1);
  return returned;
}

/** Only these options, which keep no run waiting. */
function at(given: any, keys: readonly string[]): object {
  try {
    return Object.fromEntries(keys.filter((key) => given?.[key] !== undefined).map((key) => [key, given[key]]));
  } catch {
    return {};
  }
}

/** Only durations that are short. */
const soon = (given: unknown): any =>
  given === 0 || given === 1 ? given : typeof given === "number" ? -Math.abs(given) : [given];

const interpret = workflow({ name: "interpret", timeout: "120s" }, async (run: string, ops: readonly Op[]) => {
  const told: string[] = [];
  for (const [index, [verb, a, b]] of ops.entries()) {
    try {
      await VERBS[verb]!(build(a), build(b), `${run} ${index}`);
      told.push("ok");
    } catch (error) {
      // A value with a `then` is awaited, as any is that a function returns.
      told.push(
        /^recipe: (then|trap get|getter)$/.test(String((error as Error)?.message))
          ? "the test's"
          : `${verb}: ${complaint(error) ?? "ours"}`,
      );
    }
  }
  return told;
});

test("whatever a body hands to what is durable, it works, live and on replay, or is refused in words of ours", async (t) => {
  const { perdure, sql } = await coldBench(t, {
    workflows: [interpret, child, asleep],
    worker: { concurrency: 300 },
    logger: { ...collector(), child: () => collector() } as never,
  });
  let ids = 0;
  const op = fc.tuple(fc.constantFrom(...Object.keys(VERBS)), optionsWith(...OPTION_KEYS[1]!), recipe);
  const program = fc.array(op, { minLength: 1, maxLength: 8 });
  const property = fc.asyncProperty(fc.array(program, { minLength: 1, maxLength: 6 }), async (programs) => {
    called = new Map();
    const one = async (ops: readonly Op[]): Promise<void> => {
      // The program is the run's input.
      if (Buffer.byteLength(JSON.stringify(ops)) > 500_000) return;
      ids += 1;
      const run = await perdure.start(interpret.with({ id: `i-${ids}` }), `i-${ids}`, ops);
      const told = await Promise.race([run.result(PATIENCE), whyBlocked(run)]);
      const wrong = told.filter((line) => !/^ok$|: ours$|^the test's$/.test(line));
      assert.deepEqual(wrong, []);
      for (const entry of await run.history()) assert.equal(typeof entry.name, "string");
    };
    await Promise.all(programs.map(one));
    assert.deepEqual(
      [...called].filter(([, times]) => times > 1),
      [],
      "a step whose outcome was recorded ran again",
    );
  });
  await fuzz(t, 15, property);
  const stuck = await sql(
    "select id, state, reason from :SCHEMA.runs where state in ('blocked', 'failed') and id not like 'i-%'",
  );
  t.same(stuck, []);
});

/** Waits for a run to be blocked, which it never is to be. */
async function whyBlocked(run: { status(): Promise<{ state: string; reason: string | null }> }): Promise<never> {
  for (;;) {
    const { state, reason } = await run.status();
    if (state === "blocked") throw new Error(`blocked: ${reason}`);
    await new Promise((resolve) => setTimeout(resolve, 1000).unref());
    if (["completed", "failed"].includes(state)) return new Promise(() => {});
  }
}

// ---- SQL

const json = fc.oneof(
  { weight: 4, arbitrary: fc.json() },
  { weight: 2, arbitrary: fc.array(fc.jsonValue(), { maxLength: 3 }).map((args) => JSON.stringify(args)) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      '["\\u0000"]',
      '["\\ud800"]',
      "[1e400]",
      "[1,",
      "",
      "null",
      "[[]]",
      '{"a":1,"a":2}',
      `${"[".repeat(2000)}${"]".repeat(2000)}`,
      `[${"9".repeat(400)}]`,
      `["${"x".repeat(1_048_577)}"]`,
    ),
  },
);
const sqlText = fc.oneof(
  { weight: 6, arbitrary: text.map((given) => given.replace(/[\0\p{Cs}]/gu, "?")) },
  {
    weight: 2,
    arbitrary: fc.constantFrom("waits", "echo", "open", "done", "news", "1", "default", "error", "return_existing"),
  },
  { weight: 1, arbitrary: fc.constant(null) },
);
const number = fc.oneof(fc.integer(), fc.constantFrom(null, 0, 1, -32768, 32767, 32768));
const interval = fc.oneof(
  fc.constantFrom(
    null,
    "0",
    "1 day",
    "-1 second",
    "365000 days",
    "365001 days",
    "178000000 years",
    "-178000000 years",
    "1e3 hours",
    "soon",
  ),
  sqlText,
);
const SQL_VERBS: Record<string, fc.Arbitrary<unknown>[]> = {
  "start_run($1, $2, $3, $4, $5, $6, $7, $8)": [sqlText, json, sqlText, sqlText, sqlText, number, interval, sqlText],
  "start_run('waits', $1, id => $2)": [json, sqlText],
  "start_run('echo', $1, delay => $2)": [json, interval],
  "send_event($1, $2, $3, $4)": [sqlText, sqlText, json, sqlText],
  "send_event('open', 'news', $1, $2)": [json, sqlText],
  "cancel_run($1, $2)": [sqlText, sqlText],
  "cancel_run('done', $1)": [sqlText],
  "pause_run($1)": [sqlText],
  "resume_run($1)": [sqlText],
  "wake_run($1)": [sqlText],
  "grant_to($1, $2, $3)": [sqlText, sqlText, sqlText],
  "grant_to(current_user, $1, $2)": [sqlText, sqlText],
  "revoke_from($1)": [sqlText],
};

test("whatever the SQL verbs are called with, they work, or raise a SQLSTATE of ours with a text that is short, and store nothing", async (t) => {
  const world = await coldBench(t, { workflows: [echo, waits] });
  const sql = await stranger(t, world);
  await (await world.perdure.start(echo.with({ id: "done" }), 1)).result();
  await world.perdure.start(waits.with({ id: "open", delay: "10d" }));
  const verbs = Object.entries(SQL_VERBS).map(([call, args]) => fc.tuple(fc.constant(call), fc.tuple(...args)));
  const count = async (): Promise<string> => {
    const [row] =
      await sql(`select (select count(*) from :SCHEMA.run) || '/' || (select count(*) from :SCHEMA.mail) || '/' ||
      (select count(*) from :SCHEMA.input) || '/' || (select sum(mail) from :SCHEMA.run) as n`);
    return row.n;
  };
  const property = fc.asyncProperty(fc.oneof(...verbs), async ([call, values]) => {
    const earlier = await count();
    try {
      await sql(`select :SCHEMA.${call}`, values);
      return;
    } catch (error) {
      const { code, message, where = "" } = error as { code: string; message: string; where?: string };
      // A text that is no JSON, interval or integer is refused by Postgres before a function of ours is called.
      const casts = /^22(P02|003|007|008|015|P05)$|^54001$/.test(code) && !where.includes("PL/pgSQL");
      assert.ok(casts || /^PD00[1-5]$/.test(code), `${code}: ${message} ${where}`);
      assert.ok(casts || message.length < 1500, `${message.length} characters`);
    }
    assert.equal(await count(), earlier, "something of a refused call was stored");
  });
  await fuzz(t, 250, property);
  const [{ id }] = await sql("select :SCHEMA.start_run('echo', '[1]') as id");
  t.equal(await world.perdure.get(id).result(PATIENCE), 1);
});
