/** Rows whose run a stranger's open transaction holds: each run's rows wait here for its lock, in order, beside the batches. */
import type { Item } from "./batch.ts";

export class Alone {
  readonly #lanes = new Map<string, Item[]>();
  readonly #run: (items: Item[]) => Promise<Item[]>;

  /** @param run Writes rows of one lane, waiting for its lock, and returns those that are still to be written. */
  constructor(run: (items: Item[]) => Promise<Item[]>) {
    this.#run = run;
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
      void this.#work(lane);
    }
  }

  async #work(lane: string): Promise<void> {
    for (let pauseMs = 0; ; pauseMs = 50) {
      // One turn first: the rest of a batch may bring more rows of this lane.
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      const items = this.#lanes.get(lane)!.splice(0);
      const left = await this.#run(items);
      const waiting = this.#lanes.get(lane)!;
      waiting.unshift(...left);
      if (waiting.length === 0) break;
    }
    this.#lanes.delete(lane);
  }
}
