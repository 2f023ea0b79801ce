-- Starting runs.

-- Makes runs, one per element of the arrays, and says for each what came of it:
--   created   the run is new; leased: p_worker holds it, with epoch 1 and no claim
--   existing  the id is taken by an equal start (same workflow, same input), or p_keep says to take what there is
--   conflict  the id is taken by another workflow or another input
--   circle    the id is that of a run which waits, at the end of a chain of parents, for this very child
--   stale     a child: its parent's claim is over; busy: a stranger holds the parent, or the run whose id is taken; or that run has just expired
-- A child is started by a claim of its parent (p_parents, p_epochs); its time is within its parent's, unless it is detached. A child whose
-- id is taken is followed: the parent is told of its end.
-- Called by the client's start, the engine's children, schedules and start_run. p_lease: the caller has a free slot for this one. It is
-- leased at birth when it is due and nothing claimable stands before it in what the caller serves (p_lanes_*).
-- Locks: parents and followed runs, in key order, and the new rows; waits for a stranger that has inserted the same id and not committed.
create function :SCHEMA.start_runs(
  p_ids text[], p_workflows text[], p_versions text[], p_queues text[], p_priorities smallint[],
  p_delays float8[], p_start_ats float8[], p_timeouts float8[], p_args text[], p_hashes text[], p_options text[], p_keep boolean[],
  p_tags text[], p_parents bigint[], p_epochs integer[], p_detached boolean[], p_schedules text[], p_slots float8[],
  p_lease boolean[], p_worker bigint, p_lane_workflows text[], p_lane_versions text[], p_lane_queues text[], p_wait boolean
) returns table (ord integer, verdict text, key bigint, leased boolean, workflow text, state text, deadline_ms float8, now_ms float8)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_lease boolean := p_worker is not null and true = any(p_lease);
  v_children boolean := array_remove(p_parents, null) <> '{}';
  v_parents bigint[] := '{}';
  v_parent_epochs integer[] := '{}';
  v_parent_deadlines timestamptz[] := '{}';
  v_later timestamptz;
  v_ords integer[];
  v_keys bigint[];
  v_leased boolean[];
  v_deadlines float8[];
  v_followed bigint[];
  v_followers bigint[];
  v_ready_at timestamptz;
