/**
 * The reference: what may become of a family of runs (one that was started, its children, its forks) when commands come at it. Pure, and written
 * from DESIGN.md alone. Time counts in hours. What is done at the same time may happen in any order, with any progress of the runs between:
 * `explore` tries all, and gives every state in which nothing is left to do.
 *
 * Faults are not in it: a killed, frozen or restarted process must not be seen in a run, only that nobody serves it any more.
 */
import { type EventName, type Op, placeOf, type Script, type Start, stepName, TRIES, type Version } from "./script.ts";

/** What an operation that has begun waits for, or has come to. */
export interface OpState {
  readonly done: boolean;
  readonly value: unknown;
  /** When its timer is due: a sleep, a timeout, the next try. */
  readonly due: number | null;
  readonly tries: number;
  readonly woken: boolean;
  readonly child: string | null;
  /** The attempt of the run in which it was recorded. */
  readonly attempt: number;
}

export interface Run {
  readonly id: string;
  readonly script: Script;
  readonly version: Version;
  /** `pausing`: no new stage has to begin, and it may be paused any moment. */
  readonly phase: "live" | "pausing" | "paused" | "completed" | "failed" | "cancelled";
  readonly parent: string | null;
  readonly attempt: number;
  readonly attempts: number;
  /** Not before. */
  readonly due: number | null;
  readonly timeout: number | null;
  readonly deadline: number | null;
  /** The outcomes of the stages that are over. */
  readonly past: readonly (readonly OpState[])[];
  /** Of the stage at hand: null has not begun. */
  readonly ops: readonly (OpState | null)[];
  readonly unread: readonly (readonly [EventName, number])[];
  readonly taken: readonly number[];
  readonly references: readonly string[];
  /** The operations whose effect stands in the ledger, once for each run. */
  readonly ledger: readonly string[];
  /** The operations whose child failed and took the run's attempt with it: a retry starts another there. */
  readonly escaped: readonly string[];
}

export interface Family {
  readonly now: number;
  readonly gate: boolean;
  /** Name → what it serves; none: it is down, or frozen. */
  readonly workers: Readonly<Record<string, readonly Version[]>>;
  /** A process was lost: what was in flight may not be any more. */
  readonly rough: boolean;
  readonly runs: Readonly<Record<string, Run>>;
}

export type Verb = "cancel" | "pause" | "resume" | "retry" | "wake";
export type Command =
  | { readonly do: "start"; readonly id: string; readonly version: Version; readonly start: Start }
  | { readonly do: "start again"; readonly id: string; readonly same: boolean }
  | {
      readonly do: "send";
      readonly id: string;
      readonly event: EventName;
      readonly n: number;
      readonly reference: string | null;
    }
  | { readonly do: Verb; readonly id: string }
  | {
      readonly do: "fork";
      readonly id: string;
      readonly at: string;
      readonly newId: string;
      readonly version: Version | null;
    }
  | { readonly do: "open" }
  | { readonly do: "hour" }
  /** A process serves these from here on: it came, or goes (none). `rough`: without a word. */
  | { readonly do: "serve"; readonly worker: string; readonly versions: readonly Version[]; readonly rough: boolean };

/** How a command is answered: "ok", or the code of the error. */
export type Answer = string;
const OK = "ok";
const REFUSED = "PERDURE_STATE";
const UNKNOWN = "PERDURE_NOT_FOUND";

const ENDED = ["completed", "failed", "cancelled"];
export const hasEnded = (run: Run): boolean => ENDED.includes(run.phase);

const put = (family: Family, run: Run): Family => ({ ...family, runs: { ...family.runs, [run.id]: run } });
export const isServed = (family: Family, run: Run): boolean =>
  Object.values(family.workers).some((versions) => versions.includes(run.version));

const BEGUN: OpState = { done: false, value: null, due: null, tries: 0, woken: false, child: null, attempt: 0 };

function newRun(id: string, script: Script, version: Version, more: Partial<Run>): Run {
  const blank = {
    phase: "live",
    parent: null,
    attempt: 1,
    attempts: 1,
    due: null,
    timeout: null,
    deadline: null,
  } as const;
  const lists = {
    past: [],
    ops: (script[0] ?? []).map(() => null),
    unread: [],
    taken: [],
    references: [],
    ledger: [],
    escaped: [],
  };
  return { id, script, version, ...blank, ...lists, ...more };
}

/** What a run's operations came to, for its result. */
export const resultOf = (run: Run): unknown => ({
  version: run.version,
  values: run.past.map((stage) => stage.map((op) => op.value)),
});

