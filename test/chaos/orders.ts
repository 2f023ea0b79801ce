/** What the runs of a chaos run are given, and what must come of it: both follow from the seed. */
import { createHash } from "node:crypto";
import type { Dice } from "./dice.ts";

export interface Order {
  readonly id: string;
  readonly napMs: number;
  /** So many tries of its flaky step fail. */
  readonly failures: number;
  /** Its second half fails, and what was done is undone. */
  readonly saga: boolean;
  readonly payload: string;
}

/** What a run of the sink returns. */
export interface Receipt {
  readonly id: string;
  readonly version: string;
  readonly news: readonly number[];
  readonly kids: readonly string[];
  readonly lanes: readonly number[];
  readonly undone: readonly string[];
  readonly sha: string;
}

/** Transactions of a run that ends well, in their order; those of its children beside. */
export const BOOKED = ["reserve", "charge", "ship"] as const;
export const UNDONE = ["undo-charge", "undo-reserve"] as const;
export const KIDS = 2;
export const LANES = [1, 2, 3] as const;
/** The events that each run waits for, by what they hold. */
export const NEWS = [1, 2] as const;

const LARGE = 65_536;

export const sha = (text: string): string => createHash("sha256").update(text).digest("hex");

export function orderOf(id: string, dice: Dice): Order {
  const large = dice.chance(0.01);
  return {
    id,
    napMs: dice.between(200, 3000),
    failures: dice.chance(0.5) ? dice.between(1, 2) : 0,
    saga: dice.chance(0.1),
    payload: large ? `${id} `.repeat(Math.ceil(LARGE / (id.length + 1))) : id,
  };
}

export function receiptOf(order: Order, version: string): Receipt {
  return {
    id: order.id,
    version,
    news: [...NEWS],
    kids: Array.from({ length: KIDS }, (_, n) => `kid ${n} of ${order.id}`),
    lanes: [...LANES],
    undone: order.saga ? [...UNDONE] : [],
    sha: sha(order.payload),
  };
}

/** The transactions that take effect in a run that ends well, in order. */
export const effectsOf = (order: Order): readonly string[] =>
  order.saga ? ["reserve", "charge", ...UNDONE] : [...BOOKED];
