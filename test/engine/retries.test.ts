/** Trying again: steps by their policy, exactly when it says; workflows with what they have kept; and limits of time. */
import pg from "pg";
import { test } from "tap";
import {
  currentRun,
  currentStep,
  NonRetryableError,
  type Retry,
  type RunFailedError,
  type RunHandle,
  runStep,
  sleep,
  step,
  TimeoutError,
  transaction,
  workflow,
} from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { atGate, DEADLINE_MS, gate, latch, reached, settled, unhandled } from "../support/replay.ts";

const HOUR = 3_600_000;

/** Follows a run from retry to retry; each delay as the database has it. */
async function delaysOf({ sql, advance }: Bench, run: RunHandle<unknown>): Promise<number[]> {
  const delays: number[] = [];
  for (;;) {
    const wait = await eventually(async () => {
      const [found] = await sql(
        "select extract(epoch from w.due - w.started_at)::float8 * 1000 as delay, w.tries from :SCHEMA.wait w join :SCHEMA.run r on r.key = w.run where r.id = $1 and r.state = 'suspended' and w.kind = 'retry' and w.due > :SCHEMA.clock()",
        [run.id],
      );
      if (found?.tries === delays.length + 1) return found;
      return ["completed", "failed"].includes((await run.status()).state) && "ended";
    }, DEADLINE_MS);
    if (wait === "ended") return delays;
    delays.push(Math.round(wait.delay));
    await advance(wait.delay + 1);
  }
}

test("each kind of retry waits exactly as long as it says, as often as it says", async (t) => {
  const kinds: { retry: Retry; delays: number[] }[] = [
    { retry: { type: "never" }, delays: [] },
    { retry: { type: "fixed", maxAttempts: 3, delay: "1h" }, delays: [HOUR, HOUR] },
    { retry: { type: "fixed", maxAttempts: 1, delay: "1h" }, delays: [] },
    {
      retry: { type: "exponential", maxAttempts: 5, baseDelay: "100h", factor: 2, maxDelay: "300h" },
      delays: [100 * HOUR, 200 * HOUR, 300 * HOUR, 300 * HOUR],
    },
    {
      retry: { type: "exponential", maxAttempts: 4, baseDelay: "1h", factor: 1.5 },
      delays: [HOUR, 1.5 * HOUR, 2.25 * HOUR],
    },
  ];
  const calls: Record<string, number[]> = {};
  const world = await bench(t, {
    workflows: kinds.map(({ retry }, n) => {
      const fail = step({ name: "fail", retry }, async () => {
        calls[n] = [...(calls[n] ?? []), currentStep().attempt];
        throw new Error(`try ${currentStep().attempt}`);
      });
      return workflow(`w${n}`, async () => fail());
    }),
  });
  for (const [n, { delays }] of kinds.entries()) {
    const w = workflow(`w${n}`, async () => {});
    const run = await world.perdure.start(w.with({ id: `run-${n}` }));
    t.strictSame(await delaysOf(world, run), delays, `kind ${n}`);
    const { error } = (await settled(run.result())) as { error: RunFailedError };
    const tries = delays.length + 1;
    t.match(error.cause, { message: `try ${tries}` }, "the last failure is the step's, as itself");
    t.strictSame(
      calls[n],
      Array.from({ length: tries }, (_, at) => at + 1),
    );
    t.strictSame(await world.sql("select attempts, outcome from :SCHEMA.steps where run_id = $1", [run.id]), [
      { attempts: tries, outcome: "failed" },
    ]);
    const errors = await world.sql(
      "select y.try, y.error->'json'->>'message' as message from :SCHEMA.try y join :SCHEMA.run r on r.key = y.run where r.id = $1 order by 1",
      [run.id],
    );
    if (tries > 1) t.equal(errors.length, tries, "every try's error can be read");
  }
});

test("a jittered delay is a random part of the exponential one", async (t) => {
  const retry: Retry = { type: "jittered", maxAttempts: 4, baseDelay: "100h", factor: 3, maxDelay: "500h" };
  const fail = step({ name: "fail", retry }, async () => {
    throw new Error("no");
  });
  const w = workflow("w", async () => fail());
  const world = await bench(t, { workflows: [w] });
  const all: number[] = [];
  for (let n = 0; n < 3; n += 1) {
    const delays = await delaysOf(world, await world.perdure.start(w));
    t.equal(delays.length, 3);
    for (const [at, most] of [100, 300, 500].entries()) {
      t.ok(delays[at]! >= 0 && delays[at]! <= most * HOUR, `${delays[at]} is at most ${most} h`);
    }
    all.push(...delays);
  }
  t.equal(new Set(all).size, all.length, "no two alike");
});

