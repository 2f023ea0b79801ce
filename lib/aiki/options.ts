/** Options that are set one at a time, by a path, each time on a copy. */
import type { Duration } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { canonicalHash } from "../core/hash.ts";
import { checkChoice, checkKeys, checkName, isPlainObject, nearest, shorten } from "../core/options.ts";
import type { RetryStrategy } from "./retry.ts";

/** What a reference does that meets another input. */
export type ConflictPolicy = "error" | "return_existing";

/** Names a run, a task call or a schedule by an id of your own. */
export interface Reference<P extends string = ConflictPolicy> {
  id: string;
  conflictPolicy?: P | undefined;
}

/** When a run begins. */
export type Trigger =
  | { type: "immediate" }
  | { type: "delayed"; delay: Duration; delayMs?: never }
  | { type: "delayed"; delayMs: number; delay?: never };

/** Options of a task's call, by their paths. */
export interface TaskPaths {
  retry: RetryStrategy;
  reference: Reference | string;
  "reference.id": string;
  "reference.conflictPolicy": ConflictPolicy;
  /** A reference with `"return_existing"`: the same key gives the same outcome. */
  idempotencyKey: string;
}

/** Options of all the runs that a workflow starts, by their paths. */
export interface RunPaths {
  retry: RetryStrategy;
  /** Only a worker of this pool takes the run. */
  pool: string;
  /** The older name of `pool`. */
  shard: string;
}

/** Options of one run, by their paths. */
export interface OneRunPaths extends Omit<TaskPaths, "retry"> {
  trigger: Trigger;
}

/** Options of a sent event, by their paths. */
export interface EventPaths {
  reference: { id: string } | string;
  "reference.id": string;
  /** True: an event to a finished run is dropped without an error. */
  ignoreFinished: boolean;
}

/** Options of a schedule, by their paths. */
export interface SchedulePaths {
  reference: Reference<ConflictPolicy | "upsert"> | string;
  "reference.id": string;
  "reference.conflictPolicy": ConflictPolicy | "upsert";
}

/** All options of a kind at once. */
export type OptionsOf<Paths> = { [K in keyof Paths as K extends `${string}.${string}` ? never : K]?: Paths[K] };

export type Options = Readonly<Record<string, unknown>>;

const BY_KIND = {
  task: ["retry", "reference", "reference.id", "reference.conflictPolicy", "idempotencyKey"],
  run: ["retry", "pool", "shard", "trigger", "reference", "reference.id", "reference.conflictPolicy", "idempotencyKey"],
  event: ["reference", "reference.id", "ignoreFinished"],
  schedule: ["reference", "reference.id", "reference.conflictPolicy"],
  worker: ["pools", "shards", "reference", "reference.id"],
} as const;

/** What `.with()` was given, on top of what there was: nothing, all options at once, or a path and a value. */
export function withOptions(options: Options, given: readonly unknown[], kind: keyof typeof BY_KIND): Options {
  const where = `with() of a ${kind}`;
  const [first, value] = given;
  if (given.length === 0) return options;
  if (isPlainObject(first)) {
    const entries = Object.entries(checkKeys(first, BY_KIND[kind], where));
    return entries.reduce((all, [path, each]) => set(all, path, each), options);
  }
  const paths: readonly string[] = BY_KIND[kind];
  if (typeof first === "string" && paths.includes(first)) return set(options, first, value);
  const meant = typeof first === "string" ? nearest(first, paths) : undefined;
  const help = meant ? `did you mean "${meant}"?` : `it takes ${paths.join(", ")}`;
  throw new PerdureError("PERDURE_OPTION", `unknown option ${shorten(first)} in ${where}; ${help}`);
}

function set(options: Options, path: string, value: unknown): Options {
  if (value === undefined) return options;
  if (path === "idempotencyKey")
    return { ...options, reference: { id: value, conflictPolicy: "return_existing" satisfies ConflictPolicy } };
  const [name, part] = path.split(".") as [string, string?];
  if (part) return { ...options, [name]: { ...(options[name] as object | undefined), [part]: value } };
  return { ...options, [name]: name === "reference" && typeof value === "string" ? { id: value } : value };
}

/** The reference that options name, checked. */
export function referenceOf<P extends string = ConflictPolicy>(
  { reference }: Options,
  where: string,
  policies: readonly P[] = ["error", "return_existing"] as readonly string[] as readonly P[],
): { readonly id: string; readonly conflictPolicy: P } | null {
  if (reference === undefined) return null;
  const what = `reference of ${where}`;
  const given = checkKeys(reference as Reference<P>, ["id", "conflictPolicy"], what);
  const conflictPolicy = checkChoice(given.conflictPolicy ?? policies[0]!, policies, `conflictPolicy of ${what}`);
  return { id: checkText(given.id, what), conflictPolicy };
}

/** A name that may be longer than those of the core: see `short`. */
function checkText(value: unknown, what: string): string {
  if (typeof value !== "string" || Buffer.byteLength(value) <= LONGEST) return checkName(value, what);
  // What a name may not hold, by pieces of its length: 60 letters are at most 240 bytes.
  for (const [piece] of value.matchAll(/.{1,60}/gsu)) checkName(`…${piece}…`, what);
  return value;
}

/** The longest name of the core, in bytes. */
const LONGEST = 255;

/** A text as a name of the core can be: what is too long goes by its hash. */
export const short = (text: string): string =>
  Buffer.byteLength(text) <= LONGEST ? text : `#${canonicalHash([text])}`;
