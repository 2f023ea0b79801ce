-- Schedules: runs that are started again and again. When each fires next stands in its row; the slots themselves are computed by the library,
-- from the instants that the database gave it.

create view :SCHEMA.schedules as
  select s.name, s.application, s.cron, s.timezone, :SCHEMA.ms(s.every_ms) as every, s.workflow, s.version, s.queue, s.priority,
    s.overlap, s.catch_up, s.next_at, s.last_slot, s.last_run as last_run_id, s.paused_at is not null as paused,
    s.trouble, s.created_at, s.updated_at
  from :SCHEMA.schedule s;
comment on view :SCHEMA.schedules is 'One row per schedule. application: whose code declares it, null for one made at run time. next_at: null while paused. trouble: why it could not be fired at its last slot.';

create view :SCHEMA.schedule_history as
  select t.seq as id, t.schedule, t.what, t.application, t.from_slot, t.until_slot, t.run as run_id, t.at from :SCHEMA.schedule_trace t;
comment on view :SCHEMA.schedule_history is 'What became of schedules: added, changed, removed, paused, resumed; slots skipped (a run was unfinished), missed (nobody was there), taken (the run id was in use).';

-- Which codecs wrote a value, as a JSON array; null: none did. Looks into nothing else: json cannot read a NUL of the application's.
-- Called by put_schedules and the view codecs. Locks: nothing.
create function :SCHEMA.codecs_of(p_value json) returns json language sql immutable parallel safe as $perdure$
  select case when starts_with(p_value::text, '{"codec":[') then p_value -> 'codec' end
$perdure$;

-- Makes schedules, or changes those of the same application; p_application null: made at run time. One whose times change begins anew with
-- p_nexts, counted from p_anchor; otherwise it goes on from where it is, and a paused one stays paused. p_all: these are all that the
-- application declares, its others are removed. Verdicts: added, changed, kept, or foreign: left alone, it belongs to somebody else (owner).
-- Called at launch and by schedules.put. Locks: the application's row, then schedules in the order of their names.
create function :SCHEMA.put_schedules(
  p_application text, p_all boolean, p_anchor float8, p_names text[], p_crons text[], p_timezones text[], p_everys float8[],
  p_workflows text[], p_versions text[], p_queues text[], p_priorities smallint[], p_timeouts float8[], p_args text[], p_hashes text[],
  p_options text[], p_tags text[], p_overlaps text[], p_catch_ups text[], p_nexts float8[]
) returns table (name text, verdict text, owner text) language plpgsql set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_added text[];
  v_changed text[];
  v_removed text[];
