-- The catalogue: which workflows there are, as the launches have told, and which runs nobody serves.

create table :SCHEMA.definition (
  workflow   text not null,
  version    text not null,
  queue      text not null,
  timeout_ms float8,
  options    json,                             -- retry: the plan, but for shouldRetry
  replay     text not null check (replay in ('strict', 'flexible')),
  first_seen timestamptz not null,
  last_seen  timestamptz not null,             -- the last launch that registered it
  primary key (workflow, version)
);
comment on table :SCHEMA.definition is 'One row per workflow and version that any launch has registered. The newest version of a workflow is the one first seen last.';

-- Writes what a launch registers. Of the versions that one launch brings, the last given is the newest, by microseconds.
-- Called at launch. Locks: the definitions, in order.
create function :SCHEMA.register_definitions(
  p_workflows text[], p_versions text[], p_queues text[], p_timeouts float8[], p_options text[], p_replays text[]
) returns void language sql as $perdure$
  insert into :SCHEMA.definition as d (workflow, version, queue, timeout_ms, options, replay, first_seen, last_seen)
  select g.workflow, g.version, g.queue, g.timeout_ms, g.options::json, g.replay, c.now, c.now
  from unnest(p_workflows, p_versions, p_queues, p_timeouts, p_options, p_replays)
    with ordinality as g(workflow, version, queue, timeout_ms, options, replay, ord)
  cross join lateral (select :SCHEMA.clock() + g.ord * interval '1 microsecond' as now) c
  order by g.workflow, g.version
  on conflict (workflow, version) do update set
    queue = excluded.queue, timeout_ms = excluded.timeout_ms, options = excluded.options, replay = excluded.replay, last_seen = excluded.last_seen
$perdure$;

-- The combinations of workflow, version and queue that runs have, of one workflow or of all (null). Jumps from one to the next in the
-- index run_lane, so that it costs as much as there are combinations, however many runs there are.
-- Called by list_runs and unserved_lanes. Locks: nothing.
create function :SCHEMA.lanes_in_use(p_workflow text) returns table (workflow text, version text, queue text)
language sql stable set enable_seqscan = off set enable_bitmapscan = off set jit = off as $perdure$
  with recursive lane as (
    (
      select r.workflow, r.version, r.queue from :SCHEMA.run r
      where r.workflow >= coalesce(p_workflow, '')
      order by r.workflow, r.version, r.queue limit 1
    )
    union all
    select n.* from lane l cross join lateral (
      select r.workflow, r.version, r.queue from :SCHEMA.run r
      where (r.workflow, r.version, r.queue) > (l.workflow, l.version, l.queue)
      order by r.workflow, r.version, r.queue limit 1
    ) n
    where p_workflow is null or l.workflow = p_workflow
  )
  select * from lane l where p_workflow is null or l.workflow = p_workflow
$perdure$;

-- Workflows, versions and queues with unfinished runs that no process serves which is alive; at most p_limit.
-- Called at launch. Locks: nothing.
create function :SCHEMA.unserved_lanes(p_limit integer) returns table (workflow text, version text, queue text)
language sql stable set enable_seqscan = off set jit = off as $perdure$
  select l.workflow, l.version, l.queue from :SCHEMA.lanes_in_use(null) l
  where not :SCHEMA.served(l.workflow, l.version, l.queue) and (
    exists (
      select from :SCHEMA.run r where r.workflow = l.workflow and r.version = l.version and r.queue = l.queue
        and r.aside in ('pending', 'suspended', 'paused', 'blocked'))
    or :SCHEMA.claimable(array[l.workflow], array[l.version], array[l.queue])
    or exists (
      select from :SCHEMA.taken t cross join unnest(t.runs) as k(key) join :SCHEMA.run r on r.key = k.key and r.worker = t.worker
      where r.workflow = l.workflow and r.version = l.version and r.queue = l.queue)
  )
  order by 1, 2, 3 limit p_limit
$perdure$;