begin
  if v_lease and current_setting('perdure.claimed_until', true) <> '' then
    select not :SCHEMA.claimable(p_lane_workflows, p_lane_versions, p_lane_queues, u.priority, u.ready_at) into v_lease
      from :SCHEMA.claimed_until(p_worker) u;
  elsif v_lease then
    v_lease := not :SCHEMA.claimable(p_lane_workflows, p_lane_versions, p_lane_queues);
  end if;
  if v_children then
    select coalesce(array_agg(h.key), '{}'), coalesce(array_agg(h.epoch), '{}'), array_agg(h.deadline)
      into v_parents, v_parent_epochs, v_parent_deadlines
      from :SCHEMA.hold_runs(array(select distinct p from unnest(p_parents) p where p is not null), p_wait) h
      where h.state = 'running';
  end if;

  if cardinality(p_ids) = 1 and not v_children then -- the same, without the arrays: a third of the time
    v_later := greatest(:SCHEMA.from_ms(p_start_ats[1]), v_now + :SCHEMA.ms(p_delays[1]));
    leased := v_lease and coalesce(v_later <= v_now, true);
    insert into :SCHEMA.run as r (id, workflow, version, queue, priority, state, epoch, worker, ready_at, due, deadline, timeout_ms,
      tags, schedule, slot_at, created_at, started_at)
    values (p_ids[1], p_workflows[1], p_versions[1], p_queues[1], p_priorities[1],
      case when leased then 'running' else 'pending' end,
      case when leased then 1 else 0 end,
      case when leased then p_worker end,
      case when not leased and coalesce(v_later <= v_now, true) then v_now end,
      case when v_later > v_now then v_later end,
      case when leased then v_now + :SCHEMA.ms(p_timeouts[1]) end,
      p_timeouts[1],
      case when p_tags[1] is not null then array(select json_array_elements_text(p_tags[1]::json)) end, p_schedules[1], :SCHEMA.from_ms(p_slots[1]),
      v_now, case when leased then v_now end)
    on conflict (id) do nothing
    returning r.key, :SCHEMA.to_ms(r.deadline), r.ready_at into key, deadline_ms, v_ready_at;
    if key is not null then
      insert into :SCHEMA.input (run, args, hash, options) values (key, p_args[1]::json, p_hashes[1], p_options[1]::json);
      if leased then
        perform :SCHEMA.note_taken(p_worker, array[key]);
      elsif v_ready_at is not null then
        insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
        values (p_workflows[1], p_versions[1], p_queues[1], p_priorities[1], v_ready_at, key, 0);
      end if;
      ord := 1;
      verdict := 'created';
      now_ms := :SCHEMA.to_ms(v_now);
      return next;
      return;
    end if;
  else
    with given as materialized (
      select nextval($seq$:SCHEMA.run_key_seq$seq$) as key, g.*, case when not g.detached then f.deadline end as limit_at,
        v_lease and g.lease and coalesce(l.later <= v_now, true) as leased, case when l.later > v_now then l.later end as later
      from unnest(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_delays, p_start_ats, p_timeouts, p_args, p_hashes, p_options,
          p_tags, p_parents, p_epochs, p_detached, p_schedules, p_slots, p_lease)
        with ordinality as g(id, workflow, version, queue, priority, delay, start_at, timeout_ms, args, hash, options,
          tags, parent, epoch, detached, schedule, slot, lease, ord)
      left join unnest(v_parents, v_parent_epochs, v_parent_deadlines) as f(key, epoch, deadline) on f.key = g.parent and f.epoch = g.epoch
      cross join lateral (select greatest(:SCHEMA.from_ms(g.start_at), v_now + :SCHEMA.ms(g.delay)) as later) l
      where g.parent is null or f.key is not null
      order by g.id collate "C", g.ord -- two processes that start the same ids do not wait for each other crosswise
    ), made as (
      insert into :SCHEMA.run (key, id, workflow, version, queue, priority, state, epoch, worker, ready_at, due, deadline, timeout_ms,
        parent, detached, followed, tags, schedule, slot_at, created_at, started_at) overriding system value
      select key, id, workflow, version, queue, priority,
        case when leased then 'running' else 'pending' end,
        case when leased then 1 else 0 end,
        case when leased then p_worker end,
        case when not leased and later is null then v_now + ord * interval '1 microsecond' end, -- the claim keeps the order of the batch
        later,
        least(limit_at, case when leased then v_now + :SCHEMA.ms(timeout_ms) end),
        timeout_ms,
        parent, coalesce(detached, false), parent is not null,
        case when tags is not null then array(select json_array_elements_text(tags::json)) end, schedule, :SCHEMA.from_ms(slot),
        v_now, case when leased then v_now end
      from given
      on conflict (id) do nothing -- the first, of those with one id
      returning key, deadline, workflow, version, queue, priority, ready_at
    ), placed as (
      insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
      select workflow, version, queue, priority, ready_at, key, 0 from made where ready_at is not null
    ), stored as (
      insert into :SCHEMA.input (run, args, hash, options)
      select g.key, g.args::json, g.hash, g.options::json from made m join given g using (key)
    )
    select array_agg(g.ord::integer), array_agg(g.key), array_agg(g.leased), array_agg(:SCHEMA.to_ms(m.deadline))
      into v_ords, v_keys, v_leased, v_deadlines
      from made m join given g using (key);
    if true = any(v_leased) then
      perform :SCHEMA.note_taken(p_worker, array(select m.key from unnest(v_keys, v_leased) as m(key, leased) where m.leased));
    end if;

    if cardinality(v_ords) = cardinality(p_ids) then
      return query select m.ord, 'created', m.key, m.leased, null::text, null::text, m.deadline, :SCHEMA.to_ms(v_now)
        from unnest(v_ords, v_keys, v_leased, v_deadlines) as m(ord, key, leased, deadline);
      return;
    end if;
  end if;
  if p_wait and exists (
    select from unnest(p_ids, p_parents) as g(id, parent) where g.parent is null and not exists (select from :SCHEMA.run r where r.id = g.id)
  ) then -- the run that had the id has expired since
    return query select * from :SCHEMA.start_runs(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_delays, p_start_ats, p_timeouts, p_args,
      p_hashes, p_options, p_keep, p_tags, p_parents, p_epochs, p_detached, p_schedules, p_slots, p_lease, p_worker, p_lane_workflows, p_lane_versions,
      p_lane_queues, p_wait);
    return;
  end if;
  if v_children then
    select array_agg(r.key order by g.ord), array_agg(g.parent order by g.ord) into v_followed, v_followers
      from unnest(p_ids, p_workflows, p_args, p_hashes, p_keep, p_parents, p_epochs) with ordinality as g(id, workflow, args, hash, keep, parent, epoch, ord)
      join unnest(v_parents, v_parent_epochs) as f(key, epoch) on f.key = g.parent and f.epoch = g.epoch
      join :SCHEMA.run r on r.id = g.id and r.parent is distinct from g.parent and r.key <> g.parent
      join :SCHEMA.input i on i.run = r.key
      where g.keep or (r.workflow = g.workflow and :SCHEMA.same_input(i.hash, i.args::text, g.hash, g.args));
    if v_followed is not null then
      perform :SCHEMA.follow_runs(v_followed, v_followers, p_wait);
    end if;
  end if;
  return query
    select g.ord::integer,
      case
        when m.ord is not null then 'created'
        when g.parent is not null and not exists (
          select from unnest(v_parents, v_parent_epochs) as f(key, epoch) where f.key = g.parent and f.epoch = g.epoch) then :SCHEMA.refusal(g.parent, g.epoch)
        when r.key is null then 'busy'
        when not (g.keep or (r.workflow = g.workflow and :SCHEMA.same_input(i.hash, i.args::text, g.hash, g.args))) then 'conflict'
        when g.parent is null or r.parent = g.parent then 'existing'
        when exists (select from :SCHEMA.follower f where f.run = r.key and f.follower = g.parent) then 'existing'
        when :SCHEMA.waits_for(g.parent, r.key) then 'circle'
        else 'busy'
      end,
      r.key, coalesce(m.leased, false), r.workflow, r.state, m.deadline, :SCHEMA.to_ms(v_now)
    from unnest(p_ids, p_workflows, p_args, p_hashes, p_keep, p_parents, p_epochs) with ordinality as g(id, workflow, args, hash, keep, parent, epoch, ord)
    left join :SCHEMA.run r on r.id = g.id
    left join :SCHEMA.input i on i.run = r.key
    left join unnest(v_ords, v_leased, v_deadlines) as m(ord, leased, deadline) on m.ord = g.ord;
