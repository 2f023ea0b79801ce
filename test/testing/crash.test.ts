/** crashEverywhere: what is right comes to the same at every point. */
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
import { collector } from "../support/engine.ts";
import { server } from "../support/postgres.ts";
import { type CrashOptions, type CrashReport, crashEverywhere, standIn } from "../support/testing.ts";

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

test("events, sleeps and timeouts come to the same at every point", async (t) => {
  const waits = workflow("waits", async () => {
    const { data } = (await paid.wait({ timeout: "30m" }))!;
    return { ...data, none: await go.wait({ timeout: "2h" }), slept: await sleep("1s"), at: now() };
  });
  const expected = { amount: 99, none: null, slept: { woken: false } };
  await comesTo(t, waits, expected, { standIns: [standIn(paid, { amount: 99 })] });
});

test("children and races come to the same at every point", async (t) => {
  const child = workflow("child", async (n: number) => {
    await sleep("10m");
    return n * 2;
  });
  const parent = workflow("parent", async () => {
    const handle = await start(child, 21);
    return { ...(await race({ handle, late: "1d" })), direct: await child(1) };
  });
  await comesTo(t, parent, { winner: "handle", value: 42, direct: 2 }, { workflows: [child] });
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
