/** What is asked of the database about schedules: one method per SQL function or view of sql/schema/12-schedule.sql. No decisions. */

import { TYPES } from "./reading.ts";
import { quoteSchema } from "./schema-name.ts";
import { call } from "./statement.ts";
import type { Queryable } from "./store.ts";

/** When a schedule fires, as its row says: a cron with its zone, or an interval. */
export interface TimingRow {
  readonly cron: string | null;
  readonly timezone: string | null;
  readonly every_ms: number | null;
  readonly anchor_ms: number;
}

/** A schedule to be made or changed; `next` is its first slot if its times are new. */
export interface PutRow {
  readonly name: string;
  readonly cron: string | null;
  readonly timezone: string | null;
  readonly everyMs: number | null;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly priority: number;
  readonly timeout: number | null;
  readonly args: string;
  readonly hash: string;
  readonly options: string | null;
  readonly tags: string | null;
  readonly overlap: string;
  readonly catchUp: string;
  readonly next: number;
}

/** foreign: left alone, it belongs to `owner`; null: it was made at run time. */
export interface PutAnswer {
  readonly name: string;
  readonly verdict: "added" | "changed" | "kept" | "foreign" | "removed";
  readonly owner: string | null;
}

export interface DueRow extends TimingRow {
  readonly name: string;
  readonly catch_up: "latest" | "none" | "all";
  readonly next_ms: number;
  readonly due_ms: number;
  readonly now_ms: number;
}

/** A schedule that is to fire: the slots that are due and made up, each with the id of its run, and where it goes on. */
export interface FireRow {
  readonly name: string;
  readonly expected: number;
  readonly next: number;
  readonly slots: readonly (readonly [slot: number, runId: string])[];
  /** The last slot that is passed over because nobody was there in time. */
  readonly missed: number | null;
}

export interface FireAnswer {
  /** From 1, in the order of the rows; one that is missing was fired by another process, or is not due any more. */
  readonly ord: number;
  readonly verdict: "fired" | "skipped" | "alone";
  readonly runs: number;
  readonly taken: string | null;
  readonly held: string | null;
  readonly held_state: string | null;
  /** It was skipped before because of the same run. */
  readonly again: boolean;
}

/** A row of the view `schedules`. */
export interface ScheduleRow {
  readonly name: string;
  readonly application: string | null;
  readonly cron: string | null;
  readonly timezone: string | null;
  readonly every_ms: number | null;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly overlap: "skip" | "allow" | "cancel_previous";
  readonly catch_up: "latest" | "none" | "all";
  readonly next_ms: number | null;
  readonly slot_ms: number | null;
  readonly last_run_id: string | null;
  readonly paused: boolean;
  readonly trouble: string | null;
}

/** As many names as a person's mistake is compared with. */
const MOST_NAMES = 1000;

export class ScheduleStore {
  readonly #schema: string;
  readonly #db: Queryable;

  constructor(schema: string, db: Queryable) {
    this.#schema = schema;
    this.#db = db;
  }

  async #rows<T>(fn: string, values: unknown[]): Promise<T[]> {
    const { text } = call(this.#schema, fn, values);
    return (await this.#db.query({ text, values, types: TYPES, call: true })).rows as T[];
  }

  async #select<T>(text: string, values: unknown[]): Promise<T[]> {
    return (
      await this.#db.query({ text: text.replaceAll(":SCHEMA", () => quoteSchema(this.#schema)), values, types: TYPES })
    ).rows as T[];
  }

  /** The database's instant, in whole ms since 1970. */
  async now(): Promise<number> {
    const [row] = await this.#select<{ now_ms: number }>("select :SCHEMA.to_ms(:SCHEMA.clock()) as now_ms", []);
    return Math.floor(row!.now_ms);
  }

  /** `application` null: made at run time. `all`: what the application declares; others of it are removed. */
  put(application: string | null, all: boolean, anchor: number, rows: readonly PutRow[]): Promise<PutAnswer[]> {
    const column = <K extends keyof PutRow>(key: K): PutRow[K][] => rows.map((row) => row[key]);
    return this.#rows("put_schedules", [
      application,
      all,
      anchor,
      column("name"),
      column("cron"),
      column("timezone"),
      column("everyMs"),
      column("workflow"),
      column("version"),
      column("queue"),
      column("priority"),
      column("timeout"),
      column("args"),
      column("hash"),
      column("options"),
      column("tags"),
      column("overlap"),
      column("catchUp"),
      column("next"),
    ]);
  }

  due(limit: number, after: number, afterName: string): Promise<DueRow[]> {
    return this.#rows("due_schedules", [limit, after, afterName]);
  }

  /** `alone`: one row, which may wait for locks, up to 1 s. */
  fire(rows: readonly FireRow[], alone: boolean): Promise<FireAnswer[]> {
    return this.#rows("fire_schedules", [
      rows.map((row) => row.name),
      rows.map((row) => row.expected),
      rows.map((row) => row.next),
      rows.map((row) => JSON.stringify(row.slots)),
      rows.map((row) => row.missed),
      alone,
    ]);
  }

  async postpone(name: string, expected: number, ms: number, trouble: string): Promise<void> {
    await this.#rows("postpone_schedule", [name, expected, ms, trouble]);
  }

  async pause(name: string): Promise<boolean> {
    return (await this.#rows<{ pause_schedule: boolean }>("pause_schedule", [name]))[0]!.pause_schedule;
  }

  /** Its times, and the database's instant. */
  async timing(name: string): Promise<(TimingRow & { readonly now_ms: number }) | undefined> {
    const text = `select s.cron, s.timezone, s.every_ms, :SCHEMA.to_ms(s.anchor_at) as anchor_ms, :SCHEMA.to_ms(:SCHEMA.clock()) as now_ms
      from :SCHEMA.schedule s where s.name = $1`;
    return (await this.#select<TimingRow & { readonly now_ms: number }>(text, [name]))[0];
  }

  async resume(
    name: string,
    { cron, timezone, every_ms, anchor_ms }: TimingRow,
    next: number,
  ): Promise<"ok" | "changed" | null> {
    const values = [name, cron, timezone, every_ms, Math.round(anchor_ms), next];
    return (await this.#rows<{ resume_schedule: "ok" | "changed" | null }>("resume_schedule", values))[0]!
      .resume_schedule;
  }

  async trigger(name: string, runId: string): Promise<boolean> {
    return (await this.#rows<{ trigger_schedule: boolean }>("trigger_schedule", [name, runId]))[0]!.trigger_schedule;
  }

  async delete(name: string): Promise<boolean> {
    return (await this.#rows<{ delete_schedule: boolean }>("delete_schedule", [name]))[0]!.delete_schedule;
  }

  list(prefix: string, after: string, limit: number): Promise<ScheduleRow[]> {
    // In the order of bytes, whatever the database's collation: a page goes on where the last one ended.
    const text = `select name, application, cron, timezone, extract(epoch from every)::float8 * 1000 as every_ms, workflow, version, queue,
        overlap, catch_up, :SCHEMA.to_ms(next_at) as next_ms, :SCHEMA.to_ms(last_slot) as slot_ms, last_run_id, paused, trouble
      from :SCHEMA.schedules where starts_with(name, $1) and name collate "C" > $2 order by name collate "C" limit $3`;
    return this.#select(text, [prefix, after, limit]);
  }

  async names(): Promise<string[]> {
    const text = "select name from :SCHEMA.schedule order by name limit $1";
    return (await this.#select<{ name: string }>(text, [MOST_NAMES])).map(({ name }) => name);
  }
}
