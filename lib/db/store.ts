/** What is asked of the database beside the batches: one method per SQL function or view, in the order of sql/schema. No decisions. */

import type { Claim, Recorded } from "../core/claim.ts";
import { type Ancestors, ancestorsOf } from "../core/stored-place.ts";
import type { RunStatus } from "../core/types.ts";
import { hint } from "./hint.ts";
import { toClaims, toFork } from "./loaded.ts";
import { newestMigration } from "./migration-files.ts";
import { TYPES, toDate } from "./reading.ts";
import { quoteSchema } from "./schema-name.ts";
import { call } from "./statement.ts";
import { WHOLE, type WholeRow } from "./whole.ts";
import type { Lanes, LoadedRow } from "./writes.ts";

export interface Statement {
  name?: string;
  text: string;
  values?: unknown[];
  types?: typeof TYPES;
  /** It is a call of one of our functions and nothing else. */
  call?: true;
}

/** Where statements run: a pool, a client, the certificate's session. */
export interface Queryable {
  query(statement: Statement): Promise<{ rows: any[] }>;
}

export interface Beat {
  readonly alive: boolean;
  readonly others: number;
  readonly leads: boolean;
  readonly untidy: boolean;
  readonly holds: number;
  readonly now_ms: number;
}

export interface Look {
  readonly run: string;
  readonly held: boolean;
  readonly pausing: boolean;
  readonly mail: number;
  readonly unread: string | null;
  readonly due: string | null;
  readonly ended: string | null;
  readonly next_ms: number | null;
  readonly now_ms: number;
}

/** `verdict`: ok, or the state that does not allow it. */
export interface Controlled {
  readonly id: string;
  readonly verdict: string;
}

/** What a process wants to hear of: work, finishes, what is published. */
export interface Wanted {
  readonly hungry: boolean;
  readonly watching: boolean;
  readonly reading: boolean;
}

/** From where on somebody reads a stream; of a value, the least `n` that is news to them. */
export interface Reading {
  readonly run: string;
  readonly kind: "value" | "stream";
  readonly name: string;
  readonly from: number;
}

/** One row of `read_published`: see there. */
export interface Published {
  readonly ord: number;
  readonly key: string | null;
  readonly ended: boolean | null;
  readonly pos: number | null;
  readonly value: string | null;
  readonly more: boolean;
}

export interface Missing {
  readonly holding: boolean;
  /** [worker id, its last beat, whether that was before the server started] of each, as JSON. */
  readonly missing: string | null;
}

/** How many runs were deleted, and behind which key to go on; null: the rest is not old enough. */
export interface Expired {
  readonly gone: number;
  readonly last: string | null;
}

/** A definition as the catalogue keeps it. */
export interface DefinitionRow {
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly timeout: number | null;
  readonly options: string | null;
  readonly replay: string;
}

export interface Lane {
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
}

/** Which runs to list: see list_runs in sql/schema/13-list.sql. Null: whatever. */
export interface ListRow {
  readonly workflow: string | null;
  readonly version: string | null;
  readonly queue: string | null;
  readonly states: readonly string[] | null;
  readonly tags: readonly string[] | null;
  readonly prefix: string | null;
  readonly prefixEnd: string | null;
  readonly createdAfter: number | null;
  readonly createdBefore: number | null;
  readonly before: string | null;
  readonly limit: number;
}

/** See the type history_entry in sql/schema/13-list.sql. */
export interface EntryRow {
  readonly no: number | null;
  readonly slot: string;
  readonly attempt: number;
  readonly kind: string;
  readonly name: string;
  readonly outcome: string;
  readonly value: string | null;
  readonly tries: number;
  readonly started_ms: number;
  readonly finished_ms: number | null;
  readonly set_aside: boolean;
  readonly failures: string | null;
}

/** A RunStatus, from the view of runs. */
const STATUS = `id, workflow, version, state, waiting_for as "waitingFor", reason, queue, priority, attempt, parent_id as "parentId",
  to_json(tags) as tags, :SCHEMA.to_ms(created_at) as "createdAt", :SCHEMA.to_ms(started_at) as "startedAt", :SCHEMA.to_ms(finished_at) as "finishedAt", :SCHEMA.to_ms(due) as due`;

const INSTANTS = ["createdAt", "startedAt", "finishedAt", "due"] as const;
type StatusRow = Omit<RunStatus, (typeof INSTANTS)[number]> & Record<(typeof INSTANTS)[number], number | null>;

