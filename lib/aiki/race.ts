/** The first of several waits, with the events and the children of this layer. */
import type { Duration } from "../core/duration.ts";
import type { Received } from "../core/types.ts";
import { type Racer as CoreRacer, race as coreRace } from "../define/child.ts";
import type { ChildRunHandle } from "./child.ts";
import type { EventWaiter } from "./event.ts";

/** What can run in a race: `run.events.x`, a child, or a timer. */
export type Racer = EventWaiter<any> | ChildRunHandle<any, any> | Duration;

type Prize<T> = T extends EventWaiter<infer Data> ? Received<Data> : T extends ChildRunHandle<infer O, any> ? O : null;

/** Who won a race, and with what: an event as it was received, the output of a child, null for a timer. */
export type Winner<T extends Record<string, Racer>> = {
  [K in keyof T & string]: { readonly winner: K; readonly value: Prize<T[K]> };
}[keyof T & string];

/**
 * Waits for the first of several: see `race` of `perdure`. Throws what a child failed with, when that child wins by failing.
 *
 * @example const { winner } = await race({ paid: run.events.paid, late: { minutes: 30 } });
 */
export const race = <T extends Record<string, Racer>>(racers: T): Promise<Winner<T>> =>
  coreRace(racers as unknown as Record<string, CoreRacer>) as Promise<unknown> as Promise<Winner<T>>;
