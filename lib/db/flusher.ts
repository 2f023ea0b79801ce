/**
 * All durable writes of a process go through here. What has gathered is committed in one round trip and one commit: with
 * nothing in flight at once, under load in groups. A stale row is refused alone; a row or a new run's id that a stranger's
 * transaction holds is written alone, behind; the writes of one run never overtake each other.
 */
import type { Client, ClientBase } from "pg";
import { scope } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import { Alone } from "./alone.ts";
import { type Batch, type Item, runBatch } from "./batch.ts";
import type { HintTurn } from "./behind.ts";
import { answered } from "./deadline.ts";
import { hangUp } from "./direct.ts";
import type { Guard } from "./guard.ts";
import type { News } from "./news.ts";
import { isConnectionLost, isLocked, isTaken, isTooSlow, isTransient, toPerdureError } from "./pg-errors.ts";
import { isFromOutside, laneOf, lanesOf, Queue, type Room } from "./queue.ts";
import { Sideline } from "./sideline.ts";
import type { Hearer, Lanes, StartRow, WriteKind, Writes } from "./writes.ts";

/** What a batch holds at most. */
const ROOM: Room = { rows: 1000, lanes: 256, bytes: 4 * 1024 * 1024 };
/** So many writes leave as soon as the batch before them is committed, and wait for no more that might ride along. */
const CROWD = 32;
/** Starts and sends from outside runs that wait take no more memory than about this: the next one is refused. What runs write is as much as is at work in them. */
const MOST_FROM_OUTSIDE = 256 * 1024 * 1024;
/** How long the database may be away before a caller outside a run is told. A run waits for as long as it takes. */
const PATIENCE_MS = 30_000;

/** No answer to a batch by then: the connection is replaced, and the batch issued again. */
const ANSWER_MS = 15_000;

export type { News };

export interface FlusherOptions {
  readonly schema: string;
  readonly worker: string;
  readonly lanes: Lanes;
  /** Opens the flusher's own connection, in pipeline mode. */
  readonly connect: () => Promise<Client>;
  /** Runs a batch on another connection: for rows that must wait for a lock. */
  readonly beside: <T>(work: (client: ClientBase) => Promise<T>) => Promise<T>;
  /** Whether a hint may follow a batch at once. */
  readonly hintTurn: HintTurn;
  /** After each commit: what others may want to hear. */
  readonly onNews: (news: News) => void;
  readonly onTrouble: (message: string, error: unknown) => void;
  /** The answer to a batch was lost: claims may exist that nobody here knows of. */
  readonly onLostAnswer: () => void;
  /** Stands around each commit, which then holds one write. */
  readonly guard?: Guard | null;
  readonly named: boolean; // statements are prepared: not through a pooler, which asks another session the next time
  /** So many rows in a batch at most; 1000 unless a test says otherwise. */
  readonly most?: number | undefined;
  /** Whether a batch waits for what the answers of the last set going. */
  readonly gathers: boolean;
  /** Whether a batch may leave before the answers of the last are told, and starts of many beside it. */
  readonly follows: boolean;
}

/** Who is told of a write. */
export interface Told<K extends WriteKind> extends Hearer<K> {
  /** It leaves as soon as it may, whatever else might ride along a moment later. */
  readonly prompt?: boolean | undefined;
}

export class Flusher {
  readonly #options: FlusherOptions;
  readonly #alone: Alone;
  readonly #sideline: Sideline | null;
  readonly #queue = new Queue();
  #flying = false;
  /** The batch that left before the answers of the one before it were told. */
  #following: Promise<void> | null = null;
  #scheduled = false;
  #offering = false;
  #closed = false;
  #client: Client | null = null;
  #idle: (() => void)[] = [];

