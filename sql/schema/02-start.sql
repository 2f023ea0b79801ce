-- Starting runs.

-- Makes runs, one per element of the arrays, and says for each what came of it:
--   created   the run is new; leased: p_worker holds it, with epoch 1 and no claim
--   existing  the id is taken by an equal start (same workflow, same input), or p_keep says to take what there is
--   conflict  the id is taken by another workflow or another input
-- Called by the client's start and by start_run. p_lease: the caller has a free slot for this one. It is leased at birth when it
-- is due and nothing claimable stands before it in what the caller serves (p_lanes_*).
-- Locks: nothing but the new rows; waits for a stranger that has inserted the same id and not committed.
create function :SCHEMA.start_runs(
  p_ids text[], p_workflows text[], p_versions text[], p_queues text[], p_priorities smallint[],
  p_delays float8[], p_start_ats float8[], p_timeouts float8[], p_args text[], p_hashes text[], p_options text[], p_keep boolean[],
  p_lease boolean[], p_worker bigint, p_lane_workflows text[], p_lane_versions text[], p_lane_queues text[]
) returns table (ord integer, verdict text, key bigint, leased boolean, workflow text, state text, now_ms float8) language plpgsql set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_lease boolean := p_worker is not null and true = any(p_lease) and not :SCHEMA.claimable(p_lane_workflows, p_lane_versions, p_lane_queues);
  v_ords integer[];
  v_keys bigint[];
  v_leased boolean[];
begin
  with given as materialized (
    select distinct on (g.id) g.*,
      greatest(:SCHEMA.from_ms(g.start_at), v_now + :SCHEMA.ms(g.delay)) as later
    from unnest(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_delays, p_start_ats, p_timeouts, p_args, p_hashes, p_options, p_lease)
      with ordinality as g(id, workflow, version, queue, priority, delay, start_at, timeout_ms, args, hash, options, lease, ord)
    order by g.id, g.ord
  ), born as materialized (
    select g.*, g.later > v_now as waits, v_lease and g.lease and coalesce(g.later <= v_now, true) as leased from given g
    order by g.id -- two processes that start the same ids do not wait for each other crosswise
  ), made as (
    insert into :SCHEMA.run (id, workflow, version, queue, priority, state, epoch, worker, ready_at, due, deadline, timeout_ms, created_at, started_at)
    select id, workflow, version, queue, priority,
      case when leased then 'running' else 'pending' end,
      case when leased then 1 else 0 end,
      case when leased then p_worker end,
      case when not leased and not coalesce(waits, false) then v_now + ord * interval '1 microsecond' end, -- the claim keeps the order of the batch
      case when waits then later end,
      case when leased then v_now + :SCHEMA.ms(timeout_ms) end,
      timeout_ms, v_now,
      case when leased then v_now end
    from born
    on conflict (id) do nothing
    returning key, id, worker is not null as leased
  ), stored as (
    insert into :SCHEMA.input (run, args, hash, options)
    select m.key, g.args::json, g.hash, g.options::json from made m join given g using (id)
  )
  select array_agg(g.ord::integer), array_agg(m.key), array_agg(m.leased)
    into v_ords, v_keys, v_leased
    from made m join given g using (id);

  if cardinality(v_ords) = cardinality(p_ids) then
    return query select m.ord, 'created', m.key, m.leased, null::text, null::text, :SCHEMA.to_ms(v_now)
      from unnest(v_ords, v_keys, v_leased) as m(ord, key, leased);
    return;
  end if;
  return query
    select g.ord::integer,
      case
        when m.ord is not null then 'created'
        when g.keep or (r.workflow = g.workflow and i.hash = g.hash) then 'existing'
        else 'conflict'
      end,
      r.key, coalesce(m.leased, false), r.workflow, r.state, :SCHEMA.to_ms(v_now)
    from unnest(p_ids, p_workflows, p_hashes, p_keep) with ordinality as g(id, workflow, hash, keep, ord)
    join :SCHEMA.run r on r.id = g.id
    join :SCHEMA.input i on i.run = r.key
    left join unnest(v_ords, v_leased) as m(ord, leased) on m.ord = g.ord;
end $perdure$;

-- Whether anything that a worker serves can be claimed. Called by start_runs and peek. Locks: nothing.
create function :SCHEMA.claimable(p_workflows text[], p_versions text[], p_queues text[]) returns boolean language sql stable as $perdure$
  select exists (
    select from unnest(p_workflows, p_versions, p_queues) as lane(workflow, version, queue)
    cross join lateral (
      select from :SCHEMA.run r
      where r.workflow = lane.workflow and r.version = lane.version and r.queue = lane.queue and r.ready_at is not null
      limit 1
    ) one
  )
$perdure$;
