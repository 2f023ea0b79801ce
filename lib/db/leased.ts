/** Starting a run with a slot of this process held ready for it: leased at birth, it needs no claim and no hint. */
import type { Claim } from "../core/claim.ts";
import { isDue, toClaim } from "./start-row.ts";
import type { StartAnswer, StartRow } from "./writes.ts";

/** The slots of this process. */
export interface Slots {
  /** Takes a free slot for the run, if this process serves it and has one. */
  readonly reserve: (start: Pick<StartRow, "workflow" | "version" | "queue">) => boolean;
  /** Fills the slot with the run, or gives it back. */
  readonly adopt: (claim: Claim | null) => void;
  /** A run is to begin in so many milliseconds: this process keeps an eye on it. */
  readonly watch: (dueMs: number) => void;
}

/** Writes a start, and fills the slot if the run was leased. `write` calls back if the start waits for a lock: nobody keeps a slot for that. */
export async function leased<A extends StartAnswer | undefined>(
  row: StartRow,
  { reserve, adopt, watch }: Slots,
  write: (row: StartRow, onAside: () => void) => Promise<A>,
): Promise<A> {
  let holds = false;
  let aside = false;
  // A batch that is issued again asks again.
  const lease = (): boolean => {
    holds ||= !aside && isDue(row) && reserve(row);
    return holds;
  };
  const giveBack = (): void => {
    aside = true;
    if (holds) adopt(null);
    holds = false;
  };
  let answer: A;
  try {
    answer = await write({ ...row, lease }, giveBack);
  } catch (error) {
    giveBack();
    throw error;
  }
  if (holds) adopt(answer?.leased ? toClaim(row, answer) : null);
  if (answer && !isDue(row)) watch(Math.max(row.delay ?? 0, (row.startAt ?? 0) - answer.now_ms));
  return answer;
}