begin
  if p_all then
    insert into :SCHEMA.application as a (name, reconciled_at) values (p_application, v_now)
      on conflict (name) do update set reconciled_at = excluded.reconciled_at;
  end if;
  perform from :SCHEMA.schedule s where s.name = any(p_names) or (p_all and s.application = p_application) order by s.name for no key update;

  with put as (
    insert into :SCHEMA.schedule as s (name, application, cron, timezone, every_ms, anchor_at, workflow, version, queue, priority, timeout_ms,
      args, hash, options, tags, overlap, catch_up, next_at, due_at, created_at, updated_at)
    select g.name, p_application, g.cron, g.timezone, g.every_ms, :SCHEMA.from_ms(p_anchor), g.workflow, g.version, g.queue, g.priority, g.timeout_ms,
      g.args::json, g.hash, g.options::json, g.tags::json, g.overlap, g.catch_up, :SCHEMA.from_ms(g.next), :SCHEMA.from_ms(g.next), v_now, v_now
    from unnest(p_names, p_crons, p_timezones, p_everys, p_workflows, p_versions, p_queues, p_priorities, p_timeouts, p_args, p_hashes, p_options,
        p_tags, p_overlaps, p_catch_ups, p_nexts)
      as g(name, cron, timezone, every_ms, workflow, version, queue, priority, timeout_ms, args, hash, options, tags, overlap, catch_up, next)
    order by g.name
    on conflict (name) do update set
      cron = excluded.cron, timezone = excluded.timezone, every_ms = excluded.every_ms,
      anchor_at = case when (s.cron, s.timezone, s.every_ms) is not distinct from (excluded.cron, excluded.timezone, excluded.every_ms)
        then s.anchor_at else excluded.anchor_at end,
      next_at = case
        when s.paused_at is not null then null
        when (s.cron, s.timezone, s.every_ms) is not distinct from (excluded.cron, excluded.timezone, excluded.every_ms) then s.next_at
        else excluded.next_at end,
      due_at = case
        when s.paused_at is not null then null
        when (s.cron, s.timezone, s.every_ms) is not distinct from (excluded.cron, excluded.timezone, excluded.every_ms) then s.due_at
        else excluded.next_at end,
      trouble = null,
      workflow = excluded.workflow, version = excluded.version, queue = excluded.queue, priority = excluded.priority,
      timeout_ms = excluded.timeout_ms, args = excluded.args, hash = excluded.hash, options = excluded.options, tags = excluded.tags,
      overlap = excluded.overlap, catch_up = excluded.catch_up, updated_at = excluded.updated_at
    where s.application is not distinct from excluded.application
      and (s.cron, s.timezone, s.every_ms, s.workflow, s.version, s.queue, s.priority, s.timeout_ms, s.hash, s.options::text, s.tags::text, s.overlap, s.catch_up)
        is distinct from (excluded.cron, excluded.timezone, excluded.every_ms, excluded.workflow, excluded.version, excluded.queue, excluded.priority,
          excluded.timeout_ms, excluded.hash, excluded.options::text, excluded.tags::text, excluded.overlap, excluded.catch_up)
    returning s.name, s.created_at = s.updated_at as added
  )
  select array_agg(put.name) filter (where put.added), array_agg(put.name) filter (where not put.added) into v_added, v_changed from put;

  -- Equal arguments that another codec or another key wrote: written anew, so that what wrote them goes out of use.
  update :SCHEMA.schedule s set args = g.args::json from unnest(p_names, p_args, p_hashes) as g(name, args, hash)
    where s.name = g.name and s.application is not distinct from p_application and s.hash = g.hash
      and :SCHEMA.codecs_of(s.args)::text is distinct from :SCHEMA.codecs_of(g.args::json)::text;

  with gone as (
    delete from :SCHEMA.schedule s where p_all and s.application = p_application and s.name <> all (p_names) returning s.name
  )
  select array_agg(gone.name order by gone.name) into v_removed from gone;

  insert into :SCHEMA.schedule_trace (schedule, what, application, at)
    select t.schedule, t.what, p_application, v_now from (
      select 'added' as what, unnest(v_added) as schedule union all select 'changed', unnest(v_changed) union all select 'removed', unnest(v_removed)
    ) t;
  return query
    select s.name, case
        when s.application is distinct from p_application then 'foreign'
        when s.name = any(v_added) then 'added'
        when s.name = any(v_changed) then 'changed'
        else 'kept'
      end, s.application
    from :SCHEMA.schedule s where s.name = any(p_names)
    union all
    select r.name, 'removed', p_application from unnest(v_removed) as r(name);
end $perdure$;

-- Schedules whose next slot is due, in the order of their times, after a position. Called by whoever rings the timers. Locks: nothing.
create function :SCHEMA.due_schedules(p_limit integer, p_after float8, p_after_name text)
returns table (name text, cron text, timezone text, every_ms float8, anchor_ms float8, catch_up text, next_ms float8, due_ms float8, now_ms float8)
language sql stable set enable_seqscan = off set jit = off as $perdure$
  select s.name, s.cron, s.timezone, s.every_ms, :SCHEMA.to_ms(s.anchor_at), s.catch_up, :SCHEMA.to_ms(s.next_at), :SCHEMA.to_ms(s.due_at), :SCHEMA.to_ms(:SCHEMA.clock())
  from :SCHEMA.schedule s
  where s.due_at <= :SCHEMA.clock() and (s.due_at, s.name) > (:SCHEMA.from_ms(p_after), p_after_name)
  order by s.due_at, s.name limit p_limit
$perdure$;

