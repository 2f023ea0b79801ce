/** Lengths of time as users write them, turned into milliseconds. */
import { PerdureError } from "./errors.ts";
import { attempt, checkKeys, isPlainObject, shorten } from "./options.ts";

type Part = `${number}${"d" | "h" | "m" | "s" | "ms"}`;

/**
 * A length of time: a number of milliseconds, a string such as "250ms", "30m", "1.5h" or "1h30m" (largest unit first, each once,
 * no blanks), or an object whose fields are added up. Zero is allowed, 365,000 days is the most. A string from outside, such
 * as an environment variable, is passed `as Duration`: it is checked where it is used.
 */
export type Duration =
  | number
  | Part
  | `${Part}${Part}`
  | `${Part}${Part}${Part}`
  | {
      /** In days, fractions allowed. */
      days?: number | undefined;
      /** In hours, fractions allowed. */
      hours?: number | undefined;
      /** In minutes, fractions allowed. */
      minutes?: number | undefined;
      /** In seconds, fractions allowed. */
      seconds?: number | undefined;
      /** In milliseconds. */
      milliseconds?: number | undefined;
    };

/** The longest duration, in milliseconds: 365,000 days. */
export const MAX_DURATION = 365_000 * 86_400_000;

// Largest first, as in the string form.
const UNITS = { days: 86_400_000, hours: 3_600_000, minutes: 60_000, seconds: 1_000, milliseconds: 1 };
const FIELDS = Object.keys(UNITS) as (keyof typeof UNITS)[];
const TEXT = /^(?:([\d.]+)d)?(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?(?:([\d.]+)ms)?$/;
const DECIMAL = /^\d+(?:\.\d+)?$/;
const HELP = 'write milliseconds, a string such as "250ms", "30m" or "1h30m", or an object such as { minutes: 30 }';

/**
 * The duration in milliseconds: finite, at least 0, possibly with a fraction. `what` begins the message: `timeout of step "x"`.
 * Throws PERDURE_OPTION for anything that is no duration, is negative or is longer than 365,000 days.
 */
export function toMs(duration: Duration, what: string): number {
  const refuse = (why: string) =>
    new PerdureError("PERDURE_OPTION", `${what} is ${shorten(duration)}, which is ${why}; ${HELP}`);
  const amounts = amountsOf(duration, what);
  if (amounts === undefined) throw refuse("not a duration");
  if (!amounts.every(Number.isFinite)) throw refuse("not finite");
  if (amounts.some((amount) => amount < 0)) throw refuse("negative");
  const ms = FIELDS.reduce((sum, field, i) => sum + amounts[i]! * UNITS[field], 0);
  if (ms > MAX_DURATION) throw refuse("longer than 365000 days");
  return ms;
}

// One amount per unit, in the order of UNITS; undefined if the value has not the shape of a duration.
function amountsOf(duration: unknown, what: string): number[] | undefined {
  if (typeof duration === "number") return [0, 0, 0, 0, duration];
  if (typeof duration === "string") return amountsOfText(duration);
  return attempt(() => isPlainObject(duration))
    ? amountsOfFields(duration as Record<string, unknown>, what)
    : undefined;
}

function amountsOfText(text: string): number[] | undefined {
  const parts = text === "" ? undefined : TEXT.exec(text)?.slice(1);
  const wellFormed = parts?.every((part) => part === undefined || DECIMAL.test(part));
  return wellFormed ? parts!.map((part) => Number(part ?? 0)) : undefined;
}

function amountsOfFields(duration: Record<string, unknown>, what: string): number[] | undefined {
  const fields = checkKeys(duration, FIELDS, what);
  const given = FIELDS.map((field) => fields[field]);
  const isDuration = given.some((amount) => amount !== undefined) && given.every(isAmount);
  return isDuration ? given.map((amount) => amount ?? 0) : undefined;
}

function isAmount(value: unknown): value is number | undefined {
  return value === undefined || typeof value === "number";
}
