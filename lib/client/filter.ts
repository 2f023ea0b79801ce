/** Which runs a caller means: the filter, checked, as the database takes it. */
import { PerdureError } from "../core/errors.ts";
import { checkArray, checkChoice, checkInstant, checkName, shorten } from "../core/options.ts";
import { RUN_STATES, type RunState } from "../core/states.ts";
import type { RunFilter } from "../core/types.ts";
import type { ListRow } from "../db/store.ts";

/** A filter without a page. */
export type Wanted = Omit<ListRow, "before" | "limit">;

export const FILTER_KEYS = [
  "workflow",
  "version",
  "state",
  "queue",
  "tags",
  "idPrefix",
  "createdAfter",
  "createdBefore",
] as const;

/** The name of a workflow that workflow() made; undefined for anything else. */
export type NameOf = (workflow: unknown) => string | undefined;

/** What is wanted. Two filters that mean the same are the same. `where` is whose options they are; their keys are checked. */
export function checkFilter(filter: RunFilter, where: string, nameOf: NameOf): Wanted {
  const { version, queue, createdAfter, createdBefore } = filter;
  const prefix = filter.idPrefix === undefined ? null : checkPrefix(filter.idPrefix, `idPrefix in ${where}`);
  return {
    workflow: filter.workflow === undefined ? null : checkWorkflow(filter.workflow, where, nameOf),
    version: version === undefined ? null : checkName(version, `version in ${where}`),
    queue: queue === undefined ? null : checkName(queue, `queue in ${where}`),
    states: filter.state === undefined ? null : checkStates(filter.state, where),
    tags: filter.tags === undefined ? null : checkTags(filter.tags, where),
    prefix,
    prefixEnd: prefix === null ? null : behind(prefix),
    createdAfter: createdAfter === undefined ? null : checkInstant(createdAfter, `createdAfter in ${where}`).getTime(),
    createdBefore:
      createdBefore === undefined ? null : checkInstant(createdBefore, `createdBefore in ${where}`).getTime(),
  };
}

/** True for a filter that fits every run. */
export const fitsAll = (wanted: Wanted): boolean => Object.values(wanted).every((value) => value === null);

function checkWorkflow(workflow: unknown, where: string, nameOf: NameOf): string {
  return nameOf(workflow) ?? checkName(workflow, `workflow in ${where}`);
}

function checkStates(state: RunState | readonly RunState[], where: string): RunState[] {
  const given = typeof state === "string" ? [state] : checkArray(state, `state in ${where}`);
  if (given.length === 0) {
    const states = RUN_STATES.join(", ");
    throw new PerdureError("PERDURE_OPTION", `state in ${where} is an empty array; name at least one of ${states}`);
  }
  for (const one of given) checkChoice(one, RUN_STATES, `state in ${where}`);
  return [...new Set(given)].sort();
}

function checkTags(tags: readonly string[], where: string): string[] | null {
  const given = checkArray(tags, `tags in ${where}`).map((tag) => checkName(tag, `tag in ${where}`));
  return given.length === 0 ? null : [...new Set(given)].sort();
}

/** No name or id has more bytes. */
const LONGEST = 255;

/** The beginning of a name or an id may end with a blank, where the whole may not. */
export function checkPrefix(prefix: unknown, what: string): string {
  if (typeof prefix !== "string") {
    throw new PerdureError("PERDURE_OPTION", `${what} must be a string, not ${shorten(prefix)}`);
  }
  checkName(Buffer.byteLength(prefix) > LONGEST ? prefix : prefix.trimEnd(), what);
  return prefix;
}

const LAST = 0x10ffff;

/** The first text, bytewise, behind all that begin with `prefix`. */
function behind(prefix: string): string {
  const points = [...prefix].map((char) => char.codePointAt(0)!);
  const at = points.findLastIndex((point) => point < LAST);
  if (at < 0) return String.fromCodePoint(LAST).repeat(64);
  const next = points[at]! + 1;
  // Surrogates stand for no character.
  return String.fromCodePoint(...points.slice(0, at), next === 0xd800 ? 0xe000 : next);
}
