/** What a pass needs of the process around it, and what it tells it. */

import type { Ended, Mail, Recorded } from "../core/claim.ts";
import type { DatabaseClock } from "../core/clock.ts";
import type { Outside } from "../core/context.ts";
import type { EngineLog } from "../core/logging.ts";
import type { StoredCodec } from "../core/stored.ts";
import type { RunInfo, StepDefinition, TransactionClient } from "../core/types.ts";
import type { Flusher } from "../db/flusher.ts";
import type { Slots } from "../db/leased.ts";
import type { RecordRow } from "../db/writes.ts";
import type { Delays } from "./delays.ts";
import type { Lasting } from "./lasting.ts";
import type { Pass, Settled } from "./pass.ts";
import type { Turns } from "./turns.ts";

/** How a pass ends. `suspended` may be followed by onResumed; after the others nothing comes. */
export type Ending =
  | { readonly how: "settled"; readonly settled: Settled }
  | { readonly how: "suspended"; readonly due: number | null }
  | { readonly how: "blocked"; readonly reason: string }
  | { readonly how: "late" }
  | { readonly how: "lost"; readonly why: string }
  | { readonly how: "refused"; readonly error: unknown }
  /** The application could not make the context of this execution: nothing of the body has run. */
  | { readonly how: "unprepared"; readonly error: unknown }
  /** A test has the body replayed: the run is handed back. */
  | { readonly how: "replayed" };

/** A timer that is due. */
export interface Rung {
  /** By the database's clock, in ms since 1970. */
  readonly at: number;
  readonly woken: boolean;
}

/** What a look at a run has found. */
export interface News {
  /** When it was asked for, by performance.now(): what was written after that it may not know. */
  readonly askedAt: number;
  readonly held: boolean;
  /** It is to be paused. */
  readonly pausing: boolean;
  /** When it was, by the database's clock. */
  readonly now: number;
  readonly mail: number;
  readonly unread: readonly Mail[];
  /** Slots whose timer is due, since when, and whether it was rung early. */
  readonly due: ReadonlyMap<string, Rung>;
  /** Ends that were waited for. */
  readonly ended: readonly Ended[];
  /** When the next timer is due; null: none. */
  readonly next: number | null;
}

/** Runs a transaction step: `work` in a transaction, then `record`, then the commit. */
export interface Transactor {
  run<T>(
    work: (tx: TransactionClient) => Promise<T>,
    record: (result: T) => RecordRow,
    over: () => boolean,
  ): Promise<{ readonly result: T; readonly verdict: "ok" | "stale" }>;
}

/** What tests put into a pass: see lib/testing. */
export interface PassHooks {
  /** Whether the body is dropped and replayed after every checkpoint, as soon as nothing is under way. */
  readonly replays: boolean;
  /** What runs for a step that was called. */
  step(definition: StepDefinition, pass: Pass): StepDefinition;
  /** The run waits for an event. */
  waits(event: string, pass: Pass): void;
}

export interface EnginePorts {
  /** Null but in tests. */
  readonly hooks: PassHooks | null;
  readonly codec: StoredCodec;
  readonly clock: DatabaseClock;
  readonly logger: EngineLog;
  /** The option `context` of the engine. */
  readonly makeContext: ((run: RunInfo) => unknown) | null;
  /** How long runs wait whose context could not be made. */
  readonly delays: Delays;
  readonly turns: Turns;
  /** The tries that run. */
  readonly lasting: Lasting;
  /** Whether bodies are watched for what is not durable. */
  readonly strict: boolean;
  readonly flusher: Pick<Flusher, "put">;
  readonly transactor: Transactor;
  readonly slots: Slots;
  readonly outside: Outside;
  readonly look: (pass: Pass) => Promise<News | null>;
  /** What is recorded of a run after an outcome, in the order of the slots. */
  readonly loadMore: (
    key: string,
    after: Recorded,
  ) => Promise<{ readonly history: Recorded[]; readonly more: boolean }>;
  readonly onEnd: (pass: Pass, ending: Ending) => void;
  readonly onResumed: (pass: Pass) => void;
  /** The how-manieth suspension of this process it would be, if the pass is to stay in memory; null: it is not. */
  readonly warmNumber: (pass: Pass) => number | null;
}
