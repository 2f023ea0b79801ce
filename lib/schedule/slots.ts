/**
 * When a schedule fires: its slots, instants in ms since 1970. Pure: the caller brings the instants, the database's.
 *
 * An interval counts from its anchor. A cron expression means wall-clock times of its zone. A time that is skipped when the clocks go
 * forward fires at the change itself; several such, once. A time that comes twice when they go back fires the first time; where the hour
 * is a wildcard, both times. So slots grow strictly, and each is named by its instant.
 */
import { nextWall, readCron } from "./cron.ts";
import { readZone, type Zone } from "./zone.ts";

/** When a schedule fires. */
export type Timing =
  | { readonly cron: string; readonly timezone: string }
  | { readonly everyMs: number; readonly anchor: number };

/** No clock was ever changed by more. */
const LONGEST_CHANGE_MS = 86_400_000;

/** The first slot after an instant. Throws PERDURE_OPTION for a timing that this process cannot read. */
export function nextSlot(timing: Timing, after: number): number {
  if ("everyMs" in timing) {
    const { everyMs, anchor } = timing;
    return anchor + Math.max(1, Math.floor((after - anchor) / everyMs) + 1) * everyMs;
  }
  return nextCronSlot(timing.cron, timing.timezone, after);
}

function nextCronSlot(expression: string, timezone: string, after: number): number {
  const cron = readCron(expression, "cron");
  const zone = readZone(timezone, "timezone");
  // One stretch after the other in which the clocks are not changed; the times after `low` count.
  let from = after;
  for (let low = after + zone.offsetAt(after); ; ) {
    const offset = zone.offsetAt(from);
    if (!cron.everyHour) low = Math.max(low, shownBefore(zone, from) - 1);
    const wall = nextWall(cron, low)!;
    const change = zone.changeWithin(from, wall - offset);
    if (!change) return wall - offset;
    // The change skips this time, or it is the first after it.
    if (change.after > offset && wall <= change.at + change.after) return change.at;
    from = change.at;
    low = from + change.after - 1;
  }
}

/** Up to where, exclusive, the clocks had shown all times when they were last set back, or -Infinity. */
function shownBefore(zone: Zone, instant: number): number {
  let shown = -Infinity;
  for (let at = instant - 2 * LONGEST_CHANGE_MS; ; ) {
    const change = zone.changeWithin(at, instant);
    if (!change) return shown;
    if (change.after < change.before) shown = Math.max(shown, change.at + change.before);
    at = change.at;
  }
}

/** Of the slots from one that is due up to an instant, both included, the last `most`, in order. */
export function slotsUntil(timing: Timing, first: number, until: number, most: number): number[] {
  const slots = slotsFrom(timing, first - 1, until, most + 1);
  if (slots.length <= most) return slots;
  // The latest instant after which there are still so many: too many to count them all, so it is found by halving.
  let [low, high] = [slots[0]!, until];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (slotsFrom(timing, middle, until, most).length === most) low = middle;
    else high = middle;
  }
  return slotsFrom(timing, low, until, most);
}

function slotsFrom(timing: Timing, after: number, until: number, most: number): number[] {
  const slots: number[] = [];
  for (let slot = nextSlot(timing, after); slot <= until && slots.length < most; slot = nextSlot(timing, slot)) {
    slots.push(slot);
  }
  return slots;
}