test("a step that fails twice and then succeeds leaves one checkpoint", async (t) => {
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 3, delay: 2 } }, async () => {
    if (currentStep().attempt < 3) throw new Error("not yet");
    return currentStep().attempt;
  });
  const w = workflow("w", async () => flaky());
  const { perdure, sql } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  t.equal(await run.result(), 3);
  t.strictSame(await sql("select tries, outcome from :SCHEMA.checkpoint"), [{ tries: 3, outcome: "completed" }]);
  t.strictSame(await sql("select from :SCHEMA.wait"), [], "no wait is left");
});

test("the next try starts when its delay is over, not at some later poll", async (t) => {
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 6, delay: 100 } }, async () => {
    if (currentStep().attempt < 6) throw new Error("not yet");
  });
  const w = workflow("w", async () => flaky());
  const { perdure, sql } = await bench(t, { workflows: [w] });
  await (await perdure.start(w)).result();
  const rows = await sql(
    "select extract(epoch from lead(started_at) over (order by started_at) - coalesce(finished_at, started_at))::float8 * 1000 as gap from (select started_at, finished_at from :SCHEMA.try where finished_at is not null and try < 6 union all select started_at, null from :SCHEMA.checkpoint) x order by started_at",
  );
  const gaps = rows.map(({ gap }) => gap as number | null).filter((gap) => gap !== null);
  t.equal(gaps.length, 5);
  t.ok(Math.min(...gaps) >= 99, `never early: ${gaps}`);
  // A poll comes every three seconds.
  t.ok(gaps.reduce((sum, gap) => sum + gap) < 5 * 1500, `soon: ${gaps}`);
});

test("a run that waits for a retry takes no slot, survives its process, and goes on with its count", async (t) => {
  const attempts: number[] = [];
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 3, delay: "1h" } }, async () => {
    attempts.push(currentStep().attempt);
    if (currentStep().attempt < 3) throw new Error("not yet");
    return "done";
  });
  const w = workflow("w", async () => flaky());
  const other = workflow("other", async () => "other");
  const options = { workflows: [w, other], worker: { concurrency: 1 } };
  const { perdure, another, advance } = await bench(t, options);
  const run = await perdure.start(w);
  await reached(run, "suspended");
  t.equal((await run.status()).waitingFor, "retry");
  t.equal(await (await perdure.start(other)).result(), "other", "the only slot is free");
  await perdure.shutdown();
  const next = await another(options);
  await advance(HOUR);
  const there = next.get(run.id);
  await eventually(() => attempts.length === 2, DEADLINE_MS);
  await reached(there, "suspended");
  await advance(HOUR);
  t.equal(await there.result(), "done");
  t.strictSame(attempts, [1, 2, 3]);
});

test("an error that says so ends the retries of its step, and of the workflow that it escapes from", async (t) => {
  const calls = { step: 0, body: 0 };
  const retry: Retry = { type: "fixed", maxAttempts: 5, delay: 0 };
  const fail = step({ name: "fail", retry }, async () => {
    calls.step += 1;
    throw new NonRetryableError("no use", { cause: new RangeError("why") });
  });
  const w = workflow({ name: "w", retry }, async () => {
    calls.body += 1;
    await fail();
  });
  const { perdure } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  const { error } = (await settled(run.result())) as { error: RunFailedError };
  t.ok(error.cause instanceof NonRetryableError);
  t.match((error.cause as Error).cause, { name: "RangeError", message: "why" });
  t.strictSame(calls, { step: 1, body: 1 });
  t.equal((await run.status()).attempt, 1);
});

