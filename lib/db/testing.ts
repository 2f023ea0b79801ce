/** What tests do to a schema that was made for them, and is dropped after. */
import { setTimeout as pause } from "node:timers/promises";
import type pg from "pg";
import { PerdureError } from "../core/errors.ts";
import { TYPES } from "./reading.ts";
import { inSchema } from "./schema-name.ts";
import type { Lanes } from "./writes.ts";

/** A schema with a clock that stands still until it is moved. Only here the clock can be set. Time does not kill a worker: leases and the lead move along. */
const CLOCK = `
  create table :SCHEMA.test_clock (one boolean primary key default true check (one), at timestamptz not null);
  insert into :SCHEMA.test_clock (at) values (to_timestamp(MS / 1000.0));
  create or replace function :SCHEMA.clock() returns timestamptz language sql stable parallel safe as 'select at from :SCHEMA.test_clock';
  create function :SCHEMA.test_move(p_target timestamptz) returns float8 language plpgsql set jit = off as $perdure$
  declare
    v_from timestamptz;
    v_to timestamptz;
  begin
    select at into v_from from :SCHEMA.test_clock for update;
    v_to := greatest(v_from, least(p_target,
      (select min(r.timer) from :SCHEMA.run r where r.timer is not null),
      (select min(s.due_at) from :SCHEMA.schedule s where s.due_at is not null)));
    update :SCHEMA.test_clock set at = v_to;
    update :SCHEMA.worker set beat_at = beat_at + (v_to - v_from) where dead_at is null;
    update :SCHEMA.leader set until = until + (v_to - v_from) where isfinite(until);
    return :SCHEMA.to_ms(v_to);
  end $perdure$`;

const REST = `
  select exists (select from :SCHEMA.run r where r.state = 'running' or r.untold) or :SCHEMA.claimable($1, $2, $3)
      or exists (select from :SCHEMA.run r where r.timer <= :SCHEMA.clock())
      or exists (select from :SCHEMA.schedule s where s.due_at <= :SCHEMA.clock()) as busy,
    :SCHEMA.to_ms(least(
      (select min(r.timer) from :SCHEMA.run r where r.timer is not null),
      (select min(s.due_at) from :SCHEMA.schedule s where s.due_at is not null)
    )) as next`;

const AT_WORK = `
  select r.id, r.workflow, r.state from :SCHEMA.run r
  where r.state = 'running' or r.ready_at is not null or r.timer <= :SCHEMA.clock() order by r.key limit 6`;

const BLOCKED =
  "select r.id, r.reason from :SCHEMA.run r where r.state = 'blocked' and starts_with(r.reason, 'diverged') order by r.key";

const TAKE_BACK = `
  select :SCHEMA.take_back(array_agg(w.id), array_agg(:SCHEMA.to_ms(w.beat_at)), false)
  from :SCHEMA.worker w where w.id = $1 and w.dead_at is null having count(*) > 0`;
const HELD = "select from :SCHEMA.run r where r.worker = $1 limit 1";
const REST_BACK = "select :SCHEMA.take_back(null, null, false)";

/** The tables of the schema, and their columns with a sequence. */
const TABLES = `
  select format('%I.%I', n.nspname, c.relname) as name, (
    select a.attname from pg_attribute a where a.attrelid = c.oid and a.attidentity <> ''
  ) as sequence
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = $1 and c.relkind = 'r' and c.relname not in ('migrations', 'leader', 'test_clock')`;
/** What a new schema holds. */
const AS_MADE = `
  update :SCHEMA.leader set worker = null, until = '-infinity'; update :SCHEMA.test_clock set at = to_timestamp(MS / 1000.0)`;

/** Whether anything is due or at work, and the next instant at which something is. */
export interface Rest {
  readonly busy: boolean;
  readonly next: number | null;
}

export class TestSchema {
  readonly #pool: pg.Pool;
  readonly #schema: string;

  constructor(pool: pg.Pool, schema: string) {
    this.#pool = pool;
    this.#schema = schema;
  }

  async #rows<T>(text: string, values: unknown[] = []): Promise<T[]> {
    const query = { text: inSchema(text, this.#schema), values, types: TYPES };
    return (await this.#pool.query(query as pg.QueryConfig)).rows as T[];
  }

  /** Makes it, with a clock that stands at an instant, in ms since 1970. Throws PERDURE_SCHEMA if there is such a schema: it is not ours to drop. */
  async make(prepare: () => Promise<void>, instant: number): Promise<void> {
    await this.#checkFree();
    try {
      await prepare();
      await this.#pool.query(inSchema(CLOCK.replace("MS", `${instant}`), this.#schema));
    } catch (error) {
      await this.drop().catch(() => {});
      throw error;
    }
  }

  async #checkFree(): Promise<void> {
    const found = await this.#rows("select from pg_namespace where nspname = $1", [this.#schema]);
    if (found.length === 0) return;
    const text = `schema "${this.#schema}" exists, and a TestPerdure drops its schema at the end; name one that does not exist, or leave \`schema\` out`;
    throw new PerdureError("PERDURE_SCHEMA", text);
  }

  /** As if it were made anew, its clock at an instant: nobody may work on it. */
  async empty(instant: number): Promise<void> {
    const tables = await this.#rows<{ name: string; sequence: string | null }>(TABLES, [this.#schema]);
    const deletes = tables.map(({ name }) => `delete from ${name}`);
    const restarts = tables.flatMap(({ name, sequence }) =>
      sequence === null ? [] : [`alter table ${name} alter column ${sequence} restart`],
    );
    const text = [...deletes, ...restarts, AS_MADE.replace("MS", `${instant}`)].join("; ");
    await this.#pool.query(inSchema(`begin; ${text}; commit`, this.#schema));
  }

  /** Moves the clock to the next instant at which something is due, but not beyond `target`. Returns where it stands, in ms since 1970. */
  async move(target: number): Promise<number> {
    const [row] = await this.#rows<{ now: number }>("select :SCHEMA.test_move($1) as now", [new Date(target)]);
    return row!.now;
  }

  async rest({ workflows, versions, queues }: Lanes): Promise<Rest> {
    return (await this.#rows<Rest>(REST, [workflows, versions, queues]))[0]!;
  }

  /** Runs that are at work or should be, six at most. */
  atWork(): Promise<{ id: string; workflow: string; state: string }[]> {
    return this.#rows(AT_WORK);
  }

  /** Runs whose replay diverged. */
  diverged(): Promise<{ id: string; reason: string }[]> {
    return this.#rows(BLOCKED);
  }

  /** Takes a dead worker's runs back at once. */
  async takeBack(worker: string): Promise<void> {
    // The clock may be moved between the two statements of a go; and a transaction that the worker had open may not have ended yet.
    while ((await this.#rows(TAKE_BACK, [worker])).length > 0) await pause(1);
    while ((await this.#rows(HELD, [worker])).length > 0) {
      await this.#rows(REST_BACK);
      await pause(1);
    }
  }

  async drop(): Promise<void> {
    const text =
      "set local client_min_messages = warning; set local lock_timeout = '5s'; drop schema if exists :SCHEMA cascade";
    await this.#pool.query(inSchema(`begin; ${text}; commit`, this.#schema));
  }
}
