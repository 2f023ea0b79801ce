/** Bad input gets an error in words, at the call: nothing is stored of it, nothing that was stored is lost. */
import { test } from "tap";
import {
  currentRun,
  currentStep,
  type Duration,
  event,
  now,
  Perdure,
  PerdureError,
  type PerdureOptions,
  type Retry,
  type RunHandle,
  random,
  runStep,
  type Schema,
  sleep,
  sleepUntil,
  step,
  transaction,
  uuid,
  type Workflow,
  workflow,
} from "../lib/index.ts";
import { type Bench, bench, coldBench, collector } from "./support/engine.ts";
import { eventually } from "./support/eventually.ts";
import { refusal } from "./support/refusal.ts";

const DEADLINE_MS = 10_000;
const NAME_RULE =
  "it must be 1 to 255 bytes of UTF-8 text without control characters, lone surrogates or blanks at its ends";
const TIME_RULE =
  'write milliseconds, a string such as "250ms", "30m" or "1h30m", or an object such as { minutes: 30 }';

type Refusal = ReturnType<typeof refusal>;

/** The same for a call that rejects. */
async function rejection(call: () => unknown): Promise<Refusal> {
  const error = await Promise.resolve()
    .then(call)
    .then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
  return error === undefined
    ? undefined
    : refusal(() => {
        throw error;
      });
}

const said = (code: string, message: string, name = "PerdureError"): Refusal => ({ name, code, message });
const option = (message: string): Refusal => said("PERDURE_OPTION", message);

/** What plain JavaScript may hand in. */
const hostile = (): unknown[] => {
  const refuses = (): never => {
    throw new Error("this Proxy refuses everything");
  };
  const handler = new Proxy({}, { get: () => refuses });
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  const getter = Object.defineProperty({}, "name", { get: refuses, enumerable: true });
  return [
    undefined,
    null,
    0,
    Number.NaN,
    -1,
    10n,
    true,
    "",
    "\0",
    "\ud800",
    "é".repeat(150),
    Symbol("s"),
    [],
    {},
    Object.create(null),
    () => {},
    new Date(Number.NaN),
    new Date(8.64e15),
    new Map(),
    new Error("e"),
    new Proxy({}, handler),
    new Proxy(() => {}, handler),
    new Proxy([], handler),
    new Proxy(new Date(), {}),
    revoked.proxy,
    getter,
    JSON.parse('{"__proto__": {"polluted": true}}'),
    { constructor: { prototype: { polluted: true } } },
  ];
};

async function isEmpty({ sql }: Bench): Promise<boolean> {
  const [row] = await sql("select (select count(*) from :SCHEMA.run) + (select count(*) from :SCHEMA.mail) as rows");
  return Number(row.rows) === 0;
}

/** Why the run is blocked, once it is. */
function blocked(run: RunHandle): Promise<string> {
  return eventually(async () => {
    const { state, reason } = await run.status();
    return state === "blocked" ? reason : null;
  }, DEADLINE_MS);
}

// ---- definitions, no database

test("an option that nobody reads is refused with the one that was meant, wherever options are taken", async (t) => {
  const noop = async (): Promise<void> => {};
  const w = workflow("w", noop);
  const s = step("s", noop);
  const unknown = (key: string, where: string, meant: string): Refusal =>
    option(`unknown option "${key}" of ${where}; did you mean "${meant}"?`);
  const cases: [() => unknown, Refusal][] = [
    [() => new Perdure({ scheme: "x" } as PerdureOptions), unknown("scheme", "new Perdure()", "schema")],
    [
      () => new Perdure({ worker: { concurency: 1 } } as PerdureOptions),
      unknown("concurency", "worker of new Perdure()", "concurrency"),
    ],
    [() => step({ name: "s", retires: 3 } as never, noop), unknown("retires", 'step "s"', "retry")],
    [() => transaction({ name: "x", timeuot: 3 } as never, noop), unknown("timeuot", 'transaction "x"', "timeout")],
    [() => workflow({ name: "w", que: "q" } as never, noop), unknown("que", 'workflow "w"', "queue")],
    [() => event({ name: "e", scheme: {} } as never), unknown("scheme", 'event "e"', "schema")],
    [() => s.with({ ref: "r" } as never), unknown("ref", 'with() of step "s"', "reference")],
    [
      () => s.with({ reference: { id: "r", onConflct: "error" } } as never),
      unknown("onConflct", 'reference in with() of step "s"', "onConflict"),
    ],
    [() => w.with({ prio: 1 } as never), unknown("prio", 'with() of workflow "w"', "priority")],
    [
      () => step({ name: "s", retry: { type: "fixed", maxAttempts: 2, delai: 1 } as never }, noop),
      unknown("delai", 'retry of step "s"', "delay"),
    ],
    [
      () => step({ name: "s", retry: { type: "exponetial" } as never }, noop),
      option('unknown type "exponetial" in retry of step "s"; did you mean "exponential"?'),
    ],
    [
      () => step({ name: "s", timeout: { minute: 1 } as never }, noop),
      unknown("minute", 'timeout of step "s"', "minutes"),
    ],
    [
      () => step({ name: "s", onCrash: "retyr" as never }, noop),
      option('onCrash of step "s" cannot be "retyr"; did you mean "retry"?'),
    ],
    [
      () => workflow({ name: "w", replay: "loose" as never }, noop),
      option('replay of workflow "w" cannot be "loose"; it must be one of "strict", "flexible"'),
    ],
    [
      () => step({ name: "s", colour: 1 } as never, noop),
      option('unknown option "colour" of step "s"; it takes name, retry, timeout, input, output, onCrash'),
    ],
  ];
  for (const [call, expected] of cases) t.strictSame(refusal(call), expected, expected!.message as string);
  t.strictSame(
    await rejection(() => new Perdure().shutdown({ timeuot: 1 } as never)),
    unknown("timeuot", "shutdown()", "timeout"),
  );
});

