/**
 * What waits to be written, and which of it goes next when not all of it fits into a batch: half for runs, each in its turn, and half for
 * what comes from outside, in the order in which it came. Pure: no I/O, no clock.
 */
import type { Batch, Item } from "./batch.ts";
import { isForOthers } from "./new-runs.ts";
import type { WriteKind, Writes } from "./writes.ts";

/** What a batch holds at most; its last row may go beyond the bytes. */
export interface Room {
  readonly rows: number;
  /** Runs, and ids from outside: of those that are in it, as much as fits. */
  readonly lanes: number;
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

  /** Of how many runs, and of how many ids from outside, something waits. */
  get lanes(): number {
    const lanes = new Set<string | null>();
    for (const { lane } of this.#runs) lanes.add(lane);
    for (const { lane } of this.#outside) lanes.add(lane);
    return lanes.size;
  }

  /** Runs are to be handed back that nobody here knows of: who has not heard of all answers cannot tell. */
  get handsBack(): boolean {
    return this.#upkeep.some(({ kind }) => kind === "handBack");
  }

  /** Something waits that is not to wait for what might ride along. */
  get isPrompt(): boolean {
    return this.#upkeep.some(({ told }) => told.prompt);
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
    const fits = this.size <= room.rows && this.#bytes < room.bytes;
    if (fits && this.size <= room.lanes) return this.clear();
    const taken = new Taken(room);
    this.#upkeep = taken.add(this.#upkeep, room);
    const { rows, lanes, bytes } = room;
    const half = { rows: Math.ceil(rows / 2), lanes: Math.ceil(lanes / 2), bytes: bytes / 2 };
    if (this.#outsideFirst) this.#outside = taken.add(this.#outside, half);
    const share = this.#outside.length > 0 && !this.#outsideFirst ? half : room;
    this.#runs = fits ? taken.add(this.#runs, share) : taken.addInTurns(this.#runs, share);
    this.#outside = taken.add(this.#outside, room);
    if (share === half) this.#runs = taken.add(this.#runs, room);
    this.#outsideFirst = !this.#outsideFirst;
    for (const item of taken.items) this.#gone(item);
    return taken.items;
  }

  /** Starts under new ids, of runs that others work on: nothing is in their way, and they are in no one's. At least so many, or none. */
  takeNew(least: number, most: number): Item[] | null {
    if (this.#outside.length < least) return null;
    const taken: Item[] = [];
    const left = this.#outside.filter((item) => taken.length === most || !isForOthers(item) || taken.push(item) === 0);
    if (taken.length < least) return null;
    this.#outside = left;
    for (const item of taken) this.#gone(item);
    return taken;
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
  readonly #lanes = new Set<string | null>();
  #bytes = 0;

  constructor(room: Room) {
    this.#room = room;
  }

  /** Takes the first of them, up to a share of the batch. Returns the rest, in its order. */
  add(from: Item[], share: Room): Item[] {
    const most = this.#most(share);
    const left: Item[] = [];
    let at = 0;
    // Of what is left, no more is looked through than would have fitted.
    for (; at < from.length && !this.#full(most) && left.length < this.#room.rows; at += 1) {
      const item = from[at]!;
      if (this.#hasLane(item, most)) this.#take(item);
      else left.push(item);
    }
    return at === 0 ? from : left.concat(from.slice(at));
  }

  /** Takes the first of each run, then the second of each, and so on. Returns the rest, in its order. */
  addInTurns(from: Item[], share: Room): Item[] {
    const most = this.#most(share);
    const taken = new Set<Item>();
    for (const round of roundsOf(from)) {
      for (const item of round) {
        if (this.#full(most)) break;
        if (!this.#hasLane(item, most)) continue;
        this.#take(item);
        taken.add(item);
      }
    }
    return from.filter((item) => !taken.has(item));
  }

  #take(item: Item): void {
    this.items.push(item);
    if (item.lane !== null) this.#lanes.add(item.lane);
    this.#bytes += sizeOf(item);
  }

  /** Where a share of what is left of the batch ends. */
  #most(share: Room): Room {
    return {
      rows: Math.min(this.#room.rows, this.items.length + share.rows),
      lanes: Math.min(this.#room.lanes, this.#lanes.size + share.lanes),
      bytes: Math.min(this.#room.bytes, this.#bytes + share.bytes),
    };
  }

  #full({ rows, bytes }: Room): boolean {
    return this.items.length >= rows || this.#bytes >= bytes;
  }

  #hasLane({ lane }: Item, { lanes }: Room): boolean {
    return lane === null || this.#lanes.size < lanes || this.#lanes.has(lane);
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

/** Writes of one lane keep their order: a run's own writes, the starts of its children among them; others' starts of one id, and the sends to it. */
export function laneOf(kind: WriteKind, row: unknown): string | null {
  const { run, id } = row as { run?: string | null; id?: string };
  return run ?? (kind === "start" || kind === "send" ? `id:${id}` : null);
}

/** Of how many runs, and of how many ids from outside, a batch held something. */
export const lanesOf = ({ answered }: Batch): number => new Set(answered.map(({ item }) => item.lane)).size;
