/**
 * All durable writes of a process go through here. What has gathered is committed in one round trip and one commit: with
 * nothing in flight at once, under load in groups. A stale row is refused alone; a row or a new run's id that a stranger's
 * transaction holds is written alone, behind; the writes of one run never overtake each other.
 */
import type { Client, ClientBase } from "pg";
import { PerdureError } from "../core/errors.ts";
import { Alone } from "./alone.ts";
import { type Batch, type Item, runBatch } from "./batch.ts";
import { answered } from "./deadline.ts";
import { hangUp } from "./direct.ts";
import type { Guard } from "./guard.ts";
import { isConnectionLost, isLocked, isTransient, toPerdureError } from "./pg-errors.ts";
import type { Lanes, WriteKind, Writes } from "./writes.ts";

const MAX_ROWS = 1000;
/** The runs of one batch at most. Of more, half waits: then the database works on one batch while this process works on the answers of the other. */
const MAX_LANES = 128;
/** So many writes leave as soon as the batch before them is committed, and wait for no more that might ride along. */
const CROWD = 32;
const MAX_BYTES = 4 * 1024 * 1024;
/** How long the database may be away before a caller outside a run is told. A run waits for as long as it takes. */
const PATIENCE_MS = 30_000;

/** No answer to a batch by then: the connection is replaced, and the batch issued again. */
const ANSWER_MS = 15_000;

export interface FlusherOptions {
  readonly schema: string;
  readonly worker: string;
  readonly lanes: Lanes;
  /** Opens the flusher's own connection, in pipeline mode. */
  readonly connect: () => Promise<Client>;
  /** Runs a batch on another connection: for rows that must wait for a lock. */
  readonly beside: <T>(work: (client: ClientBase) => Promise<T>) => Promise<T>;
  /** True: a batch that makes news also asks who wants to hear of it. */
  readonly asksWanted: () => boolean;
  /** After each commit: what others may want to hear. */
  readonly onNews: (news: News) => void;
  readonly onTrouble: (message: string, error: unknown) => void;
  /** The answer to a batch was lost: claims may exist that nobody here knows of. */
  readonly onLostAnswer: () => void;
  /** Stands around each commit, which then holds one write. */
  readonly guard?: Guard | null;
}

/** What a batch brought about for others. */
export interface News {
  /** Runs that became claimable. */
  work: number;
  /** Of these, those that this process may not serve. */
  foreign: number;
  done: number;
  change: number;
  /** Milliseconds until the first run that is to be woken later; null: none. */
  laterMs: number | null;
  /** Runs have ended of which not all have been told that wait for it. */
  untold: boolean;
  /** How often something was published. */
  published: number;
  /** The keys of runs that published or ended: who reads them here looks. */
  readonly touched: Set<string>;
  /** Others that want to hear of work, of finishes or of what is published; null: not asked. */
  wanted: { readonly hungry: boolean; readonly watching: boolean; readonly reading: boolean } | null;
}

/** Who is told of a write. */
export interface Told<K extends WriteKind> extends Pick<Item, "onAside" | "reject"> {
  readonly resolve: (answer: Writes[K]["answer"]) => void;
}

export class Flusher {
  readonly #options: FlusherOptions;
  readonly #alone: Alone;
  #queue: Item[] = [];
  #flying = false;
  /** The batch that left before the answers of the one before it were told. */
  #following: Promise<void> | null = null;
  #scheduled = false;
  #closed = false;
  #client: Client | null = null;
  #idle: (() => void)[] = [];