  constructor(options: FlusherOptions) {
    this.#options = options;
    this.#alone = new Alone({
      run: (items, lockMs) => this.#runAlone(items, lockMs),
      onWritten: () => this.#wakeIdle(),
    });
    this.#sideline = this.#sidelineOf(options);
  }

  /** Queues a write. Resolves after the commit that holds it; rejects only for a row that the database cannot take, or once closed; from outside a run also when too much waits. */
  write<K extends WriteKind>(
    kind: K,
    row: Writes[K]["row"],
    onAside: () => void = () => {},
  ): Promise<Writes[K]["answer"]> {
    return new Promise((resolve, reject) => this.put(kind, row, { onAside, resolve, reject }));
  }

  /** As `write`, for the many writes of runs: the answer is told at once, in the midst of all the answers of its batch, and must not throw. */
  put<K extends WriteKind>(kind: K, row: Writes[K]["row"], told: Told<K>): void {
    // A write that came now would open a connection that nobody closes.
    if (this.#closed) {
      queueMicrotask(() => told.reject(closed()));
      return;
    }
    const full = this.#queue.outsideBytes > MOST_FROM_OUTSIDE && isFromOutside({ kind, row });
    // What a step starts or sends is as much as is at work in its run.
    if (full && !scope.getStore()) {
      queueMicrotask(() => told.reject(busy()));
      return;
    }
    const since = isFromOutside({ kind, row }) ? performance.now() : 0;
    this.#queue.push({ kind, row, lane: laneOf(kind, row), since, told });
    if (this.#flying) this.#offer();
    else this.#schedule();
  }

  /** Resolves when nothing is queued or in flight. */
  async settled(): Promise<void> {
    while (this.#flying || this.#sideline?.busy || this.#queue.size > 0 || this.#alone.size > 0) {
      await new Promise<void>((resolve) => this.#idle.push(resolve));
    }
  }

  /** Ends the connection once everything queued is written, or after `timeoutMs`: what is not written by then is rejected. */
  async close(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.settled(), late]);
    clearTimeout(timer);
    this.#closed = true;
    const client = this.#client;
    await this.#sideline?.close();
    // A half-open socket does not answer a goodbye either.
    if (client) await hangUp(() => client.end(), { cut: () => client.connection.stream.destroy() });
  }

  /** Writes nothing any more, not even what is queued. */
  kill(): void {
    this.#closed = true;
    reject(this.#queue.clear(), closed());
    this.#sideline?.kill();
    this.#client?.connection.stream.destroy();
  }

  /** Many starts of others' runs need not wait for the batch that is on its way. A turn of the event loop gathers them. */
  #offer(): void {
    if (!this.#sideline || this.#offering || this.#sideline.busy) return;
    this.#offering = true;
    setImmediate(() => {
      this.#offering = false;
      // Else they are in the batch that is about to leave.
      if (this.#flying) this.#sideline?.offer();
    });
  }

  /** As if nothing had been tried: but they may be there. */
  #takeBack(items: Item[]): void {
    if (this.#closed) reject(items.splice(0), closed());
    for (const item of items) this.#queue.push({ ...item, row: { ...(item.row as StartRow), isNew: false } });
    this.#wakeIdle();
  }

  #sidelineOf({ connect, guard, most, follows }: FlusherOptions): Sideline | null {
    if (!follows || guard || most !== undefined) return null;
    return new Sideline({
      take: (least, count) => this.#queue.takeNew(least, count),
      connect,
      commit: (client, items) => this.#commit(client, items, this.#context(false, null)),
      onLanded: (batch) => {
        for (const item of batch.busy) this.#putAside(item);
        this.#settle(batch);
        this.#wakeIdle();
      },
      onTrouble: (items) => this.#takeBack(items),
    });
  }

  // Two turns of the event loop: what a pass does with an outcome in its next turn, its finish for one, rides along.
  #schedule(): void {
    if (this.#scheduled || this.#flying) return;
    this.#scheduled = true;
    const fly = (): void => {
      this.#scheduled = false;
      void this.#fly();
    };
    if (this.#options.gathers) setImmediate(() => setImmediate(fly));
    else queueMicrotask(fly);
  }

  // A few writes are put together two turns later after a batch too, when what its answers set going is known and rides along.
  async #fly(): Promise<void> {
    this.#flying = true;
    for (let flight = this.#takeOff(0); flight !== null; flight = this.#following) {
      this.#following = null;
      await flight;
    }
    this.#flying = false;
    this.#wakeIdle();
  }

  /** The next batch leaves. Of many, half waits for the one after it, so that the database works on one half while this process works on the other; not where another is on its way beside it. */
  #takeOff(landed: number): Promise<void> | null {
    const items = this.#take(this.#options.follows && !this.#sideline?.busy ? landed : Infinity);
    if (items.length === 0) return null;
    this.#offer();
    return this.#send(items);
  }

  #wakeIdle(): void {
    if (this.#queue.size > 0) this.#schedule();
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** The next batch: half of what waits and of what those write next whose answers have just landed. Rows of a lane that is being written alone wait behind it. */
  #take(landed: number): Item[] {
    const { guard, most = guard ? 1 : ROOM.rows } = this.#options;
    const lanes = this.#queue.size < CROWD ? ROOM.lanes : Math.max(CROWD, Math.ceil((this.#queue.lanes + landed) / 2));
    const room = { ...ROOM, rows: most, lanes: Math.min(ROOM.lanes, lanes) };
    const items = this.#queue.take(room);
    return this.#alone.size === 0 ? items : items.filter((item) => !this.#setAside(item));
  }

  #setAside(item: Item): boolean {
    if (item.lane === null || !this.#alone.holds(item.lane)) return false;
    this.#putAside(item);
    return true;
  }

  #putAside(item: Item): void {
    item.told.onAside();
    this.#alone.add(item);
  }

  /** Commits a batch, however often it takes. A row that the database cannot take is found by halving, and rejected alone. */
  async #send(items: Item[], again = false, refused: Set<string> | null = null): Promise<void> {
    let apart = false;
    for (let failures = 0; items.length > 0; failures += 1) {
      let batch: Batch;
      try {
        const client = this.#client ?? (await this.#connected());
        batch = await this.#commit(client, items, this.#context(again || failures > 0, null, apart));
      } catch (error) {
        // A stranger has made a run of the same id and not committed: which one it is, each start finds out by itself.
        if (!apart && isLocked(error) && items.some(({ kind }) => kind === "start")) {
          apart = true;
          continue;
        }
        // An outcome that is recorded already: the rows are written as those that may be.
        if (!again && failures === 0 && isTaken(error)) continue;
        const lost = await this.#dropLostClient(error);
        again ||= lost;
        if (this.#closed) return reject(items, closed());
        // What takes too long for one statement may be fast enough in parts, and of many rows one is locked.
        if (!lost && (!isTransient(error) || ((isTooSlow(error) || isLocked(error)) && items.length > 1))) {
          return this.#divide(items, error, again, refused ?? new Set());
        }
        if (!lost && isLocked(error) && items[0]!.lane !== null) return this.#putAside(items[0]!);
        if (failures === 0) this.#options.onTrouble("a batch of writes is issued again", error);
        items = dropImpatient(items, error);
        this.#queue.keepOfOutside((outside) => dropImpatient(outside, error));
        await new Promise((resolve) =>
          setTimeout(resolve, Math.min(1000, 10 * 2 ** failures) * (0.5 + Math.random() / 2)),
        );
        continue;
      }
      return this.#land(batch, refused === null);
    }
  }

  async #connected(): Promise<Client> {
    if (this.#closed) throw closed();
    this.#client ??= await this.#options.connect();
    const client = this.#client;
    // Closed while it connected.
    if (this.#closed) void client.end().catch(() => {});
    return client;
  }

  async #dropLostClient(error: unknown): Promise<boolean> {
    if (!isConnectionLost(error)) return false;
    const client = this.#client;
    this.#client = null;
    // The answer may be lost for good while the old connection lingers.
    void client?.end().catch(() => {});
    client?.connection.stream.destroy();
    if (client) this.#options.onLostAnswer();
    return true;
  }

  async #divide(items: Item[], error: unknown, again: boolean, refused: Set<string>): Promise<void> {
    if (items.length === 1) return void this.#refuse(items[0]!, error, refused);
    const middle = items.length >> 1;
    await this.#send(items.slice(0, middle), again, refused);
    // The first half may have met a lock, or what the database cannot take: what follows in that lane stays behind it, or falls with it.
    const rest = items.slice(middle).filter((item) => {
      const falls = item.lane !== null && refused.has(item.lane);
      if (falls) item.told.reject(toPerdureError(error, "writing", this.#options));
      return !falls && !this.#setAside(item);
    });
    await this.#send(rest, again, refused);
  }

  /** The database cannot take it. A run's later writes build on it, its finish for one: those that wait here fall with it. */
  #refuse(item: Item, cause: unknown, refused: Set<string>): void {
    const error = toPerdureError(cause, "writing", this.#options);
    const { lane } = item;
    const fallen = [item];
    if (lane !== null && !isFromOutside(item)) {
      refused.add(lane);
      // Taken out before anyone is told, as who is told may write: that the run is blocked.
      fallen.push(...this.#queue.withdraw(lane), ...this.#alone.withdraw(lane));
    }
    reject(fallen, error);
  }

  #context(again: boolean, lockMs: number | null, apart = false) {
    const { schema, worker, lanes, named } = this.#options;
    return { schema, worker, lanes, named, again, lockMs, apart };
  }

  #commit(client: ClientBase, items: readonly Item[], context: Parameters<typeof runBatch>[2]): Promise<Batch> {
    const { hintTurn, guard } = this.#options;
    const commit = (): Promise<Batch> =>
      answered(runBatch(client, items, context, hintTurn), ANSWER_MS, "a batch of writes");
    return guard ? guard(items, commit) : commit();
  }

  /** A batch is committed. What many have written meanwhile leaves before anybody is told: then the database works while this process does. So does what is prompt, at once. */
  #land(batch: Batch, whole: boolean): void {
    for (const item of batch.busy) this.#putAside(item);
    const landed = lanesOf(batch);
    const follow = (wanted: boolean): void => {
      if (whole && wanted && this.#options.follows && !this.#queue.handsBack) this.#following ??= this.#takeOff(landed);
    };
    follow(this.#queue.size >= CROWD);
    this.#settle(batch);
    follow(this.#queue.isPrompt);
  }

  #settle(batch: Batch): void {
    for (const { item, answer } of batch.answered) {
      try {
        item.told.resolve(answer);
      } catch (error) {
        this.#options.onTrouble("what follows from a write failed", error);
      }
    }
    if (batch.news) this.#options.onNews(batch.news);
  }

  async #runAlone(items: Item[], lockMs: number, refused = new Set<string>()): Promise<Item[]> {
    try {
      if (this.#closed) throw closed();
      const batch = await this.#options.beside((client) => this.#commit(client, items, this.#context(true, lockMs)));
      this.#settle(batch);
      return [...batch.busy];
    } catch (error) {
      if (isConnectionLost(error) || isTransient(error)) return dropImpatient(items, error);
      const [first, ...rest] = items;
      if (rest.length > 0) {
        // Which row it is that the database cannot take shows when each is written by itself.
        const left = await this.#runAlone([first!], lockMs, refused);
        if (refused.size === 0) return [...left, ...rest];
        reject(rest, toPerdureError(error, "writing", this.#options));
      } else this.#refuse(first!, error, refused);
      return [];
    }
  }
}

function closed(): PerdureError {
  return new PerdureError(
    "PERDURE_STATE",
    "this engine was shut down before it could write; make a new one, and try again",
  );
}

function busy(): PerdureError {
  const text = `${MOST_FROM_OUTSIDE >> 20} MiB of starts and events wait to be written, as the database does not keep up; nothing was written. Try again later, and await what is begun before more is`;
  return new PerdureError("PERDURE_BUSY", text);
}

function reject(items: readonly Item[], error: PerdureError): void {
  for (const item of items) item.told.reject(error);
}

/** Starts and sends from outside a run that waited too long are given up: doing them again with the same id or reference is safe. */
function dropImpatient(items: Item[], error: unknown): Item[] {
  const late = performance.now() - PATIENCE_MS;
  const impatient = (item: Item): boolean => item.since < late && isFromOutside(item);
  const given = items.filter(impatient);
  if (given.length === 0) return items;
  const text =
    "writing (whether it took effect is not known: with the same id or reference it may safely be done again)";
  reject(given, toPerdureError(error, text));
  return items.filter((item) => !impatient(item));
}
