/** What the engine offers outside of runs is refused in a body, where nothing records it, and says what to call there. */
import pg from "pg";
import { test } from "tap";
import { event, type Perdure, runStep, schedule, sleep, start, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { reaches, rejection } from "../support/gate.ts";

const patient = { timeout: "20s" } as const;
const go = event<number>("go");
const codeOf = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    () => null,
    (error) => error.code ?? error.message,
  );

test("start, send and cancel of an engine or of a handle that it gave are refused in a body, with what to call instead", async (t) => {
  const waits = workflow("waits", async () => (await go.wait()).data);
  const tries = workflow("tries", async () => {
    const run = perdure.get("other");
    const refused = await Promise.all([
      rejection(perdure.start(waits.with({ id: "started" }))),
      rejection(perdure.send("other", go, 1)),
      rejection(perdure.cancel(["other"])),
      rejection(run.send(go, 1)),
      rejection(run.cancel()),
    ]);
    return refused.map(({ code, message }) => [code, message]);
  });
  const { perdure, sql } = await bench(t, { workflows: [waits, tries] });
  await perdure.start(waits.with({ id: "other" }));
  const refused = (await (await perdure.start(tries.with({ id: "t-1" }))).result(patient)) as string[][];
  t.same(
    refused.map(([code]) => code),
    refused.map(() => "PERDURE_CONTEXT"),
  );
  t.match(refused, [
    [
      String,
      /^perdure\.start\(\) is not recorded, so every replay of workflow "tries" \(run "t-1"\) would do it again; .*start\(\) for a child/,
    ],
    [String, /^perdure\.send\(\) .*call it in a step, or send\(\) of a child's handle/],
    [String, /^perdure\.cancel\(\) .*in a step/],
    [String, /^send\(\) of a handle that start\(\) of a workflow did not give/],
    [String, /^cancel\(\) of a handle/],
  ]);
  t.same(await sql("select from :SCHEMA.events"), []);
  t.same(await sql("select from :SCHEMA.runs where id = 'started'"), []);
});

test("retry, fork, pause, resume and wake, using() and what changes schedules are refused in a body too, and work in its steps", async (t) => {
  const waits = workflow("waits", async () => (await go.wait()).data);
  const naps = workflow("naps", async () => {
    await runStep("first", () => 1);
    return (await sleep("1h")).woken;
  });
  const daily = schedule("daily", { every: { days: 1 } }, waits);
  const verbs: Record<string, (id: string) => Promise<unknown>> = {
    "perdure.retry()": (id) => perdure.retry([id]),
    "pause() of a handle": (id) => perdure.get(id).pause(),
    "resume() of a handle": (id) => perdure.get(id).resume(),
    "wake() of a handle": (id) => perdure.get(id).wake(),
    "retry() of a handle": (id) => perdure.get(id).retry(),
    "fork() of a handle": (id) => perdure.get(id).fork({ from: "first", id: `${id}-fork` }),
    "schedules.put()": () => perdure.schedules.put(daily),
    "schedules.pause()": () => perdure.schedules.pause("daily"),
    "schedules.resume()": () => perdure.schedules.resume("daily"),
    "schedules.trigger()": () => perdure.schedules.trigger("daily"),
    "schedules.delete()": () => perdure.schedules.delete("daily"),
    "start() of perdure.using()": () => using((own) => own.start(waits.with({ id: "by-using" }))),
    "send() of perdure.using()": () => using((own) => own.send("by-using", go, 1)),
    "cancel() of perdure.using()": () => using((own) => own.cancel("by-using")),
  };
  const using = async (work: (own: ReturnType<Perdure["using"]>) => Promise<unknown>) => {
    await pool.query("begin");
    await work(perdure.using(pool));
    await pool.query("commit");
  };
  const tries = workflow("tries", async () => {
    const refused: string[][] = [];
    for (const [verb, call] of Object.entries(verbs)) {
      const { code, message } = await rejection(call("other"));
      refused.push([verb, String(code), message]);
    }
    return refused;
  });
  const works = workflow("works", async () => {
    const codes: Record<string, unknown> = {};
    for (const [verb, call] of Object.entries(verbs)) codes[verb] = await runStep(verb, () => codeOf(call("other")));
    return codes;
  });
  const { perdure, sql, url } = await bench(t, { workflows: [waits, naps, tries, works] });
  const pool = new pg.Client({ connectionString: url });
  await pool.connect();
  t.teardown(() => pool.end());
  await perdure.start(naps.with({ id: "other" }));
  const refused = (await (await perdure.start(tries)).result(patient)) as [string, string, string][];
  t.equal(refused.length, 14);
  for (const [verb, code, message] of refused) {
    t.equal(code, "PERDURE_CONTEXT", verb);
    t.ok(message.startsWith(`${verb} is not recorded, so every replay of workflow "tries"`), message);
  }
  t.same(await sql("select from :SCHEMA.schedules"), []);
  t.same(await sql("select from :SCHEMA.runs where workflow in ('waits', 'works')"), []);
  await reaches(perdure.get("other"), "suspended");
  const codes = (await (await perdure.start(works)).result(patient)) as object;
  const found = Object.entries(codes);
  t.equal(found.length, 14);
  // Some find their run in another state by then.
  for (const [verb, code] of found) t.ok(code === null || code === "PERDURE_STATE", `${verb}: ${code}`);
});

test("in a step they work, and so do a child's handle and a workflow that is called in a body", async (t) => {
  const waits = workflow("waits", async () => (await go.wait()).data);
  const sends = step("sends", async (id: string) => {
    await perdure.send(id, go, 1);
    await perdure.get(id).send(go, 2, { ignoreFinished: true });
  });
  const all = workflow("all", async () => {
    const id = await runStep("start", async () => (await perdure.start(waits.with({ id: "by-step" }))).id);
    await sends(id);
    const child = await start(waits);
    await child.send(go, 3);
    return child.result();
  });
  const { perdure } = await bench(t, { workflows: [waits, all] });
  t.equal(await (await perdure.start(all)).result(patient), 3);
  t.equal(await perdure.get("by-step").result(patient), 1);
});
