/** An engine in a schema of its own, shut down and dropped after the test. */
import type { Test } from "tap";
import { TRANSITIONS } from "../../lib/core/states.ts";
import { Perdure, type PerdureOptions } from "../../lib/index.ts";
import { freshSchema } from "./postgres.ts";
import { isOwner, without } from "./without.ts";
import { workerUrl } from "./worker-role.ts";

export interface Bench {
  readonly perdure: Perdure;
  readonly url: string;
  readonly schema: string;
  /** Another engine on the same schema, shut down after the test. */
  another(options?: PerdureOptions): Promise<Perdure>;
  /** Runs SQL; `:SCHEMA` stands for the schema. */
  sql(text: string, values?: unknown[]): Promise<any[]>;
  /** Lets so many milliseconds pass for all timers: sleeps, timeouts of waits, retries, delayed starts. */
  advance(ms: number): Promise<void>;
}

/** What an engine logs is collected, not printed. */
export function collector(): {
  lines: string[];
  debug(m: string): void;
  info(m: string): void;
  warn(m: string): void;
  error(m: string, e?: unknown): void;
} {
  const lines: string[] = [];
  const add = (message: string, error?: unknown): void =>
    void lines.push(error instanceof Error ? `${message}: ${error.message}` : message);
  return { lines, debug: add, info: add, warn: add, error: add };
}

/**
 * What must always hold, held by the database itself in every test: a state is left only as TRANSITIONS say, a checkpoint never changes, and
 * at each commit a run stands in `ready` as its ready_at says, and among what its worker has taken.
 */
export const INVARIANTS = `
  create function :SCHEMA.check_transition() returns trigger language plpgsql as $$
  begin
    if not '${JSON.stringify(TRANSITIONS)}'::jsonb -> old.state ? new.state then
      raise exception 'run "%" went from % to %, which TRANSITIONS do not know', old.id, old.state, new.state;
    end if;
    return new;
  end $$;
  create trigger check_transition before update on :SCHEMA.run for each row
    when (old.state <> new.state) execute function :SCHEMA.check_transition();
  create function :SCHEMA.check_checkpoint() returns trigger language plpgsql as $$
  begin
    raise exception 'checkpoint "%" was changed', old.slot;
  end $$;
  create trigger check_checkpoint before update on :SCHEMA.checkpoint for each row execute function :SCHEMA.check_checkpoint();
  create function :SCHEMA.check_place() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
  declare
    v_run :SCHEMA.run;
    v_key bigint;
  begin
    if tg_table_name = 'run' then v_key := new.key; else v_key := old.run; end if;
    select * into v_run from :SCHEMA.run r where r.key = v_key;
    if array(select q.ready_at from :SCHEMA.ready q where q.run = v_key) <> array_remove(array[v_run.ready_at], null) then
      raise exception 'run "%" is not in ready as its ready_at says', v_run.id;
    end if;
    if exists (select from :SCHEMA.worker w where w.id = v_run.worker)
      and not exists (select from :SCHEMA.taken t where t.worker = v_run.worker and v_key = any(t.runs)) then
      raise exception 'run "%" is not among what its worker has taken', v_run.id;
    end if;
    return null;
  end $$;
  create constraint trigger check_place after insert or update on :SCHEMA.run deferrable initially deferred
    for each row execute function :SCHEMA.check_place()`;
/** By itself, as a claim locks the tables in the other order. */
export const READY_INVARIANTS = `
  create index check_place on :SCHEMA.ready (run);
  create constraint trigger check_place after delete on :SCHEMA.ready deferrable initially deferred
    for each row execute function :SCHEMA.check_place()`;

/** An engine that keeps no suspended run in memory: whatever waits is replayed when it goes on. */
export const coldBench = (t: Test, options: PerdureOptions): Promise<Bench> =>
  bench(t, { ...options, worker: options.worker === false ? false : { ...options.worker, warm: 0 } });

export async function bench(t: Test, options: PerdureOptions): Promise<Bench> {
  const { url, schema: fresh, pool } = await freshSchema(t);
  const schema = options.schema ?? fresh;
  const engines: Perdure[] = [];
  const database = isOwner() ? url : await workerUrl(t, url, schema);
  const launch = async (more: PerdureOptions): Promise<Perdure> => {
    const engine = new Perdure(without({ database, schema, logger: collector(), ...options, ...more }));
    engines.push(engine);
    await engine.launch();
    return engine;
  };
  const sql = async (text: string, values: unknown[] = []) =>
    (await pool.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
  t.teardown(() => Promise.all(engines.map((engine) => engine.shutdown({ timeout: "5s" }))));
  const perdure = await launch({});
  await sql(INVARIANTS);
  await sql(READY_INVARIANTS);
  const advance = async (ms: number): Promise<void> => {
    const by = `${ms} * interval '1 millisecond'`;
    await sql(`update :SCHEMA.wait set due = due - ${by}, started_at = started_at - ${by}`);
    await sql(`update :SCHEMA.run set due = due - ${by}, deadline = deadline - ${by}`);
    await sql("select * from :SCHEMA.wake_due(1000)");
    await sql("select :SCHEMA.hint('wc')");
  };
  return { perdure, url, schema, another: (more = {}) => launch(more), sql, advance };
}
