/**
 * Whether a body's code runs for the first time, so that what it logs is to be written. Code runs from one outcome to the next: what follows
 * an outcome that has its number ran in the pass that numbered it. A pass that was cut short by a crash may not have come that far, and an
 * attempt is new: these write what follows their last recorded outcome, a second time perhaps. Pure: no I/O, no clock.
 */
import type { Claim } from "../core/claim.ts";

export class Voice {
  /** The outcomes with a number that are still to come; the body ran on behind the last one of them, or not. */
  #numbered: number;
  readonly #ranOn: boolean;
  #live: boolean;

  constructor(claim: Pick<Claim, "history" | "waits" | "begun" | "attempt" | "epoch" | "crashes" | "fork">) {
    const { history, waits, begun, attempt, epoch, crashes, fork } = claim;
    this.#numbered = history.filter(({ no, kind }) => no !== null && kind !== "patch").length;
    const own = history.some((recorded) => recorded.attempt === attempt);
    const known = waits.length > 0 || begun.length > 0 || (own && (fork === null || epoch > 2));
    this.#ranOn = known && epoch > 1 && crashes === 0;
    this.#live = this.#numbered === 0 && !this.#ranOn;
  }

  /** Whether what the body says has been said before. */
  get silent(): boolean {
    return !this.#live;
  }

  /** An outcome is about to be handed to the body. */
  gives(numbered: boolean): void {
    if (numbered) this.#numbered -= 1;
    if (!numbered || (this.#numbered === 0 && !this.#ranOn)) this.#live = true;
  }

  /** All that is in line has been handed over, and the body has run as far as it could: what it does from here on by itself is new. */
  rests(replaying: boolean): void {
    if (!replaying) this.#live = true;
  }
}
