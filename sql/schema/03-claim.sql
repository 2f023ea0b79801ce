-- Claiming runs, with all that a replay needs.

-- The runs that are claimable, by what a worker serves, so that neither history nor a backlog of others' runs is ever read. A row stands for a
-- run whose ready_at is not null, with that time, and changes under the lock of that run: who starts and who claims runs writes it, for all others
-- the trigger below. Apart from run, so that none of its indexes changes at a claim.
create table :SCHEMA.ready (
  workflow text not null,
  version  text not null,
  queue    text not null,
  priority smallint not null,
  ready_at timestamptz not null,
  run      bigint not null,
  crashes  smallint not null
)
-- As turned over as nothing else, and the index keeps pointing at what is dead until it is vacuumed.
with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index ready_claim on :SCHEMA.ready (workflow, version, queue, priority, ready_at, run);
-- The few of them that died again and again; see claim_runs.
create index ready_suspect on :SCHEMA.ready (workflow, version, queue, priority, ready_at, run) where crashes >= 3;

create function :SCHEMA.place_run() returns trigger language plpgsql set enable_seqscan = off as $perdure$
begin
  if old.ready_at is not null then
    delete from :SCHEMA.ready q
    where q.workflow = old.workflow and q.version = old.version and q.queue = old.queue and q.priority = old.priority and q.ready_at = old.ready_at
      and q.run = old.key;
  end if;
  if new.ready_at is not null then
    insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
    values (new.workflow, new.version, new.queue, new.priority, new.ready_at, new.key, new.crashes);
  end if;
  return null;
end $perdure$;
-- Not at a claim, which deletes the row itself, nor at the ends of runs, which do not name the column.
create trigger place_run after update of ready_at on :SCHEMA.run for each row
when (new.state <> 'running' and old.ready_at is distinct from new.ready_at) execute function :SCHEMA.place_run();

-- A run's unread mail after a position, oldest first, as a JSON array of [seq, name, data, reference, sent at, token]; at most 1,000.
create function :SCHEMA.unread(p_run bigint, p_after bigint) returns json language sql stable as $perdure$
  select json_agg(json_build_array(m.seq::text, m.name, m.data::text, m.reference, :SCHEMA.to_ms(m.sent_at), m.token) order by m.seq)
  from (
    select * from :SCHEMA.mail m where m.run = p_run and m.seq > p_after and m.slot is null order by m.seq limit 1000
  ) m
$perdure$;

-- Of the runs whose end a run waits for, those that have ended, as a JSON array of [id, state, value, reason, attempt]: about 4 MiB at a time, so
-- that who gets many takes them in and looks again.
create function :SCHEMA.ended(p_run bigint) returns json language sql stable as $perdure$
  select json_agg(json_build_array(e.id, e.state, e.value, e.reason, e.attempt) order by e.key)
  from (
    select c.key, c.id, c.state, c.reason, c.attempt, o.value::text as value,
      sum(coalesce(octet_length(o.value::text), 0)) over (order by c.key) - coalesce(octet_length(o.value::text), 0) as before
    from (
      select distinct substr(t.topic, 7) as id from :SCHEMA.wait w cross join unnest(w.topics) as t(topic)
      where w.run = p_run and w.kind in ('child', 'race') and starts_with(t.topic, 'child:')
    ) t
    join :SCHEMA.run c on c.id = t.id and c.finished_at is not null
    left join :SCHEMA.outcome o on o.run = c.key
  ) e where e.before < 4194304
$perdure$;

-- From which place in the claim's order a worker looks, in this session: where its last claims ended, less a second for starts that commit
-- late. While an old snapshot is held, no vacuum removes the index entries of what was claimed since, and each look from the beginning walks
-- over them all. Only the time that this saves depends on it: who finds nothing from there on looks from the beginning, and who finds
-- something does so again after ten times as long as that takes. So what becomes claimable in an earlier place waits no longer than that.
-- Called by claim_runs and start_runs. Locks: nothing.
create function :SCHEMA.claimed_until(p_worker bigint) returns table (priority smallint, ready_at timestamptz) language plpgsql stable as $perdure$
declare
  v_until text[] := string_to_array(current_setting('perdure.claimed_until', true), ' ');
begin
  priority := -32768;
  ready_at := '-infinity';
  if v_until[1] = p_worker::text and v_until[4]::float8 > extract(epoch from clock_timestamp()) then
    priority := v_until[2];
    ready_at := to_timestamp(v_until[3]::float8) - interval '1 second';
  end if;
  return next;
