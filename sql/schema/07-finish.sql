-- The ends of an attempt: finished, tried again, blocked.

-- Finishes runs, and tells those that wait for their end. p_reopened: for a failure, a JSON array of the slots that it came from.
-- woken, working, next_ms, untold: what tell_followers says, the same in each row.
-- Called by the flusher. Locks: runs, in key order; then those that follow them, passing over what is locked.
create function :SCHEMA.finish_runs(p_runs bigint[], p_epochs integer[], p_states text[], p_values text[], p_reopened text[], p_wait boolean)
returns table (ord integer, verdict text, woken integer, working integer, next_ms float8, untold integer) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_skipped bigint[] := coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[];
  v_count integer;
  v_followed bigint[];
begin
  if p_wait then
    perform from :SCHEMA.hold_runs(p_runs, true);
  end if;
  if cardinality(p_runs) = 1 then
    perform from :SCHEMA.run r
      where r.key = p_runs[1] and r.epoch = p_epochs[1] and r.state = 'running' and r.key <> all (v_skipped)
      for no key update skip locked;
    v_count := 0;
    if found then
      v_count := 1;
      update :SCHEMA.run r set state = p_states[1], worker = null, pausing = false, finished_at = v_now
        where r.key = p_runs[1] returning case when r.followed then p_runs end into v_followed;
      insert into :SCHEMA.outcome (run, value, reopened)
        values (p_runs[1], p_values[1]::json, case when p_reopened[1] is not null then array(select json_array_elements_text(p_reopened[1]::json)) end);
    end if;
  else
  with held as materialized (
    select * from :SCHEMA.hold_working(p_runs)
  ), done as (
    update :SCHEMA.run r set state = g.state, worker = null, pausing = false, finished_at = v_now
    from unnest(p_runs, p_epochs, p_states, p_values, p_reopened) as g(run, epoch, state, value, reopened)
    join held h on h.key = g.run and h.epoch = g.epoch
    where r.key = g.run
    returning r.key, r.followed, g.value, g.reopened
  ), put as (
    insert into :SCHEMA.outcome (run, value, reopened)
    select d.key, d.value::json, case when d.reopened is not null then array(select json_array_elements_text(d.reopened::json)) end from done d
  )
  select count(*), array_agg(key) filter (where followed) into v_count, v_followed from done;
  end if;

  if v_followed is not null then
    select t.woken, t.working, t.next_ms, t.untold into woken, working, next_ms, untold from :SCHEMA.tell_followers(v_followed) t;
  end if;
  if v_count = cardinality(p_runs) then
    ord := case when v_count = 1 then 1 end;
    verdict := 'ok';
    return next;
    return;
  end if;
  return query
  select g.ord::integer, case
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state = g.state) then 'ok'
      else :SCHEMA.refuse(g.run, g.epoch)
    end, woken, working, next_ms, untold
  from unnest(p_runs, p_epochs, p_states) with ordinality as g(run, epoch, state, ord);
end $perdure$;

-- Records the last step of runs and finishes them: record_steps and finish_runs in one, with one look at each run's row. A step that
-- succeeded or failed at its first try, so it has no wait and no mail. recorded: what record_steps would say; the rest as finish_runs. p_again: as
-- there.
-- Called by the flusher. Locks: as finish_runs.
create function :SCHEMA.end_runs(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_nos integer[], p_names text[], p_outcomes text[], p_values text[],
  p_hashes text[], p_started float8[], p_ats float8[], p_states text[], p_results text[], p_reopened text[], p_wait boolean,
  p_again boolean default true
) returns table (ord integer, verdict text, recorded text, woken integer, working integer, next_ms float8, untold integer)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_skipped bigint[] := coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[];
  v_many integer[] := case when cardinality(p_runs) > 1 then array[cardinality(p_runs)] end;
  v_count integer := 0;
  v_followed bigint[];
  v_said text[];
