/** `perdure/testing`: time under control, in a schema that was made for it. */
import { test } from "tap";
import { event, now, race, schedule, sleep, start, step, workflow } from "../../lib/index.ts";
import { collector } from "../support/engine.ts";
import { rejection } from "../support/gate.ts";
import { inDatabase, server } from "../support/postgres.ts";
import { type TestOptions, TestPerdure } from "../support/testing.ts";

const START = new Date("2027-03-01T00:00:00Z");
const HOUR = 3_600_000;

async function launched(t: { teardown(work: () => unknown): void }, options: TestOptions): Promise<TestPerdure> {
  const perdure = new TestPerdure({ database: await server(), now: START, logger: collector(), ...options });
  t.teardown(() => perdure.shutdown());
  await perdure.launch();
  return perdure;
}

test("a sleep in a loop happens each time at its own instant, and no earlier", async (t) => {
  const seen: string[] = [];
  const remind = step("remind", async (day: number, at: Date) => void seen.push(`${day} ${at.toISOString()}`));
  const trial = workflow("trial", async () => {
    for (let day = 1; day <= 14; day++) {
      await sleep({ days: 1 });
      await remind(day, now());
    }
    return now().toISOString();
  });
  const perdure = await launched(t, { workflows: [trial] });
  const run = await perdure.start(trial);
  await perdure.advance(24 * HOUR - 1);
  t.same(seen, [], "a millisecond too early nothing has happened");
  await perdure.advance(1);
  t.same(seen, ["1 2027-03-02T00:00:00.000Z"]);
  await perdure.advance({ days: 12 });
  t.equal(seen.length, 13);
  t.equal((await run.status()).state, "suspended");
  await perdure.advance({ days: 1 });
  t.equal(await run.result({ timeout: "10s" }), "2027-03-15T00:00:00.000Z");
  t.same(
    seen,
    Array.from(
      { length: 14 },
      (_, at) => `${at + 1} ${new Date(START.getTime() + (at + 1) * 24 * HOUR).toISOString()}`,
    ),
  );
  t.equal(perdure.now().toISOString(), "2027-03-15T00:00:00.000Z");
  t.same(perdure.calls(remind).at(-1), [14, perdure.now()]);
});

test("timeouts of waits and workflows, retries, delayed starts and timers of races are due when they are due", async (t) => {
  const go = event("go");
  const seen: string[] = [];
  const note = step(
    "note",
    async (what: string, at: Date) => void seen.push(`${at.toISOString().slice(11, 19)} ${what}`),
  );
  let tries = 0;
  const flaky = step({ name: "flaky", retry: { type: "exponential", maxAttempts: 4, baseDelay: "1h" } }, async () => {
    tries += 1;
    if (tries < 4) throw new Error("not yet");
  });
  const waits = workflow("waits", async () => {
    const received = await go.wait({ timeout: "2h" });
    await note(`wait ${received}`, now());
  });
  const retries = workflow("retries", async () => {
    await flaky();
    await note("retried", now());
  });
  const late = workflow("late", async () => note("late", now()));
  const races = workflow("races", async () => {
    const { winner } = await race({ go, timer: "90m" });
    await note(`race ${winner}`, now());
  });
  const limited = workflow({ name: "limited", timeout: "4h" }, async () => {
    await sleep({ days: 300 });
  });
  const perdure = await launched(t, { workflows: [waits, retries, late, races, limited] });
  await perdure.start(waits);
  await perdure.start(retries);
  await perdure.start(late.with({ delay: "30m" }));
  await perdure.start(late.with({ startAt: new Date(START.getTime() + 5 * HOUR) }));
  await perdure.start(races);
  const run = await perdure.start(limited);
  await perdure.advance("3h");
  t.same(seen, ["00:30:00 late", "01:30:00 race timer", "02:00:00 wait null"]);
  t.equal(tries, 3, "after 1 h and 2 h more");
  await perdure.advance("1h");
  t.equal((await run.status()).state, "failed");
  t.match((await rejection(run.result())).error.cause, { name: "TimeoutError" });
  t.equal((await run.status()).finishedAt?.toISOString(), "2027-03-01T04:00:00.000Z");
  await perdure.advance({ days: 1 });
  t.same(seen.slice(3), ["05:00:00 late", "07:00:00 retried"]);
});

test("schedules fire at each of their slots, in order", async (t) => {
  const at: string[] = [];
  const report = step("report", async (now: Date) => void at.push(now.toISOString().slice(5, 16)));
  const nightly = workflow("nightly", async () => report(now()));
  const perdure = await launched(t, {
    workflows: [nightly],
    schedules: [schedule("night", { cron: "0 3 * * *" }, nightly), schedule("eight", { every: "8h" }, nightly)],
  });
  await perdure.settled();
  t.same(at, []);
  await perdure.advance({ days: 1 });
  t.same(at, ["03-01T03:00", "03-01T08:00", "03-01T16:00", "03-02T00:00"]);
  const runs = await perdure.list({ workflow: nightly });
  t.equal(runs.runs.length, 4);
});

