/**
 * What waits to be written, and which of it goes next when not all of it fits into a batch: half for runs, each in its turn, and half for
 * what comes from outside, in the order in which it came. Pure: no I/O, no clock.
 */
import type { Item } from "./batch.ts";
import type { Writes } from "./writes.ts";

/** What a batch holds at most; its last row may go beyond the bytes. */
export interface Room {
  readonly rows: number;
  readonly bytes: number;
}

/** What a row takes beside its texts, in a batch. */
const ROW_BYTES = 100;
/** And here, with the promises around it. */
const ITEM_BYTES = 1024;

export class Queue {
  /** Claims, timers: a row each, for which many wait. */
  #upkeep: Item[] = [];
  #runs: Item[] = [];
  #outside: Item[] = [];
  #bytes = 0;
  #outsideBytes = 0;
  /** Takes turns, so that a batch of one row is no one's for ever. */
  #outsideFirst = false;

  get size(): number {
    return this.#upkeep.length + this.#runs.length + this.#outside.length;
  }

  /** How much memory what comes from outside takes, about. */
  get outsideBytes(): number {
    return this.#outsideBytes + ITEM_BYTES * this.#outside.length;
  }

  push(item: Item): void {
    const bytes = sizeOf(item);
    this.#bytes += bytes;
    if (item.lane === null) this.#upkeep.push(item);
    else if (isFromOutside(item)) {
      this.#outside.push(item);
      this.#outsideBytes += bytes;
    } else this.#runs.push(item);
  }

  /** The next batch. What is of one run, or of one id from outside, stays in its order. */
  take(room: Room): Item[] {
    if (this.size <= room.rows && this.#bytes < room.bytes) return this.clear();
    const taken = new Taken(room);
    this.#upkeep = taken.add(this.#upkeep, room);
    const half = { rows: Math.ceil(room.rows / 2), bytes: room.bytes / 2 };
    if (this.#outsideFirst) this.#outside = taken.add(this.#outside, half);
    this.#runs = taken.addInTurns(this.#runs, this.#outside.length > 0 && !this.#outsideFirst ? half : room);
    this.#outside = taken.add(this.#outside, room);
    this.#runs = taken.addInTurns(this.#runs, room);
    this.#outsideFirst = !this.#outsideFirst;
    for (const item of taken.items) this.#gone(item);
    return taken.items;
  }

  /** All of it. */
  clear(): Item[] {
    const all = [...this.#upkeep, ...this.#runs, ...this.#outside];
    this.#upkeep = [];
    this.#runs = [];
    this.#outside = [];
    this.#bytes = 0;
    this.#outsideBytes = 0;
    return all;
  }

  /** Lets go of what came from outside and is not to be kept. */
  keepOfOutside(keep: (items: Item[]) => Item[]): void {
    const kept = new Set(keep(this.#outside));
    for (const item of this.#outside) if (!kept.has(item)) this.#gone(item);
    this.#outside = this.#outside.filter((item) => kept.has(item));
  }

  /** Gives back what waits of a run. */
  withdraw(lane: string): Item[] {
    const found = this.#runs.filter((item) => item.lane === lane);
    for (const item of found) this.#gone(item);
    if (found.length > 0) this.#runs = this.#runs.filter((item) => item.lane !== lane);
    return found;
  }

  #gone(item: Item): void {
    const bytes = sizeOf(item);
    this.#bytes -= bytes;
    if (item.lane !== null && isFromOutside(item)) this.#outsideBytes -= bytes;
  }
}

/** A batch that fills. */
class Taken {
  readonly items: Item[] = [];
  readonly #room: Room;
  #bytes = 0;

  constructor(room: Room) {
    this.#room = room;
  }

  /** Takes the first of them, up to a share of the batch. Returns the rest. */
  add(from: Item[], share: Room): Item[] {
    let at = 0;
    const full = this.#full(share);
    while (at < from.length && !full()) this.#take(from[at++]!);
    return at === 0 ? from : from.slice(at);
  }

  /** Takes the first of each run, then the second of each, and so on. Returns the rest, in its order. */
  addInTurns(from: Item[], share: Room): Item[] {
    const full = this.#full(share);
    if (full()) return from;
    const taken = new Set<Item>();
    for (const round of roundsOf(from)) {
      for (const item of round) {
        if (full()) return from.filter((other) => !taken.has(other));
        this.#take(item);
        taken.add(item);
      }
    }
    return [];
  }

  #take(item: Item): void {
    this.items.push(item);
    this.#bytes += sizeOf(item);
  }

  /** Whether the share, or the batch, is used up. */
  #full({ rows, bytes }: Room): () => boolean {
    const lastRow = Math.min(this.#room.rows, this.items.length + rows);
    const lastByte = Math.min(this.#room.bytes, this.#bytes + bytes);
    return () => this.items.length >= lastRow || this.#bytes >= lastByte;
  }
}

function roundsOf(items: readonly Item[]): Item[][] {
  const rounds: Item[][] = [];
  const seen = new Map<string, number>();
  for (const item of items) {
    const round = seen.get(item.lane!) ?? 0;
    seen.set(item.lane!, round + 1);
    const others = rounds[round];
    if (others) others.push(item);
    else rounds.push([item]);
  }
  return rounds;
}

/** A child's start belongs to its parent, which waits for as long as it takes. */
export const isFromOutside = ({ kind, row }: Pick<Item, "kind" | "row">): boolean =>
  kind === "send" || (kind === "start" && (row as Writes["start"]["row"]).run === null);

function sizeOf({ row }: Item): number {
  const { value, args, data, error } = row as { value?: string; args?: string; data?: string; error?: string };
  return ROW_BYTES + (value?.length ?? 0) + (args?.length ?? 0) + (data?.length ?? 0) + (error?.length ?? 0);
}
