/** Working off what is due and then returning: for hosts that run for a while only, a serverless function or a cron job. */
import { pause } from "../db/deadline.ts";
import type { Worker } from "./worker.ts";

export interface DrainParts {
  readonly worker: Worker;
  /** Whether there is work to claim, and milliseconds until the next timer; null: there is none. */
  readonly peek: () => Promise<{ readonly work: boolean; readonly next_ms: number | null }>;
  /** Gives back the runs that are not gone on with. */
  readonly handBack: () => Promise<unknown>;
}

/** What a drain did. */
export interface Drained {
  /** How many runs were taken up; one that waited in between counts each time. */
  readonly runs: number;
  /** In how many milliseconds the next timer is due; null: none is. What became due meanwhile: 0. */
  readonly nextMs: number | null;
}

/** The longest timer: a longer one would fire at once. */
const LONGEST = 2 ** 31 - 1;
/** What is claimable and still not claimed is locked by somebody: looked for again after that long. */
const LOCKED_MS = 20;

/** The drains of one engine, one after the other. */
export class Drains {
  #last: Promise<unknown> = Promise.resolve();

  /** As `drain`. The time that it waits for those before it is its own: where that is all, it takes up nothing. */
  async drain(parts: DrainParts, max: number, ms: number | null): Promise<Drained> {
    const since = performance.now();
    const before = this.#last;
    const over = new AbortController();
    this.#last = before.then(
      () => over.signal.aborted || new Promise((done) => over.signal.addEventListener("abort", done)),
    );
    try {
      const turn = before.then(() => true);
      const late = ms === null ? [] : [pause(Math.min(ms, LONGEST), over.signal).then(() => false)];
      // A timer may fire a moment early: who is still in work is told by its own end, and by no clock.
      const first = await Promise.race([turn, ...late]);
      const left = ms === null ? null : ms - (performance.now() - since);
      if (!first || (left !== null && left <= 0)) return { runs: 0, nextMs: await nextOf(parts) };
      return await drain(parts, max, left);
    } finally {
      over.abort();
    }
  }
}

/** Takes runs until nothing is due, or `max` were taken, or `ms` have passed: then no step begins any more, and what is left is handed back. */
async function drain(parts: DrainParts, max: number, ms: number | null): Promise<Drained> {
  const { worker } = parts;
  const before = worker.taken;
  const over = new AbortController();
  const late =
    ms === null ? new Promise<never>(() => {}) : pause(Math.min(ms, LONGEST), over.signal).then(() => "late" as const);
  const end = worker.allow(max);
  try {
    for (;;) {
      await worker.timers.ring();
      worker.poke();
      const settled = worker.settled().then(() => "settled" as const);
      if ((await Promise.race([settled, late])) === "late") {
        end();
        await worker.giveUp();
        await parts.handBack();
        break;
      }
      if (worker.taken - before >= max) break;
      const { work, next_ms } = await parts.peek();
      if (!work && (next_ms === null || next_ms > 0)) break;
      await pause(LOCKED_MS);
    }
  } finally {
    end();
    over.abort();
  }
  return { runs: worker.taken - before, nextMs: await nextOf(parts) };
}

async function nextOf({ peek }: DrainParts): Promise<number | null> {
  const { work, next_ms } = await peek();
  if (work) return 0;
  return next_ms === null ? null : Math.max(0, next_ms);
}
