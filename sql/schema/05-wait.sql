-- Waiting: what a run waits for is written when the wait begins; the run is given up when nothing else is left to do.

-- Begins waits. A wait that is there keeps its start, so a changed length counts from it, and stays woken; a retry of a step begins anew.
-- due_ms: when it is due, in milliseconds since 1970; null: no timer. p_topics: a JSON array each. ended: a run whose end it waits for has ended
-- before, when nobody was told: that is news, so the mail counter is raised, and no suspension gets past it.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.begin_waits(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_kinds text[], p_topics text[],
  p_lengths float8[], p_untils float8[], p_tries integer[], p_wait boolean
) returns table (ord integer, verdict text, due_ms float8, ended boolean) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_ended bigint[];
begin
  select array_agg(g.ord) into v_ended
    from unnest(p_kinds, p_topics) with ordinality as g(kind, topics, ord)
    where g.kind in ('child', 'race') and exists (
      select from json_array_elements_text(g.topics::json) as t(topic) join :SCHEMA.run c on c.id = substr(t.topic, 7)
      where starts_with(t.topic, 'child:') and c.finished_at is not null
    );
  return query
  with given as materialized (
    select g.*, array(select json_array_elements_text(g.topics_json::json)) as topics
    from unnest(p_runs, p_epochs, p_slots, p_attempts, p_kinds, p_topics, p_lengths, p_untils, p_tries)
      with ordinality as g(run, epoch, slot, attempt, kind, topics_json, length, until, tries, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.* from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
  ), put as (
    insert into :SCHEMA.wait as w (run, slot, attempt, kind, topics, started_at, length_ms, due, tries)
    select run, slot, attempt, kind, topics, v_now, length, coalesce(:SCHEMA.from_ms(until), v_now + :SCHEMA.ms(length)), tries from own
    on conflict (run, slot) do update set
      started_at = case when w.kind = 'retry' then excluded.started_at else w.started_at end,
      length_ms = excluded.length_ms,
      due = case when w.woken then w.due when w.kind = 'retry' or excluded.length_ms is null then excluded.due else w.started_at + :SCHEMA.ms(excluded.length_ms) end,
      tries = excluded.tries, topics = excluded.topics
    returning run, slot, due
  ), news as (
    update :SCHEMA.run r set mail = r.mail + 1 where r.key in (select run from own where ord = any(v_ended))
  )
  select g.ord::integer, case when o.ord is not null then 'ok' else :SCHEMA.refusal(g.run, g.epoch) end,
    :SCHEMA.to_ms(p.due),
    coalesce(g.ord = any(v_ended), false)
  from given g left join own o using (ord) left join put p on p.run = g.run and p.slot = g.slot;
end $perdure$;

-- Gives runs up until one of the named slots has news. Not if there is news already: the mail counter, read under the row's lock,
-- is not the one that the claim has seen ('mail'), or a timer is due ('due'). Then the claim goes on and looks. A run that is to be paused
-- is paused here. One that waits for many children is told of them by number ('children:1000'), so that its row stays narrow; see tell_followers.
-- due_ms: when the run's first timer is due, in milliseconds since 1970: so the time that the answer takes is none of it. p_slots: a JSON array of slots per run. p_warm_nos: the worker keeps it in memory, as the
-- how-manieth of its suspensions; null: it does not.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.suspend_runs(p_runs bigint[], p_epochs integer[], p_mails integer[], p_slots text[], p_warm_nos integer[], p_worker bigint, p_wait boolean)
returns table (ord integer, verdict text, due_ms float8) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_mails, p_slots, p_warm_nos) with ordinality as g(run, epoch, mail, slots, warm_no, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.ord, g.run, g.warm_no, h.mail <> g.mail as mailed, least(w.due, h.deadline) as due,
      case when w.children > 16 then array_append(coalesce(w.others, '{}'), 'children:' || w.children) else coalesce(w.topics, '{}') end as topics
    from given g
    join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    cross join lateral (
      select min(w.due) as due, array_agg(t.topic) filter (where t.topic is not null) as topics, array_agg(t.topic) filter (where not starts_with(t.topic, 'child:')) as others,
        count(*) filter (where starts_with(t.topic, 'child:')) as children
      from json_array_elements_text(g.slots::json) as s(slot)
      join :SCHEMA.wait w on w.run = g.run and w.slot = s.slot left join unnest(w.topics) as t(topic) on true
    ) w
  ), done as (
    update :SCHEMA.run r set worker = null, pausing = false,
      state = case when r.pausing then 'paused' else 'suspended' end,
      due = case when not r.pausing then o.due end,
      topics = case when not r.pausing then o.topics end,
      warm = case when o.warm_no is not null then p_worker end, warm_no = o.warm_no
    from own o where r.key = o.run and not o.mailed and coalesce(o.due > v_now, true)
    returning r.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when o.mailed then 'mail'
      when o.ord is not null then 'due'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state in ('suspended', 'paused')) then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end,
    :SCHEMA.to_ms(o.due)
  from given g left join own o using (ord) left join done d on d.key = g.run;
end $perdure$;

