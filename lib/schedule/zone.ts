/** What the clocks of a time zone show, and when they are changed. From Intl alone, so as this process knows it. */
import { PerdureError } from "../core/errors.ts";
import { attempt, nearest, shorten } from "../core/options.ts";

/** The clocks are changed: from `at` on, in ms since 1970, they are `after` ms ahead of UTC. */
export interface Change {
  readonly at: number;
  readonly before: number;
  readonly after: number;
}

/** No two changes of a zone are nearer to each other. */
const STEP_MS = 2 * 86_400_000;
const YEAR_MS = 183 * STEP_MS;

const zones = new Map<string, Zone>();

/** The zone of that name. `what` begins the message: `timezone of schedule "nightly"`. Throws PERDURE_OPTION with the nearest. */
export function readZone(name: string, what: string): Zone {
  let zone = zones.get(name);
  if (!zone) {
    zone = new Zone(checkZone(name, what));
    zones.set(name, zone);
  }
  return zone;
}

function checkZone(name: unknown, what: string): Intl.DateTimeFormat {
  // Offsets are taken by some versions of Node only, and know no daylight saving time.
  const named = typeof name === "string" && /^[A-Za-z]/.test(name);
  const format = named ? attempt(() => formatOf(name)) : undefined;
  if (format) return format;
  const meant = typeof name === "string" ? nearest(name, [...Intl.supportedValuesOf("timeZone"), "UTC"]) : undefined;
  const help = meant ? `did you mean "${meant}"?` : 'write one such as "Europe/Berlin" or "UTC"';
  throw new PerdureError(
    "PERDURE_OPTION",
    `${what} is ${shorten(name)}, which is no time zone of the IANA database; ${help}`,
  );
}

const formatOf = (timeZone: string): Intl.DateTimeFormat =>
  new Intl.DateTimeFormat("en-US", { timeZone, timeZoneName: "longOffset" });

export class Zone {
  readonly #format: Intl.DateTimeFormat;
  readonly #years = new Map<number, readonly Change[]>();

  constructor(format: Intl.DateTimeFormat) {
    this.#format = format;
  }

  /** How far its clocks are ahead of UTC at an instant, in ms. */
  offsetAt(instant: number): number {
    const shown = /GMT(?:([+-])(\d\d):(\d\d)(?::(\d\d))?)?$/.exec(this.#format.format(instant));
    if (!shown?.[1]) return 0;
    const seconds = Number(shown[2]) * 3600 + Number(shown[3]) * 60 + Number(shown[4] ?? 0);
    return (shown[1] === "-" ? -seconds : seconds) * 1000;
  }

  /** The first change after an instant and at or before another, or null. */
  changeWithin(after: number, until: number): Change | null {
    for (let year = Math.floor(after / YEAR_MS); year * YEAR_MS <= until; year += 1) {
      const found = this.#changesOf(year).find(({ at }) => at > after);
      if (found) return found.at <= until ? found : null;
    }
    return null;
  }

  /** The changes in a stretch of 366 days, found once. */
  #changesOf(year: number): readonly Change[] {
    const known = this.#years.get(year);
    if (known) return known;
    const changes: Change[] = [];
    let from = year * YEAR_MS;
    let before = this.offsetAt(from);
    for (let to = from + STEP_MS; to <= (year + 1) * YEAR_MS; to += STEP_MS) {
      const after = this.offsetAt(to);
      if (after !== before) changes.push({ at: this.#changeBetween(from, to, before), before, after });
      [from, before] = [to, after];
    }
    this.#years.set(year, changes);
    return changes;
  }

  /** The first whole second at which the offset is another. */
  #changeBetween(from: number, to: number, before: number): number {
    let [low, high] = [from / 1000, to / 1000];
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (this.offsetAt(middle * 1000) === before) low = middle;
      else high = middle;
    }
    return high * 1000;
  }
}
