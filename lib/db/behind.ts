/** What follows a batch in its packet: a hint, as far as it is known before the answer that others may want to hear of it. */
import type { QueryConfig } from "pg";
import type { Item } from "./batch.ts";
import { hint, type Lane } from "./hint.ts";
import { isDue } from "./start-row.ts";
import type { BatchContext, Lanes, SendRow, StartRow, WriteKind } from "./writes.ts";

/** Takes the turn to hint, unless it is too soon after the last. `told`: whether anybody wanted to hear it. `takes`: this process has a free slot. */
export type HintTurn = () => { readonly told: (sent: boolean) => void; readonly takes: boolean } | null;

/** What follows a batch. */
export interface After {
  readonly letters: string;
  readonly query: QueryConfig | null;
  readonly told: (sent: boolean) => void;
}
export const NO_HINT: After = { letters: "", query: null, told: () => {} };

/** The rows of one kind. */
interface Told {
  readonly kind: WriteKind;
  readonly items: readonly Item[];
}

/** What others may want to hear of this batch, as far as it is known before the answer: ends, what is published, and starts for which there is no slot here. */
function lettersOf(groups: readonly Told[], starts: readonly StartRow[]): string {
  const letters = new Set<string>();
  if (starts.length > 0) letters.add("w");
  for (const { kind } of groups) {
    if (kind === "finish") letters.add("d");
    else if (kind === "publish") letters.add("v");
  }
  return [...letters].join("");
}

function startsForOthers(groups: readonly Told[], lanes: Lanes): StartRow[] {
  const rows = (groups.find(({ kind }) => kind === "start")?.items ?? []).map(({ row }) => row as StartRow);
  return rows.filter((row) => isDue(row) && !(serves(lanes, row) && row.lease()));
}

/** The hint that follows a batch, if it is to follow one. */
export function hintBehind(
  groups: readonly Told[],
  { schema, worker, lanes }: BatchContext & { readonly schema: string },
  turn: HintTurn,
): After {
  if (worker === null) return NO_HINT;
  const starts = startsForOthers(groups, lanes);
  const letters = lettersOf(groups, starts);
  const sends = groups.find(({ kind }) => kind === "send");
  const taken = letters === "" && !sends ? null : turn();
  if (!taken) return NO_HINT;
  const { told, takes } = taken;
  if (!sends)
    return { letters, query: hint(schema, worker, letters, starts.length === 1 ? { lane: starts[0]! } : null), told };
  const sent = { ids: sends.items.map(({ row }) => (row as SendRow).id), lanes: takes ? lanes : null };
  return { letters: `${letters}wc`, query: hint(schema, worker, letters, sent), told };
}

/** Whether a process serves such runs. */
export function serves({ workflows, versions, queues }: Lanes, lane: Lane): boolean {
  return workflows.some(
    (workflow, at) => workflow === lane.workflow && versions[at] === lane.version && queues[at] === lane.queue,
  );
}