  constructor(options: FlusherOptions) {
    this.#options = options;
    this.#alone = new Alone({
      run: (items, lockMs) => this.#runAlone(items, lockMs),
      onWritten: () => this.#wakeIdle(),
    });
  }

  /** Queues a write. Resolves after the commit that holds it; rejects only for a row that the database cannot take, or once closed. */
  write<K extends WriteKind>(
    kind: K,
    row: Writes[K]["row"],
    onAside: () => void = () => {},
  ): Promise<Writes[K]["answer"]> {
    return new Promise((resolve, reject) => this.put(kind, row, { onAside, resolve, reject }));
  }

  /** As `write`, for the many writes of runs: the answer is told at once, in the midst of all the answers of its batch, and must not throw. */
  put<K extends WriteKind>(kind: K, row: Writes[K]["row"], { onAside, resolve, reject }: Told<K>): void {
    // A write that came now would open a connection that nobody closes.
    if (this.#closed) {
      queueMicrotask(() => reject(closed()));
      return;
    }
    const lane = laneOf(kind, row);
    const since = performance.now();
    this.#queue.push({ kind, row, lane, since, onAside, resolve: resolve as Item["resolve"], reject });
    this.#schedule();
  }

  /** Resolves when nothing is queued or in flight. */
  async settled(): Promise<void> {
    while (this.#flying || this.#queue.length > 0 || this.#alone.size > 0) {
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
    // A half-open socket does not answer a goodbye either.
    if (client) await hangUp(() => client.end(), { cut: () => client.connection.stream.destroy() });
  }

  /** Writes nothing any more, not even what is queued. */
  kill(): void {
    this.#closed = true;
    reject(this.#queue.splice(0), closed());
    this.#client?.connection.stream.destroy();
  }

  // Two turns of the event loop: what a pass does with an outcome in its next turn, its finish for one, rides along.
  #schedule(): void {
    if (this.#scheduled || this.#flying) return;
    this.#scheduled = true;
    setImmediate(() =>
      setImmediate(() => {
        this.#scheduled = false;
        void this.#fly();
      }),
    );
  }

  // A few writes are put together two turns later after a batch too, when what its answers set going is known and rides along.
  async #fly(): Promise<void> {
    this.#flying = true;
    for (let flight = this.#takeOff(); flight !== null; flight = this.#following) {
      this.#following = null;
      await flight;
    }
    this.#flying = false;
    this.#wakeIdle();
  }

  #takeOff(): Promise<void> | null {
    const items = this.#take();
    return items.length > 0 ? this.#send(items) : null;
  }

  #wakeIdle(): void {
    if (this.#queue.length > 0) this.#schedule();
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** The next batch, in the order of arrival, with all that its runs have written. Rows of a lane that is being written alone wait behind it. */
  #take(): Item[] {
    const items: Item[] = [];
    const left: Item[] = [];
    const lanes = new Set<string>();
    let bytes = 0;
    let at = 0;
    const most = this.#options.guard ? 1 : MAX_ROWS;
    for (; at < this.#queue.length && items.length + left.length < most && bytes < MAX_BYTES; at += 1) {
      const item = this.#queue[at]!;
      const { lane } = item;
      if (this.#setAside(item)) continue;
      if (lane !== null && lanes.size >= MAX_LANES && !lanes.has(lane)) {
        left.push(item);
        continue;
      }
      if (lane !== null) lanes.add(lane);
      items.push(item);
      bytes += sizeOf(item);
    }
    this.#queue = at === this.#queue.length ? left : left.concat(this.#queue.slice(at));
    return items;
  }

  #setAside(item: Item): boolean {
    if (item.lane === null || !this.#alone.holds(item.lane)) return false;
    this.#putAside(item);
    return true;
  }

  #putAside(item: Item): void {
    item.onAside();
    this.#alone.add(item);
  }

  /** Commits a batch, however often it takes. A row that the database cannot take is found by halving, and rejected alone. */
  async #send(items: Item[], again = false, whole = true): Promise<void> {
    let apart = false;
    for (let failures = 0; items.length > 0; failures += 1) {
      try {
        const client = this.#client ?? (await this.#connected());
        const batch = await this.#commit(client, items, this.#context(again || failures > 0, null, apart));
        return this.#land(batch, whole);
      } catch (error) {
        // A stranger has made a run of the same id and not committed: which one it is, each start finds out by itself.
        if (!apart && isLocked(error) && items.some(({ kind }) => kind === "start")) {
          apart = true;
          continue;
        }
        const lost = await this.#dropLostClient(error);
        again ||= lost;
        if (this.#closed) return reject(items, closed());
        if (!lost && !isTransient(error)) return this.#divide(items, error, again);
        if (failures === 0) this.#options.onTrouble("a batch of writes is issued again", error);
        items = dropImpatient(items, error);
        this.#queue = dropImpatient(this.#queue, error);
        await new Promise((resolve) =>
          setTimeout(resolve, Math.min(1000, 10 * 2 ** failures) * (0.5 + Math.random() / 2)),
        );
      }
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

  async #divide(items: Item[], error: unknown, again: boolean): Promise<void> {
    if (items.length === 1) return reject(items, toPerdureError(error, "writing"));
    const middle = items.length >> 1;
    await this.#send(items.slice(0, middle), again, false);
    // The first half may have met a lock: what follows it in its lane stays behind it.
    await this.#send(
      items.slice(middle).filter((item) => !this.#setAside(item)),
      again,
      false,
    );
  }

  #context(again: boolean, lockMs: number | null, apart = false) {
    const { schema, worker, lanes } = this.#options;
    return { schema, worker, lanes, again, lockMs, apart };
  }

  #commit(client: ClientBase, items: readonly Item[], context: Parameters<typeof runBatch>[2]): Promise<Batch> {
    const { asksWanted, guard } = this.#options;
    const commit = (): Promise<Batch> =>
      answered(runBatch(client, items, context, asksWanted()), ANSWER_MS, "a batch of writes");
    return guard ? guard(items, commit) : commit();
  }

  /** A batch is committed. What many have written meanwhile leaves before anybody is told: then the database works while this process does. */
  #land(batch: Batch, whole: boolean): void {
    for (const item of batch.busy) this.#putAside(item);
    if (whole && !this.#options.guard && this.#queue.length >= CROWD) this.#following = this.#takeOff();
    this.#settle(batch);
  }

  #settle(batch: Batch): void {
    for (const { item, answer } of batch.answered) {
      try {
        item.resolve(answer);
      } catch (error) {
        this.#options.onTrouble("what follows from a write failed", error);
      }
    }
    if (batch.news) this.#options.onNews(batch.news);
  }

  async #runAlone(items: Item[], lockMs: number): Promise<Item[]> {
    try {
      if (this.#closed) throw closed();
      const batch = await this.#options.beside((client) => this.#commit(client, items, this.#context(true, lockMs)));
      this.#settle(batch);
      return [...batch.busy];
    } catch (error) {
      if (isConnectionLost(error) || isTransient(error)) return dropImpatient(items, error);
      const [first, ...rest] = items;
      // Which row it is that the database cannot take shows when each is written by itself.
      if (rest.length > 0) return [...(await this.#runAlone([first!], lockMs)), ...rest];
      reject(items, toPerdureError(error, "writing"));
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

function reject(items: readonly Item[], error: PerdureError): void {
  for (const item of items) item.reject(error);
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

/** A child's start belongs to its parent, which waits for as long as it takes. */
const isFromOutside = ({ kind, row }: Item): boolean =>
  kind === "send" || (kind === "start" && (row as Writes["start"]["row"]).run === null);

/** Writes of one lane keep their order: a run's own writes, the starts of its children among them; others' starts of one id, and the sends to it. */
function laneOf(kind: WriteKind, row: unknown): string | null {
  const { run, id } = row as { run?: string | null; id?: string };
  return run ?? (kind === "start" || kind === "send" ? `id:${id}` : null);
}

function sizeOf(item: Item): number {
  const row = item.row as { value?: string; args?: string; data?: string; error?: string };
  return 100 + (row.value?.length ?? 0) + (row.args?.length ?? 0) + (row.data?.length ?? 0) + (row.error?.length ?? 0);
}
