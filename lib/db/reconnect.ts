/** One life of a connection after another, until stopped: the endless, jittered reconnect of a connection that must come back. */
import { pause } from "./deadline.ts";

/** A connection that worked for less than this counts with the outage before it. */
const STEADY_MS = 1000;

/** Told to the logger; must not throw. */
export type OnTrouble = (message: string, error: unknown) => void;

/** What one connection's life is given. */
export interface Life {
  /** Aborted when this life has failed or the loop is stopped. */
  readonly signal: AbortSignal;
  /** True once the loop is stopped: time for a goodbye. */
  readonly stopping: boolean;
  /** How long nothing has worked, in ms: the longer, the more patience a connect deserves. */
  readonly outageMs: number;
  /** Ends this life from outside its own course, e.g. from an event handler. */
  fail(error: unknown): void;
  /** Says that this connection works: the outage is over. */
  healthy(): void;
}

export interface ReconnectOptions {
  /** Connects, serves, and returns or throws when the connection is over; lets go of everything before it does. */
  live: (life: Life) => Promise<void>;
  /** The wait before the next life is this share of the outage so far, … */
  share: number;
  /** … never shorter than this, in ms, … */
  leastMs: number;
  /** … and never longer than this, in ms; all jittered by half. */
  mostMs: number;
  /** Called once per outage; must not throw. */
  onTrouble: (error: unknown) => void;
}

export interface Reconnect {
  /** Ends the life under way, and resolves when it has let go of everything. */
  stop(): Promise<void>;
}

export function keepReconnecting(options: ReconnectOptions): Reconnect {
  const loop = new Loop(options);
  return { stop: () => loop.stop() };
}

class Loop {
  readonly #options: ReconnectOptions;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #life: AbortController | undefined;
  #troubleSince = performance.now();
  #healthySince: number | undefined;
  #told = false;

  constructor(options: ReconnectOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    // The first life starts after the caller has its object in hand.
    await Promise.resolve();
    while (!signal.aborted) {
      await this.#oneLife().catch((error: unknown) => this.#onDeath(error));
      await pause(this.#delay(), signal);
    }
  }

  #oneLife(): Promise<void> {
    const end = new AbortController();
    this.#life = end;
    const stopping = this.#stopping.signal;
    return this.#options.live({
      signal: end.signal,
      get stopping() {
        return stopping.aborted;
      },
      outageMs: performance.now() - this.#troubleSince,
      fail: (error) => end.abort(error),
      healthy: () => {
        this.#healthySince ??= performance.now();
      },
    });
  }

  #onDeath(error: unknown): void {
    if (this.#wasSteady()) {
      this.#troubleSince = performance.now();
      this.#told = false;
    }
    this.#healthySince = undefined;
    if (this.#told || this.#stopping.signal.aborted) return;
    this.#told = true;
    this.#options.onTrouble(error);
  }

  // A connection that dies as soon as it works does not end the outage: its waits go on growing.
  #wasSteady(): boolean {
    return this.#healthySince !== undefined && performance.now() - this.#healthySince >= STEADY_MS;
  }

  #delay(): number {
    const { share, leastMs, mostMs } = this.#options;
    const whole = Math.min(Math.max((performance.now() - this.#troubleSince) * share, leastMs), mostMs);
    return whole * (0.5 + Math.random() / 2);
  }

  async stop(): Promise<void> {
    const reason = new Error("closed");
    this.#stopping.abort(reason);
    this.#life?.abort(reason);
    await this.#running;
  }
}
