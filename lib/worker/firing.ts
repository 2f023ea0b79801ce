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
/** When one that could not be fired is tried again. */
const AGAIN_MS = 30_000;
/** Before all slots. */
const LONG_AGO = -1e13;

export interface FiringOptions {
  readonly store: ScheduleStore;
  readonly logger: Logger;
  /** Runs were started. */
  readonly onStarted: () => void;
}

export class Firing {
  readonly #options: FiringOptions;
  #stopped = false;
  #running: Promise<number> | null = null;
  /** The names of those that wait for the rows of runs, one after the other, beside the rounds. */
  readonly #aside = new Set<string>();
  #waiting: Promise<void> = Promise.resolve();

  constructor(options: FiringOptions) {
    this.#options = options;
  }

  /** Fires all that is due, in rounds. Returns how many schedules went on to their next slot; those that wait for rows are not waited for. */
  async fire(): Promise<number> {
    this.#running ??= this.#allDue().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  /** Ends after the round at hand. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await this.#waiting;
  }

  // After each round from its last schedule on: what cannot be fired stays due, and does not stop the others.
  async #allDue(): Promise<number> {
    let moved = 0;
    try {
      let last: DueRow | undefined;
      while (!this.#stopped) {
        const due = await this.#options.store.due(PER_ROUND, last?.due_ms ?? LONG_AGO, last?.name ?? "");
        const rows: FireRow[] = [];
        for (const row of due.filter(({ name }) => !this.#aside.has(name))) {
          const planned = await this.#planned(row);
          if (planned) rows.push(planned);
        }
        if (rows.length > 0) moved += await this.#fireTogether(rows);
        last = due.at(-1);
        if (due.length < PER_ROUND) break;
      }
    } catch (error) {
      const explained = toPerdureError(error, "firing schedules");
      this.#options.logger.error("perdure: firing schedules failed; the next poll tries again", explained);
    }
    return moved;
  }

  async #planned(row: DueRow): Promise<FireRow | null> {
    try {
      return toFireRow(row);
    } catch (error) {
      await this.#postpone(row.name, Math.round(row.next_ms), error);
      return null;
    }
  }

  /** One that cannot be fired is tried again later, and a person is told. */
  async #postpone(name: string, expected: number, error: unknown): Promise<void> {
    const { store, logger } = this.#options;
    const explained = toPerdureError(error, `firing schedule "${name}"`);
    logger.error(
      `perdure: schedule "${name}" could not be fired; it is tried again in ${AGAIN_MS / 1000} s`,
      explained,
    );
    await store.postpone(name, expected, AGAIN_MS, explained.message).catch((cause: unknown) => {
      // Somebody holds its row: it stays due. Without a connection the others cannot be fired either.
      if (isConnectionLost(cause)) throw cause;
    });
  }

  async #fireTogether(rows: readonly FireRow[]): Promise<number> {
    let answers: FireAnswer[];
    try {
      answers = await this.#options.store.fire(rows, false);
    } catch (error) {
      if (isConnectionLost(error)) throw error;
      if (rows.length === 1) {
        await this.#postpone(rows[0]!.name, rows[0]!.expected, error);
        return 0;
      }
      // Which one it is that the database does not take is found by halving.
      const middle = rows.length >> 1;
      const moved = await this.#fireTogether(rows.slice(0, middle));
      return moved + (await this.#fireTogether(rows.slice(middle)));
    }
    for (const { ord, verdict } of answers) if (verdict === "alone") this.#fireAside(rows[ord - 1]!);
    return this.#heard(rows, answers);
  }

  #fireAside(row: FireRow): void {
    this.#aside.add(row.name);
    this.#waiting = this.#waiting.then(async () => {
      if (!this.#stopped) await this.#fireAlone(row);
      this.#aside.delete(row.name);
    });
  }

  async #fireAlone(row: FireRow): Promise<void> {
    try {
      this.#heard([row], await this.#options.store.fire([row], true));
    } catch (error) {
      // What is still due then is fired again.
      if (!isConnectionLost(error)) await this.#postpone(row.name, row.expected, error).catch(() => {});
    }
  }

  /** Tells of what was done. Returns how many went on to their next slot. */
  #heard(rows: readonly FireRow[], answers: readonly FireAnswer[]): number {
    const { logger, onStarted } = this.#options;
    let runs = 0;
    for (const answer of answers) {
      const { name, missed } = rows[answer.ord - 1]!;
      runs += answer.runs;
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
    if (runs > 0) onStarted();
    return answers.filter(({ verdict }) => verdict !== "alone").length;
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
