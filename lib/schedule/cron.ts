/** Cron expressions: which are taken, in words that name the field, and which wall-clock times they mean. No zone, no clock: see slots.ts. */
import { CronExpressionParser } from "cron-parser";
import { PerdureError } from "../core/errors.ts";
import { attempt, shorten } from "../core/options.ts";

/** The times of a cron expression. */
export interface Cron {
  readonly seconds: readonly number[];
  readonly minutes: readonly number[];
  readonly hours: readonly number[];
  /** The hour is a wildcard: of a doubled hour it means both passes. */
  readonly everyHour: boolean;
  readonly months: ReadonlySet<number>;
  /** Whether a day counts, by its place in the month, in the week, and the number of days of its month. */
  readonly onDay: (day: number, weekday: number, last: number) => boolean;
}

const FIELDS = ["second", "minute", "hour", "day of month", "month", "day of week"] as const;
type Field = (typeof FIELDS)[number];

const NAMES: Partial<Record<Field, string>> = {
  month: "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC",
  "day of week": "SUN|MON|TUE|WED|THU|FRI|SAT",
};
/** What a field takes beside values, ranges and steps. */
const SPECIAL: Partial<Record<Field, string>> = { "day of month": "L", "day of week": "V(?:L|#[1-5])" };
const COUNT: Record<Field, number> = {
  second: 60,
  minute: 60,
  hour: 24,
  "day of month": 31,
  month: 12,
  "day of week": 7,
};
const HELP: Partial<Record<Field, string>> = {
  month: ", names such as JAN",
  "day of month": ", L for the last day",
  "day of week": ", names such as MON, 5L for the last Friday, 1#2 for the second Monday",
};
const SHORTHANDS: Readonly<Record<string, string>> = {
  "@yearly": "0 0 1 1 *",
  "@annually": "0 0 1 1 *",
  "@monthly": "0 0 1 * *",
  "@weekly": "0 0 * * 0",
  "@daily": "0 0 * * *",
  "@midnight": "0 0 * * *",
  "@hourly": "0 * * * *",
};

const DAY_MS = 86_400_000;
/** The calendar repeats itself after that: what has not come by then never comes. */
const CALENDAR_MS = 146_097 * DAY_MS;

const LONGEST = 255;
const KEPT = 1000;
const parsed = new Map<string, Cron>();

/** Reads an expression of 5 or 6 fields. `what` begins the message: `cron of schedule "nightly"`. Throws PERDURE_OPTION. */
export function readCron(expression: string, what: string): Cron {
  const known = parsed.get(expression);
  if (known) return known;
  const cron = parse(expression, what);
  // Many schedules share few expressions.
  if (parsed.size >= KEPT) parsed.clear();
  parsed.set(expression, cron);
  return cron;
}

function parse(expression: unknown, what: string): Cron {
  const fields = split(expression, what);
  for (const field of FIELDS.slice(-fields.length)) checkField(field, fields.at(FIELDS.indexOf(field) - 6)!, what);
  const cron = attempt(() => toCron(fields));
  if (cron && nextWall(cron, 0) !== null) return cron;
  const [day, month] = fields.slice(-3);
  throw refusal(
    what,
    expression,
    `never fires: its day of month ${shorten(day)} never comes in its month ${shorten(month)}; change one of them`,
  );
}

function refusal(what: string, expression: unknown, why: string): PerdureError {
  return new PerdureError("PERDURE_OPTION", `${what} is ${shorten(expression)}, which ${why}`);
}

function split(expression: unknown, what: string): string[] {
  const rule =
    'write 5 fields (minute hour day-of-month month day-of-week) or 6 (with seconds first), such as "0 9 * * MON-FRI"';
  if (typeof expression !== "string" || expression.trim() === "")
    throw refusal(what, expression, `is no cron expression; ${rule}`);
  if (expression.length > LONGEST)
    throw refusal(what, expression, `has ${expression.length} characters, more than ${LONGEST}`);
  const fields = expression.trim().split(/[ \t]+/);
  const meant = SHORTHANDS[fields[0]!.toLowerCase()];
  if (meant) throw refusal(what, expression, `is a shorthand; write "${meant}"`);
  if (fields.length === 5 || fields.length === 6) return fields;
  throw refusal(what, expression, `has ${fields.length} field${fields.length === 1 ? "" : "s"}; ${rule}`);
}