test("shouldRetry is asked with each error, may take its time, and ends the retries when it says no or throws", async (t) => {
  const rejections = unhandled(t);
  const answers: Record<string, (error: unknown) => boolean | Promise<boolean>> = {
    sync: (error) => (error as Error).message !== "try 3",
    async: async (error) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      return (error as Error).message !== "try 3";
    },
    throws: (error) => {
      if ((error as Error).message === "try 2") throw new SyntaxError("of shouldRetry");
      return true;
    },
    rejects: async (error) => {
      if ((error as Error).message === "try 2") throw new SyntaxError("of shouldRetry");
      return true;
    },
  };
  const seen: Record<string, number> = {};
  const policy = (name: string): Retry => ({ type: "fixed", maxAttempts: 9, delay: 0, shouldRetry: answers[name]! });
  const inStep = Object.keys(answers).map((name) => {
    const fail = step({ name, retry: policy(name) }, async () => {
      seen[name] = currentStep().attempt;
      throw new Error(`try ${currentStep().attempt}`);
    });
    return workflow(name, async () => fail());
  });
  const whole = Object.keys(answers).map((name) =>
    workflow({ name: `whole-${name}`, retry: policy(name) }, async () => {
      seen[`whole-${name}`] = currentRun().attempt;
      throw new Error(`try ${currentRun().attempt}`);
    }),
  );
  const { perdure } = await bench(t, { workflows: [...inStep, ...whole] });
  const outcomes = await Promise.all(
    [...inStep, ...whole].map(async (w) => settled((await perdure.start(w)).result())),
  );
  t.strictSame(seen, {
    sync: 3,
    async: 3,
    throws: 2,
    rejects: 2,
    "whole-sync": 3,
    "whole-async": 3,
    "whole-throws": 2,
    "whole-rejects": 2,
  });
  t.strictSame(
    outcomes.map((o) => ((o as { error: RunFailedError }).error.cause as Error).message),
    [...Array(2)].flatMap(() => ["try 3", "try 3", "of shouldRetry", "of shouldRetry"]),
  );
  t.strictSame(rejections, []);
});

test("a call's own retry wins over its step's, and a run's own over its workflow's", async (t) => {
  const calls: string[] = [];
  const fail = step({ name: "fail", retry: { type: "fixed", maxAttempts: 3, delay: 0 } }, async (who: string) => {
    calls.push(who);
    throw new Error(who);
  });
  const once = fail.with({ retry: { type: "never" } });
  const five = fail.with({ retry: { type: "fixed", maxAttempts: 5, delay: 0 } });
  const w = workflow({ name: "w", retry: { type: "fixed", maxAttempts: 2, delay: 0 } }, async () => {
    calls.push(`attempt ${currentRun().attempt}`);
    await Promise.allSettled([once("once"), five("five"), fail("own")]);
    throw new Error("whole");
  });
  const { perdure, another } = await bench(t, { workflows: [w], worker: false });
  const runs = [
    await perdure.start(w),
    await perdure.start(w.with({ retry: { type: "never" } })),
    await perdure.start(w.with({ retry: { type: "fixed", maxAttempts: 3, delay: 0 } })),
  ];
  const worker = await another({ workflows: [w], worker: { concurrency: 1 } });
  const attempts: number[] = [];
  for (const run of runs) {
    await settled(worker.get(run.id).result());
    attempts.push((await run.status()).attempt);
  }
  t.strictSame(attempts, [2, 1, 3]);
  const count = (who: string) => calls.filter((call) => call === who).length / runs.length;
  t.strictSame(
    [count("once"), count("five"), count("own")],
    [1, 5, 3],
    "caught failures are not tried by a later attempt",
  );
});

