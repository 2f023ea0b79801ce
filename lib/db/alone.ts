/** Rows whose run a stranger's open transaction holds: each run's rows wait here for its lock, in order, beside the batches. */
import type { Item } from "./batch.ts";

/** So many wait for locks at once, whatever strangers hold: the other connections of the pool stay free for other runs. */
const SESSIONS = 2;
/** How long one lane waits for its lock: shorter when others wait for their turn. */
const PATIENT_MS = 2000;
const CROWDED_MS = 100;
const PAUSE_MS = 50;

export interface AloneOptions {
  /** Writes rows of one lane, waiting so long for its lock, and returns those that are still to be written. */
  readonly run: (items: Item[], lockMs: number) => Promise<Item[]>;
  /** A lane has been written. */
  readonly onWritten: () => void;
}

export class Alone {
  readonly #options: AloneOptions;
  readonly #lanes = new Map<string, Item[]>();
  /** Lanes that wait for their turn. */
  readonly #turns: string[] = [];
  #working = 0;

  constructor(options: AloneOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#lanes.size;
  }

  holds(lane: string): boolean {
    return this.#lanes.has(lane);
  }

  add(item: Item): void {
    const lane = item.lane!;
    const waiting = this.#lanes.get(lane);
    if (waiting) waiting.push(item);
    else {
      this.#lanes.set(lane, [item]);
      this.#queue(lane);
    }
  }

  /** Gives back what waits in a lane, and is not being written. */
  withdraw(lane: string): Item[] {
    return this.#lanes.get(lane)?.splice(0) ?? [];
  }

  #queue(lane: string): void {
    this.#turns.push(lane);
    // One turn of the event loop first: the rest of a batch may bring more rows of this lane, and more lanes.
    setImmediate(() => this.#next());
  }

  #next(): void {
    while (this.#working < SESSIONS && this.#turns.length > 0) void this.#work(this.#turns.shift()!);
  }

  async #work(lane: string): Promise<void> {
    this.#working += 1;
    const items = this.#lanes.get(lane)!.splice(0);
    const left = await this.#options.run(items, this.#turns.length > 0 ? CROWDED_MS : PATIENT_MS);
    if (left.length > 0) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    this.#working -= 1;
    const waiting = this.#lanes.get(lane)!;
    waiting.unshift(...left);
    if (waiting.length > 0) this.#queue(lane);
    else this.#written(lane);
    this.#next();
  }

  #written(lane: string): void {
    this.#lanes.delete(lane);
    this.#options.onWritten();
  }
}
