-- Events: rows in a run's mailbox, kept before anyone waits.

-- A hint to everybody: letters for what there is to look for (w work, c change of a run in work, t timer, d done, v published, n new worker,
-- b busy).
-- Called after commit by the library, and at the end of SQL functions in a user's transaction.
create function :SCHEMA.hint(p_letters text) returns void language sql volatile as $perdure$
  select pg_notify(:SCHEMA.channel(), p_letters)
$perdure$;

-- Puts events into mailboxes, one per element. Verdicts:
--   sent       it is there, or was there before with the same token (p_again: an earlier answer was lost)
--   duplicate  dropped: the run has had an event of that name and reference, and may have finished since
--   finished   the run takes no more
--   unknown    no such run
--   busy       a stranger's open transaction holds the run's row
-- woken: the run was suspended on it and is claimable, and warm is the worker that may have it in memory; working: the run is in work, its
-- worker should look.
-- The counter is raised under the run's lock: whoever suspends the run sees it, whatever snapshot it reads.
-- Called by the flusher's sends and by send_event. Locks: runs, in key order.
create function :SCHEMA.send_events(p_ids text[], p_names text[], p_data text[], p_references text[], p_tokens text[], p_again boolean, p_wait boolean)
returns table (ord integer, verdict text, key bigint, woken boolean, working boolean, workflow text, version text, queue text, warm bigint) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  -- A statement of its own: mail whose answer was lost, and whose commit is late, is seen by one that begins once the row is locked.
  if p_again or p_wait then
    perform from :SCHEMA.hold_runs(array(select r.key from :SCHEMA.run r where r.id = any(p_ids)), p_wait);
  end if;
  return query
  with given as materialized (
    select g.*, r.key from unnest(p_ids, p_names, p_data, p_references, p_tokens) with ordinality as g(id, name, data, reference, token, ord)
    left join :SCHEMA.run r on r.id = g.id
  ), held as materialized (
    select * from :SCHEMA.hold_runs((select array_agg(key) from given where key is not null), p_wait)
  ), again as materialized (
    select g.ord from given g join :SCHEMA.mail m on m.run = g.key and m.token = g.token where p_again
  ), put as (
    insert into :SCHEMA.mail (run, name, data, reference, token, sent_at)
    select g.key, g.name, g.data::json, g.reference, g.token, v_now
    from given g join held h using (key)
    where h.state not in ('completed', 'failed', 'cancelled') and g.ord not in (select ord from again)
    order by g.ord
    on conflict do nothing -- the reference, or the token
    returning run, name, token
  ), news as (
    select run, count(*)::integer as n, array_agg('event:' || name) as topics from put group by run
  ), told as (
    update :SCHEMA.run r set mail = r.mail + n.n,
      state = case when r.topics && n.topics then 'pending' else r.state end,
      ready_at = case when r.topics && n.topics then v_now else r.ready_at end,
      due = case when r.topics && n.topics then null else r.due end,
      topics = case when r.topics && n.topics then null else r.topics end
    from news n where r.key = n.run
    returning r.key, r.state, r.workflow, r.version, r.queue, r.warm, r.ready_at = v_now and r.state = 'pending' as woken
  )
  select g.ord::integer, case
      when g.key is null then 'unknown'
      when p.token is not null or g.ord in (select ord from again) then 'sent'
      when h.key is null then 'busy'
      when h.state in ('completed', 'failed', 'cancelled') and not exists (
        select from :SCHEMA.mail m where m.run = g.key and m.name = g.name and m.reference = g.reference) then 'finished'
      else 'duplicate'
    end, g.key, coalesce(t.woken, false), coalesce(t.state = 'running', false), t.workflow, t.version, t.queue, t.warm
  from given g
  left join held h using (key)
  left join put p on p.run = g.key and p.token = g.token
  left join told t on t.key = g.key;
end $perdure$;
