/** Schedules: put at run time, for a version and an input. */
import type { Duration } from "../core/duration.ts";
import { canonicalHash } from "../core/hash.ts";
import { checkChoice, checkKeys } from "../core/options.ts";
import type { CatchUp, Overlap } from "../core/types.ts";
import { schedule as coreSchedule } from "../define/schedule.ts";
import type { Perdure } from "../perdure.ts";
import { type Client, coreOf } from "./client.ts";
import { ScheduleConflictError } from "./errors.ts";
import type { Argument } from "./event.ts";
import type { WorkflowVersion } from "./forms.ts";
import { type Options, type OptionsOf, referenceOf, type SchedulePaths, withOptions } from "./options.ts";
import { type Core, type Internals, internalsOf, toArguments, configured as workflowOf } from "./version.ts";

interface Rules {
  /** What to do while a run of this schedule is unfinished: `"skip"` (default), `"allow"` or `"cancel_previous"`. */
  overlapPolicy?: Overlap | undefined;
  /** What to do about slots that nobody was there for: `"latest"` (default), `"none"` or `"all"`. */
  catchUp?: CatchUp | undefined;
}

/** When a schedule fires. */
export type ScheduleOptions = Rules &
  (
    | { type: "cron"; expression: string /** Default UTC. */; timezone?: string | undefined; every?: never }
    | { type: "interval"; every: Duration; expression?: never; timezone?: never }
  );

/** A schedule that was activated. */
export interface ScheduleHandle {
  readonly id: string;
  /** Fires no more until `resume`. */
  pause(): Promise<void>;
  /** Goes on with the next slot from now. */
  resume(): Promise<void>;
  /** Removes it; its runs stay. Activating it again brings it back. */
  deactivate(): Promise<void>;
  /** The older name of `deactivate`. */
  delete(): Promise<void>;
}

/** A schedule as it was defined, to be activated for workflows. */
export interface ScheduleDefinition {
  with(): ScheduleDefinition;
  with(options: OptionsOf<SchedulePaths>): ScheduleDefinition;
  with<P extends keyof SchedulePaths>(path: P, value: SchedulePaths[P]): ScheduleDefinition;
  opt<P extends keyof SchedulePaths>(path: P, value: SchedulePaths[P]): ScheduleDefinition;
  /**
   * Starts runs of the workflow at these times from here on. The same definition gives the same schedule, active again if it was paused.
   *
   * @throws PERDURE_OPTION for a bad cron, zone or interval; ScheduleConflictError for a reference with another definition; SchemaValidationError.
   */
  activate<Input>(
    client: Client<any>,
    workflow: WorkflowVersion<Input, any, any, any>,
    ...input: Argument<Input>
  ): Promise<ScheduleHandle>;
}

const POLICIES = ["error", "return_existing", "upsert"] as const;

/**
 * Declares when runs are started again and again.
 *
 * @throws PERDURE_OPTION.
 * @example
 * const nightly = schedule({ type: "cron", expression: "0 2 * * *", timezone: "Europe/Berlin" });
 * const handle = await nightly.with("reference.id", "tenant-7").activate(aiki, reportV1, { tenant: 7 });
 */
export function schedule(options: ScheduleOptions): ScheduleDefinition {
  const where = "schedule()";
  const known = ["type", "expression", "timezone", "every", "overlapPolicy", "catchUp"];
  const given = checkKeys(options, known, where);
  checkChoice(given.type, ["cron", "interval"], `type of ${where}`);
  return configured(given, {});
}

function configured(spec: ScheduleOptions, options: Options): ScheduleDefinition {
  const configure = (...given: unknown[]) => configured(spec, withOptions(options, given, "schedule"));
  return {
    with: configure,
    opt: configure,
    activate: async (client, workflow, ...[input]) => {
      const core = coreOf(client);
      const internals = internalsOf(workflow, "activate() of a schedule");
      const id = await core.use((perdure) => activate(perdure, spec, options, internals, input));
      const on = (verb: "pause" | "resume" | "delete") => () => core.use((perdure) => perdure.schedules[verb](id));
      return { id, pause: on("pause"), resume: on("resume"), deactivate: on("delete"), delete: on("delete") };
    },
  };
}

/** Puts the schedule under a name that its reference and its definition make, so that another definition is seen. Returns the name. */
async function activate(
  perdure: Perdure,
  spec: ScheduleOptions,
  options: Options,
  internals: Internals,
  input: unknown,
): Promise<string> {
  const { name, version } = internals.definition;
  const reference = referenceOf(options, "a schedule", POLICIES);
  const hash = canonicalHash([name, version, spec, input, internals.options], () => `input of workflow "${name}"`);
  const prefix = reference ? prefixOf(reference.id) : prefixOf(`${name}:${version}`);
  const own = `${prefix}${hash}`;
  const { type: _, expression, timezone, every, overlapPolicy, catchUp } = spec;
  const given = Object.entries({ cron: expression, timezone, every, overlap: overlapPolicy, catchUp });
  const rules = Object.fromEntries(given.filter(([, value]) => value !== undefined)) as { cron: string };
  const made = coreSchedule(own, rules, workflowOf(internals) as Core, ...toArguments(input));
  const others = async () => {
    const found = await perdure.schedules.list({ prefix, limit: 1000 });
    // A longer reference may begin with this one.
    return reference
      ? found.map((each) => each.name).filter((each) => each !== own && !each.slice(prefix.length).includes("#"))
      : [];
  };
  const before = await others();
  if (reference && before[0] !== undefined && reference.conflictPolicy !== "upsert") {
    if (reference.conflictPolicy === "return_existing") return before[0];
    throw new ScheduleConflictError(reference.id);
  }
  await perdure.schedules.put(made);
  const after = await others();
  if (reference && after.length > 0 && reference.conflictPolicy !== "upsert") {
    // Two at once with different definitions: who sees the other withdraws.
    await perdure.schedules.delete(own).catch(() => {});
    throw new ScheduleConflictError(reference.id);
  }
  for (const other of after) await perdure.schedules.delete(other);
  const [status] = await perdure.schedules.list({ prefix: own, limit: 1 });
  if (status?.paused) await perdure.schedules.resume(own);
  return own;
}

/** So many bytes leave room for the hash, and for the slot in the ids of runs. */
const LONGEST = 200;

function prefixOf(text: string): string {
  return `${Buffer.byteLength(text) <= LONGEST ? text : canonicalHash([text])}#`;
}
