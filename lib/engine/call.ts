/** One durable call that a body made in a pass, from its slot to the outcome that is handed over. */
import type { Recorded } from "../core/claim.ts";
import type { CallKind } from "../core/types.ts";
import type { RecordRow } from "../db/writes.ts";
import type { Deferred } from "./promise.ts";

/** What a call came to: the value or the error for the body, and what is written when it is handed over. */
export interface Outcome {
  readonly settle: (deferred: Deferred) => void;
  /** The checkpoint to write; or only its place in the order, where someone else wrote it; or what is published, with its checkpoint; or
   * nothing, where it is recorded. */
  readonly write:
    | {
        readonly kind: "record";
        readonly row: Omit<RecordRow, "run" | "epoch" | "no" | "at" | "attempt" | "slot" | "kind" | "name">;
      }
    | { readonly kind: "deliver"; readonly attempt: number; readonly at: number }
    | { readonly kind: "publish"; readonly value: string | null }
    | { readonly kind: "none" };
}

/**
 * held: begins when replay is quiescent. working: its step runs. waiting: on the clock, mail or a retry.
 * ready: its outcome is in line. done: handed over.
 */
export type CallState = "held" | "working" | "waiting" | "ready" | "done";

export interface Call {
  readonly slot: string;
  readonly kind: CallKind;
  readonly name: string;
  readonly deferred: Deferred;
  state: CallState;
  /** Since when the timer it waits for is known to be written, by performance.now(); Infinity: it is not. */
  timedAt: number;
  /** Nothing at all was known of it: strict replay asks before it begins. */
  readonly isNew: boolean;
  /** A second call with the same address is this one. */
  readonly shared: boolean;
  /** What runs a step's tries, for a second call that shares the slot. */
  readonly step: unknown;
  /** There is, in this process, what it waits for. */
  readonly hasNews: () => boolean;
  /** Begins its effect. */
  readonly begin: () => void;
  /** Its timer is due. `woken`: ended early. */
  readonly ring: (woken: boolean) => void;
}

/** What a kind of call tells the pass of itself. */
export interface Entry extends Pick<Call, "slot" | "kind" | "name"> {
  readonly step?: unknown;
  readonly shared?: boolean;
  readonly hasNews?: () => boolean;
  /** Begins the effect. */
  readonly begin: (call: Call) => void | Promise<void>;
  /** The timer is due, or there is news. */
  readonly ring: (call: Call, woken: boolean) => void | Promise<void>;
  /** What the body is handed for a recorded outcome. */
  readonly replay: (recorded: Recorded) => Outcome["settle"];
}