test("a retried workflow keeps what completed and what was caught, and tries only what escaped", async (t) => {
  const ran: string[] = [];
  let broken = true;
  const ok = step("ok", async (name: string) => {
    ran.push(name);
    return name;
  });
  const fail = step("fail", async (name: string) => {
    ran.push(name);
    if (broken || name === "caught") throw new Error(name);
    return name;
  });
  const refund = step("refund", async () => void ran.push("refund"));
  const retry: Retry = { type: "fixed", maxAttempts: 2, delay: "1h" };
  const escapes: Record<string, () => Promise<unknown>> = {
    thrown: () => fail("thrown"),
    together: () => Promise.all([fail("together"), ok("beside")]),
    "as a cause": () =>
      fail("as a cause").catch((cause) => {
        throw new TypeError("wrapped", { cause: new Error("twice", { cause }) });
      }),
    "as one of many": () => Promise.any([fail("one"), fail("two")]),
  };
  const saga = workflow({ name: "saga", retry }, async (how: string) => {
    await ok("before");
    try {
      await fail("caught");
    } catch {
      await refund();
    }
    await escapes[how]!();
    await ok("after");
    await gate.wait();
    return currentRun().attempt;
  });
  const world = await bench(t, { workflows: [saga] });
  const expected: Record<string, string[]> = {
    thrown: ["thrown", "thrown"],
    together: ["beside", "together", "together"],
    "as a cause": ["as a cause", "as a cause"],
    "as one of many": ["one", "one", "two", "two"],
  };
  for (const how of Object.keys(escapes)) {
    ran.length = 0;
    broken = true;
    const run = await world.perdure.start(saga, how);
    await eventually(async () => (await run.status()).attempt === 2, DEADLINE_MS);
    const [row] = await world.sql(
      "select state, extract(epoch from due - :SCHEMA.clock())::float8 as seconds from :SCHEMA.run where id = $1",
      [run.id],
    );
    t.equal(row.state, "pending");
    t.equal((await run.status()).waitingFor, "retry");
    t.ok(row.seconds > 3500 && row.seconds <= 3600, "it says when it goes on");
    broken = false;
    await world.advance(HOUR);
    await atGate(run);
    await run.send(gate);
    t.equal(await run.result(), 2);
    // How far the second of two parallel steps got before the first one failed is open.
    const got = ran.filter((name, at) => name !== "beside" || ran.indexOf(name) === at).sort();
    t.strictSame(got, ["after", "before", "caught", "refund", ...expected[how]!].sort(), how);
  }
});

test("partial parallel progress of a failed attempt is kept, over three attempts and with replays between", async (t) => {
  const ran: string[] = [];
  const failures = new Map([
    ["x", 1],
    ["y", 1],
  ]);
  const work = step("work", async (name: string) => {
    ran.push(name);
    const left = failures.get(name) ?? 0;
    failures.set(name, left - 1);
    if (left > 0) throw new Error(name);
    return name;
  });
  const passes: string[][] = [];
  const w = workflow({ name: "w", retry: { type: "fixed", maxAttempts: 3, delay: 0 } }, async () => {
    const seen: string[] = [];
    passes.push(seen);
    const note = async (promise: Promise<unknown>) => seen.push(String(await promise.catch((error) => error.message)));
    const branches = [work("a"), work("x"), sleep(5).then(() => work("b")), work("y"), work("c")];
    await Promise.all(branches.map(note));
    const lost = (await Promise.allSettled(branches)).find((outcome) => outcome.status === "rejected");
    if (lost) throw lost.reason;
    await gate.wait();
    seen.push("through");
    await gate.wait();
    return seen;
  });
  const { perdure } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  const attempt = (await run.status()).attempt;
  await run.send(gate);
  await eventually(
    async () => passes.at(-1)!.includes("through") && (await run.status()).state === "suspended",
    DEADLINE_MS,
  );
  await run.send(gate);
  const result = await run.result();
  t.equal(attempt, 3, "x escaped first, then the recorded failure of y");
  t.strictSame(ran.sort(), ["a", "b", "c", "x", "x", "y", "y"]);
  t.strictSame([...result].sort(), ["a", "b", "c", "through", "x", "y"]);
});

test("an attempt that failed outside any step is tried again with every step kept", async (t) => {
  const ran: string[] = [];
  const a = step("a", async () => void ran.push("a"));
  const commit = transaction("commit", async () => void ran.push("commit"));
  const ids: string[] = [];
  const w = workflow({ name: "w", retry: { type: "fixed", maxAttempts: 3, delay: 0 } }, async () => {
    await a();
    await commit();
    await sleep(1);
    ids.push(await runStep("id", () => crypto.randomUUID()));
    if (currentRun().attempt < 3) throw new Error("the body's own");
    return currentRun().attempt;
  });
  const { perdure, sql } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  t.equal(await run.result(), 3);
  t.strictSame(ran, ["a", "commit"]);
  t.equal(new Set(ids).size, 1);
  const rounds = await sql(
    "select attempt, reopened, error->'json'->>'message' as message from :SCHEMA.round order by 1",
  );
  t.strictSame(rounds, [
    { attempt: 1, reopened: [], message: "the body's own" },
    { attempt: 2, reopened: [], message: "the body's own" },
  ]);
});

