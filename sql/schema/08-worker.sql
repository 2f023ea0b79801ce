-- Workers: who is alive, whose runs are taken back, who leads.

-- Notes which runs a worker takes; now and then the rows before go of which it has given up all, so that there are never many. Called by who
-- takes runs: start_runs, claim_runs, reclaim_runs. Locks: as tidy_taken.
create function :SCHEMA.note_taken(p_worker bigint, p_runs bigint[]) returns void language plpgsql as $perdure$
declare
  v_no bigint;
begin
  insert into :SCHEMA.taken (worker, runs) values (p_worker, p_runs) returning no into v_no;
  if v_no % 16 = 0 then
    perform :SCHEMA.tidy_taken(p_worker, v_no - 64);
  end if;
end $perdure$;

-- In place of the rows of what a worker has taken, up to one, writes a row of what it holds of that. Who takes one of these runs meanwhile
-- writes a row of its own. Called by note_taken, at each beat, and when the worker is gone. Locks: the rows, skipping what is held.
create function :SCHEMA.tidy_taken(p_worker bigint, p_until bigint) returns void language sql as $perdure$
  with old as materialized (
    select t.no, t.runs from :SCHEMA.taken t where t.worker = p_worker and t.no <= p_until order by t.no for update skip locked
  ), gone as (
    delete from :SCHEMA.taken t using old o where t.worker = p_worker and t.no = o.no
  )
  insert into :SCHEMA.taken (worker, runs)
  select p_worker, array_agg(distinct r.key) from old o
  cross join lateral (select r.key from :SCHEMA.run r where r.key = any(o.runs) and r.worker = p_worker offset 0) r
  having count(*) > 0
$perdure$;

-- The runs that a worker holds. Here, above and below a subquery of its own (offset) finds the runs by their keys: by its statistics, of a worker
-- there is a run or none, and the planner would read the whole table for it first. Locks: nothing.
create function :SCHEMA.held_runs(p_worker bigint) returns setof bigint language sql stable as $perdure$
  select distinct r.key from :SCHEMA.taken t
  cross join lateral (select r.key from :SCHEMA.run r where r.key = any(t.runs) and r.worker = t.worker offset 0) r
  where t.worker = p_worker
$perdure$;

-- Whether it holds any: what it has taken last, it probably does. Locks: nothing.
create function :SCHEMA.holds_runs(p_worker bigint) returns boolean language sql stable as $perdure$
  select exists (
    select from (select t.runs from :SCHEMA.taken t where t.worker = p_worker order by t.no desc) t
    cross join lateral (select from :SCHEMA.run r where r.key = any(t.runs) and r.worker = p_worker offset 0) r
  )
$perdure$;

-- Enters a process, with what it serves. Called at launch, and after a beat that found itself buried. Refuses (PD006) a process whose release
-- does not know what a migration says it must. Locks: the worker's row, its lanes.
create function :SCHEMA.enter_worker(p_id bigint, p_name text, p_lease_ms float8, p_lane_workflows text[], p_lane_versions text[], p_lane_queues text[], p_knows text)
returns void language plpgsql as $perdure$
declare
  v_name text;
  v_works_with text;
begin
  insert into :SCHEMA.worker (id, name, started_at, beat_at, lease, knows)
  values (p_id, p_name, :SCHEMA.clock(), :SCHEMA.clock(), :SCHEMA.ms(p_lease_ms), p_knows)
  on conflict (id) do update set beat_at = excluded.beat_at, dead_at = null;
  -- Behind the insert, which waits for a migration under way that locks older processes out.
  select m.name, m.works_with into v_name, v_works_with from :SCHEMA.migrations m
  where m.works_with collate "C" > p_knows order by m.name desc limit 1;
  if found then
    raise exception using errcode = 'PD006', message = format('migration %s was applied, which works with no process that does not know %s; '
      || 'this one knows none but those up to %s: upgrade the perdure package', v_name, v_works_with, p_knows);
  end if;
  insert into :SCHEMA.lane (workflow, version, queue, worker)
  select distinct l.workflow, l.version, l.queue, p_id from unnest(p_lane_workflows, p_lane_versions, p_lane_queues) as l(workflow, version, queue)
  on conflict do nothing;
  perform :SCHEMA.hint('n');