function toStatus(row: StatusRow): RunStatus {
  const instants = Object.fromEntries(INSTANTS.map((key) => [key, toDate(row[key])]));
  return { ...row, ...(instants as Pick<RunStatus, (typeof INSTANTS)[number]>) };
}

export class Store {
  readonly #schema: string;
  readonly #db: Queryable;

  constructor(schema: string, db: Queryable) {
    this.#schema = schema;
    this.#db = db;
  }

  async #rows<T>(fn: string, values: unknown[], db: Queryable = this.#db): Promise<T[]> {
    // Unnamed, so that it also works through a pooler.
    const { text } = call(this.#schema, fn, values);
    return (await db.query({ text, values, types: TYPES, call: true })).rows as T[];
  }

  async #select<T>(text: string, values: unknown[]): Promise<T[]> {
    return (
      await this.#db.query({ text: text.replaceAll(":SCHEMA", () => quoteSchema(this.#schema)), values, types: TYPES })
    ).rows as T[];
  }

  /** Runs with all that a replay needs. */
  load(keys: readonly string[]): Promise<Claim[]> {
    return this.#histories(keys, "", 0);
  }

  /** A page of a run's history, from after an outcome on, in the order of their slots. */
  async loadMore(key: string, after: Recorded): Promise<{ history: Recorded[]; more: boolean }> {
    const [claim] = await this.#histories([key], after.slot, after.attempt);
    return { history: [...(claim?.history ?? [])], more: claim?.more ?? false };
  }

  async #histories(keys: readonly string[], slot: string, attempt: number): Promise<Claim[]> {
    const bytes = Math.floor((4 * 1024 * 1024) / keys.length);
    return toClaims(await this.#rows<LoadedRow>("read_runs", [keys, slot, attempt, bytes]));
  }

  look(runs: readonly string[], epochs: readonly number[], after: readonly string[]): Promise<Look[]> {
    return this.#rows("look_runs", [runs, epochs, after]);
  }

  /** What became of each of these runs that exists: see sql/schema/15-control.sql. */
  control(
    verb: "cancel" | "pause" | "resume" | "retry" | "wake",
    ids: readonly string[],
    ...more: unknown[]
  ): Promise<Controlled[]> {
    return this.#rows(`${verb}_runs`, [ids, ...more]);
  }

  async fork(
    id: string,
    from: string,
    newId: string,
    version: string | null,
  ): Promise<{ verdict: string; key: string | null }> {
    return (await this.#rows<{ verdict: string; key: string | null }>("fork_run", [id, from, newId, version]))[0]!;
  }

  /** The names and slots of what a run has recorded: for an error to name the nearest. */
  async recordedNames(id: string): Promise<string[]> {
    const text = "select distinct name, slot from :SCHEMA.steps where run_id = $1 and kind <> 'patch' limit 1000";
    const rows = await this.#select<{ name: string; slot: string }>(text, [id]);
    return rows.flatMap(({ name, slot }) => [name, slot]);
  }

  async hint(worker: string, letters: string): Promise<void> {
    await this.#db.query(hint(this.#schema, worker, letters));
  }

  async enter(worker: string, name: string, leaseMs: number, { workflows, versions, queues }: Lanes): Promise<void> {
    await this.#rows("enter_worker", [worker, name, leaseMs, workflows, versions, queues, newestMigration()]);
  }

  async beat(worker: string, db: Queryable): Promise<Beat> {
    return (await this.#rows<Beat>("beat", [worker], db))[0]!;
  }

  async want(worker: string, { hungry, watching, reading }: Wanted): Promise<void> {
    await this.#rows("want", [worker, hungry, watching, reading]);
  }

  async peek(worker: string, lanes: Lanes): Promise<{ work: boolean; others_hold: boolean; next_ms: number | null }> {
    const rows = await this.#rows<{ work: boolean; others_hold: boolean; next_ms: number | null }>("peek", [
      worker,
      lanes.workflows,
      lanes.versions,
      lanes.queues,
    ]);
    return rows[0]!;
  }

  async missing(worker: string): Promise<Missing> {
    return (await this.#rows<Missing>("missing_workers", [worker]))[0]!;
  }

  async takeBack(workers: readonly string[], beats: readonly string[], innocent: boolean): Promise<number> {
    return (await this.#rows<{ take_back: number }>("take_back", [workers, beats, innocent]))[0]!.take_back;
  }

  async handBack(worker: string, keep: readonly string[]): Promise<void> {
    await this.#rows("hand_back", [worker, keep]);
  }

  async leave(worker: string): Promise<void> {
    await this.#rows("leave_worker", [worker]);
  }

  async sweep(): Promise<number> {
    return (await this.#rows<{ sweep: number }>("sweep", []))[0]!.sweep;
  }

  /** Deletes runs that ended so long ago, in key order behind a key; null: as launches have said. See sql/schema/18-retention.sql. */
  async expire(keepMs: number | null, behind: string, limit: number): Promise<Expired> {
    return (await this.#rows<Expired>("expire_runs", [keepMs, behind, limit]))[0]!;
  }

  readPublished(readings: readonly Reading[], rows: number, bytes: number): Promise<Published[]> {
    const [ids, kinds, names] = [readings.map((r) => r.run), readings.map((r) => r.kind), readings.map((r) => r.name)];
    return this.#rows("read_published", [ids, kinds, names, readings.map((r) => r.from), rows, bytes]);
  }

  async status(id: string): Promise<RunStatus | undefined> {
    const [row] = await this.#select<StatusRow>(`select ${STATUS} from :SCHEMA.runs where id = $1`, [id]);
    return row && toStatus(row);
  }

  /** Writes what a launch registers. `retentionMs`: null leaves what another has said. */
  async register(definitions: readonly DefinitionRow[], retentionMs: number | null): Promise<void> {
    if (retentionMs !== null) await this.#rows("retain", [retentionMs]);
    const column = (name: keyof DefinitionRow): unknown[] => definitions.map((definition) => definition[name]);
    await this.#rows("register_definitions", [
      column("workflow"),
      column("version"),
      column("queue"),
      column("timeout"),
      column("options"),
      column("replay"),
    ]);
  }

  /** What has unfinished runs and is served by nobody who is alive. */
  unserved(limit: number): Promise<Lane[]> {
    return this.#rows("unserved_lanes", [limit]);
  }

  /** A page of runs, newest first, each with its key. */
  async list(filter: ListRow): Promise<{ key: string; status: RunStatus }[]> {
    const { workflow, version, queue, states, tags, prefix, prefixEnd, createdAfter, createdBefore, before, limit } =
      filter;
    const text = `select l.key, ${STATUS} from :SCHEMA.list_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) l join :SCHEMA.runs using (id) order by l.key desc`;
    const values = [
      workflow,
      version,
      queue,
      states,
      tags,
      prefix,
      prefixEnd,
      createdAfter,
      createdBefore,
      before,
      limit,
    ];
    const rows = await this.#select<StatusRow & { key: string }>(text, values);
    return rows.map(({ key, ...status }) => ({ key, status: toStatus(status) }));
  }

  /** A page of what a run was handed, from after a place in the order on. */
  told(id: string, after: number, limit: number): Promise<EntryRow[]> {
    return this.#rows("told_slots", [id, after, limit]);
  }

  /** What a run has open. */
  open(id: string): Promise<EntryRow[]> {
    return this.#rows("open_slots", [id]);
  }

  /** Of these runs, those that have finished, with their result or error, and the ids that no run has: `state` null. */
  async finished(
    ids: readonly string[],
  ): Promise<{ id: string; state: string | null; reason: string | null; value: string | null; attempt: number }[]> {
    const text = `select g.id, r.state, r.reason, r.attempt, o.value::text as value from unnest($1::text[]) as g(id)
      left join :SCHEMA.run r on r.id = g.id left join :SCHEMA.outcome o on o.run = r.key
      where r.finished_at is not null or r.key is null`;
    return this.#select(text, [ids]);
  }

  /** A run with all that a replay of it needs; undefined: there is none. */
  async whole(id: string): Promise<WholeRow | undefined> {
    return (await this.#select<WholeRow>(WHOLE, [id]))[0];
  }

  /** The runs that a run was forked from, the nearest first; undefined: none. */
  async ancestors(id: string): Promise<Ancestors> {
    const text = "select i.fork::text from :SCHEMA.run r join :SCHEMA.input i on i.run = r.key where r.id = $1";
    const [row] = await this.#select<{ fork: string | null }>(text, [id]);
    return ancestorsOf(toFork(row?.fork ?? null));
  }

  /** Of these runs, those that exist, with their workflow and version. */
  async known(ids: readonly string[]): Promise<{ id: string; workflow: string; version: string }[]> {
    return this.#select("select id, workflow, version from :SCHEMA.run where id = any($1)", [ids]);
  }
}