-- Fires schedules: starts the runs of their slots and moves them on, in one transaction, if the next slot is still the expected one, so that a
-- slot fires once. p_slots: per schedule a JSON array of [slot in ms, run id], empty when none of those that are due is to be made up;
-- p_missed: the last slot that is passed over because nobody was there in time, or null. What is unfinished when it fires decides about
-- overlap; slots that are made up together do not skip or cancel each other. Verdicts:
--   fired    moved on; taken: the id of a run that somebody else had started, which counts for the slot
--   skipped  moved on, without a run: held is unfinished, and in which state
--   alone    nothing was done: runs are to be cancelled, whose rows may be locked; fire it by itself (p_alone), which waits, up to 1 s
--   stale    nothing was done: another process did, or is about to; or it was paused, changed or removed
-- Called by whoever rings the timers. Locks: schedules in the order of their names, passing over what is locked; p_alone: as cancel_runs.
create function :SCHEMA.fire_schedules(p_names text[], p_expected float8[], p_nexts float8[], p_slots text[], p_missed float8[], p_alone boolean)
returns table (ord integer, verdict text, runs integer, taken text, held text, held_state text, again boolean) language plpgsql set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_locked text[];
  v_ords integer[];
  v_verdicts text[];
  v_held text[];
  v_states text[];
  v_taken text[];
  v_again text[];
begin
  select array_agg(l.name) into v_locked from (
    select s.name from :SCHEMA.schedule s where s.name = any(p_names) order by s.name for no key update skip locked
  ) l;

  -- A later statement: it sees what the locked rows hold, and which runs are unfinished.
  select array_agg(g.ord::integer), array_agg(u.id), array_agg(u.state),
      array_agg(case when u.id is null then 'fired' when s.overlap = 'skip' then 'skipped' when p_alone then 'fired' else 'alone' end)
    into v_ords, v_held, v_states, v_verdicts
    from unnest(p_names, p_expected, p_slots) with ordinality as g(name, expected, slots, ord)
    join :SCHEMA.schedule s on s.name = g.name and s.name = any(v_locked) and s.next_at = :SCHEMA.from_ms(g.expected)
    left join lateral (
      select r.id, r.state from :SCHEMA.run r
      where s.overlap <> 'allow' and g.slots <> '[]' and r.open_schedule = s.name
      order by r.key limit 1
    ) u on true;
  if v_ords is null then
    return;
  end if;

  if p_alone and v_held[1] is not null and v_verdicts[1] = 'fired' then
    perform set_config('lock_timeout', '1s', true);
    perform :SCHEMA.cancel_runs(array(select r.id from :SCHEMA.run r where r.open_schedule = p_names[1]),
      'the next slot of schedule "' || p_names[1] || '" came');
  end if;
  v_taken := :SCHEMA.start_slots(
    array(select p_names[o.ord] from unnest(v_ords, v_verdicts) as o(ord, verdict) where o.verdict = 'fired' order by o.ord),
    array(select p_slots[o.ord] from unnest(v_ords, v_verdicts) as o(ord, verdict) where o.verdict = 'fired' order by o.ord));

  update :SCHEMA.schedule s set
    next_at = :SCHEMA.from_ms(p_nexts[o.ord]), due_at = :SCHEMA.from_ms(p_nexts[o.ord]), trouble = null,
    last_slot = coalesce(case when o.verdict = 'fired' then :SCHEMA.from_ms((p_slots[o.ord]::json -> -1 ->> 0)::float8) end, s.last_slot),
    last_run = coalesce(case when o.verdict = 'fired' then p_slots[o.ord]::json -> -1 ->> 1 end, s.last_run)
  from unnest(v_ords, v_verdicts) as o(ord, verdict) where s.name = p_names[o.ord] and o.verdict <> 'alone';

  insert into :SCHEMA.schedule_trace (schedule, what, from_slot, until_slot, at)
    select p_names[o.ord], 'missed', :SCHEMA.from_ms(p_expected[o.ord]), :SCHEMA.from_ms(p_missed[o.ord]), :SCHEMA.clock()
    from unnest(v_ords, v_verdicts) as o(ord, verdict) where o.verdict <> 'alone' and p_missed[o.ord] is not null;
  insert into :SCHEMA.schedule_trace (schedule, what, from_slot, until_slot, run, at)
    select r.schedule, 'taken', r.slot_at, r.slot_at, r.run, :SCHEMA.clock()
    from (
      select p_names[o.ord] as schedule, :SCHEMA.from_ms((e.value ->> 0)::float8) as slot_at, e.value ->> 1 as run
      from unnest(v_ords) as o(ord) cross join lateral json_array_elements(p_slots[o.ord]::json) as e(value)
    ) r where r.run = any(v_taken);
  v_again := :SCHEMA.trace_skipped(
    array(select p_names[o.ord] from unnest(v_ords, v_verdicts) as o(ord, verdict) where o.verdict = 'skipped' order by o.ord),
    array(select p_slots[o.ord] from unnest(v_ords, v_verdicts) as o(ord, verdict) where o.verdict = 'skipped' order by o.ord),
    array(select o.held from unnest(v_ords, v_verdicts, v_held) as o(ord, verdict, held) where o.verdict = 'skipped' order by o.ord));

  return query
    select o.ord, o.verdict, case when o.verdict = 'fired' then json_array_length(p_slots[o.ord]::json) else 0 end,
      (select string_agg(t.id, ', ') from unnest(v_taken) as t(id)
        where t.id in (select e.value ->> 1 from json_array_elements(p_slots[o.ord]::json) as e(value))),
      o.held, o.state, p_names[o.ord] = any(v_again)
    from unnest(v_ords, v_verdicts, v_held, v_states) as o(ord, verdict, held, state);
