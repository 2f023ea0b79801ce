/** How long a migration is tried again that somebody's lock is in the way of: in short turns, with as long a pause for everybody else between. */
import { setTimeout as pause } from "node:timers/promises";
import { PerdureError } from "../core/errors.ts";
import { isTooSlow, toPerdureError } from "./pg-errors.ts";

const PATIENCE_MS = 120_000;
const ATTEMPTS = 100;

const LOCKED = "look in pg_stat_activity for a session that keeps its tables locked, then start again";
const SLOW =
  "with no process at work on this schema a migration may take as long as it needs: stop them, then start again";

export interface PatienceOptions {
  /** Completes "while …". */
  readonly doing: string;
  readonly attempts?: number | undefined;
  readonly log?: ((message: string) => void) | undefined;
}

/** Of one migration: attempts count wherever they are made. */
export class Patience {
  readonly #options: PatienceOptions;
  readonly #deadline = performance.now() + PATIENCE_MS;
  #attempts = 0;
  #spent = false;

  constructor(options: PatienceOptions) {
    this.#options = options;
  }

  /** Does the work, again after an error that may pass. Throws any other error, and what was in the way when patience ends. */
  async through(mayPass: (error: unknown) => boolean, work: () => Promise<void>): Promise<void> {
    for (;;) {
      const began = performance.now();
      try {
        return await work();
      } catch (error) {
        // Spent: it was given up further in.
        if (this.#spent || !mayPass(error)) throw error;
        await this.#wait(error, performance.now() - began);
      }
    }
  }

  async #wait(error: unknown, tookMs: number): Promise<void> {
    this.#attempts += 1;
    const { attempts = ATTEMPTS, doing, log } = this.#options;
    if (this.#attempts >= attempts || performance.now() > this.#deadline) {
      this.#spent = true;
      throw this.#givenUp(error);
    }
    log?.(`${doing}: ${(error as Error).message}; trying again`);
    await pause(Math.max(Math.min(tookMs, 2000), Math.random() * Math.min(50 * 2 ** this.#attempts, 1000)));
  }

  #givenUp(error: unknown): PerdureError {
    const ours = toPerdureError(error, this.#options.doing);
    const text = `${ours.message}; gave up after ${this.#attempts} attempts: ${isTooSlow(error) ? SLOW : LOCKED}`;
    return new PerdureError(ours.code, text, { cause: ours.cause });
  }
}