test("names that cannot be stored are refused where they are given, with their size and the rule", async (t) => {
  const noop = async (): Promise<void> => {};
  const bad: [string, string][] = [
    ["", '"" (0 bytes) is empty'],
    ["a\0b", '"a\\u0000b" (3 bytes) contains a control character'],
    ["a\ud800", '"a\\ud800" (4 bytes) contains a lone surrogate'],
    ["x".repeat(300), `"${"x".repeat(60)}"… (300 bytes) is too long`],
    ["é".repeat(150), `"${"é".repeat(60)}"… (300 bytes) is too long`],
  ];
  for (const [name, why] of bad) {
    const refused = (what: string): Refusal => said("PERDURE_NAME", `${what} ${why}; ${NAME_RULE}`);
    t.strictSame(
      refusal(() => step(name, noop)),
      refused("step name"),
    );
    t.strictSame(
      refusal(() => transaction({ name }, noop)),
      refused("transaction name"),
    );
    t.strictSame(
      refusal(() => workflow(name, noop)),
      refused("workflow name"),
    );
    t.strictSame(
      refusal(() => workflow({ name: "w", version: name }, noop)),
      refused('version of workflow "w"'),
    );
    t.strictSame(
      refusal(() => workflow({ name: "w", queue: name }, noop)),
      refused('queue of workflow "w"'),
    );
    t.strictSame(
      refusal(() => event(name)),
      refused("event name"),
    );
    t.strictSame(
      refusal(() => workflow("w", noop).with({ id: name })),
      refused("run id"),
    );
    t.strictSame(
      refusal(() => step("s", noop).with({ reference: name })),
      refused('reference in with() of step "s"'),
    );
    t.strictSame(
      refusal(() => new Perdure({ worker: { queues: [name] } })),
      refused("queue in worker of new Perdure()"),
    );
  }
});

test("a schema name that Postgres would not take is refused", async (t) => {
  const rule =
    "it must be 1 to 63 bytes of UTF-8 text without control characters or lone surrogates, not beginning with pg_";
  const cases: [string, string][] = [
    ["", '"" (0 bytes) is empty'],
    ["pg_perdure", '"pg_perdure" (10 bytes) begins with pg_, which Postgres keeps for itself'],
    ["x".repeat(64), `"${"x".repeat(60)}"… (64 bytes) is too long`],
    ["a\0", '"a\\u0000" (2 bytes) contains a control character'],
  ];
  for (const [schema, why] of cases) {
    t.strictSame(
      refusal(() => new Perdure({ schema })),
      said("PERDURE_NAME", `schema name ${why}; ${rule}`),
    );
  }
});

