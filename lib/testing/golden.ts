/** Golden histories: a run as a file, and its replay against today's code, without a database. */
import { AssertionError } from "node:assert";
import { inspect, isDeepStrictEqual } from "node:util";
import { notFound } from "../client/control.ts";
import type { Claim, Recorded } from "../core/claim.ts";
import { type ErrorClass, ValueCodec } from "../core/codec.ts";
import { checkCodecs } from "../core/codecs.ts";
import { registeredName } from "../core/engines.ts";
import { PerdureError } from "../core/errors.ts";
import { checkArray, checkKeys, isPlainObject, nearest, shorten } from "../core/options.ts";
import { StoredCodec } from "../core/stored.ts";
import { type Codec, resultOf } from "../core/stored-place.ts";
import type { RunInfo, WorkflowDefinition } from "../core/types.ts";
import { toEnded, toFork, toMails } from "../db/loaded.ts";
import type { WholeRow } from "../db/whole.ts";
import { internalsOf, type Workflow } from "../define/workflow.ts";
import { engineOf } from "../launched.ts";
import type { Perdure } from "../perdure.ts";
import { type Rehearsed, rehearse } from "./rehearsal.ts";

const FORMAT = "perdure-history";
const VERSION = 1;
/** A pass that is given a thousand asks for the rest, and there is none here. */
const MOST_MAIL = 999;

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** One recorded outcome. */
export interface GoldenOutcome {
  /** The call's key in its run. */
  readonly slot: string;
  /** The attempt of the workflow. */
  readonly attempt: number;
  /** In which place the body was handed it; null: it has not been. */
  readonly no: number | null;
  /** What the slot is for, as `history()` has it. */
  readonly kind: string;
  readonly name: string;
  /** `completed`, `failed` or `timeout`. */
  readonly outcome: string;
  /** As it is stored. */
  readonly value: Json;
  /** Of the arguments, where the slot names a reference instead. */
  readonly hash: string | null;
  /** How often a step was tried. */
  readonly tries: number;
  /** When it was recorded, in ms since 1970. */
  readonly at: number;
}

/** The run of a golden history. */
export interface GoldenRun {
  readonly id: string;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly state: string;
  /** Of the workflow. */
  readonly attempt: number;
  /** In ms since 1970; null: it has not begun. */
  readonly startedAt: number | null;
  /** A retry said that its replay may diverge. */
  readonly flexible: boolean;
  /** The schedule that started it. */
  readonly schedule: string | null;
  /** And for which of its times, in ms since 1970. */
  readonly scheduledFor: number | null;
  /** Of a fork: where its history comes from. */
  readonly fork: Json;
  /** The slots that retries of the workflow set aside. */
  readonly reopened: Json;
  /** The first place in the order that they set aside. */
  readonly reopenedFrom: number | null;
  /** The last place that any attempt gave out. */
  readonly lastNo: number | null;
}

/** A run as plain JSON, values as they are stored: what `exportHistory` gives and `replayHistory` takes. Not to be edited by hand. */
export interface GoldenHistory {
  /** Tells such a file from others. */
  readonly format: "perdure-history";
  readonly version: 1;
  /** Whose history it is. */
  readonly run: GoldenRun;
  /** The arguments. */
  readonly input: Json;
  /** What `.with()` set for the run. */
  readonly options: Json;
  /** What is recorded, in the order in which the body was handed it. */
  readonly outcomes: readonly GoldenOutcome[];
  /** What it waits for, the mail that it has not read, the ends of children that it has not taken in, the steps that were begun. */
  readonly open: { readonly waits: Json; readonly mail: Json; readonly ended: Json; readonly begun: Json };
  /** What it came to, where it has ended. */
  readonly result: Json;
}

/** Options of `replayHistory`. */
export interface ReplayOptions {
  /** Today's code: the run's workflow among it, in the run's version. */
  workflows: readonly Workflow<any, any>[];
  /** Error classes, as the engine of the run was given them. */
  errors?: readonly ErrorClass[] | undefined;
  /** The codecs of that engine, with a key that the values were encrypted with. */
  codec?: Codec | readonly Codec[] | undefined;
  /** Makes what `currentRun().context` is, as that of the engine does. Default: null. */
  context?: ((run: RunInfo) => unknown) | undefined;
}