end $perdure$;

-- The one heartbeat of a process: renews the lease on all its runs, and the lead if it is its own or free. alive false: it was buried,
-- its runs are others'. others: live processes beside it. untidy: it leads, and there is something to sweep. holds: how many runs.
-- Locks: the worker's row, the leader's, its rows of taken, skipping what is held.
create function :SCHEMA.beat(p_id bigint) returns table (alive boolean, others integer, leads boolean, untidy boolean, holds integer, now_ms float8) language plpgsql as $perdure$
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  update :SCHEMA.worker w set beat_at = v_now where w.id = p_id and w.dead_at is null;
  alive := found;
  select count(*) into others from :SCHEMA.worker w where w.id <> p_id and w.dead_at is null and w.beat_at + w.lease > v_now;
  leads := alive and :SCHEMA.lead(p_id);
  perform :SCHEMA.tidy_taken(p_id, 9223372036854775807);
  untidy := leads and (exists (select from :SCHEMA.run r where r.untold)
    or exists (select from :SCHEMA.schedule_trace t where t.at < v_now - interval '90 days')
    or exists (select from :SCHEMA.taken t where not exists (select from :SCHEMA.worker w where w.id = t.worker)) or exists (
    select from :SCHEMA.worker w where w.id <> p_id and case
      when w.dead_at is null then w.beat_at + w.lease < v_now
      else w.dead_at < v_now - interval '1 day' or :SCHEMA.holds_runs(w.id)
    end
  ));
  select count(*) into holds from :SCHEMA.held_runs(p_id);
  now_ms := :SCHEMA.to_ms(v_now);
  return next;
end $perdure$;

-- Takes or keeps the lead for three beats. It is free when its time is over, or when its holder was buried or holds its session lock no
-- more. It is only an optimisation: two leaders do no harm. Locks: the leader's row, skipping it if held.
create function :SCHEMA.lead(p_id bigint) returns boolean language plpgsql as $perdure$
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  perform from :SCHEMA.leader l
    where l.worker = p_id or l.until < v_now
      or not exists (select from :SCHEMA.worker w where w.id = l.worker and w.dead_at is null)
      or not exists (
        select from pg_catalog.pg_locks k
        where k.locktype = 'advisory' and k.granted and k.objsubid = 1
          and k.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
          and k.classid::bigint = (l.worker >> 32) & 4294967295 and k.objid::bigint = l.worker & 4294967295
      )
    for update skip locked;
  if found then
    update :SCHEMA.leader set worker = p_id, until = v_now + (select w.lease / 2 from :SCHEMA.worker w where w.id = p_id);
  end if;
  return found;
end $perdure$;

-- What a process wants to hear of. Locks: the worker's row.
create function :SCHEMA.want(p_id bigint, p_hungry boolean, p_watching boolean, p_reading boolean) returns void language sql as $perdure$
  update :SCHEMA.worker set hungry = p_hungry, watching = p_watching, reading = p_reading where id = p_id
$perdure$;

-- Whether anybody else wants to hear of work, of finishes, of what is published. Called by tell_start. Locks: nothing.
create function :SCHEMA.wanted(p_id bigint) returns table (hungry boolean, watching boolean, reading boolean) language sql stable as $perdure$
  select coalesce(bool_or(w.hungry), false), coalesce(bool_or(w.watching), false), coalesce(bool_or(w.reading), false)
  from :SCHEMA.worker w where w.id <> p_id and w.dead_at is null and w.beat_at + w.lease > :SCHEMA.clock()
$perdure$;