end $perdure$;

-- Makes runs that may begin at once, have no parent, schedule or tags, and are left to be claimed, under ids that nobody else can have, as the
-- library has drawn them: as start_runs, without looking whether an id is taken. One row answers for all. An id that is taken after all, because
-- the statement is issued again, is an error (unique_violation), and nothing is made: then start_runs is asked.
-- Called by the client's start, for many at once. Locks: the new rows.
create function :SCHEMA.start_new_runs(
  p_ids text[], p_workflows text[], p_versions text[], p_queues text[], p_priorities smallint[], p_timeouts float8[],
  p_args text[], p_hashes text[], p_options text[]
) returns table (ord integer, verdict text, key bigint, leased boolean, workflow text, state text, deadline_ms float8, now_ms float8)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  with given as materialized (
    select nextval($seq$:SCHEMA.run_key_seq$seq$) as key, v_now + g.ord * interval '1 microsecond' as ready_at, g.* -- the claim keeps the order of the batch
    from unnest(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_timeouts, p_args, p_hashes, p_options)
      with ordinality as g(id, workflow, version, queue, priority, timeout_ms, args, hash, options, ord)
  ), made as (
    insert into :SCHEMA.run (key, id, workflow, version, queue, priority, state, ready_at, timeout_ms, created_at) overriding system value
    select key, id, workflow, version, queue, priority, 'pending', ready_at, timeout_ms, v_now from given
  ), placed as (
    insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
    select workflow, version, queue, priority, ready_at, key, 0 from given
  )
  insert into :SCHEMA.input (run, args, hash, options) select key, args::json, hash, options::json from given;
  verdict := 'created';
  leased := false;
  now_ms := :SCHEMA.to_ms(v_now);
  return next;
end $perdure$;

-- As start_runs, each run by itself: an id that a stranger has inserted and not committed is 'busy', and the others do not wait for it. Once ten
-- were, the rest is 'busy' untried: a stranger that holds so many holds them too, and each costs a wait.
-- Called by the flusher when a batch has met a lock. Locks: as start_runs.
create function :SCHEMA.start_runs_apart(
  p_ids text[], p_workflows text[], p_versions text[], p_queues text[], p_priorities smallint[],
  p_delays float8[], p_start_ats float8[], p_timeouts float8[], p_args text[], p_hashes text[], p_options text[], p_keep boolean[],
  p_tags text[], p_parents bigint[], p_epochs integer[], p_detached boolean[], p_schedules text[], p_slots float8[],
  p_lease boolean[], p_worker bigint, p_lane_workflows text[], p_lane_versions text[], p_lane_queues text[], p_wait boolean
) returns table (ord integer, verdict text, key bigint, leased boolean, workflow text, state text, deadline_ms float8, now_ms float8)
language plpgsql set lock_timeout = '10ms' as $perdure$
declare
  g record;
  v_busy integer := 0;