test("a key for outside APIs stays the same over retries and differs between calls", async (t) => {
  const keys: string[] = [];
  const charge = step({ name: "charge", retry: { type: "fixed", maxAttempts: 2, delay: 0 } }, async (_: number) => {
    keys.push(currentStep().idempotencyKey);
    if (currentStep().attempt === 1) throw new Error("answer lost");
  });
  const w = workflow("w", async () => {
    await charge(1);
    await charge(1);
    await charge(2);
  });
  const { perdure } = await bench(t, { workflows: [w] });
  await (await perdure.start(w)).result();
  t.equal(keys.length, 6);
  t.strictSame([keys[0], keys[2], keys[4]], [keys[1], keys[3], keys[5]]);
  t.equal(new Set(keys).size, 3);
});

test("a look that crosses with the next wait for a retry begins no try early", async (t) => {
  const attempts: number[] = [];
  const second = latch();
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 3, delay: "1h" } }, async () => {
    attempts.push(currentStep().attempt);
    if (currentStep().attempt === 2) await second.opened;
    if (currentStep().attempt < 3) throw new Error("not yet");
  });
  const w = workflow("w", async () => flaky());
  const { perdure, advance, sql, url, schema } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await reached(run, "suspended");
  await advance(HOUR);
  await eventually(() => attempts.length === 2, DEADLINE_MS);
  const stranger = new pg.Client({ connectionString: url });
  await stranger.connect();
  await stranger.query("begin");
  await stranger.query(`select from "${schema}".run for update`);
  second.open();
  const waits = `select from pg_stat_activity where wait_event_type = 'Lock' and query like '%"${schema}".%'`;
  await eventually(async () => (await sql(waits)).length === 1, DEADLINE_MS);
  // The wait's row still holds the due time of the try before.
  await sql("select :SCHEMA.hint('c')");
  await new Promise((resolve) => setTimeout(resolve, 100));
  await stranger.query("commit");
  await stranger.end();
  await reached(run, "suspended", "completed");
  t.strictSame(attempts, [1, 2]);
  await advance(HOUR);
  await run.result();
  t.strictSame(attempts, [1, 2, 3]);
});

test("a step's try that takes too long fails with a TimeoutError, is told to stop, and what it does later is discarded", async (t) => {
  const rejections = unhandled(t);
  const late = { value: latch(), error: latch() };
  const told: unknown[] = [];
  const obeys = step({ name: "obeys", timeout: 20 }, async () => {
    const { signal } = currentStep();
    await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
  });
  const value = step({ name: "value", timeout: 20 }, async () => {
    currentStep().signal.addEventListener("abort", () => told.push("value"));
    await late.value.opened;
    return "too late";
  });
  const error = step({ name: "error", timeout: 20 }, async () => {
    await late.error.opened;
    throw new Error("too late");
  });
  const second = step(
    { name: "second", timeout: 100, retry: { type: "fixed", maxAttempts: 2, delay: 0 } },
    async () => {
      if (currentStep().attempt === 1) await new Promise(() => {});
      return "in time";
    },
  );
  const inTransaction = transaction({ name: "inTransaction", timeout: 50 }, async (tx) => {
    await tx.query("create table if not exists pg_temp.t ()");
    await new Promise(() => {});
  });
  const w = workflow("w", async () => {
    const caught = (what: string) => (e: unknown) => [what, e instanceof TimeoutError, (e as Error).message];
    const seen = [
      await obeys().catch(caught("obeys")),
      await value().catch(caught("value")),
      await error().catch(caught("error")),
      await inTransaction().catch(caught("inTransaction")),
      await value
        .with({ timeout: "1h" })()
        .then((v) => v),
      await second(),
    ];
    await gate.wait();
    return seen;
  });
  const { perdure, sql } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await eventually(async () => (await sql("select from :SCHEMA.checkpoint")).length === 4, DEADLINE_MS);
  late.value.open();
  late.error.open();
  await atGate(run);
  await run.send(gate);
  t.match(await run.result(), [
    ["obeys", true, /step "obeys" of run ".*" took longer than its timeout of 20 ms/],
    ["value", true, /step "value"/],
    ["error", true, /step "error"/],
    ["inTransaction", true, /transaction "inTransaction"/],
    "too late",
    "in time",
  ]);
  t.strictSame(told[0], "value");
  t.strictSame(rejections, []);
});