test("times, counts and policies out of range are refused, each with its rule", (t) => {
  const noop = async (): Promise<void> => {};
  const w = workflow("w", noop);
  const timeout = (value: unknown) => () => step({ name: "s", timeout: value as Duration }, noop);
  const retry = (value: unknown) => () => step({ name: "s", retry: value as Retry }, noop);
  const wrongTime = (shown: string, why: string): Refusal =>
    option(`timeout of step "s" is ${shown}, which is ${why}; ${TIME_RULE}`);
  const attempts = (shown: string): Refusal =>
    option(
      `maxAttempts in retry of step "s" must be a whole number of at least 1, which counts the first attempt, or Infinity, not ${shown}`,
    );
  const fixed = (maxAttempts: unknown) => retry({ type: "fixed", maxAttempts, delay: 0 });
  const growing = (more: object) => retry({ type: "exponential", maxAttempts: 2, baseDelay: 1, ...more });
  const cases: [() => unknown, Refusal][] = [
    [timeout(Number.NaN), wrongTime("NaN", "not finite")],
    [timeout(Infinity), wrongTime("Infinity", "not finite")],
    [timeout(-5), wrongTime("-5", "negative")],
    [timeout("30"), wrongTime('"30"', "not a duration")],
    [timeout("30 minutes"), wrongTime('"30 minutes"', "not a duration")],
    [timeout(1e18), wrongTime("1000000000000000000", "longer than 365000 days")],
    [timeout({}), wrongTime("{}", "not a duration")],
    [timeout(null), wrongTime("null", "not a duration")],
    [fixed(-1), attempts("-1")],
    [fixed(0), attempts("0")],
    [fixed(1.5), attempts("1.5")],
    [fixed(Number.NaN), attempts("NaN")],
    [fixed("3"), attempts('"3"')],
    [
      retry({ type: "fixed", maxAttempts: 2, delay: -1 }),
      option(`delay in retry of step "s" is -1, which is negative; ${TIME_RULE}`),
    ],
    [
      growing({ baseDelay: Number.NaN }),
      option(`baseDelay in retry of step "s" is NaN, which is not finite; ${TIME_RULE}`),
    ],
    [growing({ factor: 0.5 }), option('factor in retry of step "s" must be a finite number of at least 1, not 0.5')],
    [growing({ shouldRetry: 1 }), option('shouldRetry in retry of step "s" must be a function, not 1')],
    [
      retry(3),
      option(
        'retry of step "s" must be a plain object, not 3; write { type: "fixed", maxAttempts: 3, delay: "1s" } or another type',
      ),
    ],
    [
      () => w.with({ priority: 1e9 }),
      option('priority in with() of workflow "w" must be a whole number from -32768 to 32767, not 1000000000'),
    ],
    [
      () => w.with({ startAt: new Date("+012026-01-01") }),
      option(
        'startAt in with() of workflow "w" must be a valid Date of the years 1 to 9999, not +012026-01-01T00:00:00.000Z',
      ),
    ],
    [
      () => w.with({ startAt: new Date(Number.NaN) }),
      option('startAt in with() of workflow "w" must be a valid Date of the years 1 to 9999, not Invalid Date'),
    ],
    [
      () => w.with({ delay: "1w" as never }),
      option(`delay in with() of workflow "w" is "1w", which is not a duration; ${TIME_RULE}`),
    ],
    [
      () => w.with({ retry: { type: "never", shouldRetry: () => true } }),
      option(
        'shouldRetry in with() of workflow "w" is a function, which cannot travel with a run; put it on the workflow\'s own retry',
      ),
    ],
    ...[0, -1, 1.5, "5", Number.NaN, 10_001].map((concurrency): [() => unknown, Refusal] => [
      () => new Perdure({ worker: { concurrency: concurrency as number } }),
      option(
        `concurrency of new Perdure() must be a whole number from 1 to 10000, not ${typeof concurrency === "string" ? '"5"' : concurrency}`,
      ),
    ]),
    [() => new Perdure({ lease: "10ms" }), option('lease of new Perdure() must be from 1s to 1d, not "10ms"')],
    [() => new Perdure({ lease: "2d" }), option('lease of new Perdure() must be from 1s to 1d, not "2d"')],
    [
      () => new Perdure({ worker: true as never }),
      option("options of worker of new Perdure() must be a plain object, not true"),
    ],
    [
      () => new Perdure({ migrate: "no" as never }),
      option('option "migrate" of new Perdure() must be true or false, not "no"'),
    ],
    [
      () => new Perdure({ logger: { warn() {} } as never }),
      option(
        "logger of new Perdure() must have the functions debug, info, warn, error, as console has; it is { warn: [Function: warn] }",
      ),
    ],
    [
      () => new Perdure({ errors: [Map as never] }),
      option("errors of new Perdure() holds [Function: Map], which is no class that extends Error"),
    ],
    [
      () => new Perdure({ shutdownOn: ["SIGTREM" as never] }),
      option('a signal in shutdownOn of new Perdure() cannot be "SIGTREM"; did you mean "SIGTERM"?'),
    ],
    [
      () => new Perdure({ listenUrl: "mysql://u:hunter2@h" }),
      option("listenUrl of new Perdure() must be a Postgres URL such as postgres://user:password@host:5432/app"),
    ],
  ];
  for (const [call, expected] of cases) t.strictSame(refusal(call), expected, expected!.message as string);
  t.end();
});

test("two definitions with one name and version, and copies for one run, are not registered", (t) => {
  const make = (version = "1"): Workflow<[], void> => workflow({ name: "order", version }, async () => {});
  const one = make();
  t.match(
    refusal(() => new Perdure({ workflows: [one, make()] })),
    {
      code: "PERDURE_DUPLICATE",
      message:
        /^two workflows named "order" have version "1": a function at \S+:\d+, and a function at \S+:\d+; give one another name or version$/,
    },
  );
  t.doesNotThrow(() => new Perdure({ workflows: [one, one, one.with({ queue: "q" }), make("2")] }));
  for (const options of [{ id: "a" }, { delay: 5 }, { startAt: new Date() }]) {
    t.strictSame(
      refusal(() => new Perdure({ workflows: [one.with(options as object)] })),
      option(
        'workflows of new Perdure() holds a copy of workflow "order" that names one particular run; pass the workflow itself',
      ),
    );
  }
  t.strictSame(
    refusal(() => new Perdure({ workflows: [step("s", async () => {}) as never] })),
    option("workflows of new Perdure() holds [Function: s] { with: [Function: with] }, which workflow() did not make"),
  );
  t.end();
});