begin
  for g in
    select * from unnest(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_delays, p_start_ats, p_timeouts, p_args, p_hashes, p_options, p_keep,
        p_tags, p_parents, p_epochs, p_detached, p_schedules, p_slots, p_lease)
      with ordinality as g(id, workflow, version, queue, priority, delay, start_at, timeout_ms, args, hash, options, keep,
        tags, parent, epoch, detached, schedule, slot, lease, ord)
  loop
    begin
      if v_busy < 10 then
        return query select g.ord::integer, s.verdict, s.key, s.leased, s.workflow, s.state, s.deadline_ms, s.now_ms
          from :SCHEMA.start_runs(array[g.id], array[g.workflow], array[g.version], array[g.queue], array[g.priority],
            array[g.delay], array[g.start_at], array[g.timeout_ms], array[g.args], array[g.hash], array[g.options], array[g.keep],
            array[g.tags], array[g.parent], array[g.epoch], array[g.detached], array[g.schedule], array[g.slot],
            array[g.lease], p_worker, p_lane_workflows, p_lane_versions, p_lane_queues, p_wait) s;
        continue;
      end if;
    exception when lock_not_available then
      v_busy := v_busy + 1;
    end;
    if g.parent is not null then
      perform :SCHEMA.skip_runs(array[g.parent]); -- no later write of the parent overtakes this one
    end if;
    ord := g.ord;
    verdict := 'busy';
    leased := false;
    return next;
  end loop;
end $perdure$;

-- Makes parents followers of runs that are not their children and whose id they asked for. The followed row is locked, so that its end
-- either sees the follower or is seen by it. One that waits for the parent is not followed. One that a stranger holds is not either, and no
-- later write of the parent overtakes its start, which is 'busy'.
-- Called by start_runs. Locks: the followed runs, in key order, passing over what a stranger holds (not if p_wait).
create function :SCHEMA.follow_runs(p_runs bigint[], p_followers bigint[], p_wait boolean) returns void language plpgsql as $perdure$
declare
  v_held bigint[];
begin
  select coalesce(array_agg(h.key), '{}') into v_held from :SCHEMA.hold_runs(p_runs, p_wait) h;
  for i in 1 .. cardinality(p_runs) loop -- one after the other: of two that name each other, the second sees the first
    if p_runs[i] <> all (v_held) then
      perform :SCHEMA.skip_runs(p_followers[i : i]);
    elsif not :SCHEMA.waits_for(p_followers[i], p_runs[i]) then
      insert into :SCHEMA.follower (run, follower) values (p_runs[i], p_followers[i]) on conflict do nothing;
    end if;
  end loop;
  update :SCHEMA.run r set followed = true where r.key = any(v_held) and not r.followed;
end $perdure$;

-- Whether one run is another, or its end is waited for by that other: as its child, as one that it follows, or down a chain of those.
-- Called by start_runs, which has locked both, so that of two runs that name each other the second sees the first. Locks: nothing.
create function :SCHEMA.waits_for(p_run bigint, p_ancestor bigint) returns boolean language sql stable as $perdure$
  with recursive line(key) as (
    select p_run
    union
    select w.waiter from line l cross join lateral (
      select r.parent as waiter from :SCHEMA.run r where r.key = l.key and r.parent is not null
      union all
      select f.follower from :SCHEMA.follower f where f.run = l.key
    ) w
  )
  select exists (select from line where key = p_ancestor)
$perdure$;

-- Whether two inputs are equal: by their canonical hashes, or, where one came from SQL and has none, as JSON.
create function :SCHEMA.same_input(p_hash text, p_args text, p_other_hash text, p_other_args text) returns boolean language plpgsql stable as $perdure$
begin
  if p_hash is not null and p_other_hash is not null then
    return p_hash = p_other_hash;
  end if;
  return p_args::jsonb - 'from' = p_other_args::jsonb - 'from';
exception when others then -- what jsonb cannot hold, a NUL for one, SQL did not send
  return p_args = p_other_args;
end $perdure$;

-- Hints at a run that was started in a user's transaction: at work, if a worker is idle, or at a timer, which the leader sets itself.
-- Called by start_run, and by the library in the caller's transaction. Locks: nothing.
create function :SCHEMA.tell_start(p_delayed boolean) returns boolean language plpgsql as $perdure$
begin
  if p_delayed then
    perform :SCHEMA.hint('t');
  elsif (select w.hungry from :SCHEMA.wanted(0) w) then
    perform :SCHEMA.hint('w');
  end if;
  return true;
end $perdure$;

-- Whether anything that a worker serves can be claimed, from a place in the claim's order on. Called by start_runs, claim_runs and peek.
-- Locks: nothing.
create function :SCHEMA.claimable(
  p_workflows text[], p_versions text[], p_queues text[], p_priority smallint default -32768, p_ready_at timestamptz default '-infinity'
) returns boolean language plpgsql stable as $perdure$
begin
  return exists (
    select from unnest(p_workflows, p_versions, p_queues) as lane(workflow, version, queue)
    cross join lateral (
      select from :SCHEMA.ready q
      where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue and (q.priority, q.ready_at) >= (p_priority, p_ready_at)
      limit 1
    ) one
  );
end $perdure$;
