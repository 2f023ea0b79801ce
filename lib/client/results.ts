/** Waiting for runs to finish: told by this process, or by hints, and looking again behind both. One that is not there any more ends the wait too. */
import { PerdureError } from "../core/errors.ts";
import { isConnectionLost, isTransient, toPerdureError } from "../db/pg-errors.ts";
import type { Store } from "../db/store.ts";
import { notFoundError } from "./control.ts";

export interface FinishedRun {
  readonly id: string;
  readonly state: string;
  readonly reason: string | null;
  readonly value: string | null;
  /** The attempt of its workflow that it ended in. */
  readonly attempt: number;
}

export interface ResultsOptions {
  readonly store: Store;
  /** Whether a run is in work in this process, which then tells of its end itself. */
  readonly isHere: (runId: string) => boolean;
  /** This process waits for ends that others must tell, or does not any more. Resolves when the database knows. */
  readonly onWatching: (watching: boolean) => Promise<void>;
}

/** Who waits for one run. */
interface Waiter {
  readonly resolve: (finished: FinishedRun) => void;
  readonly reject: (error: PerdureError) => void;
}
/** A look follows the last but one by at least this long: what ends soon after the last is seen at once. */
const GAP_MS = 10;
const POLL_MS = 2000;
/** A run in work here mostly ends by then. */
const SOON_MS = 50;

export class Results {
  readonly #options: ResultsOptions;
  readonly #waiting = new Map<string, Set<Waiter>>();
  #looking = false;
  #again = false;
  /** When the last look began, and the one before it. */
  #lookedAt: readonly [last: number, before: number] = [-GAP_MS, -GAP_MS];
  #poll: NodeJS.Timeout | undefined;
  /** Rejects once those who wait may know. */
  #closed: Promise<never> | undefined;

  constructor(options: ResultsOptions) {
    this.#options = options;
  }

  /** The end of a run. Rejects when this engine shuts down, or when the database refuses the question. `stop` gives the wait up. */
  wait(runId: string): { readonly finished: Promise<FinishedRun>; readonly stop: () => void } {
    if (this.#closed) return { finished: this.#closed, stop: () => {} };
    let own!: Waiter;
    const finished = new Promise<FinishedRun>((resolve, reject) => {
      own = { resolve, reject };
    });
    // Who gave the wait up does not hear of a rejection.
    finished.catch(() => {});
    this.#add(runId, own);
    if (!this.#options.isHere(runId)) this.#watch();
    // A run that stays longer may be given up here, and end elsewhere.
    else setTimeout(() => this.#waiting.get(runId)?.has(own) && this.#watch(), SOON_MS).unref();
    return { finished, stop: () => this.#remove(runId, own) };
  }

  /** Others shall tell. Looks once they know: what ended before was not told. */
  #watch(): void {
    const look = (): void => this.look();
    void this.#options.onWatching(true).then(look, look);
  }

  /** A run has ended in this process. */
  tell(finished: FinishedRun): void {
    const waiting = this.#waiting.get(finished.id);
    if (!waiting) return;
    this.#waiting.delete(finished.id);
    for (const { resolve } of waiting) resolve(finished);
    this.#rest();
  }

  /** Looks for ends of all runs waited for, in one statement. */
  look(): void {
    if (this.#looking) this.#again = true;
    else if (this.#waiting.size > 0 && !this.#closed) void this.#look();
  }

  async #look(): Promise<void> {
    this.#looking = true;
    this.#lookedAt = [performance.now(), this.#lookedAt[0]];
    const found = await this.#options.store.finished([...this.#waiting.keys()]).catch((error) => this.#failed(error));
    for (const { state, ...finished } of found) {
      if (state !== null) this.tell({ ...finished, state });
      else this.#reject(finished.id, notFoundError(finished.id));
    }
    const early = this.#lookedAt[1] + GAP_MS - performance.now();
    if (this.#again && early > 0) await new Promise((resolve) => setTimeout(resolve, early));
    this.#looking = false;
    if (this.#again) {
      this.#again = false;
      this.look();
    }
  }

  /** An outage is waited for: another look follows. What the server refuses, it would refuse again. */
  #failed(error: unknown): [] {
    if (!isConnectionLost(error) && !isTransient(error) && !this.#closed)
      this.#rejectAll(toPerdureError(error, "waiting for runs"));
    return [];
  }

  #reject(runId: string, error: PerdureError): void {
    const waiting = this.#waiting.get(runId);
    if (!waiting) return;
    this.#waiting.delete(runId);
    for (const { reject } of waiting) reject(error);
    this.#rest();
  }

  #rejectAll(error: PerdureError): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiters of waiting) for (const { reject } of waiters) reject(error);
    this.#rest();
  }

  /** Gives up all waits. Those who wait are told at once, or when `over` resolves. */
  close(over?: Promise<void>): void {
    clearInterval(this.#poll);
    this.#closed ??= over ? over.then(() => Promise.reject(closed())) : Promise.reject(closed());
    this.#closed.catch((error: PerdureError) => this.#rejectAll(error));
  }

  #add(runId: string, waiter: Waiter): void {
    const waiting = this.#waiting.get(runId);
    if (waiting) waiting.add(waiter);
    else this.#waiting.set(runId, new Set([waiter]));
    this.#poll ??= setInterval(() => this.look(), POLL_MS);
  }

  #remove(runId: string, waiter: Waiter): void {
    const waiting = this.#waiting.get(runId);
    waiting?.delete(waiter);
    if (waiting?.size === 0) this.#waiting.delete(runId);
    this.#rest();
  }

  #rest(): void {
    if (this.#waiting.size > 0) return;
    clearInterval(this.#poll);
    this.#poll = undefined;
    void this.#options.onWatching(false).catch(() => {});
  }
}

function closed(): PerdureError {
  const text =
    "this engine was shut down, so it waits for no results any more; the run goes on where another serves it";
  return new PerdureError("PERDURE_STATE", text);
}
