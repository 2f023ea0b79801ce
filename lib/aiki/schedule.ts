/** Schedules: put at run time, for a version and an input. */
import type { Duration } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { checkChoice, checkKeys } from "../core/options.ts";
import type { CatchUp, Overlap } from "../core/types.ts";
import { pause } from "../db/deadline.ts";
import { schedule as coreSchedule } from "../define/schedule.ts";
import type { Perdure } from "../perdure.ts";
import { type Client, type ClientCore, coreOf } from "./client.ts";
import { ScheduleConflictError, SchemaValidationError } from "./errors.ts";
import type { Argument } from "./event.ts";
import type { WorkflowVersion } from "./forms.ts";
import {
  type ConflictPolicy,
  type Options,
  type OptionsOf,
  referenceOf,
  type SchedulePaths,
  withOptions,
} from "./options.ts";
import { byReference, byVersion, isHash } from "./schedule-names.ts";
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
   * Starts runs of the workflow at these times from here on. The same definition gives the same schedule, active again if it was paused; one
   * that gets a reference takes the place of the same without.
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
  const { own, other } =
    given.type === "cron" ? { own: "expression", other: "every" } : { own: "every", other: "expression" };
  const all = given as unknown as Readonly<Record<string, unknown>>;
  if (all[own] === undefined || all[other] !== undefined) {
    const text = `${where} of type "${given.type}" takes ${own} and no ${other}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
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
      const id = await core.use((perdure) => activate(perdure, spec, options, internals, input, core.hash));
      const on = (verb: "pause" | "resume" | "delete") => () => core.use((perdure) => perdure.schedules[verb](id));
      return { id, pause: on("pause"), resume: on("resume"), deactivate: on("delete"), delete: on("delete") };
    },
  };
}

/** What is to be activated: its names, and how it is put. */
interface Plan {
  /** What the names of all the schedules of its reference begin with. */
  readonly prefix: string;
  readonly own: string;
  /** Names that the same definition may have from before: without its reference, or of processes that key hashes or do not. */
  readonly before: readonly string[];
  readonly put: () => Promise<void>;
}

/** Puts the schedule under a name that its reference and its definition make, so that another definition is seen. Returns the name of what there is. */
async function activate(
  perdure: Perdure,
  spec: ScheduleOptions,
  options: Options,
  internals: Internals,
  input: unknown,
  hashOf: ClientCore["hash"],
): Promise<string> {
  const { name, version } = internals.definition;
  const reference = referenceOf(options, "a schedule", POLICIES);
  const unnamed = byVersion(name, version);
  const prefix = reference ? byReference(reference.id) : unnamed;
  const [hash, other] = hashOf([name, version, spec, input, internals.options], () => `input of workflow "${name}"`);
  const own = `${prefix}${hash}`;
  const made = coreSchedule(own, rulesOf(spec), workflowOf(internals) as Core, ...toArguments(input));
  const put = () =>
    perdure.schedules.put(made).catch((error: { cause?: unknown }) => {
      throw error.cause instanceof SchemaValidationError ? error.cause : error;
    });
  const before = new Set(
    [`${unnamed}${hash}`, `${unnamed}${other}`, `${prefix}${other}`].filter((each) => each !== own),
  );
  const plan = { prefix, own, before: [...before], put };
  const id = reference ? await settle(perdure, plan, reference) : own;
  if (id !== own) return id;
  if (!reference) await put();
  for (const old of plan.before) if ((await found(perdure, old)).includes(old)) await remove(perdure, old);
  const [status] = await perdure.schedules.list({ prefix: own, limit: 1 });
  if (status?.paused) await perdure.schedules.resume(own);
  return own;
}

function rulesOf({ expression, timezone, every, overlapPolicy, catchUp }: ScheduleOptions): { cron: string } {
  const given = Object.entries({ cron: expression, timezone, every, overlap: overlapPolicy, catchUp });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined)) as { cron: string };
}

/** The names of this layer's schedules that begin so. */
async function found(perdure: Perdure, prefix: string): Promise<string[]> {
  const { length } = prefix.slice(0, prefix.lastIndexOf("#") + 1);
  const all = await perdure.schedules.list({ prefix, limit: 1000 });
  return all.filter((each) => each.application === null && isHash(each.name.slice(length))).map((each) => each.name);
}

const ROUNDS = 10;
/** Longer than it takes to see another schedule and to withdraw. */
const SETTLING_MS = 50;

/**
 * Puts a schedule with a reference, unless another definition has it: then what the policy says. Several processes may do so at once: who sees
 * another after it has put its own withdraws, waits a little, and looks again. Returns the name of the schedule that stays.
 */
async function settle(
  perdure: Perdure,
  { prefix, own, before, put }: Plan,
  { id, conflictPolicy }: { readonly id: string; readonly conflictPolicy: ConflictPolicy | "upsert" },
): Promise<string> {
  const others = async () => (await found(perdure, prefix)).filter((each) => each !== own && !before.includes(each));
  for (let round = 0; round < ROUNDS; round += 1) {
    const [there] = conflictPolicy === "upsert" ? [] : await others();
    if (there !== undefined) {
      // It may be about to withdraw.
      await pause(SETTLING_MS);
      if (!(await others()).includes(there)) continue;
      if (conflictPolicy === "return_existing") return there;
      throw new ScheduleConflictError(id);
    }
    await put();
    const after = await others();
    const losers = conflictPolicy === "upsert" || after.length === 0 ? after : [own];
    for (const name of losers) await remove(perdure, name);
    if (!losers.includes(own) && (await found(perdure, own)).includes(own)) return own;
    await pause(SETTLING_MS * (2 + Math.random() * (round + 1)));
  }
  throw new ScheduleConflictError(id);
}

/** Deletes a schedule, if another process has not done so. */
async function remove(perdure: Perdure, name: string): Promise<void> {
  await perdure.schedules.delete(name).catch((error: unknown) => {
    if (!(error instanceof PerdureError && error.code === "PERDURE_NOT_FOUND")) throw error;
  });
}
