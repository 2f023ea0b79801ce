/** A launched engine: the parts, made and joined. No logic. */
import { randomBytes } from "node:crypto";
import { cancelForBody } from "./client/control.ts";
import { Publications } from "./client/publications.ts";
import { Results } from "./client/results.ts";
import { reconcile, type SchedulesParts } from "./client/schedules.ts";
import { type EventLike, Sender } from "./client/send.ts";
import type { StarterParts } from "./client/start.ts";
import { DatabaseClock } from "./core/clock.ts";
import { ValueCodec } from "./core/codec.ts";
import type { Outside } from "./core/context.ts";
import { registeredName } from "./core/engines.ts";
import { StoredCodec } from "./core/stored.ts";
import { announceEmbedded } from "./db/announce.ts";
import { type Certificate, holdCertificate, lockHeld } from "./db/certificate.ts";
import { connectClient, connectDatabase, type Database } from "./db/connect.ts";
import { expireOn } from "./db/expire.ts";
import { Flusher } from "./db/flusher.ts";
import { flushing } from "./db/flushing.ts";
import type { Slots } from "./db/leased.ts";
import { type Listener, openListener } from "./db/listener.ts";
import { lone } from "./db/lone.ts";
import { channelOf, createNotifier, type Notifier } from "./db/notifier.ts";
import { toPerdureError } from "./db/pg-errors.ts";
import { prepare } from "./db/prepare.ts";
import { ScheduleStore } from "./db/schedules.ts";
import { Store } from "./db/store.ts";
import { PgTransactor } from "./db/transactor.ts";
import type { Lanes, StartRow } from "./db/writes.ts";
import { eventOf } from "./define/waits.ts";
import type { Seam } from "./seam.ts";
import type { Settings } from "./settings.ts";
import { watchBodies } from "./strict/strict.ts";
import { lanesOf, toDefinitionRow } from "./worker/catalogue.ts";
import { type Drained, Drains } from "./worker/drain.ts";
import { Expiry } from "./worker/expiry.ts";
import { Firing } from "./worker/firing.ts";
import { Hints } from "./worker/hints.ts";
import { Liveness } from "./worker/liveness.ts";
import { Poll } from "./worker/poll.ts";
import { Recount } from "./worker/recount.ts";
import { Unserved } from "./worker/unserved.ts";
import { Wants } from "./worker/wants.ts";
import { Worker } from "./worker/worker.ts";

/** How often an idle process looks by itself. Without hints that is all there is. */
const POLL_MS = 3000;
const POLL_ALONE_MS = 250;
/** How long the last writes may take at a shutdown, when the database is away. */
const CLOSE_MS = 5000;

const NOTHING: NonNullable<Seam["without"]> = new Set();

/** The engine behind what an application holds. */
export const engineOf = new WeakMap<object, Engine>();

export class Engine {
  readonly codec: StoredCodec;
  readonly store: Store;
  readonly results: Results;
  readonly publications: Publications;
  readonly sender: Sender;
  readonly starter: StarterParts;
  readonly transactor: PgTransactor;
  readonly schedules: SchedulesParts;
  readonly lanes: Lanes;
  readonly #settings: Settings;
  readonly #database: Database;
  /** Of this process among the workers. */
  readonly key: string = (randomBytes(8).readBigUInt64BE() >> 1n).toString();
  readonly #clock: DatabaseClock;
  readonly #flusher: Flusher;
  readonly #worker: Worker;
  readonly #notifier: Notifier;
  readonly #certificate: Certificate;
  readonly #liveness: Liveness;
  readonly #poll: Poll;
  readonly #firing: Firing;
  readonly #expiry: Expiry;
  #listener: Listener | undefined;
  #unwatch: (() => void) | false = false;
  readonly #recount: Recount;
  readonly #unserved: Unserved;
  readonly #drains = new Drains();
  readonly #wants: Wants;
  readonly #hints: Hints;