/** What a replay found. */
export interface ReplayReport {
  /** True: today's code stands where the run stood, and would do nothing that it has not done. */
  readonly same: boolean;
  /** What it came to: the run's end, a rest at what it waits for, or something new to do. */
  readonly came: "completed" | "failed" | "waiting" | "onward";
  /** What today's code would do next, as the slots of its calls. Nothing of it was done. */
  readonly next: readonly string[];
}

const parse = (text: string | null): Json => (text === null ? null : (JSON.parse(text) as Json));

/**
 * A run as a plain object, to be kept as a JSON file: its input, what is recorded of it, and what it came to, each value as the engine
 * stores it. From any launched engine, of tests or of production; the run may be in any state. Outcomes stand in the order in which the
 * body was handed them.
 *
 * @throws PERDURE_NOT_FOUND; PERDURE_STATE when the engine is not launched.
 * @example await writeFile("golden/order-42.json", JSON.stringify(await exportHistory(perdure, "order-42"), null, 2));
 */
export async function exportHistory(perdure: Perdure, id: string): Promise<GoldenHistory> {
  // A handle that is not launched says so.
  await perdure.get(id).status();
  const row = await engineOf.get(perdure)!.store.whole(id);
  return row ? toGolden(row) : notFound(id);
}

function toGolden(row: WholeRow): GoldenHistory {
  const outcomes = (parse(row.history) ?? []) as [
    string,
    number,
    number | null,
    string,
    string,
    string,
    Json,
    string | null,
    number,
    number,
  ][];
  return {
    format: FORMAT,
    version: VERSION,
    run: {
      id: row.id,
      workflow: row.workflow,
      version: row.version,
      queue: row.queue,
      state: row.state,
      attempt: row.attempt,
      startedAt: row.started,
      flexible: row.flexible,
      schedule: row.schedule,
      scheduledFor: row.slot,
      fork: parse(row.fork),
      reopened: parse(row.reopened) ?? [],
      reopenedFrom: row.reopened_from,
      lastNo: row.last_no,
    },
    input: parse(row.args),
    options: parse(row.options),
    outcomes: outcomes.map(([slot, attempt, no, kind, name, outcome, value, hash, tries, at]) => ({
      slot,
      attempt,
      no,
      kind,
      name,
      outcome,
      value,
      hash,
      tries,
      at,
    })),
    open: {
      waits: parse(row.waits) ?? [],
      mail: parse(row.unread) ?? [],
      ended: parse(row.ended) ?? [],
      begun: parse(row.begun) ?? [],
    },
    result: parse(row.result),
  };
}

/**
 * Replays a golden history against today's code. Nothing is executed: no step, no child, no database. In CI it shows, before a deploy, that
 * runs which are on their way go on with the new code.
 *
 * @returns what today's code does where the history ends: it stands where the run stood, or goes on with something new.
 * @throws AssertionError when the code asks for other things than are recorded, or comes to another end; it says which. PERDURE_OPTION for
 * what is no golden history; PERDURE_UNKNOWN_WORKFLOW; PERDURE_TIMEOUT for a body that awaits something that is not durable for 5 s.
 * @example await replayHistory(JSON.parse(await readFile("golden/order-42.json", "utf8")), { workflows: [processOrder] });
 */
export async function replayHistory(golden: GoldenHistory, options: ReplayOptions): Promise<ReplayReport> {
  const where = "replayHistory()";
  const { workflows, errors = [] } = checkKeys(options, ["workflows", "errors", "codec", "context"], where);
  const codecs = options.codec === undefined ? [] : checkCodecs(options.codec, `codec of ${where}`);
  const { run } = checkGolden(golden);
  const definition = find(run, checkArray(workflows, `workflows of ${where}`));
  const codec = new StoredCodec(new ValueCodec({ errors }), codecs);
  const found = await rehearse(toClaim(golden), definition, { codec, makeContext: options.context ?? null });
  const flexible = run.flexible || definition.replay === "flexible";
  return judge(golden, flexible ? { ...found, unasked: [] } : found, codec);
}

function checkGolden(golden: unknown): GoldenHistory {
  const { format, version } = (isPlainObject(golden) ? golden : {}) as Partial<GoldenHistory>;
  if (format === FORMAT && version === VERSION) return golden as GoldenHistory;
  const text =
    format === FORMAT
      ? `this golden history is of version ${shorten(version)}; this release reads version ${VERSION}: export the run again`
      : `replayHistory() needs what exportHistory() gave, not ${shorten(golden)}`;
  throw new PerdureError("PERDURE_OPTION", text);
}

