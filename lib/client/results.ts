/** Waiting for runs to finish: told by this process, or by hints, and looking again behind both. */
import type { Store } from "../db/store.ts";

export interface FinishedRun {
  readonly id: string;
  readonly state: string;
  readonly reason: string | null;
  readonly value: string | null;
}

export interface ResultsOptions {
  readonly store: Store;
  /** Whether a run is in work in this process, which then tells of its end itself. */
  readonly isHere: (runId: string) => boolean;
  /** This process waits for ends that others must tell, or does not any more. Resolves when the database knows. */
  readonly onWatching: (watching: boolean) => Promise<void>;
}

type Resolve = (finished: FinishedRun) => void;
/** A look follows the last by at least this long. */
const GAP_MS = 10;
const POLL_MS = 2000;

export class Results {
  readonly #options: ResultsOptions;
  readonly #waiting = new Map<string, Set<Resolve>>();
  #looking = false;
  #again = false;
  #poll: NodeJS.Timeout | undefined;

  constructor(options: ResultsOptions) {
    this.#options = options;
  }

  /** The end of a run. `stop` gives the wait up. */
  wait(runId: string): { readonly finished: Promise<FinishedRun>; readonly stop: () => void } {
    let own!: Resolve;
    const finished = new Promise<FinishedRun>((resolve) => {
      own = resolve;
    });
    this.#add(runId, own);
    if (!this.#options.isHere(runId))
      void this.#options.onWatching(true).then(
        () => this.look(),
        () => this.look(),
      );
    return { finished, stop: () => this.#remove(runId, own) };
  }

  /** A run has ended in this process. */
  tell(finished: FinishedRun): void {
    const waiting = this.#waiting.get(finished.id);
    if (!waiting) return;
    this.#waiting.delete(finished.id);
    for (const resolve of waiting) resolve(finished);
    this.#rest();
  }

  /** Looks for ends of all runs waited for, in one statement. */
  look(): void {
    if (this.#looking) this.#again = true;
    else if (this.#waiting.size > 0) void this.#look();
  }

  async #look(): Promise<void> {
    this.#looking = true;
    // A look that fails is followed by another.
    const found = await this.#options.store.finished([...this.#waiting.keys()]).catch(() => []);
    for (const finished of found) this.tell(finished);
    if (this.#again) await new Promise((resolve) => setTimeout(resolve, GAP_MS));
    this.#looking = false;
    if (this.#again) {
      this.#again = false;
      this.look();
    }
  }

  #add(runId: string, resolve: Resolve): void {
    const waiting = this.#waiting.get(runId);
    if (waiting) waiting.add(resolve);
    else this.#waiting.set(runId, new Set([resolve]));
    this.#poll ??= setInterval(() => this.look(), POLL_MS);
  }

  #remove(runId: string, resolve: Resolve): void {
    const waiting = this.#waiting.get(runId);
    waiting?.delete(resolve);
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
