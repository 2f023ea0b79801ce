/** A run as it is seen from outside. */

import type { RetryOptions } from "../client/control.ts";
import type { RunHandle } from "../client/handle.ts";
import { type Duration, toMs } from "../core/duration.ts";
import { PerdureError, TimeoutError } from "../core/errors.ts";
import { checkChoice, checkKeys } from "../core/options.ts";
import { TERMINAL_STATES } from "../core/states.ts";
import type { ClientCore } from "./client.ts";
import { type Events, map, type Senders, sender } from "./event.ts";
import {
  failedOutcome,
  openState,
  outcome,
  stateOfEnd,
  type TerminalStatus,
  type WaitResult,
  type WorkflowRunState,
} from "./state.ts";
import type { VersionDefinition } from "./version.ts";

/** What a handle knows of its run, from its start or its last `refresh()`. */
export interface RunRecord<Output = unknown> {
  readonly id: string;
  readonly name: string;
  readonly versionId: string;
  readonly attempts: number;
  readonly state: WorkflowRunState<Output>;
}

/** How long to wait. */
export interface WaitOptions {
  /** Then `{ success: false, cause: "timeout" }`. Default: without end. */
  timeout?: Duration | undefined;
  /** Aborted: `{ success: false, cause: "aborted" }`. */
  signal?: AbortSignal | undefined;
  /** Taken and not used: nobody polls. */
  interval?: Duration | undefined;
}

/** A run, finished or not, in work here or elsewhere. */
export interface WorkflowRunHandle<Output, E extends Events> {
  readonly id: string;
  /** As of the start or the last `refresh()`. */
  readonly run: RunRecord<Output>;
  readonly events: Senders<E>;
  refresh(): Promise<void>;
  /**
   * Waits for the end of the run.
   *
   * @example
   * const result = await handle.waitForStatus("completed", { timeout: { seconds: 60 } });
   * if (result.success) console.log(result.state.output);
   */
  waitForStatus<S extends TerminalStatus>(status: S, options?: WaitOptions): Promise<WaitResult<S, Output>>;
  /** The older form of `waitForStatus`. */
  wait<S extends TerminalStatus>(
    what: { type: "status"; status: S },
    options?: { maxDurationMs?: number | undefined; pollIntervalMs?: number | undefined },
  ): Promise<WaitResult<S, Output>>;
  /** Cancels the run and its children. PERDURE_STATE for a finished one. */
  cancel(explanation?: string): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Ends its sleep early. PERDURE_STATE when it is not asleep. */
  wakeup(): Promise<void>;
  /** The older name of `wakeup`. */
  awake(): Promise<void>;
  /** Lets a failed or stalled run go on: see `retry` of `perdure`. PERDURE_STATE for a run that is neither. */
  retry(options?: RetryOptions): Promise<void>;
  /** The state as it is now. */
  getState(): Promise<WorkflowRunState<Output>>;
  /** The same with the id, in the oldest form. */
  getStatus(): Promise<{ readonly id: string; readonly state: WorkflowRunState["status"] }>;
  /** The output. Throws RunFailedError (`cause` is what the handler threw) or RunCancelledError. */
  waitForCompletion(options?: { timeout?: Duration | undefined }): Promise<Output>;
}

export function makeHandle(
  id: string,
  { name, version, events }: VersionDefinition,
  client: ClientCore,
  state: WorkflowRunState,
): WorkflowRunHandle<any, any> {
  const on = <T>(work: (run: RunHandle) => Promise<T>): Promise<T> => client.use((perdure) => work(perdure.get(id)));
  const look = () => on((run) => recordOf(run, { name, version }));
  const handle: WorkflowRunHandle<any, any> = {
    id,
    run: { id, name, versionId: version, attempts: 0, state },
    events: map(events, (event) => sender(event, (_, data, options) => on((run) => run.send(event, data, options)))),
    refresh: async () => void Object.assign(handle, { run: await look() }),
    waitForStatus: (status, options = {}) => on((run) => waitForEnd(run, status, options)),
    wait: async (what, options = {}) => {
      const where = `wait() of run "${id}"`;
      const { maxDurationMs, pollIntervalMs } = checkKeys(options, ["maxDurationMs", "pollIntervalMs"], where);
      const { type, status } = checkKeys(what, ["type", "status"], where);
      checkChoice(type, ["status"], `type in ${where}`);
      return handle.waitForStatus(status, {
        ...(maxDurationMs === undefined ? {} : { timeout: maxDurationMs }),
        ...(pollIntervalMs === undefined ? {} : { interval: pollIntervalMs }),
      });
    },
    cancel: (explanation) => on((run) => run.cancel(explanation)),
    pause: () => on((run) => run.pause()),
    resume: () => on((run) => run.resume()),
    wakeup: () => on((run) => run.wake()),
    awake: () => on((run) => run.wake()),
    retry: (options) => on((run) => run.retry(options)),
    getState: async () => (await look()).state,
    getStatus: async () => ({ id, state: (await look()).state.status }),
    waitForCompletion: (options = {}) => on((run) => run.result(options)),
  };
  return handle;
}

/** The handle of a run that exists, by its id. Throws PERDURE_NOT_FOUND, also for a run of another workflow or version. */
export async function findHandle(
  id: string,
  definition: VersionDefinition,
  client: ClientCore,
): Promise<WorkflowRunHandle<any, any>> {
  const run = await client.use((perdure) => recordOf(perdure.get(id), definition));
  return Object.assign(makeHandle(id, definition, client, run.state), { run });
}

async function recordOf(
  run: RunHandle,
  { name, version }: Pick<VersionDefinition, "name" | "version">,
): Promise<RunRecord> {
  const status = await run.status();
  if (status.workflow !== name || status.version !== version) {
    const text = `run "${run.id}" is one of workflow "${status.workflow}" ${status.version}, not of "${name}" ${version}; look it up there`;
    throw new PerdureError("PERDURE_NOT_FOUND", text);
  }
  const ended = (TERMINAL_STATES as readonly string[]).includes(status.state);
  const state: WorkflowRunState = ended
    ? await run.result().then((output) => ({ status: "completed", output }), stateOfEnd)
    : openState(status);
  return { id: run.id, name, versionId: version, attempts: status.attempt, state };
}

async function waitForEnd<S extends TerminalStatus>(
  run: RunHandle,
  status: S,
  options: WaitOptions,
): Promise<WaitResult<S, unknown>> {
  const where = `waitForStatus() of run "${run.id}"`;
  const { timeout, signal, interval } = checkKeys(options, ["timeout", "signal", "interval"], where);
  checkChoice(status as string, TERMINAL_STATES, `status in ${where}`);
  if (interval !== undefined) toMs(interval, `interval of ${where}`);
  try {
    const output = await run.result({ timeout, signal });
    return outcome(status, { status: "completed", output });
  } catch (error) {
    if (signal?.aborted && error === signal.reason && !(error instanceof TimeoutError))
      return { success: false, cause: "aborted" };
    return failedOutcome(status, error);
  }
}
