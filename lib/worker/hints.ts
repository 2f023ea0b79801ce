/** What this process tells others after its commits, and what it looks at when others tell. */
import type { HintTurn } from "../db/behind.ts";
import type { Flusher, News } from "../db/flusher.ts";
import type { Hint, Notifier } from "../db/notifier.ts";
import type { Liveness } from "./liveness.ts";
import type { Worker } from "./worker.ts";

/** After an end of which not all could be told. */
const TELL_AGAIN_MS = 20;
const UNTOLD_PER_BATCH = 1000;
/** Work that another process was named for is looked for after so long, or up to twice that. */
const LEFT_MS = 25;
/** A process that becomes busy says so at most this often. */
const BUSY_GAP_MS = 4000;

export interface HintsOptions {
  /** Of this process among the workers. */
  readonly key: string;
  readonly worker: Worker;
  readonly liveness: Liveness;
  readonly notifier: Notifier;
  readonly flusher: Pick<Flusher, "write">;
  /** Looks for ends that are waited for here. */
  readonly lookForResults: () => void;
  /** Looks for what is read here: of all runs, or of those that this process has just written. */
  readonly lookForPublished: (runs?: ReadonlySet<string>) => void;
  /** Looks at timers, work and others' runs, as the poll does. */
  readonly look: () => void;
}

export class Hints {
  readonly #options: HintsOptions;
  #others = 0;
  #saidBusy = -Infinity;
  #untold: NodeJS.Timeout | undefined;
  #leftTo: NodeJS.Timeout | undefined;

  constructor(options: HintsOptions) {
    this.#options = options;
  }

  /** Whether there is anybody to tell. */
  get heard(): boolean {
    return this.#others > 0;
  }

  hear(letters: string): void {
    const { worker, liveness, lookForResults, lookForPublished, look } = this.#options;
    if (letters.includes("w")) this.#hearOfWork(letters.match(/w(\d+)/)?.[1] ?? null);
    if (letters.includes("d")) lookForResults();
    if (letters.includes("d") || letters.includes("v")) lookForPublished();
    if (letters.includes("c")) void worker.lookAll();
    // A timer that a user's transaction made: the leader's next poll may be too late for it.
    if (letters.includes("t") && worker.timers.leads) look();
    if (letters.includes("b")) liveness.watch();
    if (letters.includes("n")) liveness.nudge();
  }

  /** `to`: who is to take it, of many. The others look too, later, as that one may be at its end, and may have no slot any more. */
  #hearOfWork(to: string | null): void {
    const { worker, key } = this.#options;
    if (to === null || to === key) worker.poke();
    else this.#leftTo ??= setTimeout(() => this.#takeLeft(), LEFT_MS * (1 + Math.random())).unref();
  }

  #takeLeft(): void {
    this.#leftTo = undefined;
    this.#options.worker.poke();
  }

  /** After a commit: work for this process is taken up here, others are told if they want to hear. */
  tell(news: News): void {
    const { work, foreign, hintedWork, done, change, hintedChange, laterMs, untold, published, touched, hinted } = news;
    const { worker, lookForPublished } = this.#options;
    if (laterMs !== null) worker.timers.watch(laterMs);
    if (untold) this.#tellAgain();
    if (work > 0) worker.poke();
    if (change > 0) void worker.lookAll();
    if (touched.size > 0) lookForPublished(touched);
    const hint = (kind: Hint): void => {
      if (this.heard) this.#options.notifier.hint(kind);
    };
    if (foreign > 0 || worker.free < work - hintedWork) hint("w");
    if (done > 0 && !hinted.includes("d")) hint("d");
    if (published > 0 && !hinted.includes("v")) hint("v");
    if (change > hintedChange) hint("c");
  }

  /** Whether a hint may follow a batch at once. */
  readonly turn: HintTurn = () => {
    const told = this.heard ? this.#options.notifier.takeTurn() : null;
    return told && { told, takes: this.#options.worker.free > 0 };
  };

  /** Runs were started from here that any process may take. */
  started(): void {
    this.#options.worker.poke();
    if (this.heard) this.#options.notifier.hint("w");
  }

  /** Somebody holds a run that is to be told of an end: until it is told, tries again. Behind this the leader sweeps. */
  #tellAgain(): void {
    this.#untold ??= setTimeout(() => {
      this.#untold = undefined;
      void this.#options.flusher.write("tell", { limit: UNTOLD_PER_BATCH }).catch(() => {});
    }, TELL_AGAIN_MS);
    this.#untold.unref();
  }

  /** So many processes live beside this one. */
  beside(others: number): void {
    // Who has come since this process said that it is busy has not heard it.
    if (others > this.#others) this.#saidBusy = -Infinity;
    this.#others = others;
    this.sayBusy();
  }

  /** Others watch over the runs that this process holds: they hear of it, at most now and then. */
  sayBusy(): void {
    const now = performance.now();
    if (!this.#options.worker.busy || !this.heard || now - this.#saidBusy < BUSY_GAP_MS) return;
    this.#saidBusy = now;
    this.#options.notifier.hint("b");
  }

  stop(): void {
    clearTimeout(this.#untold);
    clearTimeout(this.#leftTo);
  }
}
