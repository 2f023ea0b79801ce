/** The runs in work in this process: claims what there are free slots for, runs passes, and lets go of what is done. */

import type { Claim } from "../core/claim.ts";
import type { DatabaseClock } from "../core/clock.ts";
import { registeredName } from "../core/engines.ts";
import type { EngineLog } from "../core/logging.ts";
import type { WorkflowDefinition } from "../core/types.ts";
import type { Flusher } from "../db/flusher.ts";
import { parted, toClaims } from "../db/loaded.ts";
import type { Store } from "../db/store.ts";
import type { LoadedRow } from "../db/writes.ts";
import { Delays } from "../engine/delays.ts";
import { type ExecutePorts, executor, type Finish, load } from "../engine/execute.ts";
import { Lasting } from "../engine/lasting.ts";
import type { Pass } from "../engine/pass.ts";
import type { Ending, EnginePorts } from "../engine/ports.ts";
import { Turns } from "../engine/turns.ts";
import { Claiming } from "./claiming.ts";
import { Looks } from "./look.ts";
import { Slots } from "./slots.ts";
import { Timers } from "./timers.ts";
import { Warm } from "./warm.ts";

/** From so many crashes on, one at a time is worked on; see claim_runs. */
const SUSPECT = 3;
/** A run that is left to another process, which has it in memory, is anybody's after that long, and a little more; see claim_runs. */
const LEFT_MS = 52;

export interface WorkerOptions {
  readonly concurrency: number;
  /** So many suspended runs are kept in memory at most. */
  readonly warm: number;
  /** False: takes runs only while it is drained. */
  readonly works: boolean;
  readonly workflows: ReadonlyMap<string, WorkflowDefinition>;
  readonly flusher: Flusher;
  readonly store: Store;
  readonly clock: DatabaseClock;
  readonly logger: EngineLog;
  readonly engine: Pick<EnginePorts, "codec" | "transactor" | "slots" | "outside" | "makeContext" | "strict" | "hooks">;
  /** A claim rides in the batch that ends what it waits for. */
  readonly rides: boolean;
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
  readonly timers: Timers;
  readonly #options: WorkerOptions;
  readonly #ports: ExecutePorts;
  readonly #execute: ReturnType<typeof executor>;
  readonly #looks: Looks;
  readonly #warm: Warm;
  /** By run id. */
  readonly #active = new Map<string, Pass>();
  readonly #concluding = new Set<Pass>();
  readonly #loading = new Set<string>();
  readonly #slots: Slots;
  readonly #claiming: Claiming;
  #taken = 0;
  #onSettled: (() => void)[] = [];
  #left: NodeJS.Timeout | undefined;
  #stopping = false;
  #muted = false;

