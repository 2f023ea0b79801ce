/** Schedules as an application sees and changes them. */
import { refuseInBody } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import { checkInteger, checkKeys, checkName, nearest, shorten } from "../core/options.ts";
import { checkInput } from "../core/schema.ts";
import type { StoredCodec } from "../core/stored.ts";
import { scheduleOf } from "../core/stored-place.ts";
import type { CatchUp, Logger, Overlap, ScheduleDefinition } from "../core/types.ts";
import { toDate } from "../db/reading.ts";
import type { PutAnswer, PutRow, ScheduleRow, ScheduleStore } from "../db/schedules.ts";
import { toStartRow, uuidv7 } from "../db/start-row.ts";
import { nextSlot } from "../schedule/slots.ts";
import { timingOf } from "../schedule/timing.ts";
import { explain } from "./explain.ts";
import { checkPrefix } from "./filter.ts";

/** A schedule as it is seen from outside. */
export interface ScheduleStatus {
  readonly name: string;
  /** Whose code declares it; null: it was made by `put`. */
  readonly application: string | null;
  /** The cron expression and its zone; null for an interval. */
  readonly cron: string | null;
  /** The zone of the cron expression; null for an interval. */
  readonly timezone: string | null;
  /** The interval in milliseconds; null for a cron. */
  readonly every: number | null;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  /** What happens when its last run is unfinished at the next slot. */
  readonly overlap: Overlap;
  /** What happens about slots that came while nobody was there. */
  readonly catchUp: CatchUp;
  /** The next slot; null while it is paused. */
  readonly nextAt: Date | null;
  /** The last slot that fired. */
  readonly lastSlot: Date | null;
  /** The last run that it started, or that was triggered. */
  readonly lastRunId: string | null;
  /** True: no slot fires until `resume`. */
  readonly paused: boolean;
  /** Why it could not be fired at its last slot; it is tried again. */
  readonly trouble: string | null;
}

/** Which schedules `list` returns: in the order of their names, bytewise. */
export interface ScheduleListOptions {
  /** Only names that begin so. */
  prefix?: string | undefined;
  /** Only names after this one: the last of the page before. */
  after?: string | undefined;
  /** At most so many, 1 to 1000. Default 100. */
  limit?: number | undefined;
}

export interface SchedulesParts {
  readonly store: ScheduleStore;
  readonly codec: StoredCodec;
  /** A schedule is due in so many milliseconds: this process keeps an eye on it. */
  readonly watch: (dueMs: number) => void;
  /** A run was started: this process takes it up, or another. */
  readonly onStarted: () => void;
}

/** Longer pages are not read by a person, and cost memory. */
const MOST = 1000;
const TRIES = 5;

/** Makes the schedules of an application what its code declares. Throws for bad input, and then changes nothing. */
export async function reconcile(
  application: string,
  definitions: readonly ScheduleDefinition[],
  parts: SchedulesParts,
  logger: Logger,
): Promise<void> {
  const answers = await put(application, true, definitions, parts);
  const named = (verdict: PutAnswer["verdict"]): string[] =>
    answers.filter((answer) => answer.verdict === verdict).map(({ name }) => `"${name}"`);
  for (const verdict of ["added", "changed", "removed"] as const) {
    const names = named(verdict);
    if (names.length === 0) continue;
    const text = `perdure: schedules ${verdict} for application "${application}": ${names.join(", ")}`;
    // What does not fire any more is missed late: perhaps another program of the same name declares it.
    if (verdict === "removed") logger.warn(`${text}; its code does not declare them any more`);
    else logger.info(text);
  }
  for (const { name, verdict, owner } of answers) {
    if (verdict !== "foreign") continue;
    const text = `perdure: schedule "${name}" is left as it is: it ${ownedBy(owner)}, and application "${application}" declares one of that name. Give it another name, or delete the other with schedules.delete`;
    logger.warn(text);
  }
}

const ownedBy = (owner: string | null): string =>
  owner === null ? "was made by schedules.put" : `belongs to application "${owner}"`;

async function put(
  application: string | null,
  all: boolean,
  definitions: readonly ScheduleDefinition[],
  { store, codec, watch }: SchedulesParts,
): Promise<PutAnswer[]> {
  const starts = await Promise.all(definitions.map((definition) => toPutRow(definition, codec)));
  const now = await store.now();
  const rows = starts.map(
    (row): PutRow => ({ ...row, next: nextSlot(timingOf({ ...row, every_ms: row.everyMs, anchor_ms: now }), now) }),
  );
  const answers = await store.put(application, all, now, rows);
  for (const { next } of rows) watch(next - now);
  return answers;
}

