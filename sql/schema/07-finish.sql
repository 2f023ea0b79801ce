-- The ends of an attempt: finished, tried again, blocked, cancelled.

-- Finishes runs. Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.finish_runs(p_runs bigint[], p_epochs integer[], p_states text[], p_values text[], p_wait boolean)
returns table (ord integer, verdict text) language plpgsql set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_states, p_values) with ordinality as g(run, epoch, state, value, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set state = g.state, worker = null, finished_at = v_now
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    where r.key = g.run
    returning r.key
  ), put as (
    insert into :SCHEMA.outcome (run, value) select g.run, g.value::json from given g join done d on d.key = g.run
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state = g.state) then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end
  from given g left join done d on d.key = g.run;
end $perdure$;

-- Begins the next attempt of workflows: the failures that ended this one are set aside, what else is recorded stays.
-- p_reopened: a JSON array of slots per run. p_delays: milliseconds until the next attempt; the workflow's timeout does not wait for it.
-- due_ms: milliseconds until the run is claimable by the clock; null: it is now.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.retry_runs(p_runs bigint[], p_epochs integer[], p_attempts integer[], p_errors text[], p_reopened text[], p_delays float8[], p_wait boolean)
returns table (ord integer, verdict text, due_ms float8) language plpgsql set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_attempts, p_errors, p_reopened, p_delays)
      with ordinality as g(run, epoch, attempt, error, reopened, delay, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set state = 'pending', worker = null, attempt = g.attempt + 1,
      ready_at = case when g.delay <= 0 then v_now end,
      due = case when g.delay > 0 then least(v_now + :SCHEMA.ms(g.delay), r.deadline) end
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    where r.key = g.run
    returning r.key, r.due
  ), put as (
    insert into :SCHEMA.round (run, attempt, error, reopened, finished_at)
    select g.run, g.attempt, g.error::json, array(select json_array_elements_text(g.reopened::json)), v_now
    from given g join done d on d.key = g.run
  ), gone as (
    delete from :SCHEMA.wait w using done d where w.run = d.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.attempt = g.attempt + 1) then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end,
    :SCHEMA.to_ms(d.due) - :SCHEMA.to_ms(v_now)
  from given g left join done d on d.key = g.run;
end $perdure$;

-- Sets runs aside until a person or a deploy acts; nothing is lost. Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.block_runs(p_runs bigint[], p_epochs integer[], p_reasons text[], p_wait boolean)
returns table (ord integer, verdict text) language plpgsql set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_reasons) with ordinality as g(run, epoch, reason, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set state = 'blocked', worker = null, reason = g.reason
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    where r.key = g.run
    returning r.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state = 'blocked') then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end
  from given g left join done d on d.key = g.run;
end $perdure$;

-- Cancels runs at once: whatever their claim writes from here on is refused. Says 'ok', or the state of a run that had finished.
-- Called by the client's cancel and by cancel_run. Locks: runs, in key order.
create function :SCHEMA.cancel_runs(p_ids text[], p_reason text) returns table (id text, verdict text, working boolean) language plpgsql as $perdure$
#variable_conflict use_column
begin
  return query
  with held as materialized (
    select r.key, r.id, r.state from :SCHEMA.run r where r.id = any(p_ids) order by r.key for no key update
  ), done as (
    update :SCHEMA.run r set state = 'cancelled', worker = null, ready_at = null, due = null, topics = null,
      reason = p_reason, finished_at = :SCHEMA.clock()
    from held h where r.key = h.key and h.state not in ('completed', 'failed', 'cancelled')
    returning r.key
  )
  select h.id, case when d.key is not null then 'ok' else h.state end, h.state = 'running' from held h left join done d using (key);
  perform :SCHEMA.hint('cd');
end $perdure$;

-- Cancels a run from SQL, in the caller's transaction. True: cancelled; false: it had finished. Raises PD001 (no such run), PD005 (bad input).
create function :SCHEMA.cancel_run(run_id text, reason text default null) returns boolean language plpgsql as $perdure$
#variable_conflict use_variable
declare
  v_verdict text;
begin
  if run_id is null then
    raise exception 'cancel_run: run_id must be given' using errcode = 'PD005';
  end if;
  select c.verdict into v_verdict from :SCHEMA.cancel_runs(array[run_id], reason) c;
  if v_verdict is null then
    raise exception 'cancel_run: there is no run "%"', run_id using errcode = 'PD001', hint = 'Check the id.';
  end if;
  return v_verdict = 'ok';
end $perdure$;
comment on function :SCHEMA.cancel_run is 'Cancels a run in the caller''s transaction. True: cancelled; false: it had finished.';