  /** Opens the database, migrates it, and goes to work: `onWork` is told right before, as runs that it takes up may use it. Throws what is wrong with the server or the schema. */
  static async launch(settings: Settings, onWork: (engine: Engine) => void): Promise<void> {
    const seam = settings.seam as Partial<Seam> | null;
    const database = await connectDatabase(settings.database);
    announceEmbedded(database, settings.logger);
    let engine: Engine | undefined;
    try {
      const ready = (): Promise<void> => prepare(database, settings);
      await (seam?.prepare ? seam.prepare(database, ready) : ready());
      engine = new Engine(settings, database);
      await engine.#start(() => onWork(engine!));
    } catch (error) {
      if (!engine) await seam?.close?.(database).catch(() => {});
      await (engine ? engine.shutdown(0) : database.close());
      throw toPerdureError(error, `launching on schema "${settings.schema}"`, { schema: settings.schema });
    }
  }

  constructor(settings: Settings, database: Database) {
    const { schema, logger, makeContext, strict, workflows, works } = settings;
    const seam = (settings.seam ?? {}) as Partial<Seam>;
    const { clock = new DatabaseClock(), hooks = null, guard = null, replace, without = NOTHING } = seam;
    this.#clock = clock;
    const warn = (message: string, error?: unknown): void =>
      logger.warn(`perdure: ${message}`, ...(error === undefined ? [] : [error]));
    this.#settings = settings;
    this.lanes = lanesOf(settings);
    this.#database = database;
    this.codec = new StoredCodec(new ValueCodec({ errors: settings.errors, warn }), settings.codecs);
    const calls = lone(database);
    this.store = new Store(schema, calls);
    this.#unserved = new Unserved({ store: this.store, workflows, works, logger });
    this.transactor = new PgTransactor(database, schema, guard);
    this.#notifier = createNotifier({
      send: (letters) => (settings.notify ? this.store.hint(this.key, letters) : Promise.resolve()),
    });
    this.#certificate = holdCertificate({ config: this.#direct(), lock: this.key, onTrouble: warn });
    this.#flusher = new Flusher({
      schema,
      worker: this.key,
      lanes: this.lanes,
      ...flushing(database, without, guard),
      // Through a pooler a packet holds one transaction: what follows would find its session taken away.
      hintTurn: () => (settings.notify && !database.pooled && !without.has("behind") ? this.#hints.turn() : null),
      onNews: (news) => this.#hints.tell(news),
      onTrouble: warn,
      onLostAnswer: () => this.#recount.begin(),
    });
    this.#recount = new Recount({ flusher: this.#flusher, keys: () => this.#worker.keys() });
    const slots: Slots = {
      serves: (start) => (this.#serves(start) ? this.#worker.takesRuns : this.#unserved.meet(start)),
      reserve: () => !without.has("lease") && this.#worker.reserve(),
      adopt: (claim) => this.#worker.adopt(claim),
      watch: (dueMs) => this.#worker.timers.watch(dueMs),
    };
    const started = (): void => this.#hints.started();
    this.schedules = {
      store: new ScheduleStore(schema, calls),
      codec: this.codec,
      watch: slots.watch,
      onStarted: started,
    };
    this.#firing = new Firing({ store: this.schedules.store, logger, onStarted: started });
    this.#expiry = new Expiry({ expire: expireOn(database, schema), keepMs: settings.retentionMs, logger });
    this.#worker = new Worker({
      concurrency: settings.concurrency,
      // A test that has bodies replayed has it at every suspension too.
      warm: hooks?.replays || guard ? 0 : settings.warm,
      works: settings.works,
      workflows: replace?.(settings.workflows) ?? settings.workflows,
      flusher: this.#flusher,
      store: this.store,
      clock: this.#clock,
      logger,
      engine: {
        codec: this.codec,
        transactor: this.transactor,
        slots,
        outside: this.#outside(),
        hooks,
        makeContext,
        strict,
      },
      rides: !without.has("ride"),
      fire: () => this.#firing.fire(),
      onStray: () => this.#recount.now(),
      onFinish: (id, finish) =>
        without.has("told") ? this.results.look() : this.results.tell({ id, ...finish, reason: null }),
      onLoad: () => this.#loadChanged(),
    });
    this.results = new Results({
      store: this.store,
      isHere: (id) => this.#worker.has(id),
      onWatching: (watching) => this.#wants.watch(watching),
    });
    this.publications = new Publications({
      store: this.store,
      onReading: (reading) => this.#wants.read(reading),
    });
    this.#wants = new Wants({
      write: (wanted) => this.store.want(this.key, wanted),
      isHungry: () => this.#worker.hungry,
      onKnown: () => this.#worker.poke(),
    });
    const onSent = (id: string): void => this.#worker.expect(id);
    this.sender = new Sender({ flusher: this.#flusher, codec: this.codec, definitionOf: eventOf, onSent });
    this.starter = { flusher: this.#flusher, codec: this.codec, slots };
    this.#liveness = new Liveness({
      worker: this.key,
      name: settings.name,
      leaseMs: settings.leaseMs,
      // Who only drains now and then serves nobody in between.
      lanes: lanesOf(settings.works ? settings : { ...settings, queues: [] }),
      store: this.store,
      certificate: this.#certificate,
      clock: this.#clock,
      logger,
      takesRuns: () => this.#worker.takesRuns,
      onBeat: (others, leads, holds) => this.#circle(others, leads, holds),
      onBuried: (why) => this.#worker.mute(why),
      onWork: () => this.#worker.poke(),
    });
    this.#hints = new Hints({
      key: this.key,
      worker: this.#worker,
      liveness: this.#liveness,
      notifier: this.#notifier,
      flusher: this.#flusher,
      lookForResults: () => this.results.look(),
      lookForPublished: (runs) =>
        runs && !without.has("told") ? this.publications.touched(runs) : this.publications.look(),
      look: () => void this.#look().catch(() => {}),
    });
    this.#poll = new Poll({ everyMs: settings.notify ? POLL_MS : POLL_ALONE_MS, look: () => this.#look() });
  }

  /** A run was changed from here: looks at once, as others do on the hint. */
  changed(): void {
    void this.#worker.lookAll();
    this.#worker.poke();
    this.results.look();
    this.publications.look();
  }

  /** What a body does to other runs: from within a step of its own. */
  #outside(): Outside {
    return {
      send: (id, event, data, options) => this.sender.one(id, event as EventLike<unknown>, data, options),
      cancel: (id, reason) => cancelForBody(id, reason, { store: this.store, onChange: () => this.changed() }),
    };
  }

  /** The clock was moved: what is due now rings here. */
  moved(): void {
    this.#expiry.moved();
    void this.#worker.timers.ring();
    this.changed();
  }

  /** Runs are at work here: a test need not ask the database. */
  readonly isBusy = (): boolean => this.#worker.busy || this.#expiry.busy;

  /** An engine without a worker of its own takes runs from now on. */
  takeOver(): void {
    this.#worker.allow(Infinity);
    this.#loadChanged();
    this.#worker.poke();
  }

  /** Ends as a killed process does: its steps are told to stop, nothing is written or handed back, its lock is free. */
  async die(): Promise<void> {
    this.#flusher.kill();
    this.#worker.mute("this process was killed by a test");
    const stopped = this.#worker.stop(0);
    if (this.#unwatch) this.#unwatch();
    this.#poll.stop();
    this.#wants.stop();
    this.#hints.stop();
    this.#liveness.stop();
    this.results.close();
    this.publications.close();
    await Promise.all([
      stopped,
      this.#firing.stop(),
      this.#expiry.stop(),
      this.#notifier.close(),
      this.#listener?.close(),
      this.#certificate.close(),
    ]);
    await this.#database.close();
  }

  #direct(): object {
    const { listenUrl } = this.#settings;
    return listenUrl === undefined
      ? this.#database.clientConfig()
      : { connectionString: listenUrl, application_name: "perdure", keepAlive: true, connectionTimeoutMillis: 5000 };
  }

  async #start(onWork: () => void): Promise<void> {
    const { schedules, application, logger, workflows, retentionMs } = this.#settings;
    await this.store.register([...workflows.values()].map(toDefinitionRow), retentionMs);
    // Before it takes runs: what is wrong with a schedule ends the launch.
    if (schedules) await reconcile(application, schedules, this.schedules, logger);
    await this.#holdLock();
    onWork();
    await this.#liveness.start();
    if (this.#settings.notify) await this.#listen();
    if (this.#settings.strict) this.#watchBodies();
    await this.#wants.settle();
    this.#poll.start();
    this.#worker.poke();
    await this.#look();
    await this.#unserved.warn();
  }

  #watchBodies(): void {
    this.#unwatch = watchBodies();
    if (!this.#unwatch) this.#settings.logger.info("perdure: strict mode sees no lines in a bundle; run the sources");
  }

  /** The certificate tries again for ever and says nothing: what is wrong with its connection is found out by another. */
  async #holdLock(): Promise<void> {
    if (this.#settings.listenUrl !== undefined) await (await connectClient(this.#direct())).end();
    await lockHeld(this.#certificate);
  }

  async #listen(): Promise<void> {
    this.#listener = openListener({
      config: this.#direct(),
      channel: channelOf(this.#settings.schema),
      onHint: (letters) => this.#hints.hear(letters),
      // What was said while nobody listened is gone.
      onLook: () => this.#hints.hear("wdcvb"),
      onTrouble: (message, error) => this.#settings.logger.warn(`perdure: ${message}`, error),
    });
    await this.#listener.ready;
  }

  #circle(others: number, leads: boolean, holds: number): void {
    this.#unserved.beat();
    // What was given up while nothing could be written is still ours in the database, unless others have taken it.
    if (this.#worker.unmute()) this.#recount.begin();
    else this.#recount.beat(holds);
    this.#hints.beside(others);
    const first = leads && !this.#worker.timers.leads;
    this.#worker.timers.leads = leads;
    if (leads) this.#expiry.beat();
    // Timers that came due while nobody led ring now.
    if (first) void this.#worker.timers.ring();
  }

  /** Behind the hints: work, timers, others' runs, news for the runs in work. */
  async #look(): Promise<void> {
    const found = await this.store.peek(this.key, this.lanes);
    if (found.work) this.#worker.poke();
    if (found.others_hold) this.#liveness.watch();
    this.#worker.timers.hear(found.next_ms);
    if (this.#worker.busy) await this.#worker.lookAll();
    if (this.#settings.notify) return;
    this.results.look();
    this.publications.look();
  }

  #loadChanged(): void {
    this.#wants.loadChanged();
    this.#hints.sayBusy();
  }

  #serves({ workflow, version, queue }: Pick<StartRow, "workflow" | "version" | "queue">): boolean {
    return this.#settings.workflows.has(registeredName(workflow, version)) && this.#settings.queues.includes(queue);
  }

  /** Works off what is due: see worker/drain.ts. One at a time. */
  async drain(max: number, ms: number | null): Promise<Drained> {
    const parts = {
      worker: this.#worker,
      peek: () => this.store.peek(this.key, this.lanes),
      handBack: () => this.#flusher.write("handBack", { keep: () => this.#worker.keys() }),
    };
    return this.#drains.drain(parts, max, ms);
  }

  /** Ends the work: attempts in flight end or time runs out, what is left is handed back. Who waits is told once `over` resolves. */
  async shutdown(timeoutMs: number, over?: Promise<void>): Promise<void> {
    this.#poll.stop();
    const stopped = this.#worker.stop(timeoutMs);
    // Nothing is left to this process any more.
    void this.#wants.settle().then(() => this.#wants.stop());
    this.#hints.stop();
    await stopped;
    if (this.#unwatch) this.#unwatch();
    await Promise.all([this.#firing.stop(), this.#expiry.stop()]);
    await this.#flusher.close(CLOSE_MS);
    this.results.close(over);
    this.publications.close(over);
    await this.store.handBack(this.key, []).catch(() => {});
    this.#liveness.stop();
    await this.store.leave(this.key).catch(() => {});
    await this.#notifier.close();
    await Promise.all([this.#listener?.close(), this.#certificate.close()]);
    await (this.#settings.seam as Partial<Seam> | null)?.close?.(this.#database).catch(() => {});
    await this.#database.close();
  }
}
