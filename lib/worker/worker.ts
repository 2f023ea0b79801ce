/** The runs in work in this process: claims what there are free slots for, runs passes, and lets go of what is done. */

import type { Claim } from "../core/claim.ts";
import type { DatabaseClock } from "../core/clock.ts";
import { registeredName } from "../core/engines.ts";
import type { EngineLog } from "../core/logging.ts";
import type { WorkflowDefinition } from "../core/types.ts";
import type { Flusher } from "../db/flusher.ts";
import { toClaims } from "../db/loaded.ts";
import type { Store } from "../db/store.ts";
import type { LoadedRow, Writes } from "../db/writes.ts";
import { Alarm } from "../engine/alarm.ts";
import { Delays } from "../engine/delays.ts";
import { type ExecutePorts, execute, type Finish, load } from "../engine/execute.ts";
import { Lasting } from "../engine/lasting.ts";
import type { Pass } from "../engine/pass.ts";
import type { Ending, EnginePorts, News } from "../engine/ports.ts";
import { Turns } from "../engine/turns.ts";
import { toNews } from "./news.ts";

/** From so many crashes on, one at a time is worked on; see claim_runs. */
const SUSPECT = 3;
/** Runs claimed at once at most: each brings its history along. */
const MOST_PER_CLAIM = 200;
const DUE_PER_BATCH = 1000;
const OVERDUE_MS = 500;
/** Schedules that are due and that somebody holds are looked at again after that. */
const FIRE_AGAIN_MS = 500;

export interface WorkerOptions {
  readonly concurrency: number;
  /** False: takes runs only while it is drained. */
  readonly works: boolean;
  readonly workflows: ReadonlyMap<string, WorkflowDefinition>;
  readonly flusher: Flusher;
  readonly store: Store;
  readonly clock: DatabaseClock;
  readonly logger: EngineLog;
  readonly engine: Pick<EnginePorts, "codec" | "transactor" | "slots" | "outside" | "makeContext" | "strict" | "hooks">;
  /** Fires the schedules whose slots are due. Returns how many went on to their next. */
  readonly fire: () => Promise<number>;
  /** A run has ended for good in this process. */
  readonly onFinish: (runId: string, finish: Finish) => void;
  /** This process holds a run that it does not go on with. */
  readonly onStray: () => void;
  /** The first run is in work, the last is gone, or a slot is free again. */
  readonly onLoad: () => void;
}

