/** What reading and the fuzzer found, each in its shortest form. */
import { test } from "tap";
import { compression, encryption } from "../../lib/codec/index.ts";
import { toPerdureError } from "../../lib/db/pg-errors.ts";
import {
  type CallerClient,
  currentRun,
  event,
  Perdure,
  type PerdureError,
  type Schema,
  start,
  step,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import { bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { refusal } from "../support/refusal.ts";

const PATIENCE = { timeout: "60s" } as const;
const DEADLINE_MS = 60_000;

type Refusal = ReturnType<typeof refusal>;

const option = (message: string): Refusal => ({ name: "PerdureError", code: "PERDURE_OPTION", message });

async function rejection(call: () => unknown): Promise<Refusal> {
  try {
    await call();
    return undefined;
  } catch (error) {
    return refusal(() => {
      throw error;
    });
  }
}

const refuses = (): never => {
  throw new Error("it refuses to be asked");
};
const hostile = (): any =>
  new Proxy(
    {},
    { get: refuses, has: refuses, ownKeys: refuses, getPrototypeOf: refuses, getOwnPropertyDescriptor: refuses },
  );
const revoked = (): any => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};

const echo = workflow("echo", async (given: unknown) => given);

test("what with() was given may be changed afterwards: a run has what was checked", async (t) => {
  const tags = ["a"];
  const startAt = new Date(0);
  const retry = { type: "fixed" as string, maxAttempts: 2, delay: { seconds: 0 } };
  let tries = 0;
  const fails = workflow("fails", async (_given: number) => {
    tries += 1;
    throw new Error("always");
  });
  const configured = fails.with({ id: "a", tags, startAt, retry: retry as never });
  tags.push("\0");
  startAt.setTime(Number.NaN);
  retry.type = "evil";
  retry.delay.seconds = -1;
  const { perdure } = await bench(t, { workflows: [fails] });
  const run = await perdure.start(configured, 1);
  await t.rejects(run.result(PATIENCE), { code: "PERDURE_FAILED" });
  t.equal(tries, 2);
  t.same((await run.status()).tags, ["a"]);
});

test("a child's handle refuses what is no event, and a reason that cannot be stored, and the parent goes on", async (t) => {
  const asleep = workflow("asleep", async () => void (await event("never").wait()));
  const parent: Workflow<[unknown], unknown> = workflow("parent", async (reason: unknown) => {
    const child = await start(asleep);
    const told: unknown[] = [];
    for (const call of [() => child.send(undefined as never, null as never), () => child.cancel(reason as string)]) {
      try {
        await call();
      } catch (error) {
        told.push((error as PerdureError).code, (error as Error).message.replace(child.id, "ID"));
      }
    }
    await child.cancel("in the end");
    return told;
  });
  const { perdure } = await bench(t, { workflows: [parent, asleep] });
  const rule = 'reason of cancel() of child "ID" must be a string of at most 1000 characters without NUL, not';
  for (const [reason, shown] of [
    ["a\0b", '"a\\u0000b"'],
    [5, "5"],
    ["x".repeat(1001), `"${"x".repeat(60)}"…`],
  ] as const) {
    const run = await perdure.start(parent, reason);
    t.same(await run.result(PATIENCE), [
      "PERDURE_OPTION",
      "send() needs an event made by event(), not undefined",
      "PERDURE_OPTION",
      `${rule} ${shown}`,
    ]);
  }
});

test("a Proxy that refuses every question, or was revoked, is refused by the engine's own doors", async (t) => {
  const { perdure } = await bench(t, { workflows: [echo] });
  for (const given of [hostile(), revoked()]) {
    const doors: (() => unknown)[] = [
      () => perdure.cancel(given),
      () => perdure.retry(given),
      () => perdure.drain({ deadline: given }),
      () => new Perdure({ codec: given }),
      () => new Perdure({ codec: [compression(), given] }),
      () => new Perdure({ workflows: [given] }),
      () => encryption({ keys: given, current: null }),
      () => step()(given, given, given),
    ];
    for (const door of doors) t.match((await rejection(door))?.code, /^PERDURE_OPTION$/, String(door));
  }
  const Odd = Object.defineProperty(class {}, "name", { get: refuses });
  t.match(
    refusal(() => new Perdure({ workflows: [Odd as never] })),
    { code: "PERDURE_OPTION" },
  );
  const getting = {
    ...collector(),
    get child(): never {
      return refuses();
    },
  };
  t.doesNotThrow(
    () => new Perdure({ logger: Object.defineProperties({}, Object.getOwnPropertyDescriptors(getting)) as never }),
  );
});

test("a schema that throws, or returns, anything is an error that names what it checks", async (t) => {
  const schema = (validate: () => any): Schema => ({ "~standard": { version: 1, vendor: "test", validate } });
  const cases: [() => any, RegExp][] = [
    [() => Promise.reject(hostile()), /cannot be checked: its schema threw: /],
    [
      () => {
        throw Object.create(null);
      },
      /cannot be checked: its schema threw: \[Object: null prototype\]/,
    ],
    [hostile, /cannot be checked: its schema threw: Error: it refuses|its schema threw: it refuses/],
    [() => ({ issues: [hostile()] }), /its schema threw: it refuses/],
    [() => ({ issues: [{ message: hostile() }] }), /does not fit its schema: \$: /],
    [
      () => ({ issues: [{ message: "x".repeat(10_000_000), path: Array(1000).fill("key") }] }),
      /does not fit its schema: \$\.key/,
    ],
  ];
  for (const [validate, message] of cases) {
    const news = event({ name: "news", schema: schema(validate) });
    const { perdure } = await bench(t, { workflows: [echo], worker: false });
    const refused = await rejection(() => perdure.send("nobody", news, 1));
    t.match(refused?.code, /^PERDURE_(OPTION|INVALID)$/);
    t.match(refused?.message, message);
    t.ok(String(refused?.message).length < 2000, `${String(refused?.message).length} characters`);
  }
});

test("a line of a run's log whose details refuse to be read loses that line, and not the run", async (t) => {
  const lines: unknown[][] = [];
  const say = (...line: unknown[]): void => void lines.push(line);
  const logger: any = { debug: say, info: say, warn: say, error: say, child: () => logger };
  const w = workflow("w", async () => {
    currentRun().log.info("before", hostile());
    currentRun().log.info("after");
  });
  const { perdure } = await bench(t, { workflows: [w], logger });
  await (await perdure.start(w)).result(PATIENCE);
  t.ok(lines.some((line) => line.includes("after")));
});

test("a context that throws anything, of any size, hands its run back with a short reason", async (t) => {
  const thrown = [hostile(), Object.create(null), new Error("x".repeat(5_000_000)), Symbol("s"), "text"];
  const { perdure } = await bench(t, {
    workflows: [echo],
    context: () => {
      if (thrown.length > 0) throw thrown[0];
    },
  });
  const run = await perdure.start(echo, 1);
  const reasons = new Set<string>();
  while (thrown.length > 0) {
    const reason = await eventually(async () => (await run.status()).reason, DEADLINE_MS);
    t.match(reason, /^its context could not be made: /);
    t.ok(reason.length < 1100, `${reason.length} characters`);
    reasons.add(reason);
    thrown.shift();
    if (thrown.length < 4) thrown.length = 0;
  }
  t.equal(await run.result(PATIENCE), 1);
});

test("what using() is given may have a query() that answers anything", async (t) => {
  const { perdure, sql } = await bench(t, { workflows: [echo] });
  for (const answered of [undefined, {}, { rows: 5 }, { rows: hostile() }]) {
    const client: CallerClient = { query: async () => answered as never };
    t.strictSame(
      await rejection(() => perdure.using(client).start(echo, 1)),
      option(
        "the client given to using() answered a statement without rows: its query(text, values) must return { rows }, as pg's does",
      ),
    );
  }
  t.same(await sql("select from :SCHEMA.run"), []);
});

test("a password that holds the signs that end it in a URL is in no message", (t) => {
  const secret = "p@ss:w/rd@";
  for (const text of [
    `cannot parse postgres://me:${secret}@db.example.org:5432/app`,
    `cannot parse postgres://db.example.org/app?user=me&password=${secret}&ssl=1`,
  ]) {
    const error = toPerdureError(Object.assign(new Error(text), { detail: text }), "connecting");
    for (const shown of [error.message, error.stack, JSON.stringify(error.cause), (error.cause as Error).stack]) {
      t.notMatch(shown, secret);
      t.notMatch(shown, "w/rd");
    }
    t.match(error.message, "***");
  }
  t.end();
});