begin
  if v_many is not null then -- see record_steps
    if cardinality(p_epochs) = 1 then p_epochs := array_fill(p_epochs[1], v_many); end if;
    if cardinality(p_attempts) = 1 then p_attempts := array_fill(p_attempts[1], v_many); end if;
    if cardinality(p_names) = 1 then p_names := array_fill(p_names[1], v_many); end if;
    if cardinality(p_outcomes) = 1 then p_outcomes := array_fill(p_outcomes[1], v_many); end if;
    if cardinality(p_states) = 1 then p_states := array_fill(p_states[1], v_many); end if;
  end if;
  if p_wait then
    perform from :SCHEMA.hold_runs(p_runs, true);
  end if;
  if not p_again and cardinality(p_runs) = 1 then -- the same, without the arrays: less than half the time
    perform from :SCHEMA.run r
      where r.key = p_runs[1] and r.epoch = p_epochs[1] and r.state = 'running' and r.key <> all (v_skipped)
      for no key update skip locked;
    if found then
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
        values (p_runs[1], p_slots[1], p_attempts[1], p_nos[1], 'step', p_names[1], p_outcomes[1], p_values[1]::json, p_hashes[1], 1, p_epochs[1],
          :SCHEMA.from_ms(p_started[1]), :SCHEMA.from_ms(p_ats[1]))
        on conflict do nothing;
    end if;
    if found then
      update :SCHEMA.run r set state = p_states[1], worker = null, pausing = false, crashes = 0, finished_at = v_now
        where r.key = p_runs[1] returning case when r.followed then p_runs end into v_followed;
      insert into :SCHEMA.outcome (run, value, reopened)
        values (p_runs[1], p_results[1]::json, case when p_reopened[1] is not null then array(select json_array_elements_text(p_reopened[1]::json)) end);
      v_count := 1;
    end if;
  elsif not p_again then
    select count(*) into v_count
      from :SCHEMA.hold_working(p_runs) h join unnest(p_runs, p_epochs) as g(run, epoch) on g.run = h.key and g.epoch = h.epoch;
    if v_count = cardinality(p_runs) then
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
      select g.run, g.slot, g.attempt, g.no, 'step', g.name, g.outcome, g.value::json, g.hash, 1, g.epoch, :SCHEMA.from_ms(g.started), :SCHEMA.from_ms(g.at)
      from unnest(p_runs, p_epochs, p_slots, p_attempts, p_nos, p_names, p_outcomes, p_values, p_hashes, p_started, p_ats)
        as g(run, epoch, slot, attempt, no, name, outcome, value, hash, started, at);
      with done as (
        update :SCHEMA.run r set state = g.state, worker = null, pausing = false, crashes = 0, finished_at = v_now
        from unnest(p_runs, p_states, p_results, p_reopened) as g(run, state, result, reopened)
        where r.key = g.run
        returning r.key, r.followed, g.result, g.reopened
      ), stored as (
        insert into :SCHEMA.outcome (run, value, reopened)
        select d.key, d.result::json, case when d.reopened is not null then array(select json_array_elements_text(d.reopened::json)) end from done d
      )
      select array_agg(d.key) filter (where d.followed) into v_followed from done d;
    end if;
  end if;

  if v_count < cardinality(p_runs) then -- some are refused, or may be recorded already
    select case when s.ord is null then array_fill(s.verdict, array[cardinality(p_runs)]) else s.said end into v_said from (
      select min(s.ord) as ord, min(s.verdict) as verdict, array_agg(s.verdict order by s.ord) as said
      from :SCHEMA.record_steps(p_runs, p_epochs, p_slots, p_attempts, p_nos, array_fill('step'::text, array[cardinality(p_runs)]), p_names, p_outcomes,
        p_values, p_hashes, array_fill(1, array[cardinality(p_runs)]), p_started, p_ats, '{}', p_wait, true) s
    ) s;
    return query select g.ord, f.verdict, v_said[g.ord], f.woken, f.working, f.next_ms, f.untold
      from :SCHEMA.finish_runs(p_runs, p_epochs, p_states, p_results, p_reopened, p_wait) f
      join generate_series(1, cardinality(p_runs)) as g(ord) on f.ord = g.ord or f.ord is null;
    return;
  end if;
  if v_followed is not null then
    select t.woken, t.working, t.next_ms, t.untold into woken, working, next_ms, untold from :SCHEMA.tell_followers(v_followed) t;
  end if;
  ord := case when v_count = 1 then 1 end;
  verdict := 'ok';
  recorded := 'ok';
  return next;
end $perdure$;

-- Tells the runs that wait for the end of these: raises their mail counter, and wakes those that are suspended on it. One that waits for
-- many is woken when all have ended, and otherwise a little later, 0.1 ms for each, so that it replays once for many ends and not once for each.
-- What a stranger's transaction holds is passed over; the ended run is marked 'untold', and told of again by tell_untold.
-- woken, working: how many became claimable, how many are in work and should look; next_ms: until the first of those that are woken later.
-- Called where runs end. Locks: the followers, in key order, passing over what is locked; then the ended runs, which the caller holds.
create function :SCHEMA.tell_followers(p_keys bigint[]) returns table (woken integer, working integer, next_ms float8, untold integer)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_ended bigint[];
  v_topics text[];
  v_followers bigint[];
  v_held bigint[];