export class Worker {
  readonly #options: WorkerOptions;
  readonly #ports: ExecutePorts;
  readonly #active = new Map<string, Pass>();
  readonly #concluding = new Set<Pass>();
  readonly #loading = new Set<string>();
  readonly #alarm: Alarm;
  #reserved = 0;
  /** So many of the reserved slots the claim in flight asks for. */
  #asked = 0;
  /** So many more runs may be taken. */
  #quota: number;
  #taken = 0;
  #onSettled: (() => void)[] = [];
  #claiming = false;
  #again = false;
  #backlog = false;
  #stopping = false;
  #muted = false;
  /** The last timer of a run that was suspended here: until then this process keeps an eye on timers. */
  #horizon = 0;
  /** Set by the heartbeat: the leader keeps an eye on all timers. */
  leads = false;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#quota = options.works ? Infinity : 0;
    this.#alarm = new Alarm(options.clock, () => void this.ring());
    const { flusher, store, clock, logger } = options;
    this.#ports = {
      ...options.engine,
      flusher,
      clock,
      logger,
      delays: new Delays(),
      turns: new Turns(),
      lasting: new Lasting(),
      look: (pass) => this.#look([pass]).then(([news]) => news ?? null),
      loadMore: (key, offset) => store.loadMore(key, offset),
      onEnd: (pass, ending) => this.#ended(pass, ending),
      onGone: (pass, finish) => this.#gone(pass, finish),
      onDelayed: (dueMs) => this.watch(dueMs),
      onFollowed: () => this.poke(),
      onStray: options.onStray,
      onResumed: (pass) => this.#active.set(pass.claim.key, pass),
    };
  }

  /** Slots in which nothing runs and which nothing claims. */
  get free(): number {
    return this.#stopping || this.#muted
      ? 0
      : Math.max(0, Math.min(this.#options.concurrency - this.#active.size, this.#quota) - this.#reserved);
  }

  /** A slot is free that no known work will fill. */
  get hungry(): boolean {
    return (this.free > 0 || this.#asked > 0) && !this.#backlog;
  }

  /** This process takes runs: now or when a slot is free. */
  get takesRuns(): boolean {
    return this.#quota > 0 && !this.#stopping;
  }

  get busy(): boolean {
    return this.#active.size > 0;
  }

  /** The runs that this process knows it holds. */
  keys(): string[] {
    const concluding = [...this.#concluding].map((pass) => pass.claim.key);
    return [...new Set([...this.#active.keys(), ...this.#loading, ...concluding])];
  }

  /** Whether a run is in work here. */
  has(runId: string): boolean {
    for (const pass of this.#active.values()) if (pass.run.id === runId) return true;
    return false;
  }

  /** Takes a slot for a run that is about to be leased at birth. */
  reserve(): boolean {
    if (this.free === 0 || this.#backlog) return false;
    this.#reserved += 1;
    return true;
  }

  /** Gives the slot back, or fills it. */
  adopt(claim: Claim | null): void {
    this.#reserved -= 1;
    if (claim) this.#begin(claim);
    else this.#freed();
  }

  /** There may be work: claims what there are free slots for. */
  poke(): void {
    if (this.#claiming) this.#again = true;
    else if (this.free > 0) void this.#claim();
    // The next slot that is free asks.
    else this.#backlog = true;
  }

  /** Keeps so many free slots for the claim in flight, in place of those it asked for before. */
  #ask(most: number): number {
    this.#reserved -= this.#asked;
    this.#asked = Math.min(this.free, most);
    this.#reserved += this.#asked;
    return this.#asked;
  }

  async #claim(): Promise<void> {
    this.#claiming = true;
    try {
      // Known when the batch is sent: slots that become free until then count, and one that is issued again asks again.
      const limit = () => this.#ask(MOST_PER_CLAIM);
      const { loaded } = await this.#options.flusher.write("claim", { limit });
      this.#ask(0);
      const claims = toClaims(loaded as LoadedRow[]);
      for (const claim of claims) this.#begin(claim);
      this.#backlog = loaded[0]?.backlog ?? false;
    } catch (error) {
      this.#ask(0);
      // Not at once again: the next poll tries.
      this.#backlog = false;
      this.#again = false;
      this.#options.logger.error("perdure: claiming runs failed", error);
    }
    this.#claiming = false;
    this.#checkSettled();
    if (this.#again || this.#backlog) {
      this.#again = false;
      this.poke();
    }
    // What was asked during the claim, which held the free slots, was answered with none.
    this.#options.onLoad();
  }

  #begin(claim: Claim): void {
    // What the run will write is not of a time before it.
    this.#options.clock.observe(claim.now);
    const definition = this.#options.workflows.get(registeredName(claim.workflow, claim.version));
    if (!definition || this.#stopping || this.#muted) return;
    this.#quota -= 1;
    this.#taken += 1;
    if (claim.more) void this.#beginLong(claim, definition);
    else this.#enter(execute(claim, definition, this.#ports));
  }

  async #beginLong(claim: Claim, definition: WorkflowDefinition): Promise<void> {
    this.#reserved += 1;
    this.#loading.add(claim.key);
    try {
      const whole = await load(claim, this.#ports);
      this.#enter(execute(whole, definition, this.#ports));
    } catch (error) {
      this.#options.logger.error(`perdure: reading the history of run "${claim.id}" failed`, error, {
        runId: claim.id,
      });
      this.#options.onStray();
    } finally {
      this.#loading.delete(claim.key);
      this.#reserved -= 1;
    }
  }

  #enter(pass: Pass): void {
    if (pass.over) return;
    // The run was taken from a claim of this very process, which has not noticed yet.
    this.#active.get(pass.claim.key)?.lose("its claim is over");
    this.#active.set(pass.claim.key, pass);
    if (this.#active.size === 1) this.#options.onLoad();
  }

  #ended(pass: Pass, ending: Ending): void {
    if (this.#active.get(pass.claim.key) === pass) this.#active.delete(pass.claim.key);
    if (ending.how !== "suspended") this.#concluding.add(pass);
    else if (ending.dueMs !== null) this.watch(ending.dueMs);
    if (ending.how === "suspended") this.#freed(pass);
  }

  #gone(pass: Pass, finish: Finish | null): void {
    this.#concluding.delete(pass);
    if (finish) this.#options.onFinish(pass.run.id, finish);
    this.#freed(pass);
  }

  #freed(pass?: Pass): void {
    if (pass && pass.claim.crashes >= SUSPECT) this.#again = true;
    // A claim that is on its way knows of the slot, or tells what it left behind.
    if ((this.#backlog || this.#again) && !this.#claiming) this.poke();
    this.#options.onLoad();
    this.#checkSettled();
  }

  /** Nothing is in work, nothing is being claimed. */
  get #settled(): boolean {
    return !this.#claiming && this.#reserved === 0 && this.keys().length === 0;
  }

  #checkSettled(): void {
    if (this.#onSettled.length === 0 || !this.#settled) return;
    for (const resolve of this.#onSettled.splice(0)) resolve();
  }

  /** Resolves when nothing is in work and nothing is being claimed. */
  settled(): Promise<void> {
    return new Promise((resolve) => {
      this.#onSettled.push(resolve);
      this.#checkSettled();
    });
  }

  /** How many runs have been taken here in all. */
  get taken(): number {
    return this.#taken;
  }

  /** Lets a worker that takes no runs by itself take so many. Returns what ends that. */
  allow(max: number): () => void {
    if (this.#options.works) return () => {};
    this.#quota = max;
    return () => {
      this.#quota = 0;
      this.#options.onLoad();
    };
  }

  /** Begins no step any more, and gives up what is in work once its attempts in flight have ended. */
  async giveUp(): Promise<void> {
    const passes = [...this.#active.values()];
    await Promise.all(passes.map((pass) => pass.drain()));
    for (const pass of passes) pass.lose("it is handed back");
  }

  /** A timer of a run that was suspended, tried again or started for later here is due in so many milliseconds. */
  watch(dueMs: number): void {
    const due = this.#options.clock.now() + dueMs;
    this.#horizon = Math.max(this.#horizon, due);
    this.#alarm.at(due);
  }

  /** The next timer of all, as a poll found it: the leader wakes for it. What is overdue was left behind: a dead leader leads for a while yet. */
  hear(nextMs: number | null): void {
    if (nextMs === null) return;
    const due = this.#options.clock.now() + nextMs;
    // At once: the alarm may be set for this very instant, by a clock that stood still with the machine.
    if (nextMs < -OVERDUE_MS) void this.ring();
    else if (this.leads || due <= this.#horizon) this.#alarm.at(due);
  }

  /** Timers are due: makes their runs claimable and claims, in one batch. */
  async ring(): Promise<void> {
    if (this.#stopping) return;
    const due = this.#due();
    this.poke();
    const { woken, next_ms, scheduled } = await due;
    if (woken >= DUE_PER_BATCH) void this.ring();
    if (woken > 0) this.poke();
    this.hear(next_ms);
    if (scheduled) await this.#fire();
  }

  #due(): Promise<Writes["due"]["answer"]> {
    return this.#options.flusher.write("due", { limit: DUE_PER_BATCH }).catch((error: unknown) => {
      this.#options.logger.error("perdure: waking runs whose timers are due failed; the next poll tries again", error);
      return { woken: 0, next_ms: null, scheduled: false };
    });
  }

  /** Slots of schedules are due. What is still due then, somebody holds. */
  async #fire(): Promise<void> {
    const { fire, clock } = this.#options;
    const moved = await fire();
    if (this.#stopping) return;
    const { woken, next_ms, scheduled } = await this.#due();
    if (woken > 0) this.poke();
    this.hear(next_ms);
    if (scheduled) this.#alarm.at(clock.now() + (moved > 0 ? 0 : FIRE_AGAIN_MS));
  }

  /** Some run in work may have mail, or be cancelled: looks at all, in one statement. */
  async lookAll(): Promise<void> {
    const passes = [...this.#active.values()];
    if (passes.length === 0) return;
    const news = await this.#look(passes).catch(() => []);
    news.forEach((found, at) => {
      if (found) passes[at]!.hear(found);
    });
  }

  async #look(passes: readonly Pass[]): Promise<(News | undefined)[]> {
    const { store, clock } = this.#options;
    const claims = passes.map((pass) => pass.ledger.claim);
    const askedAt = performance.now();
    const rows = await store.look(
      claims.map((c) => c.run),
      claims.map((c) => c.epoch),
      passes.map((pass) => pass.mailbox.last),
    );
    const byRun = new Map(rows.map((row) => [row.run, row]));
    if (rows[0]) clock.observe(rows[0].now_ms);
    return claims.map((claim) => toNews(byRun.get(claim.run), askedAt, clock.now()));
  }

  /** All claims of this process are void: nothing is written any more, steps are told to stop; and it claims no others. */
  mute(why: string): void {
    this.#muted = true;
    this.#loseAll(why);
  }

  /** A heartbeat got through. True: the first since the claims were void. */
  unmute(): boolean {
    const muted = this.#muted;
    this.#muted = false;
    if (muted) this.poke();
    return muted;
  }

  #loseAll(why: string): void {
    for (const pass of [...this.#active.values()]) pass.lose(why);
  }

  /** Begins nothing more; resolves when the attempts in flight have ended, or after `timeoutMs`. What is left is lost here. */
  async stop(timeoutMs: number): Promise<void> {
    this.#stopping = true;
    this.#alarm.clear();
    const drained = Promise.all([...this.#active.values()].map((pass) => pass.drain()));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([drained, late]);
    clearTimeout(timer);
    this.#loseAll("this process shuts down");
  }
}
