/** What there is of the runs, as the database and the interface show it, and how it is compared with the reference. */
import { isDeepStrictEqual } from "node:util";
import type { Perdure } from "../../lib/index.ts";
import { type Family, hasEnded, inFlight, isServed, type Run, resultOf } from "./reference.ts";
import type { Rig } from "./rig.ts";

/** A run as it is. */
export interface Seen {
  /** As the reference names it: that of a child is its parent's, its place, and the how-manieth it is there. */
  readonly id: string;
  readonly realId: string;
  readonly family: string;
  readonly state: string;
  readonly reason: string | null;
  readonly version: string;
  readonly attempt: number;
  readonly unread: readonly (readonly [string, number])[];
  readonly taken: readonly number[];
  readonly ledger: readonly string[];
  /** What result() gives, or throws, of a run that has ended. */
  readonly result: unknown;
}

interface Row {
  key: string;
  id: string;
  parent: string | null;
  state: string;
  reason: string | null;
  version: string;
  attempt: number;
  args: unknown;
  mail: [name: string, data: unknown, unread: boolean][];
  ledger: string[];
}

const RUNS = `
  select r.key, r.id, r.parent, r.state, r.reason, r.version, r.attempt, i.args,
    (select coalesce(json_agg(json_build_array(m.name, m.data, m.slot is null) order by m.seq), '[]') from :SCHEMA.mail m where m.run = r.key) as mail,
    (select coalesce(json_agg(l.at order by l.at), '[]') from :SCHEMA.ledger l where l.run = r.id) as ledger
  from :SCHEMA.run r join :SCHEMA.input i on i.run = r.key
  where r.workflow = 'scripted' order by r.key`;

/** Whether somebody should be at work now: beside the runs in work, of which the reference knows which may be. */
const BUSY = `
  select exists (select from :SCHEMA.ready q where q.workflow = 'ticked' or q.version = any($1))
    or exists (select from :SCHEMA.run r where r.state = 'running' and r.workflow = 'ticked')
    or exists (select from :SCHEMA.run r where r.timer <= :SCHEMA.clock() and (r.workflow = 'ticked' or r.version = any($1)))
    or exists (select from :SCHEMA.run r where r.untold)
    or exists (select from :SCHEMA.schedule s where s.due_at <= :SCHEMA.clock()) as busy`;

/** `versions`: what the processes serve. */
export async function isBusy(rig: Rig, versions: readonly string[]): Promise<boolean> {
  return versions.length > 0 && (await rig.sql<{ busy: boolean }>(BUSY, [versions]))[0]!.busy;
}

export class Observer {
  readonly #rig: Rig;
  readonly #client: Perdure;
  readonly #results = new Map<string, unknown>();

  constructor(rig: Rig, client: Perdure) {
    this.#rig = rig;
    this.#client = client;
  }

  async look(): Promise<Seen[]> {
    const rows = await this.#rig.sql<Row>(RUNS);
    const ids = new Map<string, string>();
    const many = new Map<string, number>();
    const seen: Seen[] = [];
    for (const row of rows) {
      const { family, at } = found(row.args, (value) => "script" in value) as { family: string; at: string | null };
      const place = `${ids.get(row.parent ?? "")}/${at}`;
      const nth = (many.get(place) ?? 0) + 1;
      many.set(place, nth);
      const id = row.parent === null ? row.id : `${place}#${nth}`;
      ids.set(row.key, id);
      const mail = row.mail.map(([name, data, unread]) => [name, numberIn(data), unread] as const);
      seen.push({
        ...row,
        id,
        realId: row.id,
        family,
        unread: mail.filter(([, , unread]) => unread).map(([name, n]) => [name, n] as const),
        taken: mail.filter(([, , unread]) => !unread).map(([, n]) => n),
        result: await this.#result(row),
      });
    }
    return seen;
  }

  /** Asked once for each end. */
  async #result({ id, state, attempt }: Row): Promise<unknown> {
    if (state !== "completed" && state !== "failed" && state !== "cancelled") return undefined;
    const key = JSON.stringify([id, state, attempt]);
    if (!this.#results.has(key)) {
      const result = await this.#client
        .get(id)
        .result({ timeout: "30s" })
        .catch((error: Error) => error.name);
      this.#results.set(key, result);
    }
    return this.#results.get(key);
  }
}

function found(value: unknown, fits: (value: object) => boolean): object | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (!Array.isArray(value) && fits(value)) return value;
  for (const inner of Object.values(value)) {
    const one = found(inner, fits);
    if (one) return one;
  }
  return undefined;
}

function numberIn(value: unknown): number {
  if (typeof value === "number") return value;
  if (typeof value !== "object" || value === null) return Number.NaN;
  return (
    Object.values(value)
      .map(numberIn)
      .find((n) => !Number.isNaN(n)) ?? Number.NaN
  );
}

/** Each difference between a family as it should be and as it is; none: it is so. */
export function differences(family: Family, seen: readonly Seen[]): string[] {
  const all = new Set([...Object.keys(family.runs), ...seen.map(({ id }) => id)]);
  return [...all].flatMap((id) => {
    const [run, one] = [family.runs[id], seen.find((other) => other.id === id)];
    if (!run) return [`run "${id}" should not be, and is ${one!.state}`];
    if (!one) return [`run "${id}" should be, and is not`];
    return differencesOf(family, run, one);
  });
}

function differencesOf(family: Family, run: Run, seen: Seen): string[] {
  const wrong: string[] = [];
  const same = (what: string, should: unknown, is: unknown): void => {
    if (!isDeepStrictEqual(should, is))
      wrong.push(`run "${run.id}": ${what} should be ${JSON.stringify(should)}, and is ${JSON.stringify(is)}`);
  };
  const states = statesOf(family, run);
  if (!states.includes(seen.state))
    wrong.push(
      `run "${run.id}" should be ${states.join(" or ")}, and is ${seen.state}${seen.reason ? `: ${seen.reason}` : ""}`,
    );
  same("version", run.version, seen.version);
  same("attempt", run.attempt, seen.attempt);
  same("unread mail", run.unread, seen.unread);
  same(
    "mail taken",
    [...run.taken].sort((a, b) => a - b),
    [...seen.taken].sort((a, b) => a - b),
  );
  same("ledger", [...run.ledger].sort(), seen.ledger);
  if (run.phase === "completed") same("result", resultOf(run), seen.result);
  if (run.phase === "failed") same("result", "RunFailedError", seen.result);
  if (run.phase === "cancelled") same("result", "RunCancelledError", seen.result);
  return wrong;
}

/** The states in which the run may stand when nothing is left to do. */
function statesOf(family: Family, run: Run): readonly string[] {
  if (hasEnded(run) || run.phase === "paused") return [run.phase];
  if (run.phase === "pausing") return ["running", "paused", "pending"];
  if (run.due !== null && run.due > family.now) return ["pending"];
  // Whoever had it may have gone with it, at any point.
  if (!isServed(family, run)) return ["pending", "running", "suspended"];
  return [inFlight(family, run) ? "running" : "suspended"];
}
