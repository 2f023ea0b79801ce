/**
 * Fires schedules whose slots are due. Any process can: the row holds all that a start needs, the run and the schedule's next slot are
 * written in one transaction, and only by whoever finds the slot that it expects. So a slot fires once, whoever is leader.
 */
import type { Logger } from "../core/types.ts";
import { isConnectionLost, toPerdureError } from "../db/pg-errors.ts";
import type { DueRow, FireAnswer, FireRow, ScheduleStore } from "../db/schedules.ts";
import { slotRunId } from "../schedule/run-id.ts";
import { nextSlot, slotsUntil } from "../schedule/slots.ts";
import { timingOf } from "../schedule/timing.ts";

const PER_ROUND = 500;
/** Slots that `catchUp: "all"` makes up at most. */
const MOST_MADE_UP = 100;
/** With `catchUp: "none"`, a slot is not late until then. */
const GRACE_MS = 60_000;

export interface FiringOptions {
  readonly store: ScheduleStore;
  readonly logger: Logger;
  /** So many runs were started. */
  readonly onStarted: (runs: number) => void;
}

export class Firing {
  readonly #options: FiringOptions;
  /** Schedules that this process could not fire, and why: said once. */
  readonly #troubles = new Map<string, string>();
  #stopped = false;
  #running: Promise<void> | null = null;
  #again = false;

  constructor(options: FiringOptions) {
    this.#options = options;
  }

  /** Fires all that is due, in rounds. Called while it is at it: looks once more after. */
  async fire(): Promise<void> {
    this.#again = true;
    this.#running ??= this.#rounds().finally(() => {
      this.#running = null;
    });
    await this.#running;
  }

  async #rounds(): Promise<void> {
    while (this.#again && !this.#stopped) {
      this.#again = false;
      try {
        await this.#allDue();
      } catch (error) {
        this.#options.logger.error("perdure: firing schedules failed; the next poll tries again", error);
      }
    }
  }

  /** Ends after the round at hand. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  // After each round from its last schedule on: what cannot be fired stays due, and does not stop the others.
  async #allDue(): Promise<void> {
    const { store } = this.#options;
    let last: DueRow | undefined;
    do {
      const due = await store.due(PER_ROUND, last?.next_ms ?? -1e14, last?.name ?? "");
      const rows = due.flatMap((row) => this.#planned(row));
      if (rows.length > 0) await this.#fireTogether(rows);
      last = due.length === PER_ROUND ? due.at(-1) : undefined;
    } while (last && !this.#stopped);
  }

  #planned(row: DueRow): FireRow[] {
    try {
      return [toFireRow(row)];
    } catch (error) {
      this.#say(row.name, error);
      return [];
    }
  }

  #say(name: string, error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    if (this.#troubles.get(name) === why) return;
    this.#troubles.set(name, why);
    const explained = toPerdureError(error, `firing schedule "${name}"`);
    this.#options.logger.error(`perdure: schedule "${name}" could not be fired; it is tried again`, explained);
  }

  async #fireTogether(rows: readonly FireRow[]): Promise<void> {
    let answers: FireAnswer[];
    try {
      answers = await this.#options.store.fire(rows, false);
    } catch (error) {
      if (isConnectionLost(error)) throw error;
      if (rows.length === 1) return this.#say(rows[0]!.name, error);
      // Which one it is that the database does not take is found by halving.
      const middle = rows.length >> 1;
      await this.#fireTogether(rows.slice(0, middle));
      return this.#fireTogether(rows.slice(middle));
    }
    this.#heard(rows, answers);
    for (const { ord, verdict } of answers) if (verdict === "alone") await this.#fireAlone(rows[ord - 1]!);
  }

  async #fireAlone(row: FireRow): Promise<void> {
    try {
      this.#heard([row], await this.#options.store.fire([row], true));
    } catch (error) {
      this.#say(row.name, error);
    }
  }

  #heard(rows: readonly FireRow[], answers: readonly FireAnswer[]): void {
    const { logger, onStarted } = this.#options;
    let runs = 0;
    for (const answer of answers) {
      const { name, missed } = rows[answer.ord - 1]!;
      runs += answer.runs;
      if (answer.verdict !== "alone") this.#troubles.delete(name);
      if (answer.taken) {
        logger.warn(
          `perdure: schedule "${name}" found its run id taken; its slot counts as fired by run ${answer.taken}, which somebody else had started`,
        );
      }
      if (answer.verdict === "skipped" && !answer.again) {
        logger.warn(
          `perdure: schedule "${name}" leaves out its slots while run "${answer.held}" is ${answer.held_state}, as its overlap is "skip"`,
        );
      }
      if (missed !== null && answer.verdict !== "alone") {
        logger.info(
          `perdure: schedule "${name}" was late; slots until ${new Date(missed).toISOString()} are not made up`,
        );
      }
    }
    if (runs > 0) onStarted(runs);
  }
}

/** What a schedule that is due does: which of its slots it makes up, which it passes over, and when it fires next. */
function toFireRow(row: DueRow): FireRow {
  const timing = timingOf(row);
  const [expected, now] = [Math.round(row.next_ms), Math.floor(row.now_ms)];
  const most = row.catch_up === "all" ? MOST_MADE_UP : 1;
  const due = slotsUntil(timing, expected, now, most + 1);
  // The times may have changed under the cursor: with other data about zones the slot that was expected is none.
  if (due.length === 0) due.push(expected);
  const late = row.catch_up === "none" && now - due.at(-1)! > GRACE_MS;
  const slots = late ? [] : due.slice(-most);
  return {
    name: row.name,
    expected,
    next: nextSlot(timing, now),
    slots: slots.map((slot) => [slot, slotRunId(row.name, slot)]),
    missed: late ? due.at(-1)! : due.length > slots.length ? due.at(-slots.length - 1)! : null,
  };
}