-- What an idle process asks now and then, behind the hints: is there work for it, do others hold runs, when is the next timer, or the
-- next slot of a schedule.
-- Called by the worker's poll. Locks: nothing.
create function :SCHEMA.peek(p_id bigint, p_lane_workflows text[], p_lane_versions text[], p_lane_queues text[])
returns table (work boolean, others_hold boolean, next_ms float8) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
  select :SCHEMA.claimable(p_lane_workflows, p_lane_versions, p_lane_queues),
    exists (select from :SCHEMA.worker w where w.id <> p_id and :SCHEMA.holds_runs(w.id)),
    :SCHEMA.to_ms(least(
      (select min(r.timer) from :SCHEMA.run r where r.timer is not null),
      (select min(s.due_at) from :SCHEMA.schedule s where s.due_at is not null)
    )) - :SCHEMA.to_ms(:SCHEMA.clock())
$perdure$;

-- Workers that hold runs and whose death certificate is out: nobody holds the session lock of their id. missing: [id, last beat, whether
-- it has not beaten since the server itself started] of each; such a one lost its lock with the server, and may be coming back. holding:
-- somebody else holds runs at all.
-- Called by workers that take runs while others hold some. Locks: nothing.
create function :SCHEMA.missing_workers(p_id bigint) returns table (holding boolean, missing text) language sql stable as $perdure$
  with holder as materialized (
    select w.id, w.beat_at from :SCHEMA.worker w
    where w.id <> p_id and w.dead_at is null and :SCHEMA.holds_runs(w.id)
  )
  select exists (select from holder), (
    select json_agg(json_build_array(h.id::text, :SCHEMA.to_ms(h.beat_at)::text, h.beat_at < pg_postmaster_start_time())) from holder h
    where not exists (
      select from pg_catalog.pg_locks l
      where l.locktype = 'advisory' and l.granted and l.objsubid = 1
        and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
        and l.classid::bigint = (h.id >> 32) & 4294967295 and l.objid::bigint = h.id & 4294967295
    )
  )::text
$perdure$;

-- Takes the runs of dead workers back, so that others may claim them, and buries the workers. Dead is who did not beat since p_beats
-- (null: whose lease ran out). Each run counts a crash (not if p_innocent: the server itself restarted); after the fifth without a new
-- checkpoint between, it is blocked. A run that had begun stands before those that had not. Returns how many became claimable.
-- Called by workers that found a lock gone, and by the leader for leases. Locks: workers in id order, then runs in key order.
create function :SCHEMA.take_back(p_workers bigint[], p_beats float8[], p_innocent boolean) returns integer language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
declare
  v_now timestamptz := :SCHEMA.clock();
  v_dead bigint[];
  v_keys bigint[];
  v_count integer;
begin
  select coalesce(array_agg(d.id), '{}') into v_dead from (
    select w.id from :SCHEMA.worker w
    left join unnest(p_workers, p_beats) as g(id, beat) on g.id = w.id
    where w.dead_at is null
      and (case when p_workers is null then w.beat_at + w.lease < v_now else :SCHEMA.to_ms(w.beat_at) = g.beat end)
    order by w.id for update of w skip locked
  ) d;
  update :SCHEMA.worker w set dead_at = v_now where w.id = any(v_dead);
  -- Also whoever left: what it had sent may have come after.
  v_dead := v_dead || case when p_workers is null then array(
    select distinct t.worker from :SCHEMA.taken t where not exists (select from :SCHEMA.worker w where w.id = t.worker and w.dead_at is null)
  ) end;
  v_keys := array(select h from unnest(v_dead) d cross join :SCHEMA.held_runs(d) h);
  select array_agg(r.key) into v_keys from (
    select r.key from :SCHEMA.run r where r.key = any(v_keys) and r.worker = any(v_dead) order by r.key for no key update skip locked
  ) r;
  with back as (
    update :SCHEMA.run r set
      crashes = r.crashes + case when p_innocent then 0 else 1 end,
      worker = null,
      pausing = false,
      state = case when not p_innocent and r.crashes >= 4 then 'blocked' when r.pausing then 'paused' else 'pending' end,
      ready_at = case when (p_innocent or r.crashes < 4) and not r.pausing then least(r.started_at, v_now) end,
      reason = case when p_innocent or r.crashes < 4 then r.reason else
        'quarantined: its process died 5 times with no new checkpoint between'
          || coalesce(', each time in ' || (
            select string_agg(distinct 'step "' || t.name || '"', ', ') from :SCHEMA.try t
            where t.run = r.key and t.attempt = r.attempt and t.finished_at is null
              and not exists (select from :SCHEMA.checkpoint c where c.run = t.run and c.slot = t.slot and c.attempt = t.attempt)
          ), '') || '; mend the cause, then retry the run' end
    where r.key = any(v_keys)
    returning r.ready_at
  )
  select count(ready_at) into v_count from back;
  perform :SCHEMA.tidy_taken(d, 9223372036854775807) from unnest(v_dead) d;
  return v_count;
