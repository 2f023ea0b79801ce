/** What a run has asked for, and what each came to: its slots, in the order in which the body was handed them. */
import { endError } from "../core/ended.ts";
import type { StoredCodec } from "../core/stored.ts";
import { type Ancestors, type Place, placeIn, slotIn, tryIn } from "../core/stored-place.ts";
import type { FailedTry, HistoryEntry } from "../core/types.ts";
import type { EntryRow, Store } from "../db/store.ts";
import { explain } from "./explain.ts";

export interface HistoryParts {
  readonly store: Pick<Store, "told" | "open" | "ancestors">;
  readonly codec: StoredCodec;
}

/** What reads the texts of one run's history. */
interface Reading {
  readonly id: string;
  readonly codec: StoredCodec;
  readonly ancestors: Ancestors;
}

/** Slots in a page, as one statement brings them. */
const PAGE = 500;

/** The whole history of a run that exists. */
export async function history(id: string, { store, codec }: HistoryParts): Promise<HistoryEntry[]> {
  const [rows, ancestors] = await explain(
    `reading the history of run "${id}"`,
    async (): Promise<[EntryRow[], Ancestors]> => {
      const from = codec.binds ? await store.ancestors(id) : undefined;
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
      return [[...told, ...open.filter((row) => !known.has(keyOf(row)))], from];
    },
  );
  return rows.map((row) => toEntry(row, { id, codec, ancestors }));
}

const keyOf = ({ slot, attempt }: EntryRow): string => JSON.stringify([slot, attempt]);

function toEntry(row: EntryRow, reading: Reading): HistoryEntry {
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
    const read = { ...entry, ...outcomeOf({ ...row, value: openValue(row, reading) }, reading) };
    return { ...read, errors: failuresOf(row, reading, read) };
  } catch (error) {
    return { ...entry, unreadable: error as Error };
  }
}

/** Kinds whose value is no data of the application's, when they completed. */
const OWN: readonly string[] = ["sleep", "patch", "start"];

function openValue(
  { slot, kind, attempt, value, outcome }: EntryRow,
  { id, codec, ancestors }: Reading,
): string | null {
  if (value === null || (OWN.includes(kind) && outcome === "completed")) return value;
  const name = kind === "attempt" ? "result" : slot;
  return codec.open(value, `value of "${slot}" of run "${id}"`, placeIn(id, slotIn(name, attempt), ancestors));
}

/** From here on texts are opened. */
function outcomeOf(row: EntryRow, { id, codec }: Reading): Pick<HistoryEntry, "value" | "error"> {
  const { kind, outcome, value } = row;
  if (kind === "race" && value !== null) return prizeOf(value, id, codec);
  if (outcome === "failed") return { error: errorOf(row, id, codec) };
  if (outcome === "timeout") return { value: null };
  if (outcome !== "completed") return {};
  const own = READERS[kind];
  return { value: own ? own(value, id, codec) : plain(value, row, id, codec) };
}

const plain = (value: string | null, { slot }: EntryRow, id: string, codec: StoredCodec): unknown =>
  value === null ? undefined : codec.decodePlain(value, `value of "${slot}" of run "${id}"`);

/** A child that could not be started has no end, and its error stands alone. */
function errorOf({ slot, kind, value }: EntryRow, id: string, codec: StoredCodec): unknown {
  const of = `error of "${slot}" of run "${id}"`;
  const isEnd = kind === "child" && value!.startsWith('{"id":');
  return isEnd ? endError(JSON.parse(value!), codec) : codec.decodePlain(value!, of);
}

function prizeOf(stored: string, id: string, codec: StoredCodec): Pick<HistoryEntry, "value" | "error"> {
  const { winner, event, end } = JSON.parse(stored);
  if (winner === undefined) return { error: codec.decodePlain(stored, `error of a race of run "${id}"`) };
  if (event) return { value: { winner, value: received(event, id, codec) } };
  if (!end) return { value: { winner, value: null } };
  if (end.state !== "completed") return { error: endError(end, codec) };
  return { value: { winner, value: codec.decodePlain(end.value, `result of run "${end.id}"`) } };
}

function received({ data, sentAt, reference, id, name: _, ...rest }: any, run: string, codec: StoredCodec): object {
  const read = codec.decodePlain(data, `event ${id} of run "${run}"`);
  return { data: read, id, ...rest, sentAt: new Date(sentAt), ...(reference !== null && { reference }) };
}

/** Kinds whose stored form is their own. */
const READERS: Readonly<Record<string, (value: string | null, id: string, codec: StoredCodec) => unknown>> = {
  sleep: (value) => ({ woken: value !== null }),
  event: (value, id, codec) => received(JSON.parse(value!), id, codec),
  child: (value, _, codec) => {
    const end = JSON.parse(value!);
    return codec.decodePlain(end.value, `result of run "${end.id}"`);
  },
  patch: () => true,
  start: (value) => JSON.parse(value!),
};

/** The tries that failed. A step that failed at its first and only one has no record of it but its outcome. */
function failuresOf(row: EntryRow, { id, codec, ancestors }: Reading, entry: HistoryEntry): FailedTry[] {
  const { slot, attempt: runAttempt } = row;
  const stored = (row.failures === null ? [] : JSON.parse(row.failures)) as [number, number, number, string][];
  const failures = stored.map(([attempt, startedMs, failedMs, text]) => {
    const place: Place = placeIn(id, tryIn(slot, runAttempt, attempt), ancestors);
    const error = codec.decodeError(text, `error of try ${attempt} of "${slot}" of run "${id}"`, place);
    return { attempt, startedAt: new Date(startedMs), failedAt: new Date(failedMs), error };
  });
  const { error, startedAt, finishedAt } = entry;
  if (row.outcome !== "failed" || failures.length > 0 || row.kind === "attempt" || finishedAt === null) return failures;
  return [{ attempt: row.tries, startedAt, failedAt: finishedAt, error }];
}
