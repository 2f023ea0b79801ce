/** What a stranger's programs found: each is one promise that did not hold. */
import { setTimeout as pause } from "node:timers/promises";
import { test } from "tap";
import { currentRun, currentStep, runStep, sleep, step, transaction, workflow } from "../lib/index.ts";
import { bench } from "./support/engine.ts";
import { eventually } from "./support/eventually.ts";
import { freshSchema, inDatabase } from "./support/postgres.ts";
import { FaultyProxy } from "./support/proxy.ts";

const hostile = {
  proxy: () =>
    new Proxy(new Error("out of order"), {
      get: () => {
        throw new Error("no property");
      },
      getPrototypeOf: () => {
        throw new Error("no prototype");
      },
    }),
  revoked: () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  },
};
type Hostile = keyof typeof hostile;

test("a thrown value that refuses every question is a failure like others, in a step, a transaction and a body", async (t) => {
  const retry = { type: "fixed", maxAttempts: 2, delay: 1 } as const;
  const tries: Record<string, number> = {};
  const fail = (where: string, kind: Hostile): never => {
    tries[where] = (tries[where] ?? 0) + 1;
    throw hostile[kind]();
  };
  const broken = step({ name: "broken", retry }, async (kind: Hostile) => fail(`step ${kind}`, kind));
  const undone = transaction({ name: "undone", retry }, async (_tx, kind: Hostile) =>
    fail(`transaction ${kind}`, kind),
  );
  const inSteps = workflow("in-steps", async (kind: Hostile) =>
    (await Promise.allSettled([broken(kind), undone(kind)])).map(({ status }) => status),
  );
  const inBody = workflow({ name: "in-body", retry }, async (kind: Hostile) => {
    await runStep("before", () => 1);
    fail(`body ${kind}`, kind);
  });
  const { perdure } = await bench(t, { workflows: [inSteps, inBody] });
  for (const kind of ["proxy", "revoked"] as const) {
    const steps = await perdure.start(inSteps, kind);
    t.same(await steps.result({ timeout: "20s" }), ["rejected", "rejected"]);
    const body = await perdure.start(inBody, kind);
    await t.rejects(body.result({ timeout: "20s" }), { code: "PERDURE_FAILED" });
    for (const where of ["step", "transaction", "body"]) t.equal(tries[`${where} ${kind}`], 2, `${where} ${kind}`);
  }
});

test("a workflow's timeout ends it while it waits for its next attempt", async (t) => {
  const retry = { type: "fixed", maxAttempts: 3, delay: "1h" } as const;
  const again = workflow({ name: "again", timeout: 500, retry }, async () => {
    throw new Error("again");
  });
  const { perdure, sql } = await bench(t, { workflows: [again] });
  const error = await (await perdure.start(again)).result({ timeout: "20s" }).catch((failed: Error) => failed);
  t.match(error, { code: "PERDURE_FAILED", cause: { code: "PERDURE_TIMEOUT" } });
  const [{ took }] = await sql("select extract(epoch from finished_at - created_at)::float8 as took from :SCHEMA.run");
  t.ok(took >= 0.5, `not before its time: ${took} s`);
});

test("the next attempt of a workflow begins at its time and waits for no poll", async (t) => {
  const retry = { type: "fixed", maxAttempts: 11, delay: 20 } as const;
  const stubborn = workflow({ name: "stubborn", retry }, async () => {
    if (currentRun().attempt < 11) throw new Error("again");
  });
  const { perdure } = await bench(t, { workflows: [stubborn] });
  const began = performance.now();
  await (await perdure.start(stubborn)).result({ timeout: "60s" });
  const took = performance.now() - began;
  // Ten polls take 30 s.
  t.ok(took < 10_000, `ten attempts more took ${Math.round(took)} ms`);
});

test("a run that was given up is handed back though a stranger's transaction holds its row for many heartbeats", async (t) => {
  const { url, schema } = await freshSchema(t);
  const server = new URL(url);
  const proxy = await FaultyProxy.open({ host: server.hostname, port: Number(server.port) });
  t.teardown(() => proxy.close());
  const listenUrl = Object.assign(new URL(url), { port: String(proxy.port) }).href;
  const signals: AbortSignal[] = [];
  const w = workflow("w", () =>
    runStep("stuck", async () => {
      signals.push(currentStep().signal);
      if (signals.length === 1) await new Promise((resolve) => signals[0]!.addEventListener("abort", resolve));
      return signals.length;
    }),
  );
  const { perdure } = await bench(t, { workflows: [w], database: url, schema, listenUrl, lease: "1s", notify: false });
  const run = await perdure.start(w);
  await eventually(() => signals.length === 1);
  await inDatabase(url, async (stranger) => {
    const beats = async (): Promise<number> => {
      const text = `select extract(epoch from clock_timestamp() - beat_at)::float8 as ago from "${schema}".worker`;
      return (await stranger.query(text)).rows[0].ago;
    };
    await stranger.query("begin");
    await stranger.query(`select from "${schema}".run for update`);
    // Only the heartbeat's connection is silent, until this process takes itself for dead.
    proxy.mode = "half-open";
    proxy.freeze();
    await eventually(() => signals[0]!.aborted, 30_000);
    proxy.mode = "pass";
    // Six heartbeats a second; a few more than the process looks for runs after any loss.
    for (let i = 0; i < 8; i += 1) {
      await eventually(async () => (await beats()) < 0.1, 30_000);
      await pause(250);
    }
    await stranger.query("commit");
  });
  t.equal(await run.result({ timeout: "20s" }), 2);
});

test("wake() of a sleep that is over by the clock says so, and the sleep says that nobody woke it", async (t) => {
  const nap = workflow("nap", async () => (await sleep("1h")).woken);
  const { perdure, sql } = await bench(t, { workflows: [nap] });
  const run = await perdure.start(nap);
  await eventually(async () => (await run.status()).state === "suspended");
  await sql("update :SCHEMA.wait set due = now() - interval '1 second'");
  await t.rejects(run.wake(), { code: "PERDURE_STATE" });
  await sql("update :SCHEMA.run set due = now()");
  t.equal(await run.result({ timeout: "20s" }), false);
});

test("a run that has ended waits for nothing, in the view of steps too", async (t) => {
  const first = workflow("first", () => Promise.race([sleep("1h"), runStep("quick", () => 1)]));
  const { perdure, sql } = await bench(t, { workflows: [first] });
  const [won, cancelled] = await Promise.all([perdure.start(first), perdure.start(first.with({ delay: "1h" }))]);
  t.equal(await won.result({ timeout: "20s" }), 1);
  await cancelled.cancel();
  t.same(await sql("select name, outcome from :SCHEMA.steps"), [{ name: "quick", outcome: "completed" }]);
});