end $perdure$;

-- Puts off a schedule that cannot be fired, and says why; its slot stays the next one. Called by whoever rings the timers.
-- Locks: the schedule; waits for it, up to 1 s, as the transaction that failed may be about to let go of it.
create function :SCHEMA.postpone_schedule(p_name text, p_expected float8, p_ms float8, p_trouble text) returns boolean language plpgsql as $perdure$
begin
  perform set_config('lock_timeout', '1s', true);
  update :SCHEMA.schedule s set due_at = :SCHEMA.clock() + :SCHEMA.ms(p_ms), trouble = p_trouble
    where s.name = p_name and s.next_at = :SCHEMA.from_ms(p_expected);
  return found;
end $perdure$;

-- Starts the runs of slots, as the rows of their schedules say. Returns the ids that belong to runs which somebody else has started.
-- Called by fire_schedules, which holds the rows. Locks: as start_runs.
create function :SCHEMA.start_slots(p_names text[], p_slots text[]) returns text[] language plpgsql set enable_seqscan = off set jit = off as $perdure$
declare
  v record;
begin
  select array_agg(e.value ->> 1 order by g.ord, e.no) as ids, array_agg(s.workflow order by g.ord, e.no) as workflows,
      array_agg(s.version order by g.ord, e.no) as versions, array_agg(s.queue order by g.ord, e.no) as queues,
      array_agg(s.priority order by g.ord, e.no) as priorities, array_agg(s.timeout_ms order by g.ord, e.no) as timeouts,
      array_agg(s.args::text order by g.ord, e.no) as args, array_agg(s.hash order by g.ord, e.no) as hashes,
      array_agg(s.options::text order by g.ord, e.no) as options, array_agg(s.tags::text order by g.ord, e.no) as tags,
      array_agg(s.name order by g.ord, e.no) as names, array_agg((e.value ->> 0)::float8 order by g.ord, e.no) as slots, count(*)::integer as n
    into v
    from unnest(p_names, p_slots) with ordinality as g(name, slots, ord)
    join :SCHEMA.schedule s on s.name = g.name
    cross join lateral json_array_elements(g.slots::json) with ordinality as e(value, no);
  if v.n = 0 then
    return '{}';
  end if;
  return array(
    select r.id from :SCHEMA.start_runs(v.ids, v.workflows, v.versions, v.queues, v.priorities, array_fill(null::float8, array[v.n]),
      array_fill(null::float8, array[v.n]), v.timeouts, v.args, v.hashes, v.options, array_fill(true, array[v.n]), v.tags,
      array_fill(null::bigint, array[v.n]), array_fill(null::integer, array[v.n]), array_fill(false, array[v.n]), v.names, v.slots,
      array_fill(false, array[v.n]), null, '{}', '{}', '{}', false) m
    join :SCHEMA.run r on r.key = m.key
    where m.verdict <> 'created' and r.schedule is distinct from v.names[m.ord]);
end $perdure$;

