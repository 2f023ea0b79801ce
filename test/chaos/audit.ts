/** What the database itself writes down of a chaos run: every claim, every claim lost, every write that breaks a rule. */
import { TRANSITIONS } from "../../lib/core/states.ts";

/** The schema of the engines under trial, and that of the ledger beside it. */
export const SCHEMA = "perdure";

/**
 * The ledger: what transactions did (`effect`), tries of steps (`attempt`), and what the triggers below see. A rule that is broken is
 * noted and not refused: what comes of it is to be seen.
 */
export const LEDGER = `
  create schema chaos;
  create table chaos.effect (no bigint generated always as identity primary key, run text not null, step text not null, pid int not null,
    at timestamptz not null default clock_timestamp());
  create table chaos.attempt (key uuid primary key, no bigint generated always as identity, run text not null, step text not null, try int not null,
    worker text not null, version text not null, begun timestamptz not null default clock_timestamp());
  create table chaos.claim (run bigint not null, epoch int not null, worker bigint, at timestamptz not null default clock_timestamp());
  create table chaos.lost (run bigint not null, epoch int not null, worker bigint not null, state text not null, crash boolean not null, dead boolean not null,
    at timestamptz not null default clock_timestamp());
  create table chaos.process (id bigint primary key, name text not null, at timestamptz not null default clock_timestamp());
  create table chaos.violation (what text not null, detail text not null, at timestamptz not null default clock_timestamp());
  create sequence chaos.refused;
  create sequence chaos.busy;`;

const note = (what: string, detail: string): string =>
  `insert into chaos.violation (what, detail) values ('${what}', ${detail});`;

/** On the schema of the engines, once it is migrated. */
export const TRIGGERS = `
  create function chaos.see_run() returns trigger language plpgsql as $$
  begin
    if tg_op = 'INSERT' then
      if new.epoch <> (new.state = 'running')::int then ${note("I7", "format('run %s begins with epoch %s as %s', new.id, new.epoch, new.state)")} end if;
      if new.epoch > 0 then insert into chaos.claim (run, epoch, worker) values (new.key, new.epoch, new.worker); end if;
      return null;
    end if;
    if new.epoch <> old.epoch then
      if new.epoch <> old.epoch + 1 or new.state <> 'running' then
        ${note("I7", "format('run %s went from epoch %s (%s) to %s (%s)', new.id, old.epoch, old.state, new.epoch, new.state)")}
      end if;
      insert into chaos.claim (run, epoch, worker) values (new.key, new.epoch, new.worker);
    elsif new.state = 'running' and old.worker is distinct from new.worker then
      ${note("I7", "format('run %s changed hands within epoch %s', new.id, new.epoch)")}
    end if;
    if new.state <> old.state and not '${JSON.stringify(TRANSITIONS)}'::jsonb -> old.state ? new.state then
      ${note("I16", "format('run %s went from %s to %s', new.id, old.state, new.state)")}
    end if;
    if old.state = 'running' and new.state in ('pending', 'paused', 'blocked') then
      insert into chaos.lost (run, epoch, worker, state, crash, dead)
      select old.key, old.epoch, old.worker, new.state, new.crashes > old.crashes or (new.state = 'blocked' and new.crashes = old.crashes + 1),
        not exists (select from ${SCHEMA}.worker w where w.id = old.worker and w.dead_at is null);
    end if;
    return null;
  end $$;
  create trigger chaos_begins after insert on ${SCHEMA}.run for each row execute function chaos.see_run();
  create trigger chaos_changes after update on ${SCHEMA}.run for each row
    when (old.epoch <> new.epoch or old.state <> new.state or old.worker is distinct from new.worker) execute function chaos.see_run();

  create function chaos.see_checkpoint() returns trigger language plpgsql as $$
  declare v_run record;
  begin
    select r.id, r.epoch, r.state, r.xmin::text = (pg_current_xact_id()::text::bigint & 4294967295)::text as own into v_run from ${SCHEMA}.run r where r.key = new.run;
    if v_run.epoch is distinct from new.epoch or (v_run.state <> 'running' and not v_run.own) then
      ${note("I7", "format('%s of run %s was written by claim %s while %s by claim %s', new.slot, v_run.id, new.epoch, v_run.state, v_run.epoch)")}
    end if;
    return new;
  end $$;
  create trigger chaos_recorded before insert on ${SCHEMA}.checkpoint for each row execute function chaos.see_checkpoint();

  create function chaos.see_change() returns trigger language plpgsql as $$
  begin
    ${note("I4", "format('%s on %s: %s', tg_op, tg_table_name, to_jsonb(old) - 'value')")}
    return coalesce(new, old);
  end $$;
  create trigger chaos_changed before update or delete on ${SCHEMA}.checkpoint for each row execute function chaos.see_change();
  create trigger chaos_changed before update or delete on ${SCHEMA}.outcome for each row execute function chaos.see_change();

  create function chaos.see_mail() returns trigger language plpgsql as $$
  begin
    ${note("I8", "format('event %s of run %s was consumed by %s, then by %s', old.seq, old.run, old.slot, new.slot)")}
    return new;
  end $$;
  create trigger chaos_consumed before update on ${SCHEMA}.mail for each row when (old.slot is not null and old.slot is distinct from new.slot)
    execute function chaos.see_mail();

  create function chaos.see_worker() returns trigger language plpgsql as $$
  begin
    insert into chaos.process (id, name) values (new.id, new.name) on conflict do nothing;
    return null;
  end $$;
  create trigger chaos_entered after insert on ${SCHEMA}.worker for each row execute function chaos.see_worker();

  -- Every write that the database refuses is judged by this function: it counts, whatever becomes of the transaction.
  alter function ${SCHEMA}.refusal(bigint, integer) rename to refusal_of;
  create function ${SCHEMA}.refusal(p_run bigint, p_epoch integer) returns text language plpgsql volatile as $$
  declare v_verdict text := ${SCHEMA}.refusal_of(p_run, p_epoch);
  begin
    perform case when v_verdict = 'stale' then nextval('chaos.refused') else nextval('chaos.busy') end;
    return v_verdict;
  end $$`;