-- Takes a suspended run back for the claim that suspended it: its body, still in memory, goes on by itself (an await of its own ended).
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.reclaim_runs(p_runs bigint[], p_epochs integer[], p_worker bigint, p_wait boolean)
returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  perform :SCHEMA.note_taken(p_worker, p_runs);
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs) with ordinality as g(run, epoch, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set state = 'running', worker = p_worker, epoch = r.epoch + 1, due = null, topics = null, warm = null, warm_no = null
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'suspended'
    where r.key = g.run
    returning r.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state = 'suspended') then 'busy'
      else 'stale'
    end
  from given g left join done d on d.key = g.run;
end $perdure$;

-- What is new for runs: the mail counter, unread mail after a position, the slots whose timer is due, the ends that were waited for, and
-- whether the claim still holds, and is to be given up for a pause.
-- next_ms: milliseconds until the next timer of an open wait.
-- Called by the engine after a hint, after a timer, and when a suspension was refused. One snapshot, so counter and mail agree.
-- Locks: nothing.
create function :SCHEMA.look_runs(p_runs bigint[], p_epochs integer[], p_after bigint[])
returns table (run bigint, held boolean, pausing boolean, mail integer, unread text, due text, ended text, next_ms float8, now_ms float8) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
  select g.run,
    r.epoch = g.epoch and r.state = 'running',
    r.pausing,
    r.mail,
    :SCHEMA.unread(g.run, g.after)::text,
    w.due::text,
    (case when w.ends then :SCHEMA.ended(g.run) end)::text,
    :SCHEMA.to_ms(w.next) - :SCHEMA.to_ms(:SCHEMA.clock()),
    :SCHEMA.to_ms(:SCHEMA.clock())
  from unnest(p_runs, p_epochs, p_after) as g(run, epoch, after)
  join :SCHEMA.run r on r.key = g.run
  cross join lateral (
    select json_agg(json_build_array(w.slot, json_build_object('at', :SCHEMA.to_ms(w.due), 'woken', w.woken))) filter (where w.due <= :SCHEMA.clock()) as due,
      min(w.due) filter (where w.due > :SCHEMA.clock()) as next, bool_or(w.kind in ('child', 'race')) as ends
    from :SCHEMA.wait w where w.run = g.run
  ) w
$perdure$;

-- Ends the sleeps of runs early, not those that are over by the clock. Says 'woken', or the state of a run that is not asleep, or null: no such run.
-- Called by the handle's wake. Locks: runs, in key order.
create function :SCHEMA.wake_runs(p_ids text[]) returns table (id text, verdict text) language plpgsql as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  -- A statement of its own: a sleep that begins meanwhile is seen by one that begins once the row is locked.
  perform from :SCHEMA.run r where r.id = any(p_ids) order by r.key for no key update;
  return query
  with held as materialized (
    select r.key, r.id, r.state from :SCHEMA.run r where r.id = any(p_ids)
  ), asleep as (
    update :SCHEMA.wait w set due = v_now, woken = true
    from held h where w.run = h.key and w.kind = 'sleep' and w.due > v_now and h.state in ('running', 'suspended')
    returning w.run
  ), told as (
    update :SCHEMA.run r set mail = r.mail + 1,
      state = case r.state when 'suspended' then 'pending' else r.state end,
      ready_at = case r.state when 'suspended' then v_now end, due = null, topics = null
    where r.key in (select run from asleep)
    returning r.key
  )
  select h.id, case when t.key is not null then 'woken' else h.state end from held h left join told t using (key);
  perform :SCHEMA.hint('cw');
end $perdure$;

-- Makes runs claimable whose timer is due: sleeps, timeouts of waits, retries, delayed starts. next_ms: until the next timer of all, or
-- the next slot of a schedule, counted from now_ms; a run that is due and that somebody holds is looked for again after 100 ms. scheduled: slots are due.
-- No merge and no hash join: of a limit that is a parameter the planner expects a tenth of the table, and would read all of it to join them.
-- Called by the leader's sweeper, and by a worker for the timers of runs that it suspended.
-- Locks: runs, in the order of their timers, skipping what is locked.
create function :SCHEMA.wake_due(p_limit integer) returns table (woken integer, next_ms float8, now_ms float8, scheduled boolean) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_mergejoin = off set enable_hashjoin = off set jit = off as $perdure$
declare
  v_now timestamptz := :SCHEMA.clock();
  v_due integer;
begin
  with late as materialized ( -- materialized, so that the limited, locking subquery runs once
    select r.key from :SCHEMA.run r where r.timer <= v_now order by r.timer limit p_limit for no key update skip locked
  ), done as (
    update :SCHEMA.run r set state = 'pending', ready_at = r.due, due = null, topics = null from late where r.key = late.key returning 1
  )
  select (select count(*) from done),
      (select count(*) from (select from :SCHEMA.run r where r.timer <= v_now order by r.timer limit p_limit) d)
    into woken, v_due;
  select :SCHEMA.to_ms(least(
      (select min(r.timer) from :SCHEMA.run r where r.timer > v_now),
      (select min(s.due_at) from :SCHEMA.schedule s where s.due_at > v_now)
    )) - :SCHEMA.to_ms(v_now), exists (select from :SCHEMA.schedule s where s.due_at <= v_now)
    into next_ms, scheduled;
  if woken < v_due then
    next_ms := least(next_ms, 100);
  end if;
  now_ms := :SCHEMA.to_ms(v_now);
  return next;
end $perdure$;
