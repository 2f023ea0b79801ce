/** The reference itself, held to what DESIGN.md says by cases written by hand. */
import { test } from "tap";
import { type Command, explore, type Family, type Run, resultOf } from "./reference.ts";
import type { Script, Start } from "./script.ts";

const blank: Family = { now: 0, gate: false, workers: { w: ["1", "2"] }, rough: false, runs: {} };
const start = (script: Script, more: Partial<Start> = {}): Command => ({
  do: "start",
  id: "r",
  version: "1",
  start: { script, delay: null, timeout: null, attempts: 1, ...more },
});
const send = (n: number, more: Partial<Extract<Command, { do: "send" }>> = {}): Command => ({
  do: "send",
  id: "r",
  event: "a",
  n,
  reference: null,
  ...more,
});
const hour: Command = { do: "hour" };
const on = (verb: "cancel" | "pause" | "resume" | "retry" | "wake"): Command => ({ do: verb, id: "r" });

/** One command after the other, each when all is at rest: what may become of it. */
function after(...commands: readonly Command[]): { answers: string[]; family: Family }[] {
  return commands.reduce<{ answers: string[]; family: Family }[]>(
    (courses, command) =>
      courses.flatMap(({ answers, family }) =>
        explore(family, [command]).map((course) => ({
          answers: [...answers, ...course.answers],
          family: course.family,
        })),
      ),
    [{ answers: [], family: blank }],
  );
}

/** As `after`, where it can go in one way only. */
function only(...commands: readonly Command[]): { answers: string[]; run: Run; family: Family } {
  const courses = after(...commands);
  if (courses.length !== 1) throw new Error(`${courses.length} courses: ${JSON.stringify(courses)}`);
  return { ...courses[0]!, run: courses[0]!.family.runs.r! };
}

/** The phases of r, over all courses that commands at the same time may take. */
const together = (family: Family, ...commands: readonly Command[]): string[] =>
  [...new Set(explore(family, commands).map((course) => `${course.answers} ${course.family.runs.r!.phase}`))].sort();

test("a run does its stages in order, books once, and returns what they gave", (t) => {
  const { run } = only(start([[{ do: "book" }], [{ do: "step" }, { do: "book" }]]));
  t.equal(run.phase, "completed");
  t.same([...run.ledger].sort(), ["0.0", "1.1"]);
  t.same(resultOf(run), { version: "1", values: [["book 0.0 by 1"], ["step 1.0 by 1", "book 1.1 by 1"]] });
  t.end();
});

test("mail is kept before anyone waits, taken in order, and what nobody took stays", (t) => {
  const wait = { do: "wait", event: "a", hours: null } as const;
  const { run, answers } = only(start([[{ do: "hold", tx: false }], [wait], [wait]]), send(1), send(2), send(3), {
    do: "open",
  });
  t.same(answers, ["ok", "ok", "ok", "ok", "ok"]);
  t.same(run.taken, [1, 2]);
  t.same(run.unread, [["a", 3]]);
  t.end();
});

test("a second mail of the same name and reference is dropped, also after the end; others are refused then", (t) => {
  const one = start([[{ do: "wait", event: "a", hours: null }]]);
  const { run, answers } = only(one, send(1, { reference: "x" }), send(2, { reference: "x" }), send(3));
  t.same(answers, ["ok", "ok", "ok", "PERDURE_FINISHED"]);
  t.same([run.phase, run.taken, run.unread], ["completed", [1], []]);
  t.end();
});

test("a timer is never early, and mail that comes before its hour is taken", (t) => {
  const waiting = start([[{ do: "wait", event: "a", hours: 2 }]]);
  t.equal(only(waiting, hour).run.phase, "live");
  t.same(
    only(waiting, hour, hour).run.past[0]!.map(({ value }) => value),
    [null],
  );
  t.same(only(waiting, hour, send(1)).run.taken, [1]);
  const { family } = only(waiting, hour);
  t.same(together(family, send(1), hour), ["ok,ok completed", "PERDURE_FINISHED,ok completed"].sort());
  t.end();
});

test("a race takes the first that is there and leaves the other's mail", (t) => {
  const racing = start([
    [{ do: "hold", tx: false }],
    [{ do: "race", hours: 1 }],
    [{ do: "wait", event: "b", hours: null }],
  ]);
  const { run } = only(racing, send(1, { event: "b" }), send(2), { do: "open" });
  t.same(
    run.past.flat().map(({ value }) => value),
    ["hold 0.0 by 1", ["a", 2], 1],
  );
  t.end();
});

test("cancel ends a run and its children at once, and for good", (t) => {
  const parent = start([[{ do: "spawn", script: [[{ do: "sleep", hours: 1 }]] }], [{ do: "sleep", hours: 1 }]]);
  const { family, answers } = only(parent, on("cancel"), on("cancel"), on("retry"), on("resume"), send(1));
  t.same(
    Object.values(family.runs).map(({ phase }) => phase),
    ["cancelled", "cancelled"],
  );
  t.same(answers.slice(1), ["ok", "ok", "PERDURE_STATE", "PERDURE_STATE", "PERDURE_FINISHED"]);
  t.end();
});