-- Leaves a trace of slots that were skipped because a run is unfinished: one row for each such run, however many slots. Returns the names
-- of those that had one. Called by fire_schedules, which holds the rows. Locks: the traces.
create function :SCHEMA.trace_skipped(p_names text[], p_slots text[], p_runs text[]) returns text[] language plpgsql set enable_seqscan = off set jit = off as $perdure$
declare
  v_again text[];
begin
  with again as (
    update :SCHEMA.schedule_trace t set until_slot = :SCHEMA.from_ms((g.slots::json -> -1 ->> 0)::float8)
    from unnest(p_names, p_slots, p_runs) as g(name, slots, run)
    where t.seq = (select max(l.seq) from :SCHEMA.schedule_trace l where l.schedule = g.name) and t.what = 'skipped' and t.run = g.run
    returning t.schedule
  )
  select coalesce(array_agg(again.schedule), '{}') into v_again from again;
  insert into :SCHEMA.schedule_trace (schedule, what, from_slot, until_slot, run, at)
    select g.name, 'skipped', :SCHEMA.from_ms((g.slots::json -> 0 ->> 0)::float8), :SCHEMA.from_ms((g.slots::json -> -1 ->> 0)::float8), g.run, :SCHEMA.clock()
    from unnest(p_names, p_slots, p_runs) as g(name, slots, run) where g.name <> all (v_again);
  return v_again;
end $perdure$;

-- Pauses a schedule; paused again it stays so. False: there is none. Called by schedules.pause. Locks: the schedule.
create function :SCHEMA.pause_schedule(p_name text) returns boolean language plpgsql as $perdure$
begin
  update :SCHEMA.schedule s set paused_at = :SCHEMA.clock(), next_at = null, due_at = null, updated_at = :SCHEMA.clock() where s.name = p_name and s.paused_at is null;
  if found then
    insert into :SCHEMA.schedule_trace (schedule, what, at) values (p_name, 'paused', :SCHEMA.clock());
    return true;
  end if;
  return exists (select from :SCHEMA.schedule s where s.name = p_name);
end $perdure$;

-- Lets a paused schedule go on with p_next, which the caller computed for these times. Says 'ok' (also of one that is not paused), 'changed'
-- (other times by now: compute again), or null: there is none. Called by schedules.resume. Locks: the schedule.
create function :SCHEMA.resume_schedule(p_name text, p_cron text, p_timezone text, p_every float8, p_anchor float8, p_next float8) returns text language plpgsql as $perdure$
declare
  v :SCHEMA.schedule;
begin
  select * into v from :SCHEMA.schedule s where s.name = p_name for no key update;
  if not found then
    return null;
  elsif v.paused_at is null then
    return 'ok';
  elsif (v.cron, v.timezone, v.every_ms, v.anchor_at) is distinct from (p_cron, p_timezone, p_every, :SCHEMA.from_ms(p_anchor)) then
    return 'changed';
  end if;
  update :SCHEMA.schedule s set paused_at = null, next_at = :SCHEMA.from_ms(p_next), due_at = :SCHEMA.from_ms(p_next), updated_at = :SCHEMA.clock() where s.name = p_name;
  insert into :SCHEMA.schedule_trace (schedule, what, at) values (p_name, 'resumed', :SCHEMA.clock());
  return 'ok';
end $perdure$;

-- Starts a run of a schedule at once, whatever its times, its pause and its overlap say. False: there is none. Called by schedules.trigger.
-- Locks: the schedule, then as start_runs.
create function :SCHEMA.trigger_schedule(p_name text, p_id text) returns boolean language plpgsql as $perdure$
begin
  perform from :SCHEMA.schedule s where s.name = p_name for no key update;
  if not found then
    return false;
  end if;
  perform :SCHEMA.start_slots(array[p_name], array[json_build_array(json_build_array(null, p_id))::text]);
  update :SCHEMA.schedule s set last_run = p_id where s.name = p_name;
  return true;
end $perdure$;

-- Deletes a schedule; its runs stay. False: there is none. Called by schedules.delete. Locks: the schedule.
create function :SCHEMA.delete_schedule(p_name text) returns boolean language plpgsql as $perdure$
begin
  delete from :SCHEMA.schedule s where s.name = p_name;
  if found then
    insert into :SCHEMA.schedule_trace (schedule, what, at) values (p_name, 'removed', :SCHEMA.clock());
    return true;
  end if;
  return false;
end $perdure$;