// ---- Progress: each of the steps that the runs may take next, one at a time.

/** A step that a run may take; `must`: nothing is settled before it is taken. */
interface Step {
  readonly family: Family;
  readonly must: boolean;
}

export function steps(family: Family): Step[] {
  return Object.values(family.runs).flatMap((run) => stepsOf(family, run));
}

function stepsOf(family: Family, run: Run): Step[] {
  if (!isServed(family, run)) return [];
  if (run.phase !== "live" && run.phase !== "pausing") return [];
  const rest = pausedSteps(family, run);
  if (run.due !== null && run.due > family.now) return rest;
  const must = run.phase === "live";
  return [...rest, ...progress(family, run).map((next) => ({ family: next, must }))];
}

/** It is paused once nothing is in flight: a held step is, unless its process was lost. */
function pausedSteps(family: Family, run: Run): Step[] {
  if (run.phase !== "pausing") return [];
  const held = inFlight(family, run);
  return held && !family.rough ? [] : [{ family: put(family, { ...run, phase: "paused" }), must: !held }];
}

/** A step of it stays in flight. */
export const inFlight = (family: Family, run: Run): boolean =>
  !family.gate && run.ops.some((op, i) => op !== null && !op.done && stageOf(run)[i]!.do === "hold");

const stageOf = (run: Run): readonly Op[] => run.script[run.past.length] ?? [];

function progress(family: Family, run: Run): Family[] {
  const late = run.deadline !== null && family.now >= run.deadline ? [put(family, { ...run, phase: "failed" })] : [];
  if (run.timeout !== null && run.deadline === null)
    return [put(family, { ...run, deadline: family.now + run.timeout })];
  if (run.past.length === run.script.length) return [...late, put(family, { ...run, phase: "completed" })];
  if (run.ops.includes(null)) return [...late, begin(family, run)];
  return [...late, ...run.ops.flatMap((op, i) => (op!.done ? [] : advance(family, run, i)))];
}

/** All operations of a stage begin. */
function begin(family: Family, run: Run): Family {
  const stage = stageOf(run);
  const [first] = stage;
  if (first?.do === "fail" && run.attempt <= first.attempts) return fail(family, run);
  let next = family;
  const ops = run.ops.map((op, i): OpState => {
    if (op) return op;
    const asked = stage[i]!;
    if (asked.do === "child" || asked.do === "spawn") {
      const child = childOf(next, run, placeOf(run.past.length, i), asked.script);
      next = family.runs[child.id] ? next : put(next, child);
      const spawned = asked.do === "spawn" && { done: true, value: "spawned", attempt: run.attempt };
      return { ...BEGUN, child: child.id, ...spawned };
    }
    const hours = asked.do === "sleep" || asked.do === "wait" || asked.do === "race" ? asked.hours : null;
    return { ...BEGUN, due: hours === null ? null : family.now + hours };
  });
  return put(next, moveOn({ ...run, ops }));
}

/** The child of an operation. Another one only where the failure of the one before ended an attempt of the parent. */
function childOf(family: Family, run: Run, at: string, script: Script): Run {
  const known = Object.values(family.runs).filter(({ id }) => id.split("#")[0] === `${run.id}/${at}`);
  const failed = run.escaped.filter((place) => place === at).length;
  if (known.length > failed) return known.at(-1)!;
  return newRun(`${run.id}/${at}#${known.length + 1}`, script, run.version, { parent: run.id });
}

/** A stage whose operations are all done makes room for the next. */
function moveOn(run: Run): Run {
  if (run.ops.some((op) => !op?.done)) return run;
  const past = [...run.past, run.ops as readonly OpState[]];
  return { ...run, past, ops: (run.script[past.length] ?? []).map(() => null) };
}

/** Done, with its value. */
function done(family: Family, run: Run, i: number, value: unknown): Family {
  const ops = run.ops.map((op, j) => (i === j ? { ...op!, done: true, value, attempt: run.attempt } : op));
  return put(family, moveOn({ ...run, ops }));
}