test("a paused run begins nothing; its timers and mail go on counting", (t) => {
  const sleeping = start([[{ do: "sleep", hours: 1 }], [{ do: "wait", event: "a", hours: null }], [{ do: "book" }]]);
  const { run, family } = only(sleeping, on("pause"), hour, send(1));
  t.same([run.phase, run.ledger, run.unread], ["paused", [], [["a", 1]]]);
  t.same(
    explore(family, [on("resume")]).map((course) => course.family.runs.r!.phase),
    ["completed"],
  );
  t.end();
});

test("a step in flight ends before the pause; without its process it does not", (t) => {
  const held = only(start([[{ do: "hold", tx: true }], [{ do: "sleep", hours: 1 }]]), on("pause"));
  t.same([held.run.phase, held.run.ledger], ["pausing", []]);
  const opened = explore(held.family, [{ do: "open" }]).map(({ family }) => family.runs.r!);
  t.ok(opened.every(({ phase }) => phase === "paused"));
  t.ok(opened.some(({ ledger }) => ledger.length === 1));
  const killed = explore(held.family, [
    { do: "serve", worker: "w", versions: [], rough: true },
    { do: "serve", worker: "v", versions: ["1"], rough: false },
  ]);
  t.ok(killed.some(({ family }) => family.runs.r!.phase === "paused"));
  t.end();
});

test("wake ends a sleep and says so; who does not sleep is not woken", (t) => {
  const { run, answers } = only(start([[{ do: "sleep", hours: 3 }]]), on("wake"), on("wake"));
  t.same(answers, ["ok", "ok", "PERDURE_STATE"]);
  t.same(
    run.past[0]!.map(({ value }) => value),
    [{ woken: true }],
  );
  t.end();
});

test("a retry keeps what was recorded and does the rest again; a policy does so by itself, an hour later", (t) => {
  const script: Script = [[{ do: "book" }], [{ do: "fail", attempts: 1 }], [{ do: "book" }]];
  const failed = only(start(script));
  t.same([failed.run.phase, failed.run.ledger], ["failed", ["0.0"]]);
  const again = only(start(script), on("retry")).run;
  t.same([again.phase, again.attempt, again.ledger], ["completed", 2, ["0.0", "2.0"]]);
  const waiting = only(start(script, { attempts: 2 })).run;
  t.same([waiting.phase, waiting.attempt, waiting.due], ["live", 2, 1]);
  t.same(only(start(script, { attempts: 2 }), hour).run.phase, "completed");
  t.end();
});

test("a child that fails takes its parent with it, and a retry of the parent starts another", (t) => {
  const script: Script = [[{ do: "child", script: [[{ do: "flaky", fails: 3 }]] }]];
  const { family } = only(start(script), hour, hour);
  t.same(
    Object.values(family.runs).map(({ id, phase }) => [id, phase]),
    [
      ["r", "failed"],
      ["r/0.0#1", "failed"],
    ],
  );
  const [again] = explore(family, [on("retry")]);
  t.same(Object.keys(again!.family.runs), ["r", "r/0.0#1", "r/0.0#2"]);
  t.end();
});

test("a timeout counts from the first claim and fails the run, whatever it waits for", (t) => {
  const timed = start([[{ do: "wait", event: "a", hours: null }]], { timeout: 2, delay: 1 });
  t.equal(only(timed, hour, hour).run.phase, "live");
  t.equal(only(timed, hour, hour, hour).run.phase, "failed");
  t.end();
});

test("a fork has what came before a step, and does that step again; its mail is its own", (t) => {
  const script: Script = [
    [{ do: "wait", event: "a", hours: null }],
    [{ do: "book" }],
    [{ do: "wait", event: "a", hours: null }],
  ];
  const fork: Command = { do: "fork", id: "r", at: "1.0", newId: "f", version: "2" };
  const { family, answers } = only(start(script), send(1), send(2), fork, { ...fork, at: "2.0", newId: "g" });
  t.same(answers.at(-2), "ok");
  const forked = family.runs.f!;
  t.same([forked.phase, forked.taken, forked.ledger, forked.past.length], ["live", [], ["1.0"], 2]);
  t.equal(forked.past[1]![0]!.value, "book 1.0 by 2");
  t.end();
});

test("whom nobody serves stays where it is, and may have come anywhere before its process went", (t) => {
  const gone: Command = { do: "serve", worker: "w", versions: [], rough: true };
  const courses = explore(blank, [start([[{ do: "book" }], [{ do: "book" }]]), gone]);
  const ledgers = new Set(courses.map(({ family }) => family.runs.r!.ledger.length));
  t.same([...ledgers].sort(), [0, 1, 2]);
  t.equal(only(gone, start([[{ do: "book" }]])).run.phase, "live");
  t.end();
});

test("of two commands at the same time either may come first", (t) => {
  const { family } = only(start([[{ do: "wait", event: "a", hours: null }]]));
  t.same(
    together(family, on("cancel"), send(1)),
    ["PERDURE_STATE,ok completed", "ok,PERDURE_FINISHED cancelled", "ok,ok cancelled"].sort(),
  );
  t.end();
});
