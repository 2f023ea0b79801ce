/** Schedules declared in code and made at run time: what a launch changes, what a person can do, what is refused. */
import { test } from "tap";
import { Perdure, schedule, workflow } from "../../lib/index.ts";
import { type Bench, bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { rejection } from "../support/gate.ts";
import { refusal } from "../support/refusal.ts";
import { pass, setClock } from "./clock.ts";

const tell = workflow("tell", async (text: string) => text);
const HOURLY = { cron: "0 * * * *" } as const;

const named = async ({ perdure }: Pick<Bench, "perdure">, prefix = ""): Promise<string[]> =>
  (await perdure.schedules.list({ prefix })).map(({ name }) => name);
const traces = async ({ sql }: Bench): Promise<string[]> =>
  (await sql("select schedule || ' ' || what as line from :SCHEMA.schedule_history order by id")).map(
    ({ line }) => line,
  );

test("a launch adds, changes and removes what its application declares, and touches nothing else", async (t) => {
  const logger = collector();
  const it = await bench(t, { workflows: [tell], logger });
  await it.perdure.schedules.put(schedule("by-hand", HOURLY, tell, "x"));
  const first = [
    schedule("a", HOURLY, tell, "1"),
    schedule("b", HOURLY, tell, "2"),
    schedule("c", { every: "1h" }, tell, "3"),
  ];
  await (await it.another({ schedules: first, application: "shop" })).shutdown();
  await (await it.another({ schedules: [schedule("other", HOURLY, tell, "1")], application: "billing" })).shutdown();
  t.same(await named(it), ["a", "b", "by-hand", "c", "other"]);
  const before = await it.perdure.schedules.list({ prefix: "c" });

  const [{ later }] = await it.sql("select (clock_timestamp() + interval '10 minutes')::text as later");
  await setClock(it.sql, later);
  const second = [
    schedule("a", HOURLY, tell, "changed"),
    schedule("b", { cron: "30 * * * *" }, tell, "2"),
    schedule("c", { every: "1h" }, tell, "3"),
    schedule("d", HOURLY, tell, "4"),
  ];
  await (await it.another({ schedules: second, application: "shop" })).shutdown();
  t.same(await it.perdure.schedules.list({ prefix: "c" }), before, "what is unchanged goes on from where it is");
  t.same(await traces(it), [
    "by-hand added",
    "a added",
    "b added",
    "c added",
    "other added",
    "d added",
    "a changed",
    "b changed",
  ]);
  const [b] = await it.perdure.schedules.list({ prefix: "b" });
  t.equal(b!.nextAt!.getUTCMinutes(), 30, "new times count from now");
  t.match(b, {
    name: "b",
    application: "shop",
    cron: "30 * * * *",
    timezone: "UTC",
    every: null,
    workflow: "tell",
    version: "1",
    overlap: "skip",
    catchUp: "latest",
    paused: false,
  });

  await (await it.another({ application: "shop" })).shutdown();
  t.same((await named(it)).length, 6, "left out: nothing is changed");
  await (await it.another({ schedules: [], application: "shop" })).shutdown();
  t.same(await named(it), ["by-hand", "other"], "an empty list removes all of this application");
  t.ok(
    logger.lines.some((line) =>
      /schedules removed for application "shop": "a", "b", "c", "d"; its code does not declare them any more/.test(
        line,
      ),
    ),
  );
});

test("many launches at once leave what they all declare, once", async (t) => {
  const it = await bench(t, { workflows: [tell] });
  const schedules = Array.from({ length: 50 }, (_, n) => schedule(`s${n}`, HOURLY, tell, `${n}`));
  const engines = await Promise.all(Array.from({ length: 5 }, () => it.another({ schedules, application: "shop" })));
  t.equal((await named(it)).length, 50);
  t.equal((await traces(it)).length, 50, "each added once");
  await Promise.all(engines.map((engine) => engine.shutdown()));
});

test("code and schedules.put do not take each other's names", async (t) => {
  const logger = collector();
  const it = await bench(t, {
    workflows: [tell],
    logger,
    schedules: [schedule("declared", HOURLY, tell, "code")],
    application: "shop",
  });
  const refused = await rejection(it.perdure.schedules.put(schedule("declared", { every: "1m" }, tell, "put")));
  t.equal(refused.code, "PERDURE_CONFLICT");
  t.match(refused.message, /schedule "declared" belongs to application "shop", whose code declares it/);
  await it.perdure.schedules.put(schedule("tenant", HOURLY, tell, "put"));
  await it.another({
    schedules: [schedule("declared", HOURLY, tell, "code"), schedule("tenant", { every: "1m" }, tell, "code")],
    application: "shop",
  });
  t.match(
    (await it.perdure.schedules.list({ prefix: "tenant" }))[0],
    { application: null, cron: "0 * * * *" },
    "left alone",
  );
  t.ok(
    logger.lines.some((line) =>
      /schedule "tenant" is left as it is: it was made by schedules\.put, and application "shop" declares one/.test(
        line,
      ),
    ),
  );
  await it.another({ schedules: [schedule("declared", HOURLY, tell, "code")], application: "billing" });
  t.equal((await it.perdure.schedules.list({ prefix: "declared" }))[0]!.application, "shop");
  t.ok(
    logger.lines.some((line) => /schedule "declared" is left as it is: it belongs to application "shop"/.test(line)),
  );
});

test("a paused schedule does not fire, and what passed meanwhile is not made up", async (t) => {
  const it = await bench(t, { workflows: [tell] });
  await setClock(it.sql, "2027-01-01T00:30:00Z");
  const { schedules } = it.perdure;
  await schedules.put(schedule("s", { ...HOURLY, catchUp: "all" }, tell, "x"));
  await schedules.pause("s");
  await schedules.pause("s");
  t.match((await schedules.list())[0], { paused: true, nextAt: null });
  await schedules.put(schedule("s", { ...HOURLY, catchUp: "all" }, tell, "put again"));
  t.equal((await schedules.list())[0]!.paused, true, "put again, it stays paused");
  await pass(it.sql, "3 hours");
  await it.sql("select :SCHEMA.wake_due(10)");
  await schedules.resume("s");
  await schedules.resume("s");
  t.match((await schedules.list())[0], { paused: false, nextAt: new Date("2027-01-01T04:00:00Z") });
  t.equal((await it.sql("select count(*)::int as n from :SCHEMA.run"))[0].n, 0);
  await pass(it.sql, "30 minutes");
  const run = await eventually(async () => (await schedules.list())[0]!.lastRunId, 20_000);
  t.equal(await it.perdure.get(run).result({ timeout: "10s" }), "put again");
  t.same(await traces(it), ["s added", "s paused", "s changed", "s resumed"]);
});

test("trigger starts a run at once, put changes, delete ends it, and its runs stay", async (t) => {
  const it = await bench(t, { workflows: [tell] });
  const { schedules } = it.perdure;
  await schedules.put(
    schedule(
      "s",
      { every: "1h" },
      tell.with({ tags: ["nightly"], priority: 7, retry: { type: "fixed", maxAttempts: 2, delay: 5 } }),
      "first",
    ),
  );
  const [before] = await schedules.list();
  const run = await schedules.trigger("s");
  t.equal(await run.result({ timeout: "10s" }), "first");
  t.match((await it.sql("select tags, priority, schedule, slot_at from :SCHEMA.run"))[0], {
    tags: ["nightly"],
    priority: 7,
    schedule: "s",
    slot_at: null,
  });
  t.same((await schedules.list())[0], { ...before, lastRunId: run.id }, "its slots stay as they are");
  await schedules.put(schedule("s", { every: "1h" }, tell, "second"));
  t.same((await schedules.list())[0]!.nextAt, before!.nextAt, "the same times go on");
  await schedules.pause("s");
  t.equal(await (await schedules.trigger("s")).result({ timeout: "10s" }), "second", "a paused one, too");
  await schedules.delete("s");
  t.same(await named(it), []);
  t.equal((await it.sql("select count(*)::int as n from :SCHEMA.run"))[0].n, 2);
  t.same(await it.sql("select name from :SCHEMA.schedules"), []);
});

test("lists go page by page in the order of names", async (t) => {
  const it = await bench(t, {
    workflows: [tell],
    schedules: ["b", "a", "B", "ä", "a-1", "a_1", "c%"].map((name) => schedule(name, HOURLY, tell, "x")),
    application: "shop",
  });
  const pages: string[][] = [];
  for (let after = ""; ; ) {
    const page = (await it.perdure.schedules.list({ limit: 2, after })).map(({ name }) => name);
    if (page.length === 0) break;
    pages.push(page);
    after = page.at(-1)!;
  }
  t.same(pages.flat(), ["B", "a", "a-1", "a_1", "b", "c%", "ä"]);
  t.same(await named(it, "a"), ["a", "a-1", "a_1"]);
  t.same(await named(it, "c%"), ["c%"]);
});

test("an unknown schedule is named with the nearest one, and bad input is refused before anything is done", async (t) => {
  const schemaed = workflow(
    {
      name: "schemaed",
      input: {
        "~standard": {
          version: 1,
          vendor: "t",
          validate: (value) => (typeof value === "number" ? { value } : { issues: [{ message: "a number" }] }),
        },
      },
    },
    async (n: number) => n,
  );
  const it = await bench(t, { workflows: [tell, schemaed] });
  const { schedules } = it.perdure;
  await schedules.put(schedule("nightly", HOURLY, tell, "x"));
  for (const verb of ["pause", "resume", "trigger", "delete"] as const) {
    const refused = await rejection(schedules[verb]("nigthly"));
    t.same(
      [refused.code, refused.message],
      ["PERDURE_NOT_FOUND", 'there is no schedule "nigthly"; did you mean "nightly"?'],
      verb,
    );
    t.equal((await rejection(schedules[verb](""))).code, "PERDURE_NAME", verb);
  }
  const none = workflow("none", async () => {});
  const says = async (promise: Promise<unknown>): Promise<string> => {
    const { code, message } = await rejection(promise);
    return `${code}: ${message}`;
  };
  t.match(
    await says(schedules.put(schedule("n", HOURLY, none))),
    /PERDURE_UNKNOWN_WORKFLOW: schedule "n" starts workflow "none" .* not registered/,
  );
  t.match(
    await says(schedules.put(schedule("n", HOURLY, schemaed, "text" as never))),
    /PERDURE_INVALID: schedule "n": input of workflow "schemaed" does not fit its schema: \$: a number/,
  );
  t.match(
    await says(schedules.put(schedule("n", HOURLY, tell, (() => {}) as never))),
    /PERDURE_SERIALIZE: .*input of workflow "tell"/,
  );
  t.match(
    await says(schedules.put({ name: "n" } as never)),
    /PERDURE_OPTION: schedules\.put\(\) needs a schedule made by schedule\(\)/,
  );
  t.match(
    await says(schedules.list({ limit: 0 })),
    /PERDURE_OPTION: limit of schedules\.list\(\) must be a whole number from 1 to 1000/,
  );
  t.match(
    await says(schedules.list({ prefx: "a" } as never)),
    /unknown option "prefx" of schedules\.list\(\); did you mean "prefix"\?/,
  );
  const bad = [schedule("good", HOURLY, tell, "x"), schedule("bad", HOURLY, schemaed, "text" as never)];
  t.match(await says(it.another({ schedules: bad, application: "shop" })), /PERDURE_INVALID: schedule "bad": input/);
  t.same(await named(it), ["nightly"], "nothing half done");
});

test("what schedule() and new Perdure() cannot take is refused where it is written", (t) => {
  const says = (call: () => unknown): string => {
    const { code, message } = refusal(call) ?? {};
    return `${code}: ${message}`;
  };
  t.match(
    says(() => schedule("", HOURLY, tell, "x")),
    /PERDURE_NAME: schedule name ""/,
  );
  t.match(
    says(() => schedule("s", { cron: "0 0 30 2 *" }, tell, "x")),
    /PERDURE_OPTION: cron of schedule "s" is "0 0 30 2 \*", which never fires/,
  );
  t.match(
    says(() => schedule("s", { ...HOURLY, overlap: "skipp" } as never, tell, "x")),
    /overlap of schedule "s" cannot be "skipp"; did you mean "skip"\?/,
  );
  t.match(
    says(() => schedule("s", { ...HOURLY, catchUp: "every" } as never, tell, "x")),
    /catchUp of schedule "s" cannot be "every"/,
  );
  t.match(
    says(() => schedule("s", { ...HOURLY, timeZone: "UTC" } as never, tell, "x")),
    /unknown option "timeZone" of schedule "s"; did you mean "timezone"\?/,
  );
  t.match(
    says(() => schedule("s", HOURLY, (async () => {}) as never)),
    /schedule "s" needs a workflow made by workflow\(\)/,
  );
  for (const one of [{ id: "x" }, { delay: "1h" }, { startAt: new Date() }] as const) {
    t.match(
      says(() => schedule("s", HOURLY, tell.with(one) as never, "x")),
      /holds a copy of workflow "tell" that names one particular run \((id|delay|startAt)\)/,
    );
  }
  const fine = schedule("s", HOURLY, tell, "x");
  t.match(
    says(() => new Perdure({ schedules: [fine] })),
    /PERDURE_UNKNOWN_WORKFLOW: schedule "s" starts workflow "tell"/,
  );
  t.match(
    says(() => new Perdure({ schedules: [fine, fine], workflows: [tell] })),
    /PERDURE_DUPLICATE: two schedules are named "s"/,
  );
  t.match(
    says(() => new Perdure({ schedules: [{}] as never })),
    /PERDURE_OPTION: schedules of new Perdure\(\) holds {}, which schedule\(\) did not make/,
  );
  t.match(
    says(() => new Perdure({ schedules: fine as never })),
    /schedules of new Perdure\(\) must be an array/,
  );
  t.match(
    says(() => new Perdure({ application: "" })),
    /PERDURE_NAME: application of new Perdure\(\)/,
  );
  t.end();
});

test("an application that is not named has the name of its package", async (t) => {
  const it = await bench(t, { workflows: [tell], schedules: [schedule("s", HOURLY, tell, "x")] });
  t.equal((await it.perdure.schedules.list())[0]!.application, "perdure");
});

test("a process that works on nothing puts schedules that others fire", async (t) => {
  const it = await bench(t, { worker: false });
  await it.another({ worker: {}, workflows: [tell] });
  await it.perdure.schedules.put(schedule("s", { every: "1s" }, tell, "elsewhere"));
  const run = await eventually(async () => (await it.perdure.schedules.list())[0]!.lastRunId, 20_000);
  t.equal(await it.perdure.get(run).result({ timeout: "10s" }), "elsewhere");
});