test("whatever plain JavaScript hands to a definition, the error is one of ours", (t) => {
  const noop = async (): Promise<void> => {};
  const calls: Record<string, (value: any) => unknown> = {
    "step(value)": (value) => step(value, noop),
    "step(, value)": (value) => step("s", value),
    "step({ retry })": (retry) => step({ name: "s", retry }, noop),
    "step({ timeout })": (timeout) => step({ name: "s", timeout }, noop),
    "step({ input })": (input) => step({ name: "s", input }, noop),
    "step().with(value)": (value) => step("s", noop).with(value),
    "step().with({ reference })": (reference) => step("s", noop).with({ reference }),
    "transaction(value)": (value) => transaction(value, noop),
    "workflow(value)": (value) => workflow(value, noop),
    "workflow(, value)": (value) => workflow("w", value),
    "workflow({ queue })": (queue) => workflow({ name: "w", queue }, noop),
    "workflow().with(value)": (value) => workflow("w", noop).with(value),
    "workflow().with({ startAt })": (startAt) => workflow("w", noop).with({ startAt }),
    "event(value)": (value) => event(value),
    "event({ schema })": (schema) => event({ name: "e", schema }),
    "new Perdure(value)": (value) => new Perdure(value),
    "sleep(value)": (value) => sleep(value),
    "sleepUntil(value)": (value) => sleepUntil(value),
    "runStep(value)": (value) => runStep(value, value),
    "event().wait(value)": (value) => event("e").wait(value),
    "uuid(value)": (value) => uuid(value),
    "random(value)": (value) => random(value),
  };
  for (const key of [
    "workflows",
    "worker",
    "errors",
    "logger",
    "lease",
    "shutdownOn",
    "schema",
    "listenUrl",
    "sessionLock",
    "notify",
  ]) {
    calls[`new Perdure({ ${key} })`] = (value) => new Perdure({ [key]: value });
  }
  const wrong: string[] = [];
  for (const [name, call] of Object.entries(calls)) {
    for (const [at, value] of hostile().entries()) {
      try {
        void call(value);
      } catch (error) {
        if (!(error instanceof PerdureError)) wrong.push(`${name} with hostile value ${at}: ${(error as Error).stack}`);
      }
    }
  }
  t.same(wrong, []);
  t.notOk(({} as { polluted?: boolean }).polluted);
  t.end();
});

// ---- values

test("an argument that cannot be stored is refused by start with its path, and nothing is stored", async (t) => {
  const w = workflow("order", async (_input: unknown) => "ok");
  const world = await bench(t, { workflows: [w] });
  class Money {}
  const at = (path: string, problem: string, fix: string): Refusal =>
    said("PERDURE_SERIALIZE", `input of workflow "order": cannot store $[0]${path}: ${problem}; ${fix}`);
  const sparse = [1];
  sparse[2] = 3;
  const throwing = {
    get price(): number {
      throw new Error("no price");
    },
  };
  let deep: unknown = 1;
  for (let level = 0; level < 10_001; level += 1) deep = { deep };
  const cases: [unknown, Refusal][] = [
    [{ items: [1, 2, { price: () => 1 }] }, at(".items[2].price", "function", "pass data, not code")],
    [{ tag: Symbol("x") }, at(".tag", "symbol", "pass a string")],
    [{ user: Promise.resolve(1) }, at(".user", "Promise", "await it first")],
    [{ price: new Money() }, at(".price", "instance of Money", "pass a plain object")],
    [{ weak: new WeakMap() }, at(".weak", "instance of WeakMap", "pass a plain object")],
    [{ when: new Date(Number.NaN) }, at(".when", "invalid Date", "check it before you pass it")],
    [{ list: sparse }, at(".list[1]", "hole in a sparse array", "fill it with null or undefined")],
    [{ a: throwing }, at(".a.price", "reading it threw Error: no price", "pass plain data")],
  ];
  for (const [input, expected] of cases) {
    const actual = await rejection(() => world.perdure.start(w, input));
    t.equal(actual?.code, expected!.code);
    t.equal(actual?.message, expected!.message);
  }
  t.match(await rejection(() => world.perdure.start(w, deep)), {
    code: "PERDURE_SERIALIZE",
    message: /^input of workflow "order": cannot store \$.*nested deeper than 1,000 levels; flatten it$/s,
  });
  for (const [at, value] of hostile().entries()) {
    const refused = await rejection(() => world.perdure.start(w.with({ id: `ok-${at}` }), value));
    if (refused) t.match(refused.code, /^PERDURE_SERIALIZE$/, `hostile value ${at}`);
    else t.equal(await world.perdure.get(`ok-${at}`).result(), "ok");
  }
  t.notOk(({} as { polluted?: boolean }).polluted);
  t.equal((await world.sql("select count(*)::int as n from :SCHEMA.run where id not like 'ok-%'"))[0].n, 0);
});

test("a value above 1 MiB is refused with its size and where most of it is", async (t) => {
  const big = "x".repeat(1_048_576);
  const w = workflow("order", async (_input: unknown) => "ok");
  const news = event<unknown>("news");
  const world = await bench(t, { workflows: [w] });
  const text = (what: string, size: number, path: string): Refusal =>
    said(
      "PERDURE_TOO_LARGE",
      `${what}: the value is too large: ${size} bytes, the limit is 1048576, most of it in ${path}; store it elsewhere and pass its key`,
    );
  t.strictSame(
    await rejection(() => world.perdure.start(w, { note: 1, body: big })),
    text('input of workflow "order"', 1_048_607, "$[0].body"),
  );
  t.strictSame(
    await rejection(() => world.perdure.start(w, 10n ** 2_000_000n)).then((refused) => refused?.code),
    "PERDURE_TOO_LARGE",
  );
  t.ok(await isEmpty(world));
  const run = await world.perdure.start(w, "small");
  await run.result();
  t.strictSame(await rejection(() => run.send(news, { body: big })), text('data of event "news"', 1_048_596, "$.body"));
});

