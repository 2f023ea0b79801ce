/** What is done to a run from outside: cancel, pause, resume, wake, retry, fork. */
import { PerdureError, RunConflictError } from "../core/errors.ts";
import { checkChoice, checkKeys, checkName, checkReason, nearest, shorten } from "../core/options.ts";
import type { RunState } from "../core/states.ts";
import { uuidv7 } from "../db/start-row.ts";
import type { Store } from "../db/store.ts";
import { insist, persist } from "./explain.ts";

export interface ControlParts {
  readonly store: Store;
  /** Runs were changed from here: this process looks at once, others by hints. */
  readonly onChange: () => void;
}

/** Options of `retry()`. */
export interface RetryOptions {
  /** `"flexible"`: replay may differ from what is recorded, from here on. Default `"strict"`: as the workflow says. */
  replay?: "strict" | "flexible" | undefined;
}

/** Options of `fork()`. */
export interface ForkOptions {
  /** A step's name, then its first call, or its slot as `history()` shows it. It runs again, and what comes after it. */
  from: string;
  /** The new run's id. Default: a random UUID. */
  id?: string | undefined;
  /** The version that the new run runs on. Default: as the old one. */
  version?: string | undefined;
}

type Verb = "cancel" | "pause" | "resume" | "wake" | "retry";

/** What a run is told whose state does not allow a verb, and what would. */
const REFUSALS: Readonly<Record<Verb, string>> = {
  cancel: ", so it cannot be cancelled; only a run that has not finished can",
  pause: ", so it cannot be paused; only a pending, running or suspended run can",
  resume: ", so it cannot be resumed; only a paused run can",
  wake: " and not asleep; only a sleep can be ended by wake()",
  retry: ", so it cannot be retried; only a failed or blocked run can",
};

export function notFoundError(id: string): PerdureError {
  return new PerdureError("PERDURE_NOT_FOUND", `there is no run "${id}"; check the id, or start the run first`);
}

export function notFound(id: string): never {
  throw notFoundError(id);
}

/** The error of a verb that a run's state does not allow. */
export function refusedBy(state: string, verb: Verb, id: string): PerdureError {
  return new PerdureError("PERDURE_STATE", `run "${id}" is ${state}${REFUSALS[verb]}`);
}

/** True: the verb has been carried out, or there was nothing left to do. */
export const isDone = (verb: Verb, verdict: string): boolean =>
  verdict === "ok" || verdict === "woken" || (verb === "cancel" && verdict === ("cancelled" satisfies RunState));

export async function controlRun(
  verb: Verb,
  id: string,
  { store, onChange }: ControlParts,
  ...more: unknown[]
): Promise<void> {
  const [found] = await insist(`asking run "${id}" to ${verb}`, () => store.control(verb, [id], ...more));
  onChange();
  const { verdict } = found ?? notFound(id);
  if (!isDone(verb, verdict)) throw refusedBy(verdict, verb, id);
}

export async function cancelRun(id: string, reason: string | undefined, parts: ControlParts): Promise<void> {
  await controlRun("cancel", id, parts, checkReason(reason, `cancel() of run "${id}"`));
}

/**
 * The cancel of a body, whose step does not fail because a connection did. A run that has ended needs none, and one that was cancelled before
 * its answer was lost stays as it is.
 */
export async function cancelForBody(id: string, reason: string | null, parts: ControlParts): Promise<void> {
  await persist(`cancelling run "${id}"`, () => parts.store.control("cancel", [id], reason));
  parts.onChange();
}

export async function retryRun(id: string, options: RetryOptions, parts: ControlParts): Promise<void> {
  await controlRun("retry", id, parts, isFlexible(options, `retry() of run "${id}"`));
}

/** Whether a retry is to let replay differ. */
export function isFlexible(options: RetryOptions, where: string): boolean {
  const { replay = "strict" } = checkKeys(options, ["replay"], where);
  return checkChoice(replay, ["strict", "flexible"], `replay in ${where}`) === "flexible";
}

/** Makes the new run, and returns its id. */
export async function forkRun(id: string, options: ForkOptions, { store, onChange }: ControlParts): Promise<string> {
  const where = `fork() of run "${id}"`;
  const given = checkKeys(options, ["from", "id", "version"], where);
  if (typeof given.from !== "string" || given.from === "" || given.from.includes("\0")) {
    const text = `from in ${where} must be the name or the slot of a recorded step, not ${shorten(given.from)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  const newId = given.id === undefined ? uuidv7() : checkName(given.id, "run id");
  const version = given.version === undefined ? null : checkName(given.version, `version in ${where}`);
  const { verdict } = await insist(`forking run "${id}"`, () => store.fork(id, given.from, newId, version));
  if (verdict === "unknown") notFound(id);
  if (verdict === "taken")
    throw new RunConflictError(newId, `run "${id}" cannot be forked: run "${newId}" exists; choose another id`);
  if (verdict === "slot") {
    const names = await store.recordedNames(id);
    const meant = nearest(given.from, names);
    const help = meant ? `did you mean "${meant}"?` : "history() shows what is";
    throw new PerdureError(
      "PERDURE_NOT_FOUND",
      `run "${id}" has recorded no step or wait of the name or slot ${shorten(given.from)}; ${help}`,
    );
  }
  onChange();
  return newId;
}
