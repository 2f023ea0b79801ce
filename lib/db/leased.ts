/** Starting a run with a slot of this process held ready for it: leased at birth, it needs no claim and no hint. */
import type { Claim } from "../core/claim.ts";
import { isDue, type LeasableRow, toClaim } from "./start-row.ts";
import type { StartAnswer, StartRow } from "./writes.ts";

/** The slots of this process. */
export interface Slots {
  /** Whether this process takes such runs. Others are left to others. */
  readonly serves: (start: Pick<StartRow, "workflow" | "version" | "queue">) => boolean;
  /** Takes a free slot for a run that this process takes, if it has one. */
  readonly reserve: () => boolean;
  /** Fills the slot with the run, or gives it back. */
  readonly adopt: (claim: Claim | null) => void;
  /** A run is to begin in so many milliseconds: this process keeps an eye on it. */
  readonly watch: (dueMs: number) => void;
}

/** A start on its way, with a slot if there is one when its batch is put together. */
export class Birth {
  readonly row: StartRow;
  readonly #slots: Slots;
  #holds = false;
  #aside = false;

  constructor(row: LeasableRow, slots: Slots) {
    this.row = row;
    this.#slots = slots;
    // A batch that is issued again asks again.
    if (isDue(row) && slots.serves(row)) row.lease = () => (this.#holds ||= !this.#aside && slots.reserve());
  }

  /** The start waits for a lock: nobody keeps a slot for that. */
  onAside(): void {
    this.#aside = true;
    if (this.#holds) this.#slots.adopt(null);
    this.#holds = false;
  }

  /** Fills the slot if the run was leased. No answer: it was not written. */
  written(answer: StartAnswer | undefined): void {
    const { row } = this;
    if (this.#holds) this.#slots.adopt(answer?.leased ? toClaim(row, answer) : null);
    if (answer && !isDue(row)) this.#slots.watch(Math.max(row.delay ?? 0, (row.startAt ?? 0) - answer.now_ms));
  }
}

/** Writes a start, and fills the slot if the run was leased. `write` calls back if the start waits for a lock. */
export async function leased<A extends StartAnswer | undefined>(
  row: LeasableRow,
  slots: Slots,
  write: (row: StartRow, onAside: () => void) => Promise<A>,
): Promise<A> {
  const birth = new Birth(row, slots);
  let answer: A;
  try {
    answer = await write(row, () => birth.onAside());
  } catch (error) {
    birth.onAside();
    throw error;
  }
  birth.written(answer);
  return answer;
}