test("what a step or a body returns or passes on and cannot be stored fails there, in words, and is not tried again", async (t) => {
  let calls = 0;
  const bad = step(
    { name: "bad", retry: { type: "fixed", maxAttempts: 5, delay: 0 } },
    async (what: string): Promise<unknown> => {
      calls += 1;
      return what === "big" ? "x".repeat(1_048_576) : { callback: () => {} };
    },
  );
  const takes = step("takes", async (_input: unknown) => {});
  const w = workflow("w", async (what: string): Promise<unknown> => {
    if (what === "argument") await takes({ list: [() => {}] });
    if (what === "result") return { stream: () => {} };
    return bad(what);
  });
  const { perdure } = await bench(t, { workflows: [w] });
  const failure = async (id: string): Promise<unknown> => {
    const run = await perdure.start(w.with({ id }), id);
    return run.result().catch((error: Error) => {
      const { code, message } = error.cause as PerdureError;
      return { name: error.name, code, message };
    });
  };
  const failed = (code: string, message: string) => ({ name: "RunFailedError", code, message });
  t.strictSame(
    await failure("function"),
    failed(
      "PERDURE_SERIALIZE",
      'result of step "bad" of run "function": cannot store $.callback: function; pass data, not code',
    ),
  );
  t.equal(calls, 1);
  t.strictSame(
    await failure("big"),
    failed(
      "PERDURE_TOO_LARGE",
      'result of step "bad" of run "big": the value is too large: 1048587 bytes, the limit is 1048576; store it elsewhere and pass its key',
    ),
  );
  t.equal(calls, 2);
  t.strictSame(
    await failure("argument"),
    failed(
      "PERDURE_SERIALIZE",
      'arguments of step "takes" of run "argument": cannot store $[0].list[0]: function; pass data, not code',
    ),
  );
  t.strictSame(
    await failure("result"),
    failed("PERDURE_SERIALIZE", 'result of run "result": cannot store $.stream: function; pass data, not code'),
  );
});

test("keys that poison prototypes come back as keys", async (t) => {
  const copy = step("copy", async (value: unknown) => value);
  const w = workflow("w", async (value: unknown) => copy(value));
  const { perdure } = await bench(t, { workflows: [w] });
  const text =
    '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}},"a\\u0000\\ud800":"\\u0000\\udc00"}';
  const result = await (await perdure.start(w, JSON.parse(text))).result();
  t.equal(JSON.stringify(result), text);
  t.notOk(({} as { polluted?: boolean }).polluted);
});

// ---- the engine's own calls

test("an unknown workflow is refused with the nearest name", async (t) => {
  const w = workflow("process-order", async () => {});
  const other = workflow("process-refund", async () => {});
  const world = await bench(t, { workflows: [w] });
  const unknown = (name: string, help: string): Refusal =>
    said("PERDURE_UNKNOWN_WORKFLOW", `workflow "${name}" is not registered in this engine; ${help}`);
  t.strictSame(
    await rejection(() => world.perdure.start("procesS-order")),
    unknown("procesS-order", 'did you mean "process-order"?'),
  );
  t.strictSame(
    await rejection(() => world.perdure.start("invoice")),
    unknown("invoice", "add it to `workflows` of new Perdure()"),
  );
  t.strictSame(
    await rejection(() => world.perdure.start(other)),
    unknown("process-refund", 'did you mean "process-order"?'),
  );
  t.strictSame(
    await rejection(() => world.perdure.start(workflow({ name: "process-order", version: "2" }, async () => {}))),
    unknown("process-order", "add it to `workflows` of new Perdure()"),
  );
  t.strictSame(
    await rejection(() => world.perdure.start(step("s", async () => {}) as never)),
    option(
      "start() needs a workflow made by workflow(), or the name of one, not [Function: s] { with: [Function: with] }",
    ),
  );
  const called = Promise.resolve("what a workflow gives that was called");
  const hint = /not Promise .*; pass the workflow uncalled, and its arguments after it$/;
  t.match(await rejection(() => world.perdure.start(called as never)), { code: "PERDURE_OPTION", message: hint });
  t.ok(await isEmpty(world));
});

test("an event to an unknown or a finished run is refused, and a list says which", async (t) => {
  const paid = event<number>("paid");
  const w = workflow("w", async () => {});
  const waits = workflow("waits", async () => (await paid.wait()).data);
  const { perdure } = await bench(t, { workflows: [w, waits] });
  await (await perdure.start(w.with({ id: "done" }))).result();
  const open = await perdure.start(waits.with({ id: "open" }));
  const unknown = said(
    "PERDURE_NOT_FOUND",
    'event "paid" was not sent: there is no run "nobody"; check the id, or start the run first',
  );
  const finished = said(
    "PERDURE_FINISHED",
    'event "paid" was not sent: run "done" has finished and takes no more events; pass ignoreFinished: true if that is fine',
    "RunFinishedError",
  );
  t.strictSame(await rejection(() => perdure.send("nobody", paid, 1)), unknown);
  t.strictSame(await rejection(() => perdure.send("done", paid, 1)), finished);
  await perdure.send("done", paid, 1, { ignoreFinished: true });
  const { sent, failed } = await perdure.send(["nobody", "open", "done"], paid, 7);
  t.strictSame(sent, ["open"]);
  t.strictSame(
    failed.map(({ id }) => id),
    ["nobody", "done"],
  );
  t.strictSame(await rejection(() => Promise.reject(failed[0]!.error)), unknown);
  t.strictSame(await rejection(() => Promise.reject(failed[1]!.error)), finished);
  t.equal(await open.result(), 7);
  for (const call of ["status", "result", "cancel", "wake"] as const) {
    t.strictSame(
      await rejection(() => perdure.get("nobody")[call]()),
      said("PERDURE_NOT_FOUND", 'there is no run "nobody"; check the id, or start the run first'),
    );
  }
  t.strictSame(
    await rejection(() => open.cancel()),
    said("PERDURE_STATE", 'run "open" is completed, so it cannot be cancelled; only a run that has not finished can'),
  );
  t.strictSame(
    await rejection(() => open.wake()),
    said("PERDURE_STATE", 'run "open" is completed and not asleep; only a sleep can be ended by wake()'),
  );
});

