/** Control of many runs: by their ids, or all that fit a filter. */
import { refuseInBody } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import { checkArray, checkKeys, checkName, isArray, shorten } from "../core/options.ts";
import type { RunState } from "../core/states.ts";
import type { RunFilter } from "../core/types.ts";
import type { Controlled, ListRow, Store } from "../db/store.ts";
import { isDone, notFoundError, refusedBy } from "./control.ts";
import { explain } from "./explain.ts";
import { checkFilter, FILTER_KEYS, fitsAll, type NameOf, type Wanted } from "./filter.ts";
import { MOST } from "./list.ts";

/** What became of each run. */
export interface ControlledMany {
  /** The ids of the runs that it was done to. */
  readonly done: string[];
  /** The others, each with why. */
  readonly failed: { readonly id: string; readonly error: PerdureError }[];
}

export interface BulkParts {
  readonly store: Pick<Store, "list" | "control">;
  readonly nameOf: NameOf;
  readonly onChange: () => void;
}

/** What is done to the runs: its arguments, and the states that a filter without one stands for. */
export interface Bulk {
  readonly verb: "cancel" | "retry";
  readonly args: readonly unknown[];
  readonly states: readonly RunState[];
}

const INSTEAD = { cancel: "call it in a step, or cancel() of a child's handle", retry: "call it in a step" } as const;
const DOING = { cancel: "cancelling", retry: "retrying" } as const;

/** Works in pages, so what is done stays done when one of them throws; called again it goes on. */
export async function control(
  given: RunFilter | readonly string[],
  bulk: Bulk,
  parts: BulkParts,
): Promise<ControlledMany> {
  refuseInBody(`perdure.${bulk.verb}()`, INSTEAD[bulk.verb]);
  const all: ControlledMany = { done: [], failed: [] };
  for await (const ids of pages(given, bulk, parts)) {
    const found = await explain(`${DOING[bulk.verb]} runs`, () => parts.store.control(bulk.verb, ids, ...bulk.args));
    parts.onChange();
    sort(ids, found, bulk, all);
  }
  return all;
}

function pages(
  given: RunFilter | readonly string[],
  bulk: Bulk,
  parts: BulkParts,
): AsyncIterable<string[]> | string[][] {
  const where = `${bulk.verb}()`;
  if (typeof given === "string") {
    const text = `${where} needs a filter or an array of run ids, not ${shorten(given)}; for one run, get(id).${where}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  if (isArray(given)) return inPages(checkArray(given as string[], `run ids in ${where}`));
  const wanted = checkFilter(checkKeys(given as RunFilter, FILTER_KEYS, where), where, parts.nameOf);
  if (fitsAll(wanted)) {
    const text = `the filter of ${where} is empty, and would ${bulk.verb} every run; say which: ${FILTER_KEYS.join(", ")}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  return found({ ...wanted, states: wanted.states ?? bulk.states }, parts);
}

function inPages(given: readonly string[]): string[][] {
  const ids = [...new Set(given.map((id) => checkName(id, "run id")))];
  return Array.from({ length: Math.ceil(ids.length / MOST) }, (_, page) => ids.slice(page * MOST, (page + 1) * MOST));
}

/** The ids that fit, newest first: runs that are made meanwhile are not met. */
async function* found(wanted: Wanted, { store }: BulkParts): AsyncGenerator<string[]> {
  let before: string | null = null;
  for (let more = true; more; ) {
    const page: ListRow = { ...wanted, before, limit: MOST };
    const rows = await explain("listing runs", () => store.list(page));
    more = rows.length === MOST;
    before = rows.at(-1)?.key ?? null;
    if (rows.length > 0) yield rows.map(({ status }) => status.id);
  }
}

function sort(ids: readonly string[], answers: readonly Controlled[], { verb }: Bulk, all: ControlledMany): void {
  const verdicts = new Map(answers.map(({ id, verdict }) => [id, verdict]));
  for (const id of ids) {
    const verdict = verdicts.get(id);
    if (verdict === undefined) all.failed.push({ id, error: notFoundError(id) });
    else if (isDone(verb, verdict)) all.done.push(id);
    else all.failed.push({ id, error: refusedBy(verdict, verb, id) });
  }
}