begin
  select array_agg(p.ended), array_agg('child:' || p.id), array_agg(p.follower) into v_ended, v_topics, v_followers from (
    select r.key as ended, r.id, r.parent as follower from :SCHEMA.run r where r.key = any(p_keys) and r.parent is not null
    union
    select r.key, r.id, f.follower from :SCHEMA.follower f join :SCHEMA.run r on r.key = f.run where f.run = any(p_keys)
  ) p;
  select array_agg(h.key) into v_held from (
    select r.key from :SCHEMA.run r where r.key = any(v_followers) order by r.key for no key update skip locked
  ) h;
  with news as materialized (
    select n.follower, count(*)::integer as ends, array_agg(n.topic) as topics
    from unnest(v_followers, v_topics) as n(follower, topic) where n.follower = any(v_held) group by n.follower
  ), weighed as materialized (
    select n.follower, m.many, m.many - n.ends as left_over,
      r.state = 'suspended' and (r.topics && n.topics or m.many <= n.ends) as wakes
    from news n join :SCHEMA.run r on r.key = n.follower
    left join lateral (
      select substr(t.topic, 10)::integer as many from unnest(r.topics) as t(topic) where starts_with(t.topic, 'children:')
    ) m on true
    where r.finished_at is null
  ), told as (
    update :SCHEMA.run r set mail = r.mail + 1,
      state = case when w.wakes then 'pending' else r.state end,
      ready_at = case when w.wakes then v_now else r.ready_at end,
      due = case when w.wakes then null when w.many is not null then least(r.due, v_now + w.many * interval '100 microseconds') else r.due end,
      topics = case
        when w.wakes then null
        when w.many is not null then array_replace(r.topics, 'children:' || w.many, 'children:' || w.left_over)
        else r.topics end
    from weighed w where r.key = w.follower
    returning w.wakes, r.state, case when w.many is not null then r.due end as due
  )
  select count(*) filter (where t.wakes), count(*) filter (where t.state = 'running'), :SCHEMA.to_ms(min(t.due)) - :SCHEMA.to_ms(v_now)
    into woken, working, next_ms from told t;

  with missed as (
    select distinct n.ended from unnest(v_ended, v_followers) as n(ended, follower)
    where n.follower <> all (coalesce(v_held, '{}')) and exists (select from :SCHEMA.run r where r.key = n.follower) -- it may be gone
  )
  update :SCHEMA.run r set untold = r.key in (select ended from missed)
    where r.key = any(p_keys) and r.untold <> (r.key in (select ended from missed));
  select count(*) into untold from :SCHEMA.run r where r.key = any(p_keys) and r.untold;
  return next;
end $perdure$;

-- Tells of ends that not all were told of. Called by the flusher soon after, and by the leader. Locks: ended runs, passing over what is
-- locked, then as tell_followers.
create function :SCHEMA.tell_untold(p_limit integer) returns table (woken integer, working integer, next_ms float8, untold integer)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_keys bigint[];
begin
  select array_agg(u.key) into v_keys from (
    select r.key from :SCHEMA.run r where r.untold order by r.key limit p_limit for no key update skip locked
  ) u;
  if v_keys is not null then
    return query select * from :SCHEMA.tell_followers(v_keys);
  end if;
end $perdure$;

-- Begins the next attempt of workflows: the failures that ended this one are set aside, what else is recorded stays.
-- p_reopened: a JSON array of slots per run. p_delays: milliseconds until the next attempt; the workflow's timeout does not wait for it.
-- due_ms: when the run is claimable by the clock, in milliseconds since 1970; null: it is now.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.next_attempts(p_runs bigint[], p_epochs integer[], p_attempts integer[], p_errors text[], p_reopened text[], p_delays float8[], p_wait boolean)
returns table (ord integer, verdict text, due_ms float8) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
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
    update :SCHEMA.run r set worker = null, attempt = g.attempt + 1, pausing = false,
      state = case when r.pausing then 'paused' else 'pending' end,
      ready_at = case when g.delay <= 0 and not r.pausing then v_now end,
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
    :SCHEMA.to_ms(d.due)
  from given g left join done d on d.key = g.run;
end $perdure$;

-- Hands back runs whose body could not begin, as the application could not make its context: nothing has run, and it is no attempt. They
-- are claimable again after p_delays milliseconds; a pause waits for its resume. due_ms: when that is, in milliseconds since 1970.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.postpone_runs(p_runs bigint[], p_epochs integer[], p_reasons text[], p_delays float8[], p_wait boolean)
returns table (ord integer, verdict text, due_ms float8) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_reasons, p_delays) with ordinality as g(run, epoch, reason, delay, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set worker = null, pausing = false, reason = g.reason,
      state = case when r.pausing then 'paused' else 'pending' end,
      due = least(v_now + :SCHEMA.ms(g.delay), r.deadline)
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    where r.key = g.run
    returning r.key, r.due
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state in ('pending', 'paused')) then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end,
    :SCHEMA.to_ms(d.due)
  from given g left join done d on d.key = g.run;
end $perdure$;

-- Sets runs aside until a person or a deploy acts; nothing is lost. Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.block_runs(p_runs bigint[], p_epochs integer[], p_reasons text[], p_wait boolean)
returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_reasons) with ordinality as g(run, epoch, reason, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set state = 'blocked', worker = null, pausing = false, reason = g.reason
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