function find({ workflow, version }: GoldenRun, workflows: readonly unknown[]): WorkflowDefinition {
  const known = workflows.map((value) => internalsOf(value)?.definition);
  const found = known.find((one) => one && registeredName(one.name, one.version) === registeredName(workflow, version));
  if (found) return found;
  const meant = nearest(
    workflow,
    known.flatMap((one) => (one ? [one.name] : [])),
  );
  const help =
    meant === workflow ? "pass it in the run's version" : meant ? `did you mean "${meant}"?` : "pass it in `workflows`";
  throw new PerdureError(
    "PERDURE_UNKNOWN_WORKFLOW",
    `workflow "${workflow}" of version "${version}" is not among those of replayHistory(); ${help}`,
  );
}

const textOf = (value: Json): string | null => (value === null ? null : JSON.stringify(value));

function toClaim({ run, input, options, outcomes, open }: GoldenHistory): Claim {
  const history = outcomes.map((outcome) => ({ ...outcome, value: textOf(outcome.value) }) as Recorded);
  const startedAt = run.startedAt ?? 0;
  // What a cancelled run was never given does not come in a replay either.
  const news = run.state === "cancelled" ? { mail: [], ended: [] } : open;
  const waits = open.waits as [string, Claim["waits"][number]["kind"], number | null, number | null, number, boolean][];
  return {
    key: "0",
    id: run.id,
    workflow: run.workflow,
    version: run.version,
    queue: run.queue,
    epoch: 1,
    attempt: run.attempt,
    crashes: 0,
    mail: 0,
    args: JSON.stringify(input),
    options: textOf(options),
    fork: toFork(textOf(run.fork)),
    startedAt,
    // What timers are due is not the question.
    deadline: null,
    now: history.reduce((last, { at }) => Math.max(last, at), startedAt),
    history,
    more: false,
    waits: waits.map(([slot, kind, lengthMs, due, tries, woken]) => ({ slot, kind, lengthMs, due, tries, woken })),
    begun: open.begun as string[],
    reopenedFrom: run.reopenedFrom,
    lastNo: run.lastNo,
    unread: toMails(JSON.stringify((news.mail as Json[]).slice(0, MOST_MAIL))),
    schedule: run.schedule,
    scheduledFor: run.scheduledFor,
    flexible: run.flexible,
    followed: false,
    reopened: run.reopened as string[],
    ended: toEnded(JSON.stringify(news.ended)),
  };
}

/** Compares what today's code came to with what is recorded. */
function judge(
  golden: GoldenHistory,
  { came, next, reason, value, unasked }: Rehearsed,
  codec: StoredCodec,
): ReplayReport {
  const { id, workflow, state, attempt } = golden.run;
  const who = `run "${id}" of workflow "${workflow}"`;
  if (came === "blocked") throw different(`${who} does not replay against today's code: ${reason}`);
  const ended = came === "completed" || came === "failed";
  if (unasked.length > 0 && (ended || came === "waiting"))
    throw different(
      `${who}: today's code does not ask any more for ${unasked.map((slot) => `"${slot}"`).join(", ")}, which is recorded`,
    );
  const stored = textOf(golden.result);
  if (state !== "completed" && state !== "failed") return { same: next.length === 0 && !ended, came, next };
  // A run whose time ran out was cut off, wherever it stood.
  const read = (text: string): unknown => codec.decode(text, `result of ${who}`, resultOf(id, attempt));
  const expected = read(stored!);
  if (!ended && state === "failed" && (expected as Error | null)?.name === "TimeoutError")
    return { same: true, came, next };
  const actual = ended ? read(value!) : undefined;
  if (came === state && isSame(state, actual, expected)) return { same: next.length === 0, came, next };
  const now = ended ? `${came}: ${inspect(actual)}` : next.length > 0 ? `goes on with ${next.join(", ")}` : "waits";
  throw different(
    `${who} has ${state}: ${inspect(expected)}; today's code comes to another end, it ${now}`,
    actual,
    expected,
  );
}

/** Of errors the class and the text: where they were thrown from changes with the code. */
function isSame(state: string, actual: unknown, expected: unknown): boolean {
  if (state === "completed" || !(actual instanceof Error && expected instanceof Error))
    return isDeepStrictEqual(actual, expected);
  return actual.name === expected.name && actual.message === expected.message;
}

function different(message: string, actual?: unknown, expected?: unknown): AssertionError {
  return new AssertionError({ message: `replayHistory: ${message}`, actual, expected, operator: "replayHistory" });
}
