-- Control: what a person or a program does to runs from outside. Each function takes ids, and says for each that exists 'ok', or the state
-- that the run is in and that does not allow it. All lock runs in key order, and wait for locks.

-- Cancels runs at once: whatever their claim writes from here on is refused. So are their unfinished children, and theirs, unless detached.
-- Called by the client's cancel and by cancel_run. Locks: the runs, and those below them, in key order.
create function :SCHEMA.cancel_runs(p_ids text[], p_reason text) returns table (id text, verdict text) language plpgsql as $perdure$
#variable_conflict use_column
declare
  v_keys bigint[] := '{}';
  v_tree bigint[];
  v_done bigint[];
  v_followed bigint[];
  v_next float8;
begin
  loop -- a child may have started children of its own, or have ended, until its row was locked
    with recursive tree(key, open) as (
      select r.key, r.finished_at is null from :SCHEMA.run r where r.id = any(p_ids)
      union
      select c.key, true from tree t join :SCHEMA.run c on c.open_parent = t.key where t.open and not c.detached
    )
    select array_agg(t.key) into v_tree from tree t;
    exit when v_tree is null or v_tree <@ v_keys;
    perform from :SCHEMA.run r where r.key = any(v_tree) order by r.key for no key update;
    v_keys := v_keys || v_tree;
  end loop;
  with done as (
    update :SCHEMA.run r set state = 'cancelled', worker = null, ready_at = null, due = null, topics = null, pausing = false, finished_at = :SCHEMA.clock(),
      reason = case when r.id = any(p_ids) then p_reason else 'its parent was cancelled' || coalesce(': ' || p_reason, '') end
    where r.key = any(v_tree) and r.finished_at is null
    returning r.key, r.followed
  )
  select coalesce(array_agg(key), '{}'), array_agg(key) filter (where followed) into v_done, v_followed from done;
  if v_followed is not null then
    select t.next_ms into v_next from :SCHEMA.tell_followers(v_followed) t;
  end if;
  perform :SCHEMA.hint(case when v_next is null then 'cdw' else 'cdwt' end);
  return query select r.id, case when r.key = any(v_done) then 'ok' else r.state end from :SCHEMA.run r where r.id = any(p_ids);
end $perdure$;

-- Pauses runs. One that is in work begins no new step, and is paused once those in flight are recorded. Timers and mail go on counting; a
-- delayed start keeps its time. Paused again: 'ok'.
-- Called by the client's pause. Locks: runs, in key order.
create function :SCHEMA.pause_runs(p_ids text[]) returns table (id text, verdict text) language plpgsql as $perdure$
#variable_conflict use_column
begin
  return query
  with held as materialized (
    select r.key, r.id, r.state from :SCHEMA.run r where r.id = any(p_ids) order by r.key for no key update
  ), done as (
    update :SCHEMA.run r set
      state = case r.state when 'running' then 'running' else 'paused' end,
      pausing = r.state = 'running',
      ready_at = null,
      due = case when r.state in ('pending', 'paused') then r.due end,
      topics = null
    from held h where r.key = h.key and h.state in ('pending', 'running', 'suspended')
    returning r.key
  )
  select h.id, case when d.key is not null or h.state = 'paused' then 'ok' else h.state end from held h left join done d using (key);
  perform :SCHEMA.hint('c');
end $perdure$;

-- Lets paused runs go on from where they are.
-- Called by the client's resume. Locks: runs, in key order.
create function :SCHEMA.resume_runs(p_ids text[]) returns table (id text, verdict text) language plpgsql as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  return query
  with held as materialized (
    select r.key, r.id, r.state, r.pausing from :SCHEMA.run r where r.id = any(p_ids) order by r.key for no key update
  ), done as (
    update :SCHEMA.run r set
      state = case r.state when 'paused' then 'pending' else r.state end,
      pausing = false,
      ready_at = case when r.state = 'paused' and coalesce(r.due <= v_now, true) then v_now end,
      due = case when r.due > v_now then r.due end
    from held h where r.key = h.key and (h.state = 'paused' or h.pausing)
    returning r.key
  )
  select h.id, case when d.key is not null then 'ok' else h.state end from held h left join done d using (key);
  perform :SCHEMA.hint('cw');
end $perdure$;

-- Gives up runs in work that are to be paused. 'resumed': not any more.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.rest_runs(p_runs bigint[], p_epochs integer[], p_wait boolean) returns table (ord integer, verdict text)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs) with ordinality as g(run, epoch, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.* from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
  ), done as (
    update :SCHEMA.run r set state = 'paused', worker = null, pausing = false from own o where r.key = o.run and r.pausing returning r.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when o.ord is not null then 'resumed'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state = 'paused') then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end
  from given g left join own o using (ord) left join done d on d.key = g.run;
end $perdure$;

