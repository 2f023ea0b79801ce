/** A run as it is seen from outside. */

import type { Ended } from "../core/claim.ts";
import { refuseInBody } from "../core/context.ts";
import { type Duration, toMs } from "../core/duration.ts";
import { endError, openEnd } from "../core/ended.ts";
import { TimeoutError } from "../core/errors.ts";
import { checkKeys, checkName, checkSignal } from "../core/options.ts";
import type { HistoryEntry, RunStatus } from "../core/types.ts";
import { pause } from "../db/deadline.ts";
import type { Store } from "../db/store.ts";
import { cancelRun, controlRun, type ForkOptions, forkRun, notFound, type RetryOptions, retryRun } from "./control.ts";
import { explain } from "./explain.ts";
import { history } from "./history.ts";
import {
  latestOf,
  type ReaderParts,
  type ReadOptions,
  readStream,
  type StreamLike,
  type ValueLike,
  type WatchOptions,
  watchValue,
} from "./reader.ts";
import type { FinishedRun, Results } from "./results.ts";
import type { EventLike, SendArguments, Sender } from "./send.ts";

/** What `result()` may be told. */
export interface ResultOptions {
  /** How long to wait; then a TimeoutError. The run goes on. Default: without end. */
  timeout?: Duration | undefined;
  /** Gives the wait up with the signal's reason. The run goes on. */
  signal?: AbortSignal | undefined;
}

/** A run, finished or not, in work here or elsewhere. A plain object, whose methods may be taken off it: `const { result } = run`. */
export interface RunHandle<R = unknown> {
  readonly id: string;
  /** What the run is doing. Throws PERDURE_NOT_FOUND. */
  status(): Promise<RunStatus>;
  /**
   * What the run has asked for so far, one entry a slot, in the order in which it was handed the outcomes; then what is open.
   * Throws PERDURE_NOT_FOUND.
   */
  history(): Promise<HistoryEntry[]>;
  /**
   * Waits for the end, through outages of the database, and for as long as the run is blocked. Throws RunFailedError (`cause` is the revived
   * error), RunCancelledError, TimeoutError or PERDURE_NOT_FOUND; PERDURE_STATE when this engine shuts down.
   *
   * @example const total = await run.result({ timeout: "10s" });
   */
  result(options?: ResultOptions): Promise<R>;
  /** Sends an event to the run: see `perdure.send`. */
  send<T, S = T>(event: EventLike<T, S>, ...rest: SendArguments<NoInfer<S>>): Promise<void>;
  /**
   * Cancels the run and its children at once: steps are told by their signal, later writes are refused. A cancelled run stays so; a
   * finished one: PERDURE_STATE.
   */
  cancel(reason?: string): Promise<void>;
  /**
   * Begins no new step; attempts in flight end and are recorded, then the run is given up. Timers and mail go on counting. Throws
   * PERDURE_STATE for a run that is blocked or has ended.
   */
  pause(): Promise<void>;
  /** Lets a paused run go on from where it is. PERDURE_STATE when it is not paused. */
  resume(): Promise<void>;
  /** Ends the run's sleep early: it returns `{ woken: true }`. PERDURE_STATE when the run is not asleep. */
  wake(): Promise<void>;
  /**
   * Lets a failed or blocked run go on: the failures that ended it run again, what else is recorded stays. `replay: "flexible"`: its code may
   * ask for other calls than are recorded, from here on. PERDURE_STATE for a run that is neither.
   */
  retry(options?: RetryOptions): Promise<void>;
  /**
   * A new run with the history of this one up to a step, which runs again. Children that were started before are shared. What its code drew
   * until then from `uuid()`, `random()` and `now()` it draws again; its id is another, so code that makes arguments of that diverges.
   * Throws PERDURE_NOT_FOUND, also for a step that is not in the history, and RunConflictError for an id that is taken.
   *
   * @example const repaired = await run.fork({ from: "charge-card" });
   */
  fork(options: ForkOptions): Promise<RunHandle<R>>;
  /** The latest of a value that the run has published; undefined: it was never set. Throws PERDURE_NOT_FOUND. */
  get<T>(value: ValueLike<T>): Promise<T | undefined>;
  /**
   * The latest of a value, if it was set, then each newer one; who is slow may miss some in between, never the last. Ends with the run.
   * Throws PERDURE_NOT_FOUND, PERDURE_STATE when the engine shuts down, or the reason of an aborted `signal`; an outage of the database is
   * waited out.
   *
   * @example for await (const status of run.watch(agentStatus)) console.log(status);
   */
  watch<T>(value: ValueLike<T>, options?: WatchOptions): AsyncIterable<T>;
  /**
   * The items of a stream, in order, each once: those that are there, then those that come. Ends when the stream is closed, or with the
   * run. Breaking off leaves nothing behind; read on later with `from`. Throws as `watch` does, and PERDURE_OPTION for a bad `from`.
   *
   * @example for await (const token of run.read(tokens, { from: 100 })) process.stdout.write(token);
   */
  read<T>(stream: StreamLike<T>, options?: ReadOptions): AsyncIterable<T>;
}

export interface HandleParts extends ReaderParts {
  readonly store: Store;
  readonly results: Results;
  readonly sender: Sender;
  /** A run was changed from here: this process looks at once, others by hints. */
  readonly onChange: () => void;
  /** The run is known to exist. */
  readonly exists: boolean;
}

export function makeHandle<R>(id: string, parts: HandleParts): RunHandle<R> {
  return handleOf(checkName(id, "run id"), parts);
}

