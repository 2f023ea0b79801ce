/** The states of a run and every way from one to another. */

/** In the order of a run's life. `blocked`: a person or a deploy must act; nothing is lost. */
export const RUN_STATES = [
  "pending",
  "running",
  "suspended",
  "paused",
  "blocked",
  "completed",
  "failed",
  "cancelled",
] as const;

/** The state that a run is in, as `status().state` has it. In `completed`, `failed` and `cancelled` it has ended. */
export type RunState = (typeof RUN_STATES)[number];

/** The states in which a run has an outcome. Only `failed` can be left, by a retry. */
export const TERMINAL_STATES = ["completed", "failed", "cancelled"] as const satisfies readonly RunState[];

/** The states in which a run has yet to come to an end. */
export const UNFINISHED_STATES = [
  "pending",
  "running",
  "suspended",
  "paused",
  "blocked",
] as const satisfies readonly RunState[];

export type TerminalState = (typeof TERMINAL_STATES)[number];

/** True if a run in `state` has an outcome. */
export function isTerminal(state: RunState): state is TerminalState {
  return (TERMINAL_STATES as readonly RunState[]).includes(state);
}

/** From → to → what happened. A pair that is absent never occurs. */
export const TRANSITIONS: Readonly<Record<RunState, Readonly<Partial<Record<RunState, string>>>>> = {
  pending: {
    running: "claimed",
    paused: "paused",
    blocked: "quarantined or undecodable",
    cancelled: "cancelled",
  },
  running: {
    pending: "lease lost, handed back or retried",
    suspended: "waits",
    paused: "paused",
    blocked: "diverged or quarantined",
    completed: "returned",
    failed: "threw",
    cancelled: "cancelled",
  },
  suspended: {
    pending: "woken",
    running: "resumed where it is warm",
    paused: "paused",
    cancelled: "cancelled",
  },
  paused: {
    pending: "resumed",
    cancelled: "cancelled",
  },
  blocked: {
    pending: "retried",
    cancelled: "cancelled",
  },
  completed: {},
  failed: {
    pending: "retried",
  },
  cancelled: {},
};