/** One field by itself, so that the message can name it. */
function checkField(field: Field, text: string, what: string): void {
  const refuse = (why: string): PerdureError =>
    new PerdureError("PERDURE_OPTION", `${what} has the ${field} ${shorten(text)}, ${why}`);
  for (const part of text.split(",")) {
    if (/^(H|H[(/].*|\?.*)$/i.test(part)) {
      throw refuse(`and ${part[0]!.toUpperCase()} is not taken; write * or the value that you mean`);
    }
    const step = grammarOf(field).exec(part);
    if (!step)
      throw refuse(`which is not understood; it takes *, values, a-b, a,b and steps such as */5${HELP[field] ?? ""}`);
    const size = Number(step[1] ?? 1);
    if (size === 0) throw refuse("whose step is 0");
    if (size >= COUNT[field]) {
      throw refuse(
        `whose step of ${size} is no less than the ${COUNT[field]} values there are; for intervals use \`every\``,
      );
    }
  }
  try {
    const others = FIELDS.map((other) => (other === field ? text : "*"));
    CronExpressionParser.parse(others.join(" "), { tz: "UTC" });
  } catch (cause) {
    const why = (cause as Error).message.replace(/^[\w ]*error, /i, "");
    throw refuse(`which cannot be: ${why}`);
  }
}

function grammarOf(field: Field): RegExp {
  const value = NAMES[field] ? `(?:\\d{1,2}|${NAMES[field]})` : "\\d{1,2}";
  const special = SPECIAL[field] ? `|${SPECIAL[field].replace("V", value)}` : "";
  return new RegExp(`^(?:(?:\\*|${value}(?:-${value})?)(?:/(\\d{1,3}))?${special})$`, "i");
}

function toCron(fields: readonly string[]): Cron {
  const { fields: f } = CronExpressionParser.parse(fields.join(" "), { tz: "UTC" });
  const { second, minute, hour, month, dayOfMonth, dayOfWeek } = f;
  const days = new Set(dayOfMonth.values);
  const weekdays = new Set(dayOfWeek.values.map((v) => (typeof v === "number" ? v % 7 : v)));
  const lastDay = days.has("L");
  const lastOf = new Set([...weekdays].filter((v) => typeof v === "string").map((v) => Number.parseInt(v, 10) % 7));
  const nth = dayOfWeek.nthDay;
  const byDay = (day: number, last: number): boolean => days.has(day as never) || (lastDay && day === last);
  const byWeekday = (day: number, weekday: number, last: number): boolean =>
    (weekdays.has(weekday as never) && (nth === 0 || Math.ceil(day / 7) === nth)) ||
    (lastOf.has(weekday) && day > last - 7);
  const [anyDay, anyWeekday] = [fields.at(-3) === "*", fields.at(-1) === "*"];
  return {
    seconds: second.values as readonly number[],
    minutes: minute.values as readonly number[],
    hours: hour.values as readonly number[],
    everyHour: fields.at(-4)!.startsWith("*") || hour.values.length === 24,
    months: new Set<number>(month.values as readonly number[]),
    // Where both are given, either will do: so cron has it.
    onDay: (day, weekday, last) => {
      if (anyDay) return anyWeekday || byWeekday(day, weekday, last);
      return byDay(day, last) || (!anyWeekday && byWeekday(day, weekday, last));
    },
  };
}

/** The first time after `wall` on a clock that is never changed: both are written as if that clock showed UTC, in ms. Null: never. */
export function nextWall(cron: Cron, wall: number): number | null {
  const start = (Math.floor(wall / 1000) + 1) * 1000;
  const end = start + CALENDAR_MS;
  let day = Math.floor(start / DAY_MS) * DAY_MS;
  let since = (start - day) / 1000;
  while (day < end) {
    const date = new Date(day);
    const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
    if (!cron.months.has(month + 1)) {
      day = Date.UTC(year, month + 1, 1);
      since = 0;
      continue;
    }
    const last = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
    const time = cron.onDay(date.getUTCDate(), date.getUTCDay(), last) ? nextTime(cron, since) : null;
    if (time !== null) return day + time * 1000;
    day += DAY_MS;
    since = 0;
  }
  return null;
}

/** The first time of a day from a second of it on, in seconds. */
function nextTime({ hours, minutes, seconds }: Cron, since: number): number | null {
  for (const hour of hours) {
    if (hour * 3600 + 3599 < since) continue;
    for (const minute of minutes) {
      const base = hour * 3600 + minute * 60;
      if (base + 59 < since) continue;
      for (const second of seconds) if (base + second >= since) return base + second;
    }
  }
  return null;
}
