/** What a user says about when a schedule fires, checked at the door. */
import { type Duration, toMs } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { shorten } from "../core/options.ts";
import type { ScheduleDefinition } from "../core/types.ts";
import { readCron } from "./cron.ts";
import type { Timing } from "./slots.ts";
import { readZone } from "./zone.ts";

const LEAST_MS = 1000;

/** Throws PERDURE_OPTION, beginning with the option and `where`: `schedule "nightly"`. */
export function checkTiming(
  given: { cron?: unknown; timezone?: unknown; every?: unknown },
  where: string,
): ScheduleDefinition["timing"] {
  const { cron, timezone, every } = given;
  if ((cron === undefined) === (every === undefined)) {
    const text = `${where} must say when it fires: either cron or every, and not both; such as { cron: "0 9 * * *" } or { every: "1h" }`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  if (every === undefined) {
    readCron(cron as string, `cron of ${where}`);
    readZone((timezone ?? "UTC") as string, `timezone of ${where}`);
    return {
      cron: (cron as string)
        .trim()
        .split(/[ \t]+/)
        .join(" "),
      timezone: (timezone ?? "UTC") as string,
    };
  }
  if (timezone !== undefined) {
    throw new PerdureError(
      "PERDURE_OPTION",
      `timezone of ${where} belongs to cron; an interval is the same everywhere`,
    );
  }
  const everyMs = toMs(every as Duration, `every of ${where}`);
  if (everyMs >= LEAST_MS && Number.isInteger(everyMs)) return { everyMs };
  throw new PerdureError(
    "PERDURE_OPTION",
    `every of ${where} must be at least 1s, in whole milliseconds, not ${shorten(every)}`,
  );
}

/** The times of a stored schedule. */
export function timingOf(row: {
  readonly cron: string | null;
  readonly timezone: string | null;
  readonly every_ms: number | null;
  readonly anchor_ms: number;
}): Timing {
  return row.cron !== null
    ? { cron: row.cron, timezone: row.timezone! }
    : { everyMs: row.every_ms!, anchor: Math.round(row.anchor_ms) };
}