end $perdure$;

-- Notes how far a claim has come: of one that began at a place, and when looking from the beginning took long twice running (p_took), as a
-- busy machine makes one look take long. Called by claim_runs. Locks: nothing.
create function :SCHEMA.note_claimed(p_worker bigint, p_priority smallint, p_ready_at timestamptz, p_took interval) returns void language plpgsql as $perdure$
declare
  v_until text[] := string_to_array(current_setting('perdure.claimed_until', true), ' ');
begin
  perform set_config('perdure.claimed_until', concat_ws(' ', p_worker, p_priority, extract(epoch from p_ready_at), case
    when p_took is null then v_until[4]
    when v_until[1] = p_worker::text then extract(epoch from clock_timestamp() + 10 * p_took)::text
    else '0'
  end), false);
end $perdure$;

-- Takes up to p_limit claimable runs for a worker and returns them with input, history, waits and mail (see load_runs); those that it has in
-- memory, from its suspension p_warm_from on, without (see load_warm). backlog: there are more.
-- A run that another worker has in memory is left to it for 50 ms after it became claimable, if that one is alive and has a free slot: the last
-- row is empty then, and the caller looks again after that time. So does one who had to pass over rows that are locked: a claim locks as many as
-- its limit in each lane, and what it does not take is left to others, who may have looked meanwhile.
-- Called by the worker's claim loop. Rows of a lane are locked in the claim's order and locked rows are passed over, so workers
-- do not wait for each other; what was locked beyond the limit is free again at once. The row of ready is locked before the run's: of what another
-- has claimed since this statement began it is gone, and nothing is locked. The run's own row would be locked, and only then found to be claimed:
-- the other's next write of that run would meet that lock.
-- No merge and no hash join: of a limit that is a parameter the planner expects a tenth of the table, and would read all of it to join them.
-- A run that died three times running is a suspect: a worker holds one at a time, so that the one that kills its process takes no
-- other with it into quarantine.
-- Locks: rows of ready, each before its run, skipping what is locked.
create function :SCHEMA.claim_runs(p_worker bigint, p_lane_workflows text[], p_lane_versions text[], p_lane_queues text[], p_limit integer, p_warm_from integer)
returns setof :SCHEMA.loaded language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off set enable_hashjoin = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_begun timestamptz := clock_timestamp();
  v_priority smallint := -32768;
  v_from timestamptz := '-infinity';
  v_first_priority smallint;
  v_first timestamptz;
  v_keys bigint[];
  v_again bigint[];
  v_warm bigint[];
  v_priorities smallint[];
  v_ready timestamptz[];
  v_took interval;
  v_long boolean := false;
  v_backlog boolean := false;