test("whatever plain JavaScript hands to an engine or a handle, the error is one of ours and nothing is stored", async (t) => {
  const w = workflow("w", async () => {});
  const e = event<unknown>("e");
  const world = await bench(t, { workflows: [w] });
  const { perdure } = world as { perdure: any };
  const handle = perdure.get("nobody");
  const calls: Record<string, (value: any) => unknown> = {
    "start(value)": (value) => perdure.start(value),
    "get(value)": (value) => perdure.get(value),
    "get(value, id)": (value) => perdure.get(value, "id"),
    "get(w, value)": (value) => perdure.get(w, value),
    "send(value)": (value) => perdure.send(value, e, 1),
    "send([value])": (value) => perdure.send([value], e, 1),
    "send(, value)": (value) => perdure.send("nobody", value, 1),
    "send(,, value)": (value) => perdure.send("nobody", e, value),
    "send(,,, value)": (value) => perdure.send("nobody", e, 1, value),
    "send(,,, { reference })": (reference) => perdure.send("nobody", e, 1, { reference }),
    "send(,,, { ignoreFinished })": (ignoreFinished) => perdure.send("nobody", e, 1, { ignoreFinished }),
    "shutdown(value)": (value) => value === undefined || perdure.shutdown({ timeout: value, no: 1 }),
    "handle.send(value)": (value) => handle.send(value, 1),
    "handle.result(value)": (value) => handle.result(value),
    "handle.result({ timeout })": (timeout) => handle.result({ timeout }),
    "handle.result({ signal })": (signal) => handle.result({ signal }),
    "handle.cancel(value)": (value) => handle.cancel(value),
  };
  const wrong: string[] = [];
  for (const [name, call] of Object.entries(calls)) {
    await Promise.all(
      hostile().map(async (value, at) => {
        try {
          await call(value);
        } catch (error) {
          if (!(error instanceof PerdureError) || error.code === "PERDURE_DATABASE")
            wrong.push(`${name} with hostile value ${at}: ${(error as Error).stack}`);
        }
      }),
    );
  }
  t.same(wrong, []);
  t.ok(await isEmpty(world));
  t.equal(await (await perdure.start(w)).result(), undefined);
});

test("an engine that is not launched, or was shut down, says so; launching twice is one launch", async (t) => {
  const w = workflow("w", async () => {});
  const e = event<null>("e");
  const world = await bench(t, { workflows: [w] });
  const perdure = new Perdure({ database: world.url, schema: world.schema, workflows: [w], logger: collector() });
  const calls: (() => unknown)[] = [() => perdure.start(w), () => perdure.get("id"), () => perdure.send("id", e)];
  for (const call of calls) {
    t.strictSame(
      await rejection(call),
      said("PERDURE_STATE", "this engine is not launched; call launch() and await it first"),
    );
  }
  await Promise.all([perdure.launch(), perdure.launch()]);
  await perdure.launch();
  t.equal((await world.sql("select count(*)::int as n from :SCHEMA.worker"))[0].n, 2);
  const run = await perdure.start(w);
  await run.result();
  await Promise.all([perdure.shutdown(), perdure.shutdown()]);
  const over = said("PERDURE_STATE", "this engine was shut down; make a new one with new Perdure()");
  for (const call of [
    ...calls,
    () => run.status(),
    () => run.result(),
    () => run.send(e),
    () => run.cancel(),
    () => run.wake(),
    () => perdure.launch(),
  ]) {
    t.strictSame(await rejection(call), over);
  }
});

test("what does not fit its schema is refused with the path, where it is given", async (t) => {
  const positive = (async: boolean): Schema<{ amount: number }> => ({
    "~standard": {
      version: 1,
      vendor: "test",
      validate: (value) => {
        const { amount } = (value ?? {}) as { amount?: unknown };
        const result =
          typeof amount === "number" && amount > 0
            ? { value: { amount } }
            : { issues: [{ message: "must be positive", path: ["order", { key: "amount" }] }, { message: "no" }] };
        return async ? Promise.resolve(result) : result;
      },
    },
  });
  const invalid = (text: string) => ({ ...option(text), code: "PERDURE_INVALID" });
  const why = "does not fit its schema: $.order.amount: must be positive; $: no";
  const paid = event({ name: "paid", schema: positive(true) });
  const returns = step({ name: "returns", output: positive(false) }, async (n: number) => ({ amount: n, extra: 1 }));
  const w = workflow({ name: "w", input: positive(true) }, async (input: { amount: number }) => [
    input,
    (await paid.wait()).data,
    await returns(input.amount - 1),
  ]);
  const world = await bench(t, { workflows: [w] });
  const { perdure } = world;
  t.strictSame(await rejection(() => perdure.start(w, { amount: 0 })), invalid(`input of workflow "w" ${why}`));
  t.ok(await isEmpty(world));
  const run = await perdure.start(w.with({ id: "a" }), { amount: 1, dropped: true } as { amount: number });
  t.strictSame(await rejection(() => run.send(paid, { amount: -1 })), invalid(`data of event "paid" ${why}`));
  t.equal((await world.sql("select count(*)::int as n from :SCHEMA.mail"))[0].n, 0);
  await run.send(paid, { amount: 2 });
  await t.rejects(run.result(), {
    cause: { code: "PERDURE_INVALID", message: `result of step "returns" of run "a" ${why}` },
  });
  const fine = await perdure.start(w, { amount: 2, dropped: true } as { amount: number });
  await fine.send(paid, { amount: 3 });
  t.same(await fine.result(), [{ amount: 2 }, { amount: 3 }, { amount: 1 }]);
});