-- Lets runs go on that failed or are blocked. A failed one begins its next attempt: the failures that ended it are set aside, what else is
-- recorded stays, and its time begins anew. p_flexible: what replay asks for may differ from what is recorded, from here on.
-- Called by the client's retry. Locks: runs, in key order.
create function :SCHEMA.retry_runs(p_ids text[], p_flexible boolean) returns table (id text, verdict text) language plpgsql as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  -- A statement of its own: what a run came to is read by one that begins once its row is locked.
  perform from :SCHEMA.run r where r.id = any(p_ids) order by r.key for no key update;
  return query
  with held as materialized (
    select r.key, r.id, r.state, r.attempt, r.finished_at from :SCHEMA.run r where r.id = any(p_ids)
  ), failed as materialized (
    select h.*, o.value, coalesce(o.reopened, '{}') as reopened from held h join :SCHEMA.outcome o on o.run = h.key where h.state = 'failed'
  ), put as (
    insert into :SCHEMA.round (run, attempt, error, reopened, finished_at) select key, attempt, value, reopened, finished_at from failed
  ), gone as (
    delete from :SCHEMA.outcome o using failed f where o.run = f.key
  ), left_over as (
    delete from :SCHEMA.wait w using failed f where w.run = f.key
  ), done as (
    update :SCHEMA.run r set state = 'pending', ready_at = v_now, crashes = 0, reason = null, flexible = r.flexible or p_flexible,
      attempt = r.attempt + case h.state when 'failed' then 1 else 0 end,
      deadline = case h.state when 'failed' then v_now + :SCHEMA.ms(r.timeout_ms) else r.deadline end,
      finished_at = null, untold = false
    from held h where r.key = h.key and h.state in ('failed', 'blocked')
    returning r.key
  )
  select h.id, case when d.key is not null then 'ok' else h.state end from held h left join done d using (key);
  perform :SCHEMA.hint('w');
end $perdure$;

-- Makes a new run with the history of another up to a step, which runs again. p_from: a slot, or a name, then its first; p_version: null as
-- it was. It begins in the attempt that had come this far, and what earlier ones set aside stays so. Children that were started before are
-- shared: their ends reach both. What was published before comes along, and so does what its code had drawn until then: clock, uuid, random.
-- Verdicts: created (key: the new run), taken (the new id), unknown (no such run), or 'slot': nothing of that slot or name is recorded.
-- Called by the client's fork. Locks: the old run against expiring; the children that are shared, in key order.
create function :SCHEMA.fork_run(p_id text, p_from text, p_new_id text, p_version text) returns table (verdict text, key bigint) language plpgsql as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_old :SCHEMA.run;
  v_from record;
  v_attempt integer;
  v_last integer;
  v_children bigint[];
begin
  select * into v_old from :SCHEMA.run r where r.id = p_id for key share; -- it does not expire meanwhile
  if not found then
    return query select 'unknown', null::bigint;
    return;
  end if;
  select h.* into v_from from :SCHEMA.effective(v_old.key) h
    where h.no is not null and (h.slot = p_from or h.name = p_from)
    order by h.slot = p_from desc, h.no limit 1;
  if not found then
    return query select 'slot', null::bigint;
    return;
  end if;
  -- The attempt of the workflow that had come this far: what an earlier one asked for besides is not missed.
  select greatest(v_from.attempt, max(c.attempt), max(o.attempt + 1)) into v_attempt
    from :SCHEMA.numbered(v_old.key) c
    left join :SCHEMA.round o on o.run = c.run and o.attempt >= c.attempt and c.slot = any(o.reopened)
    where c.no < v_from.no;
  select max(h.no) into v_last from :SCHEMA.effective(v_old.key) h where h.no < v_from.no;
  insert into :SCHEMA.run (id, workflow, version, queue, priority, state, epoch, attempt, ready_at, timeout_ms, flexible, tags, slot_at, created_at)
    values (p_new_id, v_old.workflow, coalesce(p_version, v_old.version), v_old.queue, v_old.priority, 'pending', 1, v_attempt, v_now,
      v_old.timeout_ms, v_old.flexible, v_old.tags, v_old.slot_at, v_now)
    on conflict (id) do nothing
    returning run.key into key;
  if key is null then
    return query select 'taken', null::bigint;
    return;
  end if;
  insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
    values (v_old.workflow, coalesce(p_version, v_old.version), v_old.queue, v_old.priority, v_now, key, 0);
  insert into :SCHEMA.input (run, args, hash, options, fork)
    select key, i.args, i.hash, i.options, json_build_array(
      case when v_last is not null then coalesce((i.fork ->> 0)::float8, :SCHEMA.to_ms(v_old.started_at)) end,
      (select json_agg(json_build_array(s.run, least(s.until, coalesce(v_last, 0))) order by s.no) from (
        select e.value ->> 0 as run, (e.value ->> 1)::integer as until, e.no from json_array_elements(i.fork -> 1) with ordinality as e(value, no)
        union all select v_old.id, v_last, null
      ) s),
      coalesce(i.fork ->> 2, v_old.schedule))
    from :SCHEMA.input i where i.run = v_old.key;
  insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
    select key, h.slot, h.attempt, h.no, h.kind, h.name, h.outcome, h.value, h.hash, h.tries, 0, h.started_at, h.at
    from :SCHEMA.numbered(v_old.key) h where h.no < v_from.no or (h.kind = 'patch' and (h.value #>> '{}')::integer < v_from.no);
  insert into :SCHEMA.round (run, attempt, error, reopened, finished_at)
    select key, o.attempt, o.error, o.reopened, o.finished_at from :SCHEMA.round o where o.run = v_old.key and o.attempt < v_attempt;
  perform :SCHEMA.copy_published(v_old.key, key, v_from.no, v_from.started_at);
  select array_agg(c.key) into v_children from (
    select r.key from :SCHEMA.checkpoint c join :SCHEMA.run r on r.id = c.value ->> 'id'
    where c.run = fork_run.key and c.kind = 'start' order by r.key for no key update of r
  ) c;
  if v_children is not null then
    insert into :SCHEMA.follower (run, follower) select c, key from unnest(v_children) c on conflict do nothing;
    update :SCHEMA.run r set followed = true where r.key = any(v_children) and not r.followed;
  end if;
  perform :SCHEMA.hint('w');
  verdict := 'created';
  return next;
end $perdure$;
