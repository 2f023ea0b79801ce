/**
 * Deletes runs that ended long enough ago. Done by the leader, in small transactions, from the oldest run on: a pass takes a fifth of one
 * connection's time, and the next begins once a hundred times as long has passed. Two at once do no harm.
 */
import type { Logger } from "../core/types.ts";
import { pause } from "../db/deadline.ts";
import type { Expire } from "../db/expire.ts";
import { toPerdureError } from "../db/pg-errors.ts";

/** Runs that one transaction looks at: as many as take about so long. */
const PAGE = { least: 20, most: 2000, ms: 30 };
/** How long it rests after each, as a multiple of what that took. */
const RESTS = 4;
/** The next pass comes after that long, or a hundredth of the retention if that is less. */
const EVERY_MS = 60_000;

export interface ExpiryOptions {
  readonly expire: Expire;
  /** How long an ended run is kept; null: for ever. */
  readonly keepMs: number | null;
  readonly logger: Logger;
}

export class Expiry {
  readonly #options: ExpiryOptions;
  readonly #stop = new AbortController();
  #next = 0;
  #page = PAGE.most / 4;
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
      if (!this.#again) return;
      this.#again = false;
      this.#begin();
    });
  }

  async #pass(keepMs: number): Promise<void> {
    const began = performance.now();
    await this.#deleteAll(keepMs).catch((error: unknown) => {
      const explained = toPerdureError(error, "deleting runs that are older than their retention");
      this.#options.logger.warn("perdure: deleting old runs failed; it is tried again", explained);
    });
    const took = performance.now() - began;
    this.#next = performance.now() + Math.max(Math.min(EVERY_MS, keepMs / 100), took * 100);
  }

  async #deleteAll(keepMs: number): Promise<void> {
    const { expire, logger } = this.#options;
    const { signal } = this.#stop;
    let all = 0;
    for (let behind: string | null = "0"; behind !== null && !signal.aborted; ) {
      const since = performance.now();
      const { gone, last } = await expire(keepMs, behind, this.#page);
      const took = performance.now() - since;
      const fits = took > PAGE.ms ? this.#page / 2 : took < PAGE.ms / 4 ? this.#page * 2 : this.#page;
      this.#page = Math.round(Math.min(PAGE.most, Math.max(PAGE.least, fits)));
      all += gone;
      behind = last;
      // The work of others comes first.
      if (behind !== null) await pause(took * RESTS, signal);
    }
    if (all > 0) logger.debug(`perdure: ${all} runs had ended longer ago than they are retained, and were deleted`);
  }
}
