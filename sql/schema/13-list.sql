-- What an application asks about runs: a page of them, and the history of one.

-- The key from which on runs were made at or after an instant, or later than all. Keys and times grow together, as one statement takes both;
-- who asks leaves room for statements that took long. Called by list_runs. Locks: nothing.
create function :SCHEMA.key_at(p_at timestamptz) returns bigint language plpgsql stable set enable_seqscan = off as $perdure$
declare
  v_low bigint;
  v_high bigint;
  v_middle bigint;
  v_run record;
begin
  select min(r.key), max(r.key) + 1 into v_low, v_high from :SCHEMA.run r;
  while v_low < v_high loop
    v_middle := v_low + (v_high - v_low) / 2;
    select r.key, r.created_at into v_run from :SCHEMA.run r where r.key >= v_middle order by r.key limit 1;
    if v_run.created_at >= p_at then
      v_high := v_middle;
    else
      v_low := v_run.key + 1;
    end if;
  end loop;
  return v_low;
end $perdure$;

-- Of one workflow, version and queue, the newest runs in states that most runs go through: claimable, running, completed. They are in no index
-- by state, which each run would have to change. So first the newest of all, where what is common is found at once; of what is older, claimable
-- ones in ready, running ones as workers have noted, completed ones among all.
-- Called by lane_runs. Locks: nothing.
create function :SCHEMA.common_runs(
  p_workflow text, p_version text, p_queue text, p_states text[], p_after timestamptz, p_before timestamptz, p_low bigint, p_high bigint, p_limit integer
) returns table (key bigint, id text) language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_high bigint := (
    select min(n.key) from (
      select r.key from :SCHEMA.run r
      where r.workflow = p_workflow and r.version = p_version and r.queue = p_queue and r.key >= p_low and r.key < p_high
      order by r.key desc limit 10000
    ) n);
  v_count integer;
begin
  return query
    select r.key, r.id from :SCHEMA.run r
    where r.workflow = p_workflow and r.version = p_version and r.queue = p_queue and r.key >= v_high and r.key < p_high
      and r.aside is null and r.state = any(p_states) and r.created_at >= p_after and r.created_at < p_before
    order by r.key desc limit p_limit;
  get diagnostics v_count = row_count;
  if v_count = p_limit or v_high is null then
    return;
  end if;
  if 'pending' = any(p_states) then
    return query
      select r.key, r.id from :SCHEMA.ready q join :SCHEMA.run r on r.key = q.run and r.ready_at is not null
      where q.workflow = p_workflow and q.version = p_version and q.queue = p_queue and q.run >= p_low and q.run < v_high
        and r.created_at >= p_after and r.created_at < p_before
      order by q.run desc limit p_limit;
  end if;
  if 'running' = any(p_states) then
    return query
      select distinct r.key, r.id from :SCHEMA.taken t cross join unnest(t.runs) as k(key) join :SCHEMA.run r on r.key = k.key and r.worker = t.worker
      where r.workflow = p_workflow and r.version = p_version and r.queue = p_queue and r.key >= p_low and r.key < v_high
        and r.created_at >= p_after and r.created_at < p_before
      order by r.key desc limit p_limit;
  end if;
  if 'completed' = any(p_states) then
    return query
      select r.key, r.id from :SCHEMA.run r
      where r.workflow = p_workflow and r.version = p_version and r.queue = p_queue and r.key >= p_low and r.key < v_high
        and r.state = 'completed' and r.created_at >= p_after and r.created_at < p_before
      order by r.key desc limit p_limit;
  end if;
end $perdure$;

-- The newest runs of the combinations of workflow, version and queue, and of the states, that fit; made in a span of time, with keys in a range.
-- Called by list_runs. Locks: nothing.
create function :SCHEMA.lane_runs(
  p_workflow text, p_version text, p_queue text, p_states text[], p_after timestamptz, p_before timestamptz, p_low bigint, p_high bigint, p_limit integer
) returns table (key bigint, id text) language sql stable set enable_seqscan = off set enable_bitmapscan = off set jit = off as $perdure$
  select n.key, n.id from :SCHEMA.lanes_in_use(p_workflow) l
  cross join lateral (
    (
      select r.key, r.id from :SCHEMA.run r
      where p_states is null and r.workflow = l.workflow and r.version = l.version and r.queue = l.queue
        and r.key >= p_low and r.key < p_high and r.created_at >= p_after and r.created_at < p_before
      order by r.key desc limit p_limit
    )
    union all
    select a.key, a.id from unnest(p_states) as s(state)
    cross join lateral (
      select r.key, r.id from :SCHEMA.run r
      where r.workflow = l.workflow and r.version = l.version and r.queue = l.queue and r.aside = s.state
        and r.key >= p_low and r.key < p_high and r.created_at >= p_after and r.created_at < p_before
      order by r.key desc limit p_limit
    ) a
    union all
    select c.key, c.id from :SCHEMA.common_runs(l.workflow, l.version, l.queue, p_states, p_after, p_before, p_low, p_high, p_limit) c
    where p_states && array['pending', 'running', 'completed']
  ) n
  where (p_version is null or l.version = p_version) and (p_queue is null or l.queue = p_queue)
  order by n.key desc limit p_limit