test("children, and what many runs do at one instant, are settled too", async (t) => {
  const child = workflow("child", async (hours: number) => {
    await sleep({ hours });
    return hours;
  });
  const parent = workflow("parent", async () => {
    const children = await Promise.all([3, 1, 2].map((hours) => start(child, hours)));
    const first = await child(4);
    return [first, ...(await Promise.all(children.map((one) => one.result())))];
  });
  const perdure = await launched(t, { workflows: [parent, child] });
  const runs = await Promise.all([1, 2, 3, 4, 5].map(() => perdure.start(parent)));
  await perdure.advance("3h");
  t.same(new Set(await Promise.all(runs.map(async (run) => (await run.status()).waitingFor))), new Set(["child"]));
  await perdure.advance("1h");
  for (const run of runs) t.same(await run.result(), [4, 3, 1, 2]);
  t.equal(perdure.calls(child).length, 20);
});

test("time stands still between: a sleep of a second lasts until the test says so", async (t) => {
  const nap = workflow("nap", async () => sleep("1s"));
  const perdure = await launched(t, { workflows: [nap] });
  const run = await perdure.start(nap);
  await perdure.settled();
  const before = perdure.now();
  // Real time passes: nothing may happen.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  t.equal((await run.status()).state, "suspended");
  t.same(perdure.now(), before);
  await perdure.advanceTo(new Date(START.getTime() + 1000));
  t.same(await run.result(), { woken: false });
  t.match(await rejection(perdure.advanceTo(START)), { code: "PERDURE_OPTION", message: /cannot go back/ });
});

test("settled() names what is still at work", async (t) => {
  let free!: () => void;
  const hang = step("hang", () => new Promise<void>((resolve) => (free = resolve)));
  const stuck = workflow("stuck", async () => hang());
  const perdure = await launched(t, { workflows: [stuck] });
  await perdure.start(stuck.with({ id: "s1" }));
  const { code, message } = await rejection(perdure.settled({ timeout: 100 }));
  t.equal(code, "PERDURE_TIMEOUT");
  t.match(message, /run "s1" of workflow "stuck" \(running\); under way: step "hang" of run "s1"/);
  free();
  await perdure.settled();
});

test("a run that is paused or blocked counts as settled, and its timers wait for it", async (t) => {
  const nap = workflow("nap", async () => {
    await sleep("1h");
    return now().toISOString();
  });
  const perdure = await launched(t, { workflows: [nap] });
  const run = await perdure.start(nap);
  await perdure.settled();
  await run.pause();
  await perdure.advance("2h");
  t.equal((await run.status()).state, "paused");
  await run.resume();
  await perdure.settled();
  t.equal(await run.result(), "2027-03-01T02:00:00.000Z");
});

test("the schema is the test's own: made at launch, dropped at shutdown, and never one that exists", async (t) => {
  const perdure = new TestPerdure({ database: await server(), schema: "own_schema_of_a_test" });
  await perdure.launch();
  const exists = () =>
    server().then((url) =>
      inDatabase(url, async (client) => {
        const { rowCount } = await client.query("select from pg_namespace where nspname = 'own_schema_of_a_test'");
        return rowCount === 1;
      }),
    );
  t.ok(await exists());
  const other = new TestPerdure({ database: await server(), schema: "own_schema_of_a_test", logger: collector() });
  t.match(await rejection(other.launch()), { code: "PERDURE_SCHEMA", message: /exists/ });
  await other.shutdown();
  t.ok(await exists(), "it was not the other's to drop");
  await perdure.shutdown();
  t.notOk(await exists());
  t.match(await rejection(perdure.settled()), { code: "PERDURE_STATE" });
});

test("two at once do not meet, and `await using` ends each", async (t) => {
  const nap = workflow("nap", async () => sleep("1h"));
  await using one = new TestPerdure({ database: await server(), workflows: [nap], now: START });
  await using two = new TestPerdure({ database: await server(), workflows: [nap], now: START });
  await Promise.all([one.launch(), two.launch()]);
  const [a, b] = [await one.start(nap.with({ id: "same" })), await two.start(nap.with({ id: "same" }))];
  await one.advance("1h");
  t.equal((await a.status()).state, "completed");
  await two.settled();
  t.equal((await b.status()).state, "suspended");
});

test("bad options are refused at the door", async (t) => {
  for (const [options, message] of [
    [{ replay: "often" }, /replay of new TestPerdure\(\)/],
    [{ now: "today" }, /now of new TestPerdure\(\)/],
    [{ standIns: {} }, /standIns of new TestPerdure\(\)/],
    [{ standIns: [1] }, /standIn\(\) did not make/],
    [{ standins: [] }, /did you mean|unknown option/],
    [7, /must be a plain object/],
  ] as const) {
    t.throws(() => new TestPerdure(options as never), { message });
  }
  const perdure = new TestPerdure({ database: await server() });
  t.match(await rejection(perdure.advance("1h")), { code: "PERDURE_STATE" });
  t.match(await rejection(perdure.advance("soon" as never)), { code: "PERDURE_OPTION" });
  t.match(await rejection(perdure.settled({ timout: 1 } as never)), { message: /did you mean "timeout"/ });
  await perdure.shutdown();
});