test("a sleep that is no time fails its run in words; one of nothing and one that is past return at once", async (t) => {
  const times: Record<string, () => Promise<unknown>> = {
    nan: () => sleep(Number.NaN),
    negative: () => sleep(-5),
    endless: () => sleep(1e18),
    unnamed: () => sleep("", 5),
    invalid: () => sleepUntil(new Date(Number.NaN)),
    far: () => sleepUntil(new Date("+200000-01-01")),
    late: () => event("e").wait({ timeout: -1 }),
    nothing: () => sleep(0),
    past: () => sleepUntil(new Date("1970-01-01")),
  };
  const w = workflow("w", async (which: string) => times[which]!());
  const { perdure } = await bench(t, { workflows: [w] });
  const causeOf = async (which: string): Promise<Refusal> => {
    const run = await perdure.start(w, which);
    const cause = await run.result().catch((error: Error) => error.cause);
    return refusal(() => {
      throw cause;
    });
  };
  const duration = (shown: string, why: string): Refusal =>
    option(`duration of sleep() is ${shown}, which is ${why}; ${TIME_RULE}`);
  t.strictSame(await causeOf("nan"), duration("NaN", "not finite"));
  t.strictSame(await causeOf("negative"), duration("-5", "negative"));
  t.strictSame(await causeOf("endless"), duration("1000000000000000000", "longer than 365000 days"));
  t.strictSame(await causeOf("unnamed"), said("PERDURE_NAME", `name of a sleep "" (0 bytes) is empty; ${NAME_RULE}`));
  const instant = (shown: string): Refusal =>
    option(`instant of sleepUntil() must be a valid Date of the years 1 to 9999, not ${shown}`);
  t.strictSame(await causeOf("invalid"), instant("Invalid Date"));
  t.strictSame(await causeOf("far"), instant("+200000-01-01T00:00:00.000Z"));
  t.strictSame(await causeOf("late"), option(`timeout of event "e" is -1, which is negative; ${TIME_RULE}`));
  for (const which of ["nothing", "past"]) t.same(await (await perdure.start(w, which)).result(), { woken: false });
});

// ---- places

test("outside a workflow, what needs one is refused; a step is a plain call, unless the engine refuses it", async (t) => {
  const place = (what: string): Refusal =>
    said(
      "PERDURE_CONTEXT",
      `${what} works only inside a workflow; here is none. Call it from a workflow's function, and await what leads to it`,
    );
  t.strictSame(
    refusal(() => sleep(5)),
    place("sleep()"),
  );
  t.strictSame(
    refusal(() => sleepUntil(new Date())),
    place("sleepUntil()"),
  );
  t.strictSame(
    refusal(() => event("paid").wait()),
    place('wait() of event "paid"'),
  );
  t.strictSame(
    refusal(() => now()),
    place("now()"),
  );
  t.strictSame(
    refusal(() => uuid()),
    place("uuid()"),
  );
  t.strictSame(
    refusal(() => random()),
    place("random()"),
  );
  t.strictSame(
    refusal(() => currentRun()),
    said(
      "PERDURE_CONTEXT",
      "currentRun() works only inside a workflow or a step of one; here is neither. Pass on what the code needs as an argument",
    ),
  );
  t.strictSame(
    refusal(() => currentStep()),
    said(
      "PERDURE_CONTEXT",
      "currentStep() works only inside a step that a workflow called; here is none. Pass on what the code needs as an argument",
    ),
  );
  const add = step("add", async (a: number, b: number) => a + b);
  t.equal(await add(1, 2), 3);
  t.equal(await runStep("sum", () => 4), 4);
  const w = workflow("w", async () => 1);
  t.strictSame(
    await rejection(() => w()),
    said(
      "PERDURE_STATE",
      'workflow "w" was called outside a workflow, but no launched engine registers it; start it with perdure.start(…) on the engine that you mean',
    ),
  );
  await bench(t, { workflows: [], outside: "refuse" });
  const refused = (name: string): Refusal =>
    said(
      "PERDURE_CONTEXT",
      `step "${name}" was called outside a workflow, so nothing is recorded: call it from a workflow's function, and await what leads to it, or set \`outside\` to "call"`,
    );
  t.strictSame(
    refusal(() => add(1, 2)),
    refused("add"),
  );
  t.strictSame(
    refusal(() => runStep("sum", () => 4)),
    refused("sum"),
  );
});

test("what is durable cannot stand inside a step: the error names both", async (t) => {
  const inner = step("inner", async () => {});
  const child = workflow("child", async () => {});
  const paid = event<null>("paid");
  const inside: Record<string, () => unknown> = {
    'step "inner"': () => inner(),
    'step "anonymous"': () => runStep("anonymous", () => 1),
    'transaction "debit"': () => transaction("debit", async () => {})(),
    'workflow "child"': () => child(),
    "sleep()": () => sleep(1),
    "sleepUntil()": () => sleepUntil(new Date()),
    'wait() of event "paid"': () => paid.wait(),
    "now()": () => now(),
    "uuid()": () => uuid(),
  };
  const outer = step("outer", async (what: string) => void (await inside[what]!()));
  const w = workflow("w", async (what: string) => outer(what));
  const { perdure } = await bench(t, { workflows: [w, child] });
  for (const what of Object.keys(inside)) {
    const run = await perdure.start(w, what);
    const cause = await run.result().catch((error: Error) => error.cause);
    t.strictSame(
      refusal(() => {
        throw cause;
      }),
      said(
        "PERDURE_CONTEXT",
        `${what} cannot be used inside step "outer" of run "${run.id}": a step is recorded as one. Call it from the workflow's own function, before or after the step`,
      ),
    );
  }
});