$perdure$;

-- A page of runs, newest first: those below p_before (null: from the newest on) that fit all that is not null. p_tags: all of them;
-- p_prefix, p_prefix_end: ids from the one to before the other, bytewise; p_created_after: from that instant on, p_created_before: before it.
-- Which rows are read:
--   tags or prefix  first the newest, where what is common is found at once; then all that the index has of them
--   lanes           of each combination of workflow, version and queue that fits, the newest in these states
--   newest          the rows in their order; the times bound them
-- Called by the client's list. Locks: nothing.
create function :SCHEMA.list_runs(
  p_workflow text, p_version text, p_queue text, p_states text[], p_tags text[], p_prefix text, p_prefix_end text,
  p_created_after float8, p_created_before float8, p_before bigint, p_limit integer
) returns table (key bigint, id text) language plpgsql stable set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_after timestamptz := coalesce(:SCHEMA.from_ms(p_created_after), '-infinity');
  v_before timestamptz := coalesce(:SCHEMA.from_ms(p_created_before), 'infinity');
  v_low bigint := coalesce(case when p_created_after is not null then :SCHEMA.key_at(v_after - interval '5 minutes') end, 0);
  v_high bigint := least(p_before, case when p_created_before is not null then :SCHEMA.key_at(v_before + interval '5 minutes') end, 9223372036854775807);
  v_left integer := p_limit;
  v_count integer;
  v_way text;
begin
  if p_tags is null and p_prefix is null then
    if p_workflow is null and p_version is null and p_queue is null and p_states is null then
      return query
        select r.key, r.id from :SCHEMA.run r
        where r.key >= v_low and r.key < v_high and r.created_at >= v_after and r.created_at < v_before
        order by r.key desc limit p_limit;
      return;
    end if;
    return query select n.key, n.id from :SCHEMA.lane_runs(p_workflow, p_version, p_queue, p_states, v_after, v_before, v_low, v_high, p_limit) n;
    return;
  end if;
  foreach v_way in array array['newest', case when p_tags is null then 'prefix' else 'tags' end] loop
    return query
      select c.key, c.id from (
        (
          select r.* from :SCHEMA.run r where v_way = 'newest' and r.key >= v_low and r.key < v_high order by r.key desc limit 10000
        )
        union all
        select r.* from :SCHEMA.run r where v_way = 'tags' and r.tags @> p_tags
        union all
        select r.* from :SCHEMA.run r where v_way = 'prefix' and r.id ~>=~ p_prefix and r.id ~<~ p_prefix_end
      ) c
      where (c.key + 0) >= v_low and (c.key + 0) < v_high -- + 0: not by the primary key, which would read all others too
        and c.created_at >= v_after and c.created_at < v_before
        and (p_workflow is null or c.workflow = p_workflow) and (p_version is null or c.version = p_version)
        and (p_queue is null or c.queue = p_queue) and (p_states is null or c.state = any(p_states))
        and (p_tags is null or c.tags @> p_tags) and (p_prefix is null or starts_with(c.id, p_prefix))
      order by c.key desc limit v_left;
    get diagnostics v_count = row_count;
    v_left := v_left - v_count;
    exit when v_left = 0;
    select min(n.key) into v_high from (
      select r.key from :SCHEMA.run r where r.key >= v_low and r.key < v_high order by r.key desc limit 10000
    ) n;
    exit when v_high is null;
  end loop;
end $perdure$;

-- What history shows of a slot. no: its place in the order, and the place after which a patch or a failed attempt of the workflow stands.
-- value: of a failed one the error. tries: a JSON array of [try, begun, failed, error] of those that failed.
create type :SCHEMA.history_entry as (
  no integer, slot text, attempt integer, kind text, name text, outcome text, value text, tries integer,
  started_ms float8, finished_ms float8, set_aside boolean, failures text
);

-- The tries of a slot that failed. Called by the two functions below. Locks: nothing.
create function :SCHEMA.failed_tries(p_run bigint, p_slot text, p_attempt integer) returns text language sql stable as $perdure$
  select json_agg(json_build_array(t.try, :SCHEMA.to_ms(t.started_at), :SCHEMA.to_ms(t.finished_at), t.error::text) order by t.try)::text
  from :SCHEMA.try t where t.run = p_run and t.slot = p_slot and t.attempt = p_attempt and t.error is not null
