/** One durable call that a body made in a pass, from its slot to the outcome that is handed over. */
import type { Recorded } from "../core/claim.ts";
import type { CallKind } from "../core/types.ts";
import type { RecordRow } from "../db/writes.ts";
import type { Pass } from "./pass.ts";
import { type Deferred, Handles } from "./promise.ts";

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
    | { readonly kind: "deliver"; readonly attempt: number; readonly at: number; readonly characters: number }
    | { readonly kind: "publish"; readonly value: string | null }
    | { readonly kind: "none" };
}

/**
 * held: begins when replay is quiescent. working: its step runs. waiting: on the clock, mail or a retry.
 * ready: its outcome is in line. done: handed over.
 */
export type CallState = "held" | "working" | "waiting" | "ready" | "done";

/** What a kind of call tells the pass of itself. */
export interface Entry {
  readonly slot: string;
  readonly kind: CallKind;
  readonly name: string;
  /** A second call with the same address is this one. */
  readonly shared?: boolean;
  /** There is, in this process, what it waits for. */
  hasNews?(): boolean;
  /** Begins the effect. */
  begin(call: Call): void | Promise<void>;
  /** The timer is due, or there is news. `woken`: ended early. */
  ring(call: Call, woken: boolean): void | Promise<void>;
  /** A function of the application's runs for it. */
  readonly running?: boolean;
  /** Tells what runs for it that nobody waits for it. */
  abort?(reason: unknown): void;
  /** What the body is handed for a recorded outcome. */
  replay(recorded: Recorded): Outcome["settle"];
}

export class Call extends Handles {
  readonly slot: string;
  readonly kind: CallKind;
  readonly name: string;
  readonly entry: Entry;
  state: CallState = "held";
  /** While it is in line. */
  outcome: Outcome | null = null;
  /** Its neighbours among the open calls of its pass. */
  before: Call | null = null;
  after: Call | null = null;
  /** Since when the timer it waits for is known to be written, by performance.now(); Infinity: it is not. */
  timedAt = Infinity;
  /** Nothing at all was known of it: strict replay asks before it begins. */
  readonly isNew: boolean;
  readonly #pass: Pick<Pass, "refused">;

  constructor(pass: Pick<Pass, "refused">, entry: Entry, isNew: boolean) {
    super();
    const { slot, kind, name } = entry;
    this.slot = slot;
    this.kind = kind;
    this.name = name;
    this.entry = entry;
    this.isNew = isNew;
    this.#pass = pass;
  }

  get hasNews(): boolean {
    return this.entry.hasNews?.() ?? false;
  }

  begin(): void {
    try {
      this.#follow(this.entry.begin(this));
    } catch (error) {
      this.#pass.refused(error);
    }
  }

  ring(woken: boolean): void {
    try {
      this.#follow(this.entry.ring(this, woken));
    } catch (error) {
      this.#pass.refused(error);
    }
  }

  #follow(work: void | Promise<void>): void {
    work?.catch((error) => this.#pass.refused(error));
  }
}
