-- Recording outcomes. Every row names its claim (run, epoch) and is refused alone when that claim is over. Verdicts:
--   ok     recorded, or recorded before by the same claim (the answer to an earlier try was lost)
--   busy   a stranger's open transaction holds the run's row: write it alone, waiting
--   stale  the claim is over

-- Where all of many rows are ok, record_steps, finish_runs and end_runs say so in one row whose ord is null. record_steps and end_runs take one
-- element of p_epochs, p_attempts, p_kinds, p_names, p_outcomes, p_tries and p_states for all rows: most of a batch are alike in these.

-- Records outcomes of steps and waits. A new checkpoint ends the count of crashes and takes the wait and the mail of its slot. p_again: some
-- may have been recorded before. Not the first time, as a claim writes each outcome once: then many are written without a look for those that are there.
-- Called by the flusher, and by a transaction step in the user's own transaction.
-- Locks: runs, in key order.
create function :SCHEMA.record_steps(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_nos integer[], p_kinds text[], p_names text[],
  p_outcomes text[], p_values text[], p_hashes text[], p_tries integer[], p_started float8[], p_ats float8[], p_mails bigint[], p_wait boolean,
  p_again boolean default true
) returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_skipped bigint[] := coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[];
  v_steps boolean := not p_again and 'step' = all (p_kinds) and 1 = all (p_tries);
  v_many integer[] := case when cardinality(p_runs) > 1 then array[cardinality(p_runs)] end;
  v_count integer;
  v_ords integer[];
  v_crashed boolean;
begin
  if v_many is not null then
    if cardinality(p_epochs) = 1 then p_epochs := array_fill(p_epochs[1], v_many); end if;
    if cardinality(p_attempts) = 1 then p_attempts := array_fill(p_attempts[1], v_many); end if;
    if cardinality(p_kinds) = 1 then p_kinds := array_fill(p_kinds[1], v_many); end if;
    if cardinality(p_names) = 1 then p_names := array_fill(p_names[1], v_many); end if;
    if cardinality(p_outcomes) = 1 then p_outcomes := array_fill(p_outcomes[1], v_many); end if;
    if cardinality(p_tries) = 1 then p_tries := array_fill(p_tries[1], v_many); end if;
  end if;
  if p_wait then
    perform from :SCHEMA.hold_runs(p_runs, true);
  end if;
  if v_steps and cardinality(p_runs) = 1 then
    select r.crashes > 0 into v_crashed from :SCHEMA.run r
      where r.key = p_runs[1] and r.epoch = p_epochs[1] and r.state = 'running' and r.key <> all (v_skipped)
      for no key update skip locked;
    v_count := 0;
    if found then
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
      values (p_runs[1], p_slots[1], p_attempts[1], p_nos[1], 'step', p_names[1], p_outcomes[1], p_values[1]::json, p_hashes[1], 1, p_epochs[1],
        :SCHEMA.from_ms(p_started[1]), :SCHEMA.from_ms(p_ats[1]))
      on conflict do nothing;
      get diagnostics v_count = row_count;
    end if;
  elsif v_steps then -- none of them has a wait or mail
    select count(*), bool_or(h.crashes > 0) into v_count, v_crashed
      from :SCHEMA.hold_working(p_runs) h join unnest(p_runs, p_epochs) as g(run, epoch) on g.run = h.key and g.epoch = h.epoch;
    v_steps := v_count = cardinality(p_runs);
    if v_steps then
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
      select g.run, g.slot, g.attempt, g.no, 'step', g.name, g.outcome, g.value::json, g.hash, 1, g.epoch, :SCHEMA.from_ms(g.started), :SCHEMA.from_ms(g.at)
      from unnest(p_runs, p_epochs, p_slots, p_attempts, p_nos, p_names, p_outcomes, p_values, p_hashes, p_started, p_ats)
        as g(run, epoch, slot, attempt, no, name, outcome, value, hash, started, at);
    end if;
  end if;
  if not v_steps then
    with given as materialized (
      select * from unnest(p_runs, p_epochs, p_slots, p_attempts, p_nos, p_kinds, p_names, p_outcomes, p_values, p_hashes, p_tries, p_started, p_ats)
        with ordinality as g(run, epoch, slot, attempt, no, kind, name, outcome, value, hash, tries, started, at, ord)
    ), held as materialized (
      select * from :SCHEMA.hold_working(p_runs)
    ), put as (
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
      select g.run, g.slot, g.attempt, g.no, g.kind, g.name, g.outcome, g.value::json, g.hash, g.tries, g.epoch,
        coalesce(case when g.kind in ('sleep', 'event', 'child', 'race') then ( -- it began when the wait did, in another claim perhaps
          select w.started_at from :SCHEMA.wait w where w.run = g.run and w.slot = g.slot) end, :SCHEMA.from_ms(g.started)),
        :SCHEMA.from_ms(g.at)
      from given g join held h on h.key = g.run and h.epoch = g.epoch
      order by g.ord
      on conflict do nothing
      returning run, slot, attempt
    )
    select count(*), array_agg(g.ord::integer), (select bool_or(h.crashes > 0) from held h) into v_count, v_ords, v_crashed
      from put p join given g using (run, slot, attempt);
    delete from :SCHEMA.wait w using unnest(v_ords) o where w.run = p_runs[o] and w.slot = p_slots[o];
    update :SCHEMA.mail m set slot = p_slots[o] from unnest(v_ords) o where p_mails[o] is not null and m.run = p_runs[o] and m.seq = p_mails[o];
  end if;

  if v_crashed then
    update :SCHEMA.run r set crashes = 0 where r.key = any(p_runs) and r.crashes > 0 and exists (
      select from unnest(p_runs, p_epochs, p_slots, p_attempts) as g(run, epoch, slot, attempt)
      join :SCHEMA.checkpoint c on c.run = g.run and c.slot = g.slot and c.attempt = g.attempt and c.epoch = g.epoch
      where g.run = r.key and g.epoch = r.epoch and r.state = 'running');
  end if;
  if v_count = cardinality(p_runs) then
    ord := case when v_count = 1 then 1 end;
    verdict := 'ok';
    return next;
    return;
  end if;
  return query
    select g.ord::integer, case
      when c.epoch = g.epoch then 'ok'
      when c.epoch is not null then 'stale'
      else :SCHEMA.refuse(g.run, g.epoch)
    end
    from unnest(p_runs, p_epochs, p_slots, p_attempts) with ordinality as g(run, epoch, slot, attempt, ord)
    left join :SCHEMA.checkpoint c on c.run = g.run and c.slot = g.slot and c.attempt = g.attempt;