async function toPutRow(definition: ScheduleDefinition, codec: StoredCodec): Promise<Omit<PutRow, "next">> {
  const { name, timing, overlap, catchUp, workflow, options } = definition;
  const place = scheduleOf(name);
  const encode = async () => toStartRow(workflow, options, await checkInput(workflow, definition.args), codec, place);
  const {
    version,
    queue,
    priority,
    timeout,
    args: encoded,
    hash,
    options: stored,
    tags,
  } = await encode().catch((error: unknown) => {
    if (!(error instanceof PerdureError)) throw error;
    throw new PerdureError(error.code, `schedule "${name}": ${error.message}`, { cause: error });
  });
  return {
    name,
    cron: "cron" in timing ? timing.cron : null,
    timezone: "cron" in timing ? timing.timezone : null,
    everyMs: "cron" in timing ? null : timing.everyMs,
    workflow: workflow.name,
    version,
    queue,
    priority,
    timeout,
    args: encoded,
    hash,
    options: stored,
    tags,
    overlap,
    catchUp,
  };
}

const refuse = (verb: string): void => refuseInBody(`schedules.${verb}()`, "call it in a step");

/** Makes a schedule, or changes one that was made so. Throws PERDURE_CONFLICT for one that code declares. */
export async function putSchedule(definition: ScheduleDefinition, parts: SchedulesParts): Promise<void> {
  refuse("put");
  const { name } = definition;
  const [answer] = await explain(`putting schedule "${name}"`, () => put(null, false, [definition], parts));
  if (answer?.verdict !== "foreign") return;
  const text = `schedule "${name}" ${ownedBy(answer.owner)}, whose code declares it; change it there, or put one of another name`;
  throw new PerdureError("PERDURE_CONFLICT", text);
}

export async function listSchedules(given: ScheduleListOptions, { store }: SchedulesParts): Promise<ScheduleStatus[]> {
  const where = "schedules.list()";
  const { prefix = "", after = "", limit = 100 } = checkKeys(given, ["prefix", "after", "limit"], where);
  checkInteger(limit, `limit of ${where}`, 1, MOST);
  if (after !== "") checkName(after, `after of ${where}`);
  if (prefix !== "") checkPrefix(prefix, `prefix of ${where}`);
  return explain("listing schedules", async () => (await store.list(prefix, after, limit)).map(toStatus));
}

function toStatus(row: ScheduleRow): ScheduleStatus {
  return {
    name: row.name,
    application: row.application,
    cron: row.cron,
    timezone: row.timezone,
    every: row.every_ms,
    workflow: row.workflow,
    version: row.version,
    queue: row.queue,
    overlap: row.overlap,
    catchUp: row.catch_up,
    nextAt: toDate(row.next_ms),
    lastSlot: toDate(row.slot_ms),
    lastRunId: row.last_run_id,
    paused: row.paused,
    trouble: row.trouble,
  };
}

export async function pauseSchedule(name: string, { store }: SchedulesParts): Promise<void> {
  refuse("pause");
  checkName(name, "schedule name");
  await explain(`pausing schedule "${name}"`, async () => (await store.pause(name)) || notFound(name, store));
}

export async function resumeSchedule(name: string, { store, watch }: SchedulesParts): Promise<void> {
  refuse("resume");
  checkName(name, "schedule name");
  await explain(`resuming schedule "${name}"`, async () => {
    // Somebody may change its times between the look and the write.
    for (let tries = 0; tries < TRIES; tries += 1) {
      const timing = (await store.timing(name)) ?? (await notFound(name, store));
      const now = Math.floor(timing.now_ms);
      const next = nextSlot(timingOf(timing), now);
      const verdict = (await store.resume(name, timing, next)) ?? (await notFound(name, store));
      if (verdict === "ok") return watch(next - now);
    }
    throw new PerdureError(
      "PERDURE_STATE",
      `schedule "${name}" is changed again and again; it was not resumed, try again`,
    );
  });
}

/** Returns the id of the run. */
export async function triggerSchedule(name: string, { store, onStarted }: SchedulesParts): Promise<string> {
  refuse("trigger");
  checkName(name, "schedule name");
  const id = uuidv7();
  await explain(`triggering schedule "${name}"`, async () => (await store.trigger(name, id)) || notFound(name, store));
  onStarted();
  return id;
}

export async function deleteSchedule(name: string, { store }: SchedulesParts): Promise<void> {
  refuse("delete");
  checkName(name, "schedule name");
  await explain(`deleting schedule "${name}"`, async () => (await store.delete(name)) || notFound(name, store));
}

async function notFound(name: string, store: ScheduleStore): Promise<never> {
  const meant = nearest(name, await store.names());
  const help = meant ? `did you mean "${meant}"?` : "schedules.list() returns those that there are";
  throw new PerdureError("PERDURE_NOT_FOUND", `there is no schedule ${shorten(name)}; ${help}`);
}
