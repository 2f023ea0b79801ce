/** What a run has asked for, and what each came to: its slots, in the order in which the body was handed them. */
import type { ValueCodec } from "../core/codec.ts";
import { endError } from "../core/ended.ts";
import type { FailedTry, HistoryEntry } from "../core/types.ts";
import type { EntryRow, Store } from "../db/store.ts";
import { explain } from "./explain.ts";

export interface HistoryParts {
  readonly store: Pick<Store, "told" | "open">;
  readonly codec: ValueCodec;
}

/** Slots in a page, as one statement brings them. */
const PAGE = 500;

/** The whole history of a run that exists. */
export async function history(id: string, { store, codec }: HistoryParts): Promise<HistoryEntry[]> {
  const rows = await explain(`reading the history of run "${id}"`, async () => {
    // First what is open: what is handed over meanwhile is then found in both, and in neither never.
    const open = await store.open(id);
    const told: EntryRow[] = [];
    for (let after = -1, page = PAGE; page >= PAGE; ) {
      const next = await store.told(id, after, PAGE);
      told.push(...next);
      page = next.length;
      after = next.at(-1)?.no ?? after;
    }
    const known = new Set(told.map(keyOf));
    return [...told, ...open.filter((row) => !known.has(keyOf(row)))];
  });
  return rows.map((row) => toEntry(id, row, codec));
}

const keyOf = ({ slot, attempt }: EntryRow): string => JSON.stringify([slot, attempt]);

function toEntry(id: string, row: EntryRow, codec: ValueCodec): HistoryEntry {
  const entry = {
    slot: row.slot,
    kind: row.kind as HistoryEntry["kind"],
    name: row.name,
    attempts: row.tries,
    runAttempt: row.attempt,
    setAside: row.set_aside,
    startedAt: new Date(row.started_ms),
    finishedAt: row.finished_ms === null ? null : new Date(row.finished_ms),
    outcome: row.outcome as HistoryEntry["outcome"],
    errors: [] as FailedTry[],
  };
  try {
    const read = { ...entry, ...outcomeOf(id, row, codec) };
    return { ...read, errors: failuresOf(id, row, codec, read) };
  } catch (error) {
    return { ...entry, unreadable: error as Error };
  }
}

function outcomeOf(id: string, row: EntryRow, codec: ValueCodec): Pick<HistoryEntry, "value" | "error"> {
  const { kind, outcome, value } = row;
  if (kind === "race" && value !== null) return prizeOf(value, id, codec);
  if (outcome === "failed") return { error: errorOf(row, id, codec) };
  if (outcome === "timeout") return { value: null };
  if (outcome !== "completed") return {};
  const own = READERS[kind];
  return { value: own ? own(value, id, codec) : plain(value, row, id, codec) };
}

const plain = (value: string | null, { slot }: EntryRow, id: string, codec: ValueCodec): unknown =>
  value === null ? undefined : codec.decode(value, `value of "${slot}" of run "${id}"`);

/** A child that could not be started has no end, and its error stands alone. */
function errorOf({ slot, kind, value }: EntryRow, id: string, codec: ValueCodec): unknown {
  const of = `error of "${slot}" of run "${id}"`;
  const isEnd = kind === "child" && value!.startsWith('{"id":');
  return isEnd ? endError(JSON.parse(value!), codec) : codec.decodeError(value!, of);
}

function prizeOf(stored: string, id: string, codec: ValueCodec): Pick<HistoryEntry, "value" | "error"> {
  const { winner, event, end } = JSON.parse(stored);
  if (event) return { value: { winner, value: received(event, id, codec) } };
  if (!end) return { value: { winner, value: null } };
  if (end.state !== "completed") return { error: endError(end, codec) };
  return { value: { winner, value: codec.decode(end.value, `result of run "${end.id}"`) } };
}

function received({ data, sentAt, reference, id, name: _, ...rest }: any, run: string, codec: ValueCodec): object {
  const read = codec.decode(data, `event ${id} of run "${run}"`);
  return { data: read, id, ...rest, sentAt: new Date(sentAt), ...(reference !== null && { reference }) };
}

/** Kinds whose stored form is their own. */
const READERS: Readonly<Record<string, (value: string | null, id: string, codec: ValueCodec) => unknown>> = {
  sleep: (value) => ({ woken: value !== null }),
  event: (value, id, codec) => received(JSON.parse(value!), id, codec),
  child: (value, _, codec) => {
    const end = JSON.parse(value!);
    return codec.decode(end.value, `result of run "${end.id}"`);
  },
  patch: () => true,
  start: (value) => JSON.parse(value!),
};

/** The tries that failed. A step that failed at its first and only one has no record of it but its outcome. */
function failuresOf(id: string, row: EntryRow, codec: ValueCodec, entry: HistoryEntry): FailedTry[] {
  const stored = (row.failures === null ? [] : JSON.parse(row.failures)) as [number, number, number, string][];
  const failures = stored.map(([attempt, startedMs, failedMs, text]) => ({
    attempt,
    startedAt: new Date(startedMs),
    failedAt: new Date(failedMs),
    error: codec.decodeError(text, `error of try ${attempt} of "${row.slot}" of run "${id}"`),
  }));
  const { error, startedAt, finishedAt } = entry;
  if (row.outcome !== "failed" || failures.length > 0 || row.kind === "attempt" || finishedAt === null) return failures;
  return [{ attempt: row.tries, startedAt, failedAt: finishedAt, error }];
}