end $perdure$;

-- Gives runs back that a worker holds and will not go on with: all but p_keep. Not a crash. handed: how many. held: how many others it
-- could not, because a stranger's open transaction holds them.
-- Called at shutdown, and after a lost answer for claims that never reached the process. Locks: runs, in key order, skipping what is
-- locked: such a run is given back by another call, or taken back once the worker is gone.
create function :SCHEMA.hand_back(p_worker bigint, p_keep bigint[]) returns table (handed integer, held integer) language plpgsql as $perdure$
declare
  v_mine bigint[];
begin
  v_mine := array(select h from :SCHEMA.held_runs(p_worker) h where h <> all (p_keep));
  with mine as materialized (
    select r.key from :SCHEMA.run r where r.key = any(v_mine) and r.worker = p_worker order by r.key for no key update skip locked
  ), back as (
    update :SCHEMA.run r set worker = null, pausing = false,
      state = case when r.pausing then 'paused' else 'pending' end,
      ready_at = case when not r.pausing then least(r.started_at, :SCHEMA.clock()) end
    from mine where r.key = mine.key returning 1
  )
  select count(*) into handed from back;
  select count(*) into held from :SCHEMA.held_runs(p_worker) h where h <> all (p_keep);
  return next;
end $perdure$;

-- Whether a process that is alive serves such runs; the view of runs says the same. Called at launch. Locks: nothing.
create function :SCHEMA.served(p_workflow text, p_version text, p_queue text) returns boolean language sql stable as $perdure$
  select exists (
    select from :SCHEMA.lane l join :SCHEMA.worker w on w.id = l.worker
    where l.workflow = p_workflow and l.version = p_version and l.queue = p_queue and w.dead_at is null and w.beat_at + w.lease > :SCHEMA.clock()
  )
$perdure$;

-- Takes a process out at its end; the sweep takes back what it could not hand back. Called after hand_back.
-- Locks: the worker's row, its lanes, the leader's.
create function :SCHEMA.leave_worker(p_id bigint) returns void language sql as $perdure$
  update :SCHEMA.worker set dead_at = :SCHEMA.clock(), hungry = false, watching = false, reading = false where id = p_id;
  delete from :SCHEMA.worker where id = p_id and not :SCHEMA.holds_runs(p_id);
  select :SCHEMA.tidy_taken(p_id, 9223372036854775807);
  delete from :SCHEMA.lane where worker = p_id;
  update :SCHEMA.leader set worker = null, until = '-infinity' where worker = p_id;
  select :SCHEMA.hint('wn');
$perdure$;

-- The leader's upkeep: leases that ran out, workers long dead, ends that not all have been told of, old traces of schedules. Returns how many runs became claimable.
-- Locks: as take_back and tell_untold.
create function :SCHEMA.sweep() returns integer language plpgsql as $perdure$
declare
  v_told record;
begin
  select * into v_told from :SCHEMA.tell_untold(1000);
  delete from :SCHEMA.worker w where w.dead_at < :SCHEMA.clock() - interval '1 day';
  delete from :SCHEMA.lane l where not exists (select from :SCHEMA.worker w where w.id = l.worker);
  delete from :SCHEMA.schedule_trace t where t.at < :SCHEMA.clock() - interval '90 days';
  return coalesce(v_told.woken, 0) + :SCHEMA.take_back(null, null, false);
end $perdure$;
