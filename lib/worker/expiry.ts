/**
 * Deletes runs that ended long enough ago. Done by the leader, in small transactions, from the oldest run on: a pass takes a tenth of one
 * connection's time, and looking at what stays takes a hundredth in the end. Two at once do no harm.
 */
import type { Logger } from "../core/types.ts";
import { pause } from "../db/deadline.ts";
import type { Expire } from "../db/expire.ts";
import { toPerdureError } from "../db/pg-errors.ts";

/** Runs that one transaction looks at: as many as take about so long. */
const PAGE = { least: 20, most: 2000, ms: 30 };
/** How long it rests after each, as a multiple of what that took. */
const RESTS = 9;
/** The next pass comes after that long, or a hundredth of the retention if that is less; */
const EVERY_MS = 60_000;
/** and after so many times what the last spent on runs that stay: old ones that are needed, or have not ended. */
const IN_VAIN = 100;

export interface ExpiryOptions {
  readonly expire: Expire;
  /** How long this process wants ended runs to be kept, which says how often it looks; null: what the others want. */
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
    if (this.#passing || this.#stop.signal.aborted) return;
    this.#passing = this.#pass().finally(() => {
      this.#passing = null;
      if (!this.#again) return;
      this.#again = false;
      this.#begin();
    });
  }

  async #pass(): Promise<void> {
    const vain = await this.#deleteAll().catch((error: unknown) => {
      const explained = toPerdureError(error, "deleting runs that are older than their retention");
      this.#options.logger.warn("perdure: deleting old runs failed; it is tried again", explained);
      return 0;
    });
    const every = Math.min(EVERY_MS, (this.#options.keepMs ?? Number.POSITIVE_INFINITY) / 100);
    this.#next = performance.now() + Math.max(every, vain * IN_VAIN);
  }

  /** Returns how many milliseconds went into looking at runs that stay. */
  async #deleteAll(): Promise<number> {
    const { expire, logger } = this.#options;
    const { signal } = this.#stop;
    let all = 0;
    let vain = 0;
    for (let behind: string | null = "0"; behind !== null && !signal.aborted; ) {
      const [page, since] = [this.#page, performance.now()];
      const { gone, last } = await expire(null, behind, page);
      const took = performance.now() - since;
      const fits = took > PAGE.ms ? page / 2 : took < PAGE.ms / 4 ? page * 2 : page;
      this.#page = Math.round(Math.min(PAGE.most, Math.max(PAGE.least, fits)));
      all += gone;
      vain += took * (1 - gone / page);
      behind = last;
      // The work of others comes first.
      if (behind !== null) await pause(took * RESTS, signal);
    }
    if (all > 0) logger.debug(`perdure: ${all} runs had ended longer ago than they are retained, and were deleted`);
    return vain;
  }
}
