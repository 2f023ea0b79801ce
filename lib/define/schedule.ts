/** `schedule`: a workflow that is started again and again. */
import type { Duration } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkChoice, checkKeys, checkName, shorten } from "../core/options.ts";
import type { CatchUp, Overlap, ScheduleDefinition } from "../core/types.ts";
import { checkTiming } from "../schedule/timing.ts";
import { internalsOf, type Workflow } from "./workflow.ts";

interface ScheduleRules {
  /**
   * What to do at a slot while a run of this schedule is unfinished: `"skip"` (default) leaves the slot out, `"allow"` starts another,
   * `"cancel_previous"` cancels what is unfinished and starts another.
   */
  overlap?: Overlap | undefined;
  /**
   * What to do about slots that came while no process was there: `"latest"` (default) makes up the last one, `"none"` only one that is at
   * most 60 seconds late, `"all"` each of the last 100. Slots that are made up together do not skip or cancel each other.
   */
  catchUp?: CatchUp | undefined;
}

/** When a schedule fires, and what it does when it is busy or late. */
export type ScheduleSpec =
  | (ScheduleRules & {
      /**
       * Five fields, `minute hour day-of-month month day-of-week`, or six with seconds first: `"0 9 * * MON-FRI"`. Where both kinds of day are
       * given, either will do. A time that is skipped when the clocks go forward fires once at the change; one that comes twice fires
       * the first time, or both times where the hour is a wildcard.
       */
      cron: string;
      /** The time zone that the fields are in, by its IANA name. Default `"UTC"`. */
      timezone?: string | undefined;
      /** Not beside `cron`. */
      every?: undefined;
    })
  | (ScheduleRules & {
      /** An interval of at least 1s, counted from when the schedule was first seen. */
      every: Duration;
      /** Not beside `every`. */
      cron?: undefined;
      /** An interval has none. */
      timezone?: undefined;
    });

const DEFINITION = Symbol.for("perdure.schedule.1");

/** A schedule, to be given to `new Perdure({ schedules })` or to `perdure.schedules.put`. */
export interface Schedule {
  readonly name: string;
  /** @internal */
  readonly [DEFINITION]: ScheduleDefinition;
}

/**
 * Starts a workflow again and again, with these arguments, once for each slot however many processes run. The run's id is
 * `<name>@<slot>`, with the slot as an ISO instant in UTC (a name of more than 230 bytes is cut, and a hash added); in the body,
 * `currentRun().scheduledFor` is the slot. The arguments are checked and stored when the engine launches.
 *
 * @param name Unique in the schema: 1 to 255 bytes.
 * @throws PERDURE_OPTION for a bad cron, zone or interval, or a copy of a workflow that names one particular run; PERDURE_NAME.
 * @example const nightly = schedule("nightly", { cron: "0 2 * * *", timezone: "Europe/Berlin" }, cleanUp, { olderThanDays: 30 });
 */
export function schedule<A extends unknown[], R>(
  name: string,
  spec: ScheduleSpec,
  workflow: Workflow<A, R>,
  ...args: A
): Schedule {
  const where = `schedule ${shorten(checkName(name, "schedule name"))}`;
  const given = checkKeys(spec, ["cron", "timezone", "every", "overlap", "catchUp"], where);
  const { overlap = "skip", catchUp = "latest" } = given;
  const internals = internalsOf(workflow);
  if (!internals) {
    throw new PerdureError("PERDURE_OPTION", `${where} needs a workflow made by workflow(), not ${shorten(workflow)}`);
  }
  const one = (["id", "delay", "startAt"] as const).find((key) => internals.options[key] !== undefined);
  if (one) {
    const text = `${where} holds a copy of workflow "${internals.definition.name}" that names one particular run (${one}); a schedule makes many: pass the workflow itself`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  const definition: ScheduleDefinition = {
    name,
    timing: checkTiming(given, where),
    overlap: checkChoice(overlap, ["skip", "allow", "cancel_previous"], `overlap of ${where}`),
    catchUp: checkChoice(catchUp, ["latest", "none", "all"], `catchUp of ${where}`),
    workflow: internals.definition,
    options: internals.options,
    args,
  };
  return Object.freeze({ name, [DEFINITION]: definition });
}

/** What is behind a schedule value; undefined when `value` is none. */
export function scheduleOf(value: unknown): ScheduleDefinition | undefined {
  return attempt(() => (value as Schedule | null | undefined)?.[DEFINITION]);
}
