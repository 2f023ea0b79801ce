/** What a stranger's programs found: each is one promise that did not hold. */
import { test } from "tap";
import { currentRun, runStep, step, transaction, workflow } from "../lib/index.ts";
import { bench } from "./support/engine.ts";

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
