/** What a claim brings: a run, with all that a replay needs. */
import type { TerminalState } from "./states.ts";
import type { CallKind } from "./types.ts";

/** One recorded outcome of a run, as a claim brings it. */
export interface Recorded {
  readonly slot: string;
  readonly attempt: number;
  /** In which place it was handed to the body; null: it has not been yet. */
  readonly no: number | null;
  readonly kind: CallKind;
  readonly name: string;
  readonly outcome: "completed" | "failed" | "timeout";
  readonly value: string | null;
  readonly hash: string | null;
  readonly tries: number;
  /** The database's instant, in ms since 1970. */
  readonly at: number;
}

/** A wait that a run has begun and that has no outcome yet. */
export interface OpenWait {
  readonly slot: string;
  readonly kind: "sleep" | "event" | "retry" | "child" | "race";
  readonly lengthMs: number | null;
  readonly due: number | null;
  readonly tries: number;
  readonly woken: boolean;
}

/** An event in a run's mailbox that nobody has consumed. */
export interface Mail {
  readonly seq: string;
  readonly name: string;
  readonly data: string;
  readonly reference: string | null;
  readonly sentAt: number;
  /** The sender's own; null: SQL sent it. */
  readonly token: string | null;
}

/** The end of a run that another waits for. */
export interface Ended {
  readonly id: string;
  readonly state: TerminalState;
  /** The result or the error, as it is stored. */
  readonly value: string | null;
  readonly reason: string | null;
  /** The attempt of its workflow that it ended in. */
  readonly attempt: number;
}

/** What a fork has of the run that it was made from. */
export interface ForkedFrom {
  /** When the run began in which the history did; null: nothing was handed over in it. */
  readonly startedAt: number | null;
  /** The runs whose code made it, each with the place in the order up to which it did, a fork's behind that of what it was forked from. */
  readonly seeds: readonly (readonly [run: string, until: number])[];
  /** The schedule whose arguments the first of them has. */
  readonly schedule: string | null;
}

/** A run that this process holds, with all that a replay needs. */
export interface Claim {
  readonly key: string;
  readonly id: string;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly epoch: number;
  readonly attempt: number;
  readonly crashes: number;
  readonly mail: number;
  readonly args: string;
  readonly options: string | null;
  readonly fork: ForkedFrom | null;
  readonly startedAt: number;
  readonly deadline: number | null;
  /** When the claim was made, by the database's clock. */
  readonly now: number;
  readonly history: readonly Recorded[];
  /** True: the history goes on; read the rest before replaying. */
  readonly more: boolean;
  readonly waits: readonly OpenWait[];
  /** Slots of steps whose try was marked as begun and has no outcome. */
  readonly begun: readonly string[];
  /** The smallest place in the order that a retry of the workflow set aside; null: none. */
  readonly reopenedFrom: number | null;
  /** The last place in the order that any attempt gave out, where an attempt before this one did. */
  readonly lastNo: number | null;
  readonly unread: readonly Mail[];
  /** The schedule that started it, and for which of its times, in ms since 1970. */
  readonly schedule: string | null;
  readonly scheduledFor: number | null;
  /** A retry said that replay may diverge. */
  readonly flexible: boolean;
  /** Another run waits for its end, or may. */
  readonly followed: boolean;
  /** Slots that retries of the workflow set aside, once for each time. */
  readonly reopened: readonly string[];
  /** The ends that it waits for and that have come. */
  readonly ended: readonly Ended[];
}
