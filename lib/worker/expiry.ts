/**
 * Deletes runs that ended long enough ago. Done by the leader, in small transactions, from the oldest run on: a pass takes at most half of one
 * connection's time, and the next begins once a hundred times as long has passed. Two at once do no harm.
 */
import type { Logger } from "../core/types.ts";
import { pause } from "../db/deadline.ts";
import { toPerdureError } from "../db/pg-errors.ts";
import type { Store } from "../db/store.ts";

/** Runs that one transaction looks at: some milliseconds. */
const PER_CALL = 1000;
/** The next pass comes after that long, or a hundredth of the retention if that is less. */
const EVERY_MS = 60_000;

export interface ExpiryOptions {
  readonly store: Pick<Store, "expire">;
  /** How long an ended run is kept; null: for ever. */
  readonly keepMs: number | null;
  readonly logger: Logger;
}

export class Expiry {
  readonly #options: ExpiryOptions;
  readonly #stop = new AbortController();
  #next = 0;
  #again = false;
  #passing: Promise<void> | null = null;

  constructor(options: ExpiryOptions) {
    this.#options = options;
  }

  /** A pass is under way. */
  get busy(): boolean {
    return this.#passing !== null;
  }

  /** This process leads: a pass begins if it is time for one. */
  beat(): void {
    if (performance.now() >= this.#next) this.#begin();
  }

  /** The clock was moved: a pass begins, or follows the one under way. */
  moved(): void {
    if (this.#passing) this.#again = true;
    else this.#begin();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#passing;
  }

  #begin(): void {
    const { keepMs } = this.#options;
    if (keepMs === null || this.#passing || this.#stop.signal.aborted) return;
    this.#passing = this.#pass(keepMs).finally(() => {
      this.#passing = null;
      if (this.#again) {
        this.#again = false;
        this.#begin();
      }
    });
  }

  async #pass(keepMs: number): Promise<void> {
    const { store, logger } = this.#options;
    const { signal } = this.#stop;
    const began = performance.now();
    let gone = 0;
    try {
      for (let behind: string | null = "0"; behind !== null && !signal.aborted; ) {
        const since = performance.now();
        const found: { gone: number; last: string | null } = await store.expire(keepMs, behind, PER_CALL);
        gone += found.gone;
        behind = found.last;
        // As long as it took: the claims of others have the disk to themselves for half of the time.
        if (behind !== null) await pause(performance.now() - since, signal).catch(() => {});
      }
    } catch (error) {
      logger.warn("perdure: deleting old runs failed; it is tried again", toPerdureError(error, "deleting old runs"));
    }
    const took = performance.now() - began;
    this.#next = performance.now() + Math.max(Math.min(EVERY_MS, keepMs / 100), took * 100);
    if (gone > 0) logger.debug(`perdure: ${gone} runs had ended longer ago than they are retained, and were deleted`);
  }
}