begin
  if current_setting('perdure.claimed_until', true) <> '' then
    select u.priority, u.ready_at into v_priority, v_from from :SCHEMA.claimed_until(p_worker) u;
  end if;
  loop
    with lane as (
      select * from unnest(p_lane_workflows, p_lane_versions, p_lane_queues) as lane(workflow, version, queue)
    ), free as materialized ( -- materialized, so that the limited, locking subquery runs once
      select c.* from lane
      cross join lateral (
        select q.place, q.priority, q.ready_at, q.run, r.warm from (
          select q.ctid as place, q.priority, q.ready_at, q.run from :SCHEMA.ready q
          where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue and q.crashes < 3
            and (q.priority, q.ready_at) >= (v_priority, v_from)
          order by q.priority, q.ready_at, q.run
          for update skip locked
        ) q
        cross join lateral (
          select r.warm = p_worker and r.warm_no >= p_warm_from as warm from :SCHEMA.run r
          where r.key = q.run and r.ready_at = q.ready_at
            and (r.warm is null or r.warm = p_worker or r.ready_at <= v_now - interval '50 milliseconds'
              or r.warm <> all (array(select h from :SCHEMA.hungry_workers() h)))
          for no key update skip locked
        ) r
        limit p_limit
      ) c
    ), suspect as materialized (
      select c.* from lane
      cross join lateral (
        select q.place, q.priority, q.ready_at, q.run, r.warm from (
          select q.ctid as place, q.priority, q.ready_at, q.run from :SCHEMA.ready q
          where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue and q.crashes >= 3
          order by q.priority, q.ready_at, q.run
          for update skip locked
        ) q
        cross join lateral (
          select r.warm = p_worker and r.warm_no >= p_warm_from as warm from :SCHEMA.run r where r.key = q.run and r.ready_at = q.ready_at
          for no key update skip locked
        ) r
        limit 1
      ) c
      order by c.priority, c.ready_at, c.run
      limit 1
    ), next as (
      select c.* from (
        select * from free
        union all
        -- asked of a suspect only: who holds many runs looks at them all
        select * from suspect s where not exists (select from :SCHEMA.held_runs(p_worker) h join :SCHEMA.run r on r.key = h and r.crashes >= 3 and s.place is not null)
      ) c
      order by c.priority, c.ready_at, c.run
      limit p_limit
    ), gone as ( -- a row that another has deleted since this statement began is not: then that one has had the run
      delete from :SCHEMA.ready q using next n where q.ctid = n.place returning q.run, n.priority, n.ready_at, n.warm
    ), claimed as (
      update :SCHEMA.run r
      set state = 'running', worker = p_worker, epoch = r.epoch + 1, ready_at = null, reason = null, warm = null, warm_no = null,
        started_at = coalesce(r.started_at, v_now), deadline = case when r.started_at is null then least(r.deadline, v_now + :SCHEMA.ms(r.timeout_ms)) else r.deadline end
      from gone g where r.key = g.run
      returning r.key, r.epoch, g.priority, g.ready_at, coalesce(g.warm, false) as warm
    )
    select array_agg(key), array_agg(key) filter (where epoch > 1 and not warm), array_agg(key) filter (where warm), array_agg(priority), array_agg(ready_at)
      into v_keys, v_again, v_warm, v_priorities, v_ready from claimed;
    exit when v_keys is not null or v_from = '-infinity';
    v_priority := -32768;
    v_from := '-infinity';
    v_begun := clock_timestamp();
  end loop;
  v_first_priority := v_priority;
  v_first := v_from;

  if v_from = '-infinity' then
    v_took := clock_timestamp() - v_begun;
    if v_took > interval '15 milliseconds' + coalesce(cardinality(v_keys), 0) * interval '0.2 milliseconds' then
      v_long := true;
    elsif current_setting('perdure.claimed_until', true) <> '' then
      perform set_config('perdure.claimed_until', '', false);
    end if;
  end if;
  if v_keys is not null then
    perform :SCHEMA.note_taken(p_worker, v_keys);
  end if;
  if v_keys is null and v_long then
    perform :SCHEMA.note_claimed(p_worker, 0::smallint, v_now, v_took);
  end if;
  if v_keys is not null and (v_long or v_took is null or cardinality(v_keys) = p_limit) then
    select c.priority, c.ready_at into v_priority, v_from from unnest(v_priorities, v_ready) as c(priority, ready_at)
      order by c.priority desc, c.ready_at desc limit 1;
    -- What stands before the last is in work, or being claimed by others.
    v_backlog := cardinality(v_keys) = p_limit
      and :SCHEMA.claimable(p_lane_workflows, p_lane_versions, p_lane_queues, v_priority, v_from);
    if v_long or v_took is null then
      perform :SCHEMA.note_claimed(p_worker, v_priority, v_from, v_took);
    end if;
  end if;
  -- Of one that nobody has held yet there is no more than its input, and mail perhaps.
  if v_keys is not null then
    return query
      select r.key, r.id, r.workflow, r.version, r.queue, r.epoch, r.attempt, r.crashes::integer, r.mail, i.args::text, i.options::text, i.fork::text,
        :SCHEMA.to_ms(r.started_at), :SCHEMA.to_ms(r.deadline), :SCHEMA.to_ms(v_now), null::text, null::text, null::integer, null::integer,
        case when r.mail > 0 then :SCHEMA.unread(r.key, 0)::text end, r.schedule, :SCHEMA.to_ms(r.slot_at), r.flexible, r.followed, null::text, null::text,
        null::text, null::integer, null::integer, null::text, null::text, null::text, null::text, null::text, null::integer, null::float8, false, v_backlog, null::text
      from :SCHEMA.run r join :SCHEMA.input i on i.run = r.key
      where r.key = any(v_keys) and r.epoch = 1;
  end if;
  if v_again is not null then
    return query select * from :SCHEMA.load_runs(v_again, '', 0, 4194304 / cardinality(v_keys), v_backlog);
  end if;
  if v_warm is not null then
    return query select * from :SCHEMA.load_warm(v_warm, v_backlog);
  end if;
  if coalesce(cardinality(v_keys), 0) < p_limit and exists (
    select from unnest(p_lane_workflows, p_lane_versions, p_lane_queues) as lane(workflow, version, queue)
    cross join lateral (
      select from :SCHEMA.ready q
      where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue and q.crashes < 3
        and (q.priority, q.ready_at) >= (v_first_priority, v_first)
      order by q.priority, q.ready_at, q.run limit 1
    ) one
  ) then
    return query select (e.row).* from (select null:::SCHEMA.loaded as row) e;
  end if;
