/** The usual start from outside, of many at once: a run that may begin at once, is left to be claimed, and has an id that nobody else can have. */
import type { Item } from "./batch.ts";
import type { Group } from "./groups.ts";
import { isDue, UNLEASED } from "./start-row.ts";
import type { BatchContext, StartRow } from "./writes.ts";

/** One row answers for all. */
export const NEW_RUNS = "start_new_runs";

const FEW = ["workflow", "version", "queue", "priority", "timeout"] as const;

/** What it takes, in its order. `arrayOf` writes any column; here ids and hashes need no quotes, and most starts are of one workflow. */
export function columnsOf(items: readonly Item[], arrayOf: (column: keyof StartRow) => string): string[] {
  const rows = items.map(({ row }) => row as StartRow);
  const few = FEW.map((column) => {
    const first = rows[0]![column];
    return rows.every((row) => row[column] === first) ? repeated(first, rows.length) : arrayOf(column);
  });
  const [ids, hashes] = [rows.map(({ id }) => id), rows.map(({ hash }) => hash)];
  return [`{${ids.join()}}`, ...few, arrayOf("args"), `{${hashes.join()}}`, arrayOf("options")];
}

function repeated(value: string | number | null, count: number): string {
  if (value === null) return "{}";
  return `{${`${quoted(value)},`.repeat(count - 1)}${quoted(value)}}`;
}

const quoted = (value: string | number): string =>
  typeof value === "number" ? String(value) : `"${value.replace(/["\\]/g, "\\$&")}"`;

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
