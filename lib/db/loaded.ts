/** From the flat rows of claim_runs and load_runs to claims. */
import type { Claim, Ended, Mail, OpenWait, Recorded } from "../core/claim.ts";
import type { LoadedRow } from "./writes.ts";

/** What a claim brings: runs with their history; then those that are in memory; at last an empty row, if some were left to another process. */
export function parted(rows: readonly LoadedRow[]): { cold: LoadedRow[]; warm: LoadedRow[]; left: boolean } {
  const left = rows.length > 0 && rows.at(-1)!.key === null;
  const runs = left ? rows.slice(0, -1) : [...rows];
  const warm = runs.findIndex(({ news }) => news !== null);
  return warm === -1 ? { cold: runs, warm: [], left } : { cold: runs.slice(0, warm), warm: runs.slice(warm), left };
}

/** One claim per run, in the order of the rows. */
export function toClaims(rows: readonly LoadedRow[]): Claim[] {
  const claims: Claim[] = [];
  for (let at = 0; at < rows.length; ) {
    const first = rows[at]!;
    const history: Recorded[] = [];
    for (; at < rows.length && rows[at]!.key === first.key; at += 1) {
      if (rows[at]!.slot !== null) history.push(toRecorded(rows[at]!));
    }
    claims.push(toClaim(first, history));
  }
  return claims;
}

function toClaim(row: LoadedRow, history: Recorded[]): Claim {
  return {
    key: row.key,
    id: row.id,
    workflow: row.workflow,
    version: row.version,
    queue: row.queue,
    epoch: row.epoch,
    attempt: row.attempt,
    crashes: row.crashes,
    mail: row.mail,
    args: row.args!,
    options: row.options,
    fork: toFork(row.fork),
    startedAt: row.started_ms,
    deadline: row.deadline_ms,
    now: row.now_ms,
    history,
    more: row.more,
    waits: listOf(row.waits, toOpenWait),
    begun: parse(row.begun) as readonly string[],
    reopenedFrom: row.reopened_from,
    lastNo: row.last_no,
    unread: toMails(row.unread),
    schedule: row.schedule,
    scheduledFor: row.slot_ms,
    flexible: row.flexible,
    followed: row.followed,
    reopened: parse(row.reopened) as readonly string[],
    ended: toEnded(row.ended),
  };
}

/** One recorded outcome. */
export function toRecorded(row: LoadedRow): Recorded {
  return {
    slot: row.slot!,
    attempt: row.slot_attempt,
    no: row.no,
    kind: row.kind as Recorded["kind"],
    name: row.name,
    outcome: row.outcome as Recorded["outcome"],
    value: row.value,
    hash: row.hash,
    tries: row.tries,
    at: row.at_ms,
  };
}

/** What a fork knows of where it comes from. */
export function toFork(text: string | null): Claim["fork"] {
  if (text === null) return null;
  const [startedAt, seeds, schedule] = JSON.parse(text) as [number | null, [string, number][], string | null];
  return { startedAt, seeds, schedule };
}

/** Most runs have none of most of it. */
const NONE: readonly never[] = [];

const parse = (text: string | null): readonly unknown[] => (text === null ? NONE : JSON.parse(text));

/** The items of a JSON array, each made of one of its elements. */
const listOf = <Given, Made>(text: string | null, make: (given: Given) => Made): readonly Made[] =>
  text === null ? NONE : (JSON.parse(text) as Given[]).map(make);

function toOpenWait([slot, kind, lengthMs, due, tries, woken]: [
  string,
  OpenWait["kind"],
  number | null,
  number | null,
  number,
  boolean,
]): OpenWait {
  return { slot, kind, lengthMs, due, tries, woken };
}

/** A JSON array of ends that were waited for, as the function ended makes it. */
export function toEnded(text: string | null): readonly Ended[] {
  return listOf(
    text,
    ([id, state, value, reason, attempt]: [string, Ended["state"], string | null, string | null, number]) => ({
      id,
      state,
      value,
      reason,
      attempt,
    }),
  );
}

/** A JSON array of unread mail, as the function unread makes it. */
export function toMails(text: string | null): readonly Mail[] {
  return listOf(
    text,
    ([seq, name, data, reference, sentAt, token]: [string, string, string, string | null, number, string | null]) => ({
      seq,
      name,
      data,
      reference,
      sentAt,
      token,
    }),
  );
}