/** The ways in which one operation that has begun may go on: none, while it waits. */
function advance(family: Family, run: Run, i: number): Family[] {
  const op = run.ops[i]!;
  const asked = stageOf(run)[i]!;
  const at = placeOf(run.past.length, i);
  const isDue = op.due !== null && op.due <= family.now;
  const booked = { ...run, ledger: [...run.ledger, at] };
  switch (asked.do) {
    case "book":
      return [done(family, booked, i, said(asked, at, run.version))];
    case "step":
      return [done(family, run, i, said(asked, at, run.version))];
    case "hold":
      return family.gate ? [done(family, asked.tx ? booked : run, i, said(asked, at, run.version))] : [];
    case "flaky":
      return op.due !== null && !isDue ? [] : [tryOnce(family, run, i, asked.fails)];
    case "sleep":
      return op.woken || isDue ? [done(family, run, i, { woken: op.woken })] : [];
    case "wait":
      return receive(family, run, i, [asked.event], isDue, (_, n) => n);
    case "race":
      return receive(family, run, i, ["a", "b"], isDue, (winner, n) => [winner, n]);
    case "child":
      return joined(family, run, i, family.runs[op.child!]!);
    default:
      return [done(family, run, i, null)];
  }
}

export const said = (op: Op, at: string, version: Version): string => `${stepName(op, at)} by ${version}`;

function tryOnce(family: Family, run: Run, i: number, fails: number): Family {
  const op = run.ops[i]!;
  const tries = op.tries + 1;
  if (run.attempt > 1 || tries > fails) return done(family, run, i, "in the end");
  if (tries === TRIES) return fail(family, run);
  return put(family, { ...run, ops: with_(run.ops, i, { ...op, tries, due: family.now + 1 }) });
}

/** The first mail of one of the names; what is there comes before the timer, and an earlier wait of the stage before this one. */
function receive(
  family: Family,
  run: Run,
  i: number,
  names: readonly EventName[],
  isDue: boolean,
  toValue: (name: string, n: number | null) => unknown,
): Family[] {
  for (const name of names) {
    const found = run.unread.find(([event]) => event === name);
    if (!found) continue;
    if (stageOf(run).some((other, j) => j < i && !run.ops[j]!.done && wants(other, name))) return [];
    const unread = run.unread.filter((mail) => mail !== found);
    return [done(family, { ...run, unread, taken: [...run.taken, found[1]] }, i, toValue(name, found[1]))];
  }
  return isDue ? [done(family, run, i, toValue("late", null))] : [];
}

const wants = (op: Op, name: EventName): boolean => op.do === "race" || (op.do === "wait" && op.event === name);

/** The end of a child: its result, or the parent's own failure. */
function joined(family: Family, run: Run, i: number, child: Run): Family[] {
  if (!hasEnded(child)) return [];
  if (child.phase === "completed") return [done(family, run, i, resultOf(child))];
  return [fail(family, { ...run, escaped: [...run.escaped, placeOf(run.past.length, i)] })];
}

/** The body throws. Its policy tries it again an hour later; then what is recorded stays, and the rest begins anew. */
function fail(family: Family, run: Run): Family {
  if (run.attempt >= run.attempts) return put(family, { ...run, phase: "failed" });
  const phase = run.phase === "pausing" ? "paused" : "live";
  return put(family, { ...reopened(run), phase, attempt: run.attempt + 1, due: family.now + 1 });
}

const reopened = (run: Run): Run => ({ ...run, ops: run.ops.map((op) => (op?.done ? op : null)) });

const with_ = <T>(list: readonly T[], i: number, value: T): T[] => list.map((old, j) => (i === j ? value : old));

// ---- Commands: every answer that is right, and what it makes of the family.

interface Answered {
  readonly answer: Answer;
  readonly family: Family;
}

export function carryOut(family: Family, command: Command): Answered[] {
  const ok = (next: Family): Answered[] => [{ answer: OK, family: next }];
  const no = (answer: Answer): Answered[] => [{ answer, family }];
  if (command.do === "hour") return ok({ ...family, now: family.now + 1 });
  if (command.do === "open") return ok({ ...family, gate: true });
  if (command.do === "serve") {
    const workers = { ...family.workers, [command.worker]: command.versions };
    return ok({ ...family, workers, rough: family.rough || command.rough });
  }
  const run = family.runs[command.id];
  if (command.do === "start") return ok(run ? family : put(family, started(family, command)));
  if (!run) return no(UNKNOWN);
  switch (command.do) {
    case "start again":
      return command.same ? ok(family) : no("PERDURE_CONFLICT");
    case "send":
      return send(family, run, command);
    case "fork":
      return fork(family, run, command);
    case "cancel":
      if (run.phase === "cancelled") return ok(family);
      return hasEnded(run) ? no(REFUSED) : ok(cancel(family, run));
    case "pause":
      if (run.phase === "paused") return ok(family);
      return hasEnded(run) ? no(REFUSED) : ok(put(family, { ...run, phase: "pausing" }));
    case "resume":
      return run.phase === "paused" || run.phase === "pausing"
        ? ok(put(family, { ...run, phase: "live" }))
        : no(REFUSED);
    case "retry":
      return run.phase === "failed" ? ok(put(family, retried(family, run))) : no(REFUSED);
    case "wake":
      return wake(family, run);
  }
}