  constructor(options: WorkerOptions) {
    this.#options = options;
    const { flusher, store, clock, logger, fire, concurrency } = options;
    this.timers = new Timers({ flusher, clock, logger, fire, onWork: () => this.poke() });
    this.#looks = new Looks(store, clock);
    this.#warm = new Warm(options.warm);
    this.#slots = new Slots(concurrency, options.works ? Infinity : 0, () => this.#active.size);
    this.#claiming = new Claiming({
      concurrency,
      flusher,
      slots: this.#slots,
      warmFrom: () => this.#warm.from,
      closed: () => this.#stopping || this.#muted,
      onLoaded: (loaded) => this.#takeUp(loaded),
      onAnswered: () => {
        this.#checkSettled();
        // What was asked during the claim, which held the free slots, was answered with none.
        options.onLoad();
      },
      onTrouble: (error) => logger.error("perdure: claiming runs failed", error),
    });
    this.#ports = {
      ...options.engine,
      flusher,
      clock,
      logger,
      delays: new Delays(),
      turns: new Turns(),
      lasting: new Lasting(),
      look: (pass) => this.#looks.look([pass]).then(([news]) => news ?? null),
      loadMore: (key, after) => store.loadMore(key, after),
      onEnd: (pass, ending) => this.#ended(pass, ending),
      onGone: (pass, finish) => this.#gone(pass, finish),
      onDelayed: (due) => this.timers.watchFor(due),
      onFollowed: () => options.rides && this.poke(),
      onStray: options.onStray,
      onResumed: (pass) => this.#resumed(pass),
      warmNumber: (pass) => this.#warm.number(pass),
    };
    this.#execute = executor(this.#ports);
  }

  /** Slots in which nothing runs and which nothing claims. */
  get free(): number {
    return this.#stopping || this.#muted ? 0 : this.#slots.free;
  }

  /** A slot is free that no known work will fill. */
  get hungry(): boolean {
    return this.#claiming.hungry;
  }

  /** This process takes runs: now or when a slot is free. */
  get takesRuns(): boolean {
    return this.#slots.open && !this.#stopping;
  }

  get busy(): boolean {
    return this.#active.size > 0;
  }

  /** The runs that this process knows it holds. */
  keys(): string[] {
    const known = [...this.#active.values(), ...this.#concluding].map((pass) => pass.claim.key);
    return [...new Set([...known, ...this.#loading])];
  }

  /** Whether a run is in work here. */
  has(runId: string): boolean {
    return this.#active.has(runId);
  }

  /** Takes a slot for a run that is about to be leased at birth. */
  reserve(): boolean {
    if (this.free === 0 || this.#claiming.backlog) return false;
    this.#slots.reserve(1);
    return true;
  }

  /** Gives the slot back, or fills it. */
  adopt(claim: Claim | null): void {
    this.#slots.release(1);
    if (claim) this.#begin(claim);
    else this.#freed();
  }

  /** There may be work: claims what there are free slots for. */
  poke(): void {
    this.#claiming.poke();
  }

  /** News for a run is on its way: if it is to go on here, where it is in memory, its claim rides along. */
  expect(runId: string): void {
    if (this.#warm.has(runId) || this.#active.get(runId)?.suspending) this.poke();
  }

  #takeUp(loaded: readonly LoadedRow[]): void {
    const { cold, warm, left } = parted(loaded);
    if (left) this.#left ??= setTimeout(() => this.#takeLeft(), LEFT_MS).unref();
    for (const claim of toClaims(cold)) this.#begin(claim);
    const dropped = warm.filter((row) => !this.#wake(row));
    if (dropped.length > 0) void this.#beginDropped(dropped);
  }

  #takeLeft(): void {
    this.#left = undefined;
    this.poke();
  }

  /** Lets a run go on that is in memory. False: it has been dropped since. */
  #wake(row: LoadedRow): boolean {
    if (this.#stopping || this.#muted) return true;
    const pass = this.#warm.take(row.id) ?? this.#active.get(row.id);
    if (!pass?.awaits(row.epoch)) return false;
    this.#slots.count();
    this.#taken += 1;
    pass.wake(this.#looks.newsOf(row), { followed: row.followed, deadline: row.deadline_ms });
    return true;
  }

  #begin(claim: Claim): void {
    // What the run will write is not of a time before it.
    this.#options.clock.observe(claim.now);
    const definition = this.#options.workflows.get(registeredName(claim.workflow, claim.version));
    if (!definition || this.#stopping || this.#muted) return;
    this.#slots.count();
    this.#taken += 1;
    const begin = async (): Promise<void> => this.#enter(this.#execute(await load(claim, this.#ports), definition));
    if (claim.more) void this.#reading([claim], begin);
    else this.#enter(this.#execute(claim, definition));
  }

  /** Begins runs whose claim brought no history, as they were in memory a moment ago. */
  #beginDropped(rows: readonly LoadedRow[]): Promise<void> {
    const epochs = new Map(rows.map(({ key, epoch }) => [key, epoch]));
    return this.#reading(rows, async () => {
      const claims = await this.#options.store.load(rows.map(({ key }) => key));
      for (const claim of claims) if (claim.epoch === epochs.get(claim.key)) this.#begin(claim);
    });
  }

  /** Reads what a claim has not brought. Slots are kept for the runs meanwhile. */
  async #reading(runs: readonly Pick<Claim, "key" | "id">[], read: () => Promise<void>): Promise<void> {
    this.#slots.reserve(runs.length);
    for (const { key } of runs) this.#loading.add(key);
    try {
      await read();
    } catch (error) {
      const [{ id }] = runs as [Claim];
      this.#options.logger.error(`perdure: reading the history of run "${id}" failed`, error, { runId: id });
      this.#options.onStray();
    } finally {
      for (const { key } of runs) this.#loading.delete(key);
      this.#slots.release(runs.length);
    }
  }

  #enter(pass: Pass): void {
    if (pass.over) return;
    // The run was taken from a claim of this very process, which has not noticed yet.
    this.#active.get(pass.run.id)?.lose("its claim is over");
    this.#warm.take(pass.run.id);
    this.#resumed(pass);
  }

  #resumed(pass: Pass): void {
    this.#warm.forget(pass);
    this.#active.set(pass.run.id, pass);
    if (this.#active.size === 1) this.#options.onLoad();
    // Its body went on by itself: what it asks for is begun where the run is handed to.
    if (this.#stopping) void pass.drain();
  }

  #ended(pass: Pass, ending: Ending): void {
    if (this.#active.get(pass.run.id) === pass) this.#active.delete(pass.run.id);
    if (ending.how !== "suspended") {
      this.#warm.forget(pass);
      this.#concludes(pass);
      return;
    }
    if (ending.due !== null) this.timers.watchFor(ending.due);
    if (!this.#stopping) this.#warm.keep(pass);
    this.#freed(pass);
  }

  /** Its slot is free: a claim for it rides along with its end. */
  #concludes(pass: Pass): void {
    this.#concluding.add(pass);
    this.#claiming.fill();
  }

  #gone(pass: Pass, finish: Finish | null): void {
    this.#concluding.delete(pass);
    if (finish) this.#options.onFinish(pass.run.id, finish);
    this.#freed(pass);
  }

  #freed(pass?: Pass): void {
    if (pass && pass.claim.crashes >= SUSPECT) this.#claiming.askAgain();
    this.#claiming.fill();
    this.#options.onLoad();
    this.#checkSettled();
  }

  /** Nothing is in work, nothing is being claimed. */
  get #settled(): boolean {
    return this.#claiming.idle && this.#slots.reserved === 0 && this.keys().length === 0;
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
    this.#slots.allow(max);
    return () => {
      this.#slots.allow(0);
      this.#options.onLoad();
    };
  }

  /** Begins no step any more, and gives up what is in work once its attempts in flight have ended. */
  async giveUp(): Promise<void> {
    const passes = [...this.#active.values()];
    await Promise.all(passes.map((pass) => pass.drain()));
    for (const pass of passes) pass.lose("it is handed back");
  }

  /** Some run in work may have mail, or be cancelled: looks at all, in one statement. */
  async lookAll(): Promise<void> {
    const passes = [...this.#active.values()];
    if (passes.length === 0) return;
    const news = await this.#looks.look(passes).catch(() => []);
    news.forEach((found, at) => {
      passes[at]!.hear(found);
    });
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
    this.timers.stop();
    clearTimeout(this.#left);
    this.#warm.clear();
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