test("names with the characters that slots are made of never share a slot", async (t) => {
  const names = ["a", "a/b", "a#0", "a@b", "a%2f", "a%2fb", "a@", "a/", "%", "#", "/", "@", "a#", "a#00", "a%"];
  const seen: string[] = [];
  const references = ["b", "b#0", "b/", "@b", "%40b"];
  const w = workflow("w", async () => {
    await Promise.all(
      names.flatMap((name) => [
        runStep(name, () => void seen.push(`run ${name}`)),
        step(name, async () => void seen.push(`step ${name}`))(),
        transaction(name, async () => void seen.push(`transaction ${name}`))(),
        sleep(name, 0),
        ...references.map((reference) =>
          step(name, async () => void seen.push(`step ${name} by ${reference}`)).with({ reference })(),
        ),
      ]),
    );
    return seen.length;
  });
  const { perdure, sql } = await bench(t, { workflows: [w] });
  const each = 3 + references.length;
  t.equal(await (await perdure.start(w)).result(), names.length * each);
  t.equal(new Set(seen).size, names.length * each);
  const [{ n }] = await sql("select count(distinct slot)::int as n from :SCHEMA.checkpoint");
  t.equal(n, names.length * (each + 1));
});

// ---- hostile rows

test("a stored row that cannot be read blocks its own run with a reason, and others go on", async (t) => {
  const gate = event<unknown>("gate");
  const value = step("value", async () => ({ n: 1 }));
  const w = workflow("w", async (input: unknown) => {
    const { n } = await value();
    const { data } = await gate.wait();
    return [input, n, data];
  });
  const world = await coldBench(t, { workflows: [w] });
  const { perdure, sql } = world;
  const corrupt: Record<string, string> = {
    args: `update :SCHEMA.input set args = '{"json":[1],"meta":{"values":[["custom","evil"]],"v":1}}' where run = $1`,
    shape: "update :SCHEMA.input set args = '[1]' where run = $1",
    call: `update :SCHEMA.input set args = '{"json":{"length":1}}' where run = $1`,
    checkpoint: `update :SCHEMA.checkpoint set value = '{"json":{},"meta":{"values":{"a.b":[["class","Evil"]]}}}' where run = $1 and name = 'value'`,
    missing: "update :SCHEMA.checkpoint set value = null where run = $1 and name = 'value'",
    mail: "insert into :SCHEMA.mail (run, name, data, sent_at) values ($1, 'gate', '{\"nothing\":1}', now())",
    regexp: `update :SCHEMA.checkpoint set value = '{"json":"/((/","meta":{"values":["regexp"],"v":1}}' where run = $1 and name = 'value'`,
    options: `update :SCHEMA.input set options = '{"json":{"retry":{"type":"evil"}}}' where run = $1`,
  };
  const ids = Object.keys(corrupt);
  for (const id of [...ids, "good"]) await perdure.start(w.with({ id }), id);
  for (const id of [...ids, "good"]) {
    await eventually(async () => (await perdure.get(id).status()).state === "suspended", DEADLINE_MS);
  }
  await sql("alter table :SCHEMA.checkpoint disable trigger check_checkpoint");
  for (const [id, text] of Object.entries(corrupt)) {
    const [{ key }] = await sql("select key from :SCHEMA.run where id = $1", [id]);
    await sql(text, [key]);
  }
  for (const id of ids.filter((id) => id !== "mail")) await perdure.send(id, gate, 1);
  // As if a sender had raised the counter.
  await sql(
    "update :SCHEMA.run set mail = mail + 1, state = 'pending', ready_at = now(), due = null, topics = null where id = 'mail'",
  );
  await perdure.send("good", gate, "fine");
  t.strictSame(await perdure.get("good").result(), ["good", 1, "fine"]);
  for (const id of ids.filter((id) => id !== "options")) {
    const reason = await blocked(perdure.get(id));
    t.match(reason, /^undecodable: .*(input|result|event) .*of? ?run "\w+".*cannot be read back/, `${id}: ${reason}`);
  }
  // Options are read only when an attempt fails.
  t.strictSame(await perdure.get("options").result(), ["options", 1, 1]);
});

test("stored options that cannot be read block a run that fails, instead of losing it", async (t) => {
  const gate = event<unknown>("gate");
  const w = workflow("w", async () => {
    await gate.wait();
    throw new Error("no");
  });
  const { perdure, sql } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w.with({ id: "a", retry: { type: "fixed", maxAttempts: 2, delay: 0 } }));
  await eventually(async () => (await run.status()).state === "suspended", DEADLINE_MS);
  await sql(`update :SCHEMA.input set options = '{"json":{"retry":{"type":"evil"}}}'`);
  await run.send(gate, 1);
  const reason = await blocked(run);
  t.match(reason, /^could not be concluded: unknown type "evil" in retry of run of workflow "w"/);
});
