/** The usual start from outside, of many at once: a run that may begin at once, is left to be claimed, and has an id that nobody else can have. */
import type { Group, Item } from "./batch.ts";
import { isDue, UNLEASED } from "./start-row.ts";
import type { BatchContext, StartRow } from "./writes.ts";

/** As a shape of writes.ts. One row answers for all. */
export const NEW_RUNS = {
  fn: "start_new_runs",
  columns: ["id", "workflow", "version", "queue", "priority", "timeout", "args", "hash", "options"],
} as const;

/** Parts such starts from the others. A slot that is free for one is taken by now. */
export function partNew(groups: Group[], context: BatchContext): Group[] {
  const starts = groups.find(({ kind }) => kind === "start");
  // What may be there already, start_runs finds out.
  if (!starts || context.again || context.apart || context.lockMs !== null) return groups;
  const isNew = starts.items.filter(({ row }) => isAllNew(row as StartRow));
  // One alone is written by what is made for one.
  if (isNew.length < 2) return groups;
  const parts: Group[] = [{ kind: "start", items: isNew, isNew: true }];
  if (isNew.length < starts.items.length) {
    const known = new Set(isNew);
    parts.push({ kind: "start", items: starts.items.filter((item) => !known.has(item)) });
  }
  return groups.flatMap((group) => (group === starts ? parts : [group]));
}

/** Such a start, of a run that this process has no slot for, whatever becomes free. */
export const isForOthers = ({ kind, row }: Item): boolean =>
  kind === "start" && (row as StartRow).lease === UNLEASED && isAllNew(row as StartRow);

const isAllNew = (row: StartRow): boolean =>
  row.isNew === true && isDue(row) && row.run === null && row.schedule === null && row.tags === null && !row.lease();