$perdure$;

-- A page of what a run was handed, in the order in which it was, and of its attempts that failed and were followed by another; from after a
-- place on, at least p_limit if there are as many.
-- Called by the handle's history. Locks: nothing.
create function :SCHEMA.told_slots(p_id text, p_after integer, p_limit integer) returns setof :SCHEMA.history_entry
language sql stable set enable_seqscan = off set jit = off as $perdure$
  with place as materialized (
    select coalesce(c.no, d.no, case when c.kind = 'patch' then (c.value #>> '{}')::integer end) as no, c.run, c.slot, c.attempt,
      case when c.kind = 'patch' then 1 else 0 end as rank, c.at
    from :SCHEMA.run r join :SCHEMA.checkpoint c on c.run = r.key
    left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt and c.no is null
    where r.id = p_id
  ), page as (
    select p.* from (
      select * from place
      union all
      select coalesce((select max(p.no) from place p where p.attempt <= o.attempt), 0), o.run, null, o.attempt, 2, o.finished_at
      from :SCHEMA.run r join :SCHEMA.round o on o.run = r.key where r.id = p_id
    ) p
    where p.no > p_after order by p.no fetch first p_limit rows with ties
  )
  select p.no, coalesce(c.slot, 'attempt#' || p.attempt), p.attempt, coalesce(c.kind, 'attempt'), coalesce(c.name, r.workflow),
    coalesce(c.outcome, 'failed'), case when p.slot is null then o.error::text else c.value::text end, coalesce(c.tries, 1),
    case when p.slot is not null then :SCHEMA.to_ms(c.started_at) else :SCHEMA.to_ms(coalesce(
      (select b.finished_at from :SCHEMA.round b where b.run = p.run and b.attempt = p.attempt - 1), r.started_at, p.at)) end,
    :SCHEMA.to_ms(p.at),
    exists (select from :SCHEMA.round b where b.run = p.run and b.attempt >= p.attempt and (p.slot is null or p.slot = any(b.reopened))),
    case when c.tries > 1 then :SCHEMA.failed_tries(p.run, p.slot, p.attempt) end
  from page p join :SCHEMA.run r on r.key = p.run
  left join :SCHEMA.checkpoint c on c.run = p.run and c.slot = p.slot and c.attempt = p.attempt
  left join :SCHEMA.round o on p.slot is null and o.run = p.run and o.attempt = p.attempt
  order by p.no, p.rank, p.at, p.slot
$perdure$;

-- What a run has open: outcomes that it has not been handed yet, waits, steps between two tries, and those that have run for a while.
-- Called by the handle's history, before told_slots, so that what is handed over meanwhile is in both and not in neither. Locks: nothing.
create function :SCHEMA.open_slots(p_id text) returns setof :SCHEMA.history_entry language sql stable set enable_seqscan = off set jit = off as $perdure$
  select null::integer, o.slot, o.attempt, o.kind, o.name, o.outcome, o.value, o.tries, :SCHEMA.to_ms(o.started_at), :SCHEMA.to_ms(o.at), false,
    :SCHEMA.failed_tries(o.run, o.slot, o.attempt)
  from (
    select distinct on (o.slot) * from (
      select 0 as rank, c.run, c.slot, c.attempt, c.kind, c.name, c.outcome, c.value::text, c.tries, c.started_at, c.at
      from :SCHEMA.run r join :SCHEMA.checkpoint c on c.run = r.key
      left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt
      where r.id = p_id and c.no is null and d.no is null and c.kind <> 'patch'
      union all
      select 1, t.run, t.slot, t.attempt, case when t.slot like 'transaction:%' then 'transaction' else 'step' end, t.name, 'running', null, t.try, t.started_at, null
      from :SCHEMA.run r join :SCHEMA.try t on t.run = r.key and t.attempt = r.attempt
      where r.id = p_id and r.state = 'running' and t.finished_at is null
        and not exists (select from :SCHEMA.checkpoint c where c.run = t.run and c.slot = t.slot and c.attempt = t.attempt)
      union all
      select 2, w.run, w.slot, w.attempt,
        case when w.kind <> 'retry' then w.kind when w.slot like 'transaction:%' then 'transaction' else 'step' end,
        (select string_agg(substr(t.topic, strpos(t.topic, ':') + 1), ', ') from unnest(w.topics) as t(topic)),
        'waiting', null, w.tries, w.started_at, null
      from :SCHEMA.run r join :SCHEMA.wait w on w.run = r.key and w.attempt = r.attempt
      where r.id = p_id and r.finished_at is null
    ) o
    order by o.slot, o.rank
  ) o
  order by o.started_at, o.slot
$perdure$;