/** The handle of a run whose id is known to be one. */
export function handleOf<R>(id: string, parts: HandleParts): RunHandle<R> {
  return {
    id,
    status: () => live(parts, () => status(id, parts)),
    history: () => live(parts, () => historyOf(id, parts)),
    result: (options = {}) => live(parts, () => result(id, options, parts) as Promise<R>),
    send: (event, ...[data, options]) =>
      live(parts, () => recorded("send", () => parts.sender.one(id, event, data as never, options))),
    cancel: (reason) => live(parts, () => recorded("cancel", () => cancelRun(id, reason, parts))),
    pause: () => live(parts, () => outside("pause", () => controlRun("pause", id, parts))),
    resume: () => live(parts, () => outside("resume", () => controlRun("resume", id, parts))),
    wake: () => live(parts, () => outside("wake", () => controlRun("wake", id, parts))),
    retry: (options = {}) => live(parts, () => outside("retry", () => retryRun(id, options, parts))),
    fork: (options) =>
      live(parts, () =>
        outside("fork", async () => makeHandle(await forkRun(id, options, parts), { ...parts, exists: true })),
      ),
    get: <T>(value: ValueLike<T>) => live(parts, () => latestOf(id, value, parts) as Promise<T | undefined>),
    watch: <T>(value: ValueLike<T>, options: WatchOptions = {}) =>
      watchValue(id, value, options, parts) as AsyncIterable<T>,
    read: <T>(stream: StreamLike<T>, options: ReadOptions = {}) =>
      readStream(id, stream, options, parts) as AsyncIterable<T>,
  };
}

async function live<T>(parts: HandleParts, work: () => Promise<T>): Promise<T> {
  parts.checkLive();
  return work();
}

/** Does what a body may do by the handle of a child only, which records it. */
async function recorded(verb: "send" | "cancel", work: () => Promise<void>): Promise<void> {
  refuseInBody(`${verb}() of a handle that start() of a workflow did not give`, "call it in a step");
  return work();
}

/** Does what nothing records. */
async function outside<T>(verb: string, work: () => Promise<T>): Promise<T> {
  refuseInBody(`${verb}() of a handle`, "call it in a step");
  return work();
}

function status(id: string, { store }: HandleParts): Promise<RunStatus> {
  return explain(`reading the status of run "${id}"`, async () => (await store.status(id)) ?? notFound(id));
}

async function historyOf(id: string, parts: HandleParts): Promise<HistoryEntry[]> {
  const entries = await history(id, parts);
  // Asked last: the history of a run that is there still is whole.
  const known = await explain(`reading the history of run "${id}"`, () => parts.store.known([id]));
  return known.length > 0 ? entries : notFound(id);
}

async function result(id: string, options: ResultOptions, parts: HandleParts): Promise<unknown> {
  const { timeout, signal } = checkKeys(options, ["timeout", "signal"], `result() of run "${id}"`);
  const timeoutMs = timeout === undefined ? null : toMs(timeout, `timeout of result() of run "${id}"`);
  checkSignal(signal, `result() of run "${id}"`)?.throwIfAborted();
  const gaveUp = giveUp(id, timeoutMs, signal);
  try {
    return await read(await ended(id, gaveUp?.promise, parts), parts);
  } finally {
    gaveUp?.stop();
  }
}

/** The end of a run that exists. At the timeout it is looked once more: a hint may have been lost. */
async function ended(
  id: string,
  gaveUp: Promise<never> | undefined,
  { store, results, exists }: HandleParts,
): Promise<FinishedRun> {
  try {
    const known = (): Promise<readonly unknown[]> => explain(`waiting for run "${id}"`, () => store.known([id]));
    if (!exists && (await unless(gaveUp, known())).length === 0) notFound(id);
    const { finished, stop } = results.wait(id);
    try {
      return await unless(gaveUp, finished);
    } finally {
      stop();
    }
  } catch (error) {
    const [late] = error instanceof TimeoutError ? await store.finished([id]).catch(() => []) : [];
    if (late) return late.state === null ? notFound(id) : { ...late, state: late.state };
    throw error;
  }
}

const unless = <T>(gaveUp: Promise<never> | undefined, work: Promise<T>): Promise<T> =>
  gaveUp ? Promise.race([work, gaveUp]) : work;

/** The longest timer: a longer one would fire at once. */
const LONGEST = 2 ** 31 - 1;

async function sleepFor(ms: number, signal: AbortSignal): Promise<void> {
  for (let left = ms; left > 0 && !signal.aborted; left -= LONGEST) await pause(Math.min(left, LONGEST), signal);
}

/** Rejects at the timeout or the signal; null: neither was given. */
function giveUp(
  id: string,
  timeoutMs: number | null,
  signal: AbortSignal | undefined,
): { promise: Promise<never>; stop: () => void } | null {
  if (timeoutMs === null && !signal) return null;
  const over = new AbortController();
  const promise = new Promise<never>((_, reject) => {
    const abort = (): void => reject(signal!.reason);
    signal?.addEventListener("abort", abort, { once: true, signal: over.signal });
    // It may have been aborted since it was checked.
    if (signal?.aborted) abort();
    if (timeoutMs === null) return;
    const late = `run "${id}" had not finished after ${timeoutMs} ms; it stays as it is, so wait again, or without a timeout. status() says what it waits for, or why it is blocked`;
    void sleepFor(timeoutMs, over.signal).then(() => over.signal.aborted || reject(new TimeoutError(late)));
  });
  // It may be over before anybody waits for it.
  promise.catch(() => {});
  const stop = (): void => over.abort();
  return { promise, stop };
}

async function read(finished: FinishedRun, { codec }: HandleParts): Promise<unknown> {
  const end = openEnd(finished as Ended, codec);
  if (end.state === "completed") return codec.decodePlain(end.value!, `result of run "${end.id}"`);
  throw endError(end, codec);
}
