/**
 * Many starts that nothing else waits for, on a connection of their own beside the batch that is on its way: then the server works on both.
 * Whatever goes wrong with them, they are handed back and go the way of all writes.
 */
import type { Client } from "pg";
import type { Batch, Item } from "./batch.ts";
import { hangUp } from "./direct.ts";

/** Fewer are no gain: they ride in the next batch. */
const LEAST = 64;
const MOST = 256;
/** A connection with nothing to do is closed after so long. */
const IDLE_MS = 10_000;
/** After trouble there is no second connection for so long: the server may have none to give. */
const REST_MS = 30_000;

export interface SidelineOptions {
  /** Takes starts that wait, and that nobody else can know of: at least so many, or none. */
  readonly take: (least: number, most: number) => Item[] | null;
  readonly connect: () => Promise<Client>;
  readonly commit: (client: Client, items: readonly Item[]) => Promise<Batch>;
  readonly onLanded: (batch: Batch) => void;
  /** Whether they are written is not known. */
  readonly onTrouble: (items: Item[]) => void;
}

export class Sideline {
  readonly #options: SidelineOptions;
  #client: Client | null = null;
  #busy = false;
  #closed = false;
  /** While it rests after trouble, or until an idle connection is closed. */
  #timer: NodeJS.Timeout | undefined;
  #rests = false;

  constructor(options: SidelineOptions) {
    this.#options = options;
  }

  get busy(): boolean {
    return this.#busy;
  }

  /** A batch is on its way, and something waits. */
  offer(): void {
    if (this.#busy || this.#rests || this.#closed) return;
    const items = this.#options.take(LEAST, MOST);
    if (!items) return;
    clearTimeout(this.#timer);
    this.#busy = true;
    void this.#write(items);
  }

  async #write(items: Item[]): Promise<void> {
    let batch: Batch;
    try {
      this.#client ??= await this.#options.connect();
      if (this.#closed) throw new Error("closed while it connected");
      batch = await this.#options.commit(this.#client, items);
    } catch {
      this.#rest();
      this.#options.onTrouble(items);
      return;
    }
    // The next ones leave before those who wait for these are told.
    const next = this.#closed ? null : this.#options.take(LEAST, MOST);
    if (next) void this.#write(next);
    else {
      this.#busy = false;
      this.#timer = setTimeout(() => this.#drop(), IDLE_MS).unref();
    }
    this.#options.onLanded(batch);
  }

  #rest(): void {
    this.#drop();
    this.#busy = false;
    this.#rests = true;
    this.#timer = setTimeout(() => {
      this.#rests = false;
    }, REST_MS).unref();
    if (this.#closed) clearTimeout(this.#timer);
  }

  #drop(): void {
    const client = this.#client;
    this.#client = null;
    void client?.end().catch(() => {});
  }

  /** Takes no more, and says goodbye. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    if (client) await hangUp(() => client.end(), { cut: () => client.connection.stream.destroy() });
  }

  /** Whatever is on its way is lost. */
  kill(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#client?.connection.stream.destroy();
  }
}