end $perdure$;

-- Whether a worker holds the session lock of its id, or has none to hold: p_locked.
-- Called by whoever asks who is alive. Locks: nothing.
create function :SCHEMA.holds_lock(p_id bigint, p_locked boolean) returns boolean language sql stable as $perdure$
  select not p_locked or exists (
    select from pg_catalog.pg_locks l
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
      and l.classid::bigint = (p_id >> 32) & 4294967295 and l.objid::bigint = p_id & 4294967295
  )
$perdure$;

-- The workers that are alive and have a free slot that no known work will fill. Asked only where a run is claimable that another worker has in
-- memory. Called by claim_runs. Locks: nothing.
create function :SCHEMA.hungry_workers() returns setof bigint language sql stable as $perdure$
  select w.id from :SCHEMA.worker w
  where w.hungry and w.dead_at is null and w.beat_at + w.lease > :SCHEMA.clock() and :SCHEMA.holds_lock(w.id, w.locked)
$perdure$;

-- Of runs that the claiming worker has in memory: what changes while a run is suspended. news: a JSON array of what look_runs says in due and
-- next_ms. Called by claim_runs. Locks: nothing.
create function :SCHEMA.load_warm(p_keys bigint[], p_backlog boolean) returns setof :SCHEMA.loaded language sql stable as $perdure$
  select
    r.key, r.id, r.workflow, r.version, r.queue, r.epoch, r.attempt, r.crashes, r.mail,
    null::text, null::text, null::text, :SCHEMA.to_ms(r.started_at), :SCHEMA.to_ms(r.deadline), :SCHEMA.to_ms(:SCHEMA.clock()),
    null::text, null::text, null::integer, null::integer,
    case when r.mail > 0 then ( -- as in unread, and planned once: this function is inlined, and that one cannot be
      select json_agg(json_build_array(m.seq::text, m.name, m.data::text, m.reference, :SCHEMA.to_ms(m.sent_at), m.token) order by m.seq)
      from (select * from :SCHEMA.mail m where m.run = r.key and m.slot is null order by m.seq limit 1000) m
    )::text end,
    null::text, null::float8, r.flexible, r.followed, null::text,
    case when w.ends then (select :SCHEMA.ended(r.key))::text end,
    null::text, null::integer, null::integer, null::text, null::text, null::text, null::text, null::text, null::integer, null::float8, false, p_backlog,
    json_build_array(w.due, :SCHEMA.to_ms(w.next) - :SCHEMA.to_ms(:SCHEMA.clock()))::text
  from :SCHEMA.run r
  cross join lateral (
    select json_agg(json_build_array(w.slot, json_build_object('at', :SCHEMA.to_ms(w.due), 'woken', w.woken))) filter (where w.due <= :SCHEMA.clock()) as due,
      min(w.due) filter (where w.due > :SCHEMA.clock()) as next, bool_or(w.kind in ('child', 'race')) as ends
    from :SCHEMA.wait w where w.run = r.key
  ) w
  where r.key = any(p_keys)
  order by r.key
$perdure$;

