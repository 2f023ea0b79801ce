/** Which rows of a batch become one statement. Pure: no I/O, no clock. */
import type { Item } from "./batch.ts";
import { type Fenced, type RecordRow, SHAPES, WRITE_ORDER, type WriteKind } from "./writes.ts";

/** What becomes one statement. */
export interface Group {
  readonly kind: WriteKind;
  readonly items: Item[];
  /** Of starts: see new-runs.ts. */
  readonly isNew?: boolean;
  /** Of finishes: the last steps of the same runs, in the same order, which are recorded in the same statement. */
  readonly steps?: Item[];
}

/** The rows of each kind, in the order in which a batch applies them. */
export function groupByKind(items: readonly Item[]): Group[] {
  const groups = new Map<WriteKind, Item[]>();
  for (const item of items) {
    const group = groups.get(item.kind);
    if (group) group.push(item);
    else groups.set(item.kind, [item]);
  }
  return WRITE_ORDER.flatMap((kind) => {
    const group = groups.get(kind);
    if (!group) return [];
    // A single statement serves one row: the rest of a kind that takes one come in statements of their own.
    return SHAPES[kind].single ? group.map((item) => ({ kind, items: [item] })) : [{ kind, items: group }];
  });
}

/** Runs whose last step and whose end are in one batch: one statement writes both. */
export function joinEnds(groups: Group[]): Group[] {
  const record = groups.find(({ kind }) => kind === "record");
  const finish = groups.find(({ kind }) => kind === "finish");
  if (!record || !finish) return groups;
  const ends = new Map(finish.items.map((item) => [(item.row as Fenced).run, item]));
  const joined: { step: Item; end: Item }[] = [];
  const before: Item[] = [];
  for (let at = record.items.length - 1; at >= 0; at -= 1) {
    const step = record.items[at]!;
    const { run, kind, tries } = step.row as RecordRow;
    const end = kind === "step" && tries === 1 ? ends.get(run) : undefined;
    if (end) joined.push({ step, end });
    else before.push(step);
    ends.delete(run); // what was recorded before the last stays before it
  }
  if (joined.length === 0) return groups;
  joined.reverse();
  const ended = new Set(joined.map(({ end }) => end));
  const rest = finish.items.filter((item) => !ended.has(item));
  return groups.flatMap((group) => {
    if (group === record) return before.length > 0 ? [{ kind: "record", items: before.reverse() }] : [];
    if (group !== finish) return [group];
    const both: Group = { kind: "finish", items: joined.map(({ end }) => end), steps: joined.map(({ step }) => step) };
    return rest.length > 0 ? [both, { kind: "finish", items: rest }] : [both];
  });
}
