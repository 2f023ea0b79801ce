/** A run's state in this layer's words, and what waiting for its end gives. */
import { RunCancelledError, RunFailedError, TimeoutError } from "../core/errors.ts";
import type { RunStatus } from "../core/types.ts";
import { TaskFailedError } from "./errors.ts";

/** The ways a run ends. */
export type TerminalStatus = "completed" | "failed" | "cancelled";

/** Why a run failed: a task of it, a child of it, or its own code. `error` is what its handler threw, revived. */
export type FailedState = {
  readonly status: "failed";
  readonly error: unknown;
} & (
  | { readonly cause: "task"; readonly taskId: string }
  | { readonly cause: "child_workflow"; readonly childWorkflowRunId: string }
  | { readonly cause: "self" }
);

/** The end of a run. */
export type TerminalState<Output = unknown> =
  | { readonly status: "completed"; readonly output: Output }
  | FailedState
  | { readonly status: "cancelled"; readonly explanation?: string };

/** What a run is doing. `stalled`: it needs a person or a deploy, and `reason` says why; so does that of a run that no worker serves. */
export type WorkflowRunState<Output = unknown> =
  | TerminalState<Output>
  | {
      readonly status:
        | "scheduled"
        | "queued"
        | "running"
        | "paused"
        | "sleeping"
        | "awaiting_event"
        | "awaiting_retry"
        | "awaiting_child_workflow"
        | "stalled";
      readonly reason?: string;
    };

/** What `waitForStatus` gives. Of a run that ended otherwise, `state` says how. */
export type WaitResult<Status extends TerminalStatus, Output> =
  | { readonly success: true; readonly state: Extract<TerminalState<Output>, { readonly status: Status }> }
  | { readonly success: false; readonly cause: "run_terminated"; readonly state: TerminalState<Output> }
  | { readonly success: false; readonly cause: "timeout" | "aborted" };

const WAITING = {
  sleep: "sleeping",
  event: "awaiting_event",
  child: "awaiting_child_workflow",
  retry: "awaiting_retry",
  several: "awaiting_event",
  start: "scheduled",
} as const;

/** The state of a run that has not ended. */
export function openState({ state, waitingFor, reason }: RunStatus): WorkflowRunState<never> {
  const status =
    state === "suspended" || (state === "pending" && waitingFor !== null)
      ? WAITING[waitingFor ?? "several"]
      : state === "pending"
        ? reason === "unserved"
          ? "stalled"
          : "queued"
        : state === "blocked"
          ? "stalled"
          : (state as "running" | "paused");
  return { status, ...(reason === null ? {} : { reason }) };
}

/** The state that the end of a run's `result()` tells. What says nothing of the run is thrown on. */
export function stateOfEnd(error: unknown): TerminalState<never> {
  if (error instanceof RunCancelledError) {
    return { status: "cancelled", ...(error.reason === null ? {} : { explanation: error.reason }) };
  }
  if (!(error instanceof RunFailedError)) throw error;
  const { cause } = error;
  if (cause instanceof TaskFailedError) return { status: "failed", cause: "task", taskId: cause.taskId, error: cause };
  if (cause instanceof RunFailedError || cause instanceof RunCancelledError) {
    return { status: "failed", cause: "child_workflow", childWorkflowRunId: cause.runId, error: cause };
  }
  return { status: "failed", cause: "self", error: cause };
}

/** What waiting for `status` gives, where the run ended with `state`. */
export function outcome<S extends TerminalStatus, O>(status: S, state: TerminalState<O>): WaitResult<S, O> {
  return state.status === status
    ? { success: true, state: state as Extract<TerminalState<O>, { readonly status: S }> }
    : { success: false, cause: "run_terminated", state };
}

/** The same, where `result()` threw. */
export function failedOutcome<S extends TerminalStatus>(status: S, error: unknown): WaitResult<S, never> {
  if (error instanceof TimeoutError) return { success: false, cause: "timeout" };
  return outcome(status, stateOfEnd(error));
}