function started(family: Family, { id, version, start }: Extract<Command, { do: "start" }>): Run {
  const due = start.delay === null ? null : family.now + start.delay;
  return newRun(id, start.script, version, { due, timeout: start.timeout, attempts: start.attempts });
}

function send(family: Family, run: Run, { event, n, reference }: Extract<Command, { do: "send" }>): Answered[] {
  const key = `${event} ${reference}`;
  if (reference !== null && run.references.includes(key)) return [{ answer: OK, family }];
  if (hasEnded(run)) return [{ answer: "PERDURE_FINISHED", family }];
  const references = reference === null ? run.references : [...run.references, key];
  return [{ answer: OK, family: put(family, { ...run, references, unread: [...run.unread, [event, n]] }) }];
}

/** Its unfinished children too, and theirs. */
function cancel(family: Family, run: Run): Family {
  const children = Object.values(family.runs).filter((other) => other.parent === run.id && !hasEnded(other));
  return children.reduce(cancel, put(family, { ...run, phase: "cancelled" }));
}

/** The next attempt: what was recorded stays, and its time begins anew. */
function retried(family: Family, run: Run): Run {
  const deadline = run.timeout === null ? null : family.now + run.timeout;
  return { ...reopened(run), phase: "live", attempt: run.attempt + 1, due: null, deadline };
}

/** Ends the sleeps that are under way. A run that has news and has not been claimed yet is not asleep. */
function wake(family: Family, run: Run): Answered[] {
  const stage = stageOf(run);
  const asleep = (op: OpState | null, i: number): boolean =>
    op !== null && !op.done && !op.woken && stage[i]!.do === "sleep" && op.due! > family.now;
  const refused = { answer: REFUSED, family };
  if ((run.phase !== "live" && run.phase !== "pausing") || !run.ops.some(asleep)) return [refused];
  const ops = run.ops.map((op, i) => (asleep(op, i) ? { ...op!, woken: true } : op));
  const woken = { answer: OK, family: put(family, { ...run, ops }) };
  const hasNews = !isServed(family, run) || stepsOf(family, run).length > 0;
  return hasNews ? [woken, refused] : [woken];
}

/** A new run with what was recorded before a step that was alone in its stage. */
function fork(family: Family, run: Run, { at, newId, version }: Extract<Command, { do: "fork" }>): Answered[] {
  const stage = Number(at.split(".")[0]);
  const from = run.past[stage]?.[0];
  if (!from) return [{ answer: UNKNOWN, family }];
  const past = run.past.slice(0, stage);
  const attempt = Math.max(from.attempt, ...past.flat().map((op) => op.attempt));
  const { timeout, attempts } = run;
  const forked = newRun(newId, run.script, version ?? run.version, { past, attempt, timeout, attempts });
  return [{ answer: OK, family: put(family, { ...forked, ops: (run.script[stage] ?? []).map(() => null) }) }];
}

// ---- Interleavings.

/** How it may have gone: the answers of the commands, in their order, and the family when nothing is left to do. */
export interface Course {
  readonly answers: readonly Answer[];
  readonly family: Family;
}

/** More orders than this are not tried: a program of such a size should not have been made. */
const MOST = 60_000;

/** Every course that commands given at the same time may take. */
export function explore(family: Family, commands: readonly Command[]): Course[] {
  const seen = new Set<string>();
  const ends = new Map<string, Course>();
  const open: { family: Family; answers: (Answer | null)[] }[] = [{ family, answers: commands.map(() => null) }];
  for (let at = open.pop(); at; at = open.pop()) {
    const key = JSON.stringify(at);
    if (seen.has(key)) continue;
    seen.add(key);
    if (seen.size > MOST) throw new Error(`more than ${MOST} states`);
    const here = at;
    const next = steps(here.family);
    if (!here.answers.includes(null) && !next.some(({ must }) => must))
      ends.set(key, { answers: here.answers as Answer[], family: here.family });
    for (const step of next) open.push({ family: step.family, answers: here.answers });
    commands.forEach((command, i) => {
      if (here.answers[i] !== null) return;
      for (const { answer, family: then } of carryOut(here.family, command))
        open.push({ family: then, answers: with_(here.answers, i, answer) });
    });
  }
  return [...ends.values()];
}
