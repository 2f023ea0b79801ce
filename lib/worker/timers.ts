/** The timers that this process keeps an eye on: of runs that waited here, and as the leader all of them. When one is due, the database says. */
import type { DatabaseClock } from "../core/clock.ts";
import type { EngineLog } from "../core/logging.ts";
import type { Flusher } from "../db/flusher.ts";
import type { Writes } from "../db/writes.ts";
import { Alarm } from "../engine/alarm.ts";

const DUE_PER_BATCH = 1000;
const OVERDUE_MS = 500;
/** Schedules that are due and that somebody holds are looked at again after that. */
const FIRE_AGAIN_MS = 500;

export interface TimersOptions {
  readonly flusher: Pick<Flusher, "write">;
  readonly clock: DatabaseClock;
  readonly logger: EngineLog;
  /** Fires the schedules whose slots are due. Returns how many went on to their next. */
  readonly fire: () => Promise<number>;
  /** Runs may have become claimable. */
  readonly onWork: () => void;
}

export class Timers {
  readonly #options: TimersOptions;
  readonly #alarm: Alarm;
  /** The last timer of a run that was suspended here: until then this process keeps an eye on timers. */
  #horizon = 0;
  #stopped = false;
  /** Set by the heartbeat: the leader keeps an eye on all timers. */
  leads = false;

  constructor(options: TimersOptions) {
    this.#options = options;
    this.#alarm = new Alarm(options.clock, () => void this.ring());
  }

  /** A timer of a run that was started for later here, or told of an end, is due in so many milliseconds. */
  watch(dueMs: number): void {
    this.watchFor(this.#options.clock.now() + dueMs);
  }

  /** A timer of a run that was suspended here, or is tried again, is due at an instant, in ms since 1970. */
  watchFor(due: number): void {
    this.#horizon = Math.max(this.#horizon, due);
    this.#alarm.at(due);
  }

  /**
   * The next timer of all, as a poll found it: the leader wakes for it. What is overdue was left behind: a dead leader leads for a while yet.
   * `now`: the database's instant from which it counts; null: when the answer came.
   */
  hear(nextMs: number | null, now: number | null = null): void {
    if (nextMs === null) return;
    const due = (now ?? this.#options.clock.now()) + nextMs;
    // At once: the alarm may be set for this very instant, by a clock that stood still with the machine.
    if (nextMs < -OVERDUE_MS) void this.ring();
    else if (this.leads || due <= this.#horizon) this.#alarm.at(due);
  }

  /** Timers are due: makes their runs claimable and claims, in one batch. */
  async ring(): Promise<void> {
    if (this.#stopped) return;
    const due = this.#due();
    this.#options.onWork();
    const { woken, next_ms, now_ms, scheduled } = await due;
    if (woken >= DUE_PER_BATCH) void this.ring();
    // Where nothing was due this process's clock is ahead of the database's.
    this.hear(next_ms, woken > 0 ? now_ms : null);
    if (scheduled) await this.#fire();
  }

  #due(): Promise<Writes["due"]["answer"]> {
    return this.#options.flusher.write("due", { limit: DUE_PER_BATCH }).catch((error: unknown) => {
      this.#options.logger.error("perdure: waking runs whose timers are due failed; the next poll tries again", error);
      return { woken: 0, next_ms: null, now_ms: 0, scheduled: false };
    });
  }

  /** Slots of schedules are due. What is still due then, somebody holds. */
  async #fire(): Promise<void> {
    const { fire, clock, onWork } = this.#options;
    const moved = await fire();
    if (this.#stopped) return;
    const { woken, next_ms, scheduled } = await this.#due();
    if (woken > 0) onWork();
    this.hear(next_ms);
    if (scheduled) this.#alarm.at(clock.now() + (moved > 0 ? 0 : FIRE_AGAIN_MS));
  }

  stop(): void {
    this.#stopped = true;
    this.#alarm.clear();
  }
}