end $perdure$;

-- Records in which place of the order an outcome that someone else wrote was handed to the body.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.record_deliveries(p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_nos integer[], p_wait boolean)
returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_slots, p_attempts, p_nos) with ordinality as g(run, epoch, slot, attempt, no, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.* from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
  ), put as (
    insert into :SCHEMA.delivery (run, no, slot, attempt) select run, no, slot, attempt from own on conflict do nothing
  )
  select g.ord::integer, case when o.ord is not null then 'ok' else :SCHEMA.refusal(g.run, g.epoch) end
  from given g left join own o using (ord);
end $perdure$;

-- Records tries of steps: begun (p_errors null) or failed.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.record_tries(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_tries integer[], p_names text[], p_started float8[], p_ats float8[],
  p_errors text[], p_wait boolean
) returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_slots, p_attempts, p_tries, p_names, p_started, p_ats, p_errors)
      with ordinality as g(run, epoch, slot, attempt, try, name, started, at, error, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.* from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
  ), put as (
    insert into :SCHEMA.try as t (run, slot, attempt, try, name, started_at, finished_at, error)
    -- one row per key: a try that begins and fails within one batch is written as failed
    select distinct on (run, slot, attempt, try) run, slot, attempt, try, name, :SCHEMA.from_ms(started), :SCHEMA.from_ms(at), error::json
    from own order by run, slot, attempt, try, ord desc
    on conflict (run, slot, attempt, try) do update set started_at = excluded.started_at, finished_at = excluded.finished_at, error = excluded.error
    where t.finished_at is null
  )
  select g.ord::integer, case when o.ord is not null then 'ok' else :SCHEMA.refusal(g.run, g.epoch) end
  from given g left join own o using (ord);
end $perdure$;

-- A run's recorded outcomes with their place in the order, whoever wrote it. Called by effective and fork_run. Locks: nothing.
create function :SCHEMA.numbered(p_run bigint) returns setof :SCHEMA.checkpoint language sql stable as $perdure$
  select c.run, c.slot, c.attempt, coalesce(c.no, d.no), c.kind, c.name, c.outcome, c.value, c.hash, c.tries, c.epoch, c.started_at, c.at
  from :SCHEMA.checkpoint c
  left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt and c.no is null
  where c.run = p_run
$perdure$;

-- What counts of them: all but those that a retry of the workflow set aside.
-- Called by fork_run. Locks: nothing.
create function :SCHEMA.effective(p_run bigint) returns setof :SCHEMA.checkpoint language sql stable as $perdure$
  select c.* from :SCHEMA.numbered(p_run) c
  where not exists (
    select from :SCHEMA.round o where o.run = c.run and o.attempt >= c.attempt and c.slot = any(o.reopened))
$perdure$;
