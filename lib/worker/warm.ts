/**
 * The suspended runs that stay in memory, so that they go on without a replay: those suspended last, within a budget. The row of a run says
 * which process keeps it, and as the how-manieth of its suspensions; what is dropped here is claimed with its history, as if it had never been kept.
 */
import type { Pass } from "../engine/pass.ts";

/** About what the runs in memory may hold together. */
const BUDGET = 64 * 1024 * 1024;
/** What each holds at least: a body, a few calls, their promises. */
const LEAST = 8 * 1024;
/** A value takes more room than its text. */
const PER_CHARACTER = 2;

interface Kept {
  readonly pass: Pass;
  readonly no: number;
  readonly bytes: number;
}

export class Warm {
  readonly #most: number;
  /** By run id, the one suspended last at the end. */
  readonly #kept = new Map<string, Kept>();
  /** What each pass was handed until it was last weighed, and what it may still hold of that. */
  readonly #weights = new WeakMap<
    Pass,
    { readonly handed: number; readonly bytes: number; readonly no: number | null }
  >();
  #bytes = 0;
  #no = 0;
  #from = 1;

  constructor(most: number) {
    this.#most = most;
  }

  /** The suspensions before this one are not in memory any more. */
  get from(): number {
    return this.#from;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** The how-manieth suspension this is to be, if the pass can be kept. */
  number(pass: Pass): number | null {
    if (this.#most === 0) return null;
    const before = this.#weights.get(pass);
    const handed = pass.handover.characters;
    // A loop lets go of what it was handed turns ago: that counts half each time.
    const bytes = (before?.bytes ?? 0) / 2 + (handed - (before?.handed ?? 0)) * PER_CHARACTER;
    const no = LEAST + bytes > BUDGET ? null : this.#no + 1;
    if (no) this.#no = no;
    this.#weights.set(pass, { handed, bytes, no });
    return no;
  }

  /** Keeps a pass that has just been suspended, and drops the oldest that there is no room for beside it. */
  keep(pass: Pass): void {
    const { no = null, bytes = 0 } = this.#weights.get(pass) ?? {};
    this.take(pass.run.id);
    if (no === null) return;
    this.#kept.set(pass.run.id, { pass, no, bytes: LEAST + bytes });
    this.#bytes += LEAST + bytes;
    for (const [id, kept] of this.#kept) {
      if (this.#kept.size <= this.#most && this.#bytes <= BUDGET) break;
      this.#drop(id);
      this.#from = Math.max(this.#from, kept.no + 1);
    }
  }

  has(runId: string): boolean {
    return this.#kept.has(runId);
  }

  /** Takes a run out. */
  take(runId: string): Pass | undefined {
    const kept = this.#kept.get(runId);
    if (kept) this.#drop(runId);
    return kept?.pass;
  }

  /** This very pass is not to be kept any more. */
  forget(pass: Pass): void {
    if (this.#kept.get(pass.run.id)?.pass === pass) this.#drop(pass.run.id);
  }

  clear(): void {
    this.#kept.clear();
    this.#bytes = 0;
    this.#from = this.#no + 1;
  }

  #drop(runId: string): void {
    this.#bytes -= this.#kept.get(runId)!.bytes;
    this.#kept.delete(runId);
  }
}