-- The effective history of runs: one row for each of up to 1,000 recorded outcomes after a slot and attempt, '' and 0 for the first (a run
-- without any: one row), the run's own columns in its first row. Outcomes that a retry of the workflow set aside are left out. About p_bytes
-- of values per run; more: there is more of this run, read it from after the last row on. In the order of the key, so that every page costs the
-- same; who has read all puts it into the order of delivery.
-- Called by claim_runs and read_runs. Locks: nothing.
create function :SCHEMA.load_runs(p_keys bigint[], p_slot text, p_attempt integer, p_bytes integer, p_backlog boolean) returns setof :SCHEMA.loaded language sql stable as $perdure$
  select
    r.key, r.id, r.workflow, r.version, r.queue, r.epoch, r.attempt, r.crashes, r.mail,
    case when h.rn is null or h.rn = 1 then i.args::text end,
    case when h.rn is null or h.rn = 1 then i.options::text end,
    case when h.rn is null or h.rn = 1 then i.fork::text end,
    :SCHEMA.to_ms(r.started_at),
    :SCHEMA.to_ms(r.deadline),
    :SCHEMA.to_ms(:SCHEMA.clock()),
    case when (h.rn is null or h.rn = 1) and r.epoch > 1 then (
      select json_agg(json_build_array(w.slot, w.kind, w.length_ms, :SCHEMA.to_ms(w.due), w.tries, w.woken, :SCHEMA.to_ms(w.started_at)))
      from :SCHEMA.wait w where w.run = r.key and w.attempt = r.attempt
    )::text end,
    case when (h.rn is null or h.rn = 1) and r.epoch > 1 then (
      select json_agg(t.slot) from :SCHEMA.try t where t.run = r.key and t.attempt = r.attempt and t.finished_at is null
    )::text end,
    case when (h.rn is null or h.rn = 1) and r.attempt > 1 then (
      select min(coalesce(c.no, d.no)) from :SCHEMA.checkpoint c
      join :SCHEMA.round o on o.run = c.run and o.attempt >= c.attempt and c.slot = any(o.reopened)
      left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt
      where c.run = r.key
    ) end,
    case when (h.rn is null or h.rn = 1) and r.attempt > 1 then greatest(
      (select max(c.no) from :SCHEMA.checkpoint c where c.run = r.key), (select max(d.no) from :SCHEMA.delivery d where d.run = r.key)
    ) end,
    case when (h.rn is null or h.rn = 1) and r.mail > 0 then (select :SCHEMA.unread(r.key, 0))::text end,
    r.schedule, :SCHEMA.to_ms(r.slot_at), r.flexible, r.followed,
    case when (h.rn is null or h.rn = 1) and r.attempt > 1 then (
      select json_agg(s.slot) from :SCHEMA.round o cross join unnest(o.reopened) as s(slot) where o.run = r.key
    )::text end,
    case when (h.rn is null or h.rn = 1) and r.epoch > 1 then (select :SCHEMA.ended(r.key))::text end,
    h.slot, h.attempt, h.no, h.kind, h.name, h.outcome, h.value, h.hash, h.tries, :SCHEMA.to_ms(h.at), coalesce(h.more, false), p_backlog, null::text
  from :SCHEMA.run r
  join :SCHEMA.input i on i.run = r.key
  left join lateral (
    select p.* from (
      select q.*, bool_or(q.cut) over () as more
      from (
        select s.*, row_number() over w as rn,
          row_number() over w > 1000 or sum(s.size) over w - s.size > p_bytes as cut
        from (
          select c.slot, c.attempt, coalesce(c.no, d.no) as no, c.kind, c.name, c.outcome, c.value::text, c.hash, c.tries, c.at,
            coalesce(octet_length(c.value::text), 0) as size -- a sleep or a timeout has no value
          from (
            select * from :SCHEMA.checkpoint c
            where c.run = r.key and (c.slot, c.attempt) > (p_slot, p_attempt)
              and (r.attempt = 1 or not exists (
                select from :SCHEMA.round o where o.run = c.run and o.attempt >= c.attempt and c.slot = any(o.reopened)))
            order by c.slot, c.attempt limit 1001
          ) c
          left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt and c.no is null
        ) s
        window w as (order by s.slot, s.attempt rows unbounded preceding)
      ) q
    ) p where not p.cut
  ) h on r.epoch > 1
  where r.key = any(p_keys)
  order by r.key, h.rn
$perdure$;

-- The same with settings of its own: to compile the query, or to sort what is left of a history instead of following the index, costs more
-- than a page.
-- Called by the engine, for the next page of a long history, and for runs that it has no more in memory. Locks: nothing.
create function :SCHEMA.read_runs(p_keys bigint[], p_slot text, p_attempt integer, p_bytes integer) returns setof :SCHEMA.loaded
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off set jit = off as $perdure$
begin
  return query select * from :SCHEMA.load_runs(p_keys, p_slot, p_attempt, p_bytes, false);
end $perdure$;
