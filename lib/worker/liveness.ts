/**
 * Who is alive: the heartbeat of this process, and the watch over others. A worker's session lock is its death certificate: once
 * it is gone and stays gone without a beat, its runs are taken back. The lease covers what holds a lock and is dead all the same.
 */
import type { DatabaseClock } from "../core/clock.ts";
import type { PerdureError } from "../core/errors.ts";
import type { Logger } from "../core/types.ts";
import type { Certificate } from "../db/certificate.ts";
import { toPerdureError } from "../db/pg-errors.ts";
import type { Store } from "../db/store.ts";
import type { Lanes } from "../db/writes.ts";

/** How long a lock must be gone. Longer when it was lost with the server, as everybody's was. */
const GONE_MS = 300;
const GONE_WITH_SERVER_MS = 2000;
/** How often each asks; one that is alone with the watched asks for two, so that some look falls early enough on a busy machine too. */
const WATCH_MS = 500;
const WATCH_ALONE_MS = 250;
/** How long others are watched after the last sign that they hold runs. */
const WATCH_ON_MS = 5000;

/** A worker whose lock is gone: its id, its last beat, and whether that was before the server started. */
type Missing = [id: string, beat: string, withServer: boolean];

export interface LivenessOptions {
  readonly worker: string;
  readonly name: string;
  readonly leaseMs: number;
  readonly lanes: Lanes;
  readonly store: Store;
  readonly certificate: Certificate;
  readonly clock: DatabaseClock;
  readonly logger: Logger;
  /** False: this process takes no runs, so it watches nobody. A full one watches: its slots turn over, and nobody else may be left. */
  readonly takesRuns: () => boolean;
  /** `holds`: how many runs are this process's, in the database. */
  readonly onBeat: (others: number, leads: boolean, holds: number) => void;
  /** This process was taken for dead, or has to take itself for dead: its claims are void. */
  readonly onBuried: (why: string) => void;
  /** Runs became claimable. */
  readonly onWork: () => void;
}

export class Liveness {
  readonly #options: LivenessOptions;
  #beatTimer: NodeJS.Timeout | undefined;
  #watchTimer: NodeJS.Timeout | undefined;
  #beating = false;
  #beatAgain = false;
  #watchUntil = 0;
  #lastBeat = performance.now();
  #others = 0;
  #stopped = false;
  #outdated = false;
  /** Worker and its last beat → since when its lock is gone. */
  #gone = new Map<string, number>();

  constructor(options: LivenessOptions) {
    this.#options = options;
  }

  get #everyMs(): number {
    return this.#options.leaseMs / 6;
  }

  get #watchMs(): number {
    return this.#others > 1 ? WATCH_MS : WATCH_ALONE_MS;
  }

  async start(): Promise<void> {
    const { store, worker, name, leaseMs, lanes } = this.#options;
    await store.enter(worker, name, leaseMs, lanes);
    await this.#beat();
  }

  /** Beats at once, or once more after the beat in flight: the circle of processes has changed. */
  nudge(): void {
    if (this.#stopped) return;
    if (this.#beating) this.#beatAgain = true;
    else void this.#beat();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#beatTimer);
    clearTimeout(this.#watchTimer);
  }

  async #beat(): Promise<void> {
    const { store, certificate, worker, clock, onBeat, leaseMs, onBuried } = this.#options;
    let nextMs = this.#everyMs;
    clearTimeout(this.#beatTimer);
    this.#beating = true;
    this.#beatAgain = false;
    try {
      const beat = await store.beat(worker, certificate);
      this.#lastBeat = performance.now();
      clock.observe(beat.now_ms);
      // A process on its way out has deleted its own row: it does not enter again.
      if (this.#stopped) return;
      if (!beat.alive) await this.#rise();
      this.#others = beat.others;
      onBeat(beat.others, beat.leads, beat.holds);
      if (beat.untidy) await this.#sweep();
    } catch {
      nextMs = Math.min(500, nextMs);
      // Before others may take its runs, a process that cannot beat stops working on them.
      if (performance.now() - this.#lastBeat > leaseMs - this.#everyMs) onBuried("no heartbeat got through in time");
    }
    this.#beating = false;
    if (this.#beatAgain) nextMs = 0;
    if (!this.#stopped) this.#beatTimer = setTimeout(() => void this.#beat(), nextMs * (0.9 + Math.random() * 0.2));
  }

  async #rise(): Promise<void> {
    const { store, worker, name, leaseMs, lanes, onBuried, logger } = this.#options;
    onBuried("others took this process for dead, after a silence longer than its lease or a lost connection");
    await store.enter(worker, name, leaseMs, lanes).catch((error: unknown) => {
      this.#tellOutdated(toPerdureError(error, "going back to work"));
      throw error;
    });
    logger.warn("perdure: this process was taken for dead by others, who have its runs; it goes on with new ones");
  }

  /** The schema was migrated meanwhile, to what this release cannot work with: it takes no more runs. */
  #tellOutdated({ code, message }: PerdureError): void {
    if (code !== "PERDURE_SCHEMA" || this.#outdated) return;
    this.#outdated = true;
    this.#options.logger.error(`perdure: this process has lost its runs to others and takes no more: ${message}`);
  }

  async #sweep(): Promise<void> {
    if ((await this.#options.store.sweep()) > 0) this.#options.onWork();
  }

  /** Others hold runs: their locks are watched for a while. */
  watch(): void {
    this.#watchUntil = performance.now() + WATCH_ON_MS;
    if (!this.#watchTimer && !this.#stopped) this.#watchIn(this.#watchMs * Math.random());
  }

  #watchIn(ms: number): void {
    this.#watchTimer = setTimeout(() => void this.#look(), ms);
    this.#watchTimer.unref();
  }

  async #look(): Promise<void> {
    let nextMs = this.#watchMs;
    try {
      if (this.#options.takesRuns()) nextMs = await this.#lookOnce();
    } catch {
      // The next look asks again.
    }
    if (this.#stopped || performance.now() > this.#watchUntil) this.#watchTimer = undefined;
    else this.#watchIn(nextMs);
  }

  /** Returns how long until the next look. */
  async #lookOnce(): Promise<number> {
    const { store, worker } = this.#options;
    const { holding, missing } = await store.missing(worker);
    if (holding) this.#watchUntil = performance.now() + WATCH_ON_MS;
    const now = performance.now();
    const found = (missing === null ? [] : JSON.parse(missing)) as Missing[];
    const before = this.#gone;
    this.#gone = new Map(found.map((gone) => [`${gone}`, before.get(`${gone}`) ?? now]));
    const dead = found.filter((gone) => now - this.#gone.get(`${gone}`)! >= (gone[2] ? GONE_WITH_SERVER_MS : GONE_MS));
    // Who was lost with the server did not crash.
    for (const innocent of [false, true]) {
      await this.#bury(
        dead.filter((gone) => gone[2] === innocent),
        innocent,
      );
    }
    return this.#gone.size > 0 ? GONE_MS + 5 : this.#watchMs;
  }

  async #bury(dead: readonly Missing[], innocent: boolean): Promise<void> {
    if (dead.length === 0) return;
    const taken = await this.#options.store.takeBack(
      dead.map(([id]) => id),
      dead.map(([, beat]) => beat),
      innocent,
    );
    for (const gone of dead) this.#gone.delete(`${gone}`);
    if (taken > 0) this.#options.onWork();
  }
}
