/** When a cron fires in a zone, found the long way: every minute's local time is asked of Intl, and the policy is applied as it is written. */

const MINUTE = 60_000;

/** A spec as the oracle has it: which local times match, in words of its own. */
export interface Spec {
  readonly cron: string;
  /** Hour, minute, weekday (0 is Sunday), day of the month. */
  readonly matches: (hour: number, minute: number, weekday: number, day: number) => boolean;
  readonly everyHour: boolean;
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** What the clocks show at an instant, in ms, written as if they showed UTC. */
export function localTime(zone: string, instant: number): number {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat("en-GB", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
    formats.set(zone, format);
  }
  const [day, month, year, hour, minute, second] = format.format(instant).match(/\d+/g)!.map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return Date.UTC(year, month - 1, day, hour, minute, second);
}

/** The offsets' changes between two instants: minutes at which the clock does not show a minute more than a minute before. */
export function changesBetween(zone: string, from: number, to: number): number[] {
  const changes: number[] = [];
  const offset = (at: number): number => localTime(zone, at) - at;
  for (let day = from; day < to; day += 86_400_000) {
    if (offset(day) === offset(day + 86_400_000)) continue;
    let [low, high] = [day, day + 86_400_000];
    while (high - low > MINUTE) {
      const middle = Math.floor((low + high) / 2 / MINUTE) * MINUTE;
      if (offset(middle) === offset(low)) low = middle;
      else high = middle;
    }
    changes.push(high);
  }
  return changes;
}

/** The local times of every minute in a window. */
export function minutesOf(zone: string, from: number, to: number): number[] {
  const walls: number[] = [];
  for (let at = from; at <= to; at += MINUTE) walls.push(localTime(zone, at));
  return walls;
}

/** When the spec fires in a window whose local times these are. */
export function firings(spec: Spec, from: number, walls: readonly number[]): number[] {
  const fired: number[] = [];
  const seen = new Set<number>();
  const fits = (wall: number): boolean => {
    const date = new Date(wall);
    return spec.matches(date.getUTCHours(), date.getUTCMinutes(), date.getUTCDay(), date.getUTCDate());
  };
  walls.forEach((wall, index) => {
    const skipped: number[] = [];
    const before = walls[index - 1];
    if (before !== undefined) for (let w = before + MINUTE; w < wall; w += MINUTE) skipped.push(w);
    const comes = fits(wall) && (spec.everyHour || !seen.has(wall));
    if (comes || skipped.some(fits)) fired.push(from + index * MINUTE);
    seen.add(wall);
  });
  return fired;
}