test("a workflow's timeout counts its waits, from its first claim, and over its retries", async (t) => {
  const w = workflow({ name: "w", timeout: "2h" }, async () => {
    await sleep("1h");
    await gate.wait();
  });
  const retried = workflow(
    { name: "retried", timeout: "2h", retry: { type: "fixed", maxAttempts: 9, delay: "90m" } },
    async () => {
      throw new Error("again");
    },
  );
  const world = await bench(t, { workflows: [w, retried] });
  const delayed = await world.perdure.start(w.with({ delay: "10h" }));
  const run = await world.perdure.start(w);
  const own = await world.perdure.start(w.with({ timeout: "30m" }));
  const again = await world.perdure.start(retried);
  await reached(run, "suspended");
  await reached(own, "suspended");
  await eventually(async () => (await again.status()).attempt === 2, DEADLINE_MS);
  await world.advance(HOUR / 2);
  const late = { error: { cause: { name: "TimeoutError", code: "PERDURE_TIMEOUT" } } };
  t.match(await settled(own.result()), late, "a run's own limit");
  await world.advance(HOUR / 2);
  await eventually(async () => (await run.status()).waitingFor === "event", DEADLINE_MS);
  await world.advance(HOUR / 2);
  await eventually(async () => (await again.status()).attempt === 3, DEADLINE_MS);
  await world.advance(HOUR / 2);
  t.match(await settled(run.result()), late);
  t.equal((await delayed.status()).state, "pending", "before its start no time runs");
  await world.advance(HOUR);
  t.match(await settled(again.result()), late);
  t.equal((await again.status()).attempt, 3);
});

test("a workflow's timeout ends it in the middle of a step, which is told to stop", async (t) => {
  const told = latch();
  const stuck = step("stuck", async () => {
    currentStep().signal.addEventListener("abort", told.open, { once: true });
    await new Promise(() => {});
  });
  let caught = false;
  const w = workflow({ name: "w", timeout: 100 }, async () => {
    try {
      await stuck();
    } finally {
      caught = true;
    }
  });
  const { perdure } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  t.match(await settled(run.result()), { error: { cause: { name: "TimeoutError" } } });
  await told.opened;
  t.equal(caught, false, "nothing is thrown through the body");
  t.equal((await run.status()).state, "failed");
});

test("a step that has run for a second is written down while it runs, a transaction too; one that was quick never is", async (t) => {
  const open = latch();
  const work = async (): Promise<void> => void (await open.opened);
  const [slow, slowly, quick] = [step("slow", work), transaction("slowly", work), step("quick", async () => {})];
  const w = workflow("w", async () => void (await Promise.all([slow(), slowly(), quick()])));
  const { perdure, sql } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  const begun = () => sql("select name from :SCHEMA.try where finished_at is null order by name");
  await eventually(async () => (await begun()).length === 2, DEADLINE_MS);
  t.strictSame(await begun(), [{ name: "slow" }, { name: "slowly" }]);
  open.open();
  await run.result();
});

test("what a step's function returns is awaited as `await` does it, whatever it has made of then", async (t) => {
  const ways: Record<string, () => any> = {
    value: () => 1,
    // biome-ignore lint/suspicious/noThenProperty: a query builder is such
    thenable: () => ({ then: (resolve: (n: number) => void) => resolve(1) }),
    // biome-ignore lint/suspicious/noThenProperty: a tracer has replaced it
    patched: () => Object.assign(Promise.resolve(1), { then: () => undefined }),
    subclass: () => new (class extends Promise<number> {})((resolve) => resolve(1)),
    odd: () => {
      throw new Error("thrown at once");
    },
    hostile: () =>
      Object.defineProperty(Promise.resolve(1), "constructor", {
        get() {
          throw new Error("no constructor");
        },
      }),
  };
  const any = step("any", (way: string) => ways[way]!());
  const w = workflow("w", async (way: string) => any(way) as Promise<number>);
  const { perdure } = await bench(t, { workflows: [w] });
  const came = async (way: string) => settled((await perdure.start(w, way)).result());
  for (const way of ["value", "thenable", "patched", "subclass"]) t.match(await came(way), { value: 1 }, way);
  t.match(await came("odd"), { error: { cause: { message: "thrown at once" } } });
  t.match(await came("hostile"), { error: { cause: { message: "no constructor" } } });
});
