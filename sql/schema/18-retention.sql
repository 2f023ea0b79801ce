-- Retention: runs that ended long enough ago go, with all that belongs to them.

-- Deletes runs that ended at least p_keep_ms milliseconds ago. Looks at up to p_limit runs behind a key, in the order in which they were
-- started. last: the key to go on behind; null: those that are left were started too late to be due. gone: how many went.
-- What stays for now: a run that not all have been told of, one that a stranger holds, and one whose end another run may ask for: its parent, or
-- one that follows it. Those go first, or in the same call, whether or not they have read it: a handle may ask for an end again.
-- A run and its rows go in one transaction, so that a reader's statement finds all or nothing of it.
-- Called by the leader, and when a test moves the clock; two at once pass over each other's. Locks: runs, in key order, skipping what is locked.
create function :SCHEMA.expire_runs(p_keep_ms float8, p_behind bigint, p_limit integer) returns table (gone integer, last bigint)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
declare
  v_until timestamptz := :SCHEMA.clock() - :SCHEMA.ms(p_keep_ms);
  v_keys bigint[];
  v_low bigint;
  v_high bigint;
  v_needed bigint[];
begin
  select array_agg(p.key) filter (where p.finished_at <= v_until and not p.untold),
      -- keys and times grow together, give or take what one statement takes
      case when count(*) = p_limit and max(p.created_at) <= v_until + interval '5 minutes' then max(p.key) end
    into v_keys, last
    from (
      select r.key, r.created_at, r.finished_at, r.untold from :SCHEMA.run r where r.key > p_behind order by r.key limit p_limit
    ) p;
  gone := 0;
  if v_keys is not null then
    select array_agg(h.key) into v_keys from (
      select r.key from :SCHEMA.run r where r.key = any(v_keys) order by r.key for update skip locked
    ) h;
    -- Later statements: they see what the rows hold that are locked by now.
    select array_agg(r.key) into v_keys from :SCHEMA.run r where r.key = any(v_keys) and r.finished_at <= v_until and not r.untold;
    loop
      select array_agg(r.key) into v_needed from :SCHEMA.run r
        where r.key = any(v_keys) and r.followed and exists (
          select from (
            select r.parent as key union all select f.follower from :SCHEMA.follower f where f.run = r.key
          ) w join :SCHEMA.run k on k.key = w.key where k.key <> all (v_keys));
      exit when v_needed is null;
      v_keys := array(select k from unnest(v_keys) k except select n from unnest(v_needed) n);
    end loop;
    gone := coalesce(cardinality(v_keys), 0);
  end if;
  if gone > 0 then
    select min(k), max(k) into v_low, v_high from unnest(v_keys) k;
    delete from :SCHEMA.run r where r.key = any(v_keys);
    delete from :SCHEMA.input i where i.run = any(v_keys);
    delete from :SCHEMA.outcome o where o.run = any(v_keys);
    delete from :SCHEMA.checkpoint c where c.run = any(v_keys);
    -- Most runs have no rows in these: one look for all of them.
    if exists (select from :SCHEMA.delivery d where d.run between v_low and v_high) then
      delete from :SCHEMA.delivery d where d.run = any(v_keys);
    end if;
    if exists (select from :SCHEMA.try t where t.run between v_low and v_high) then
      delete from :SCHEMA.try t where t.run = any(v_keys);
    end if;
    if exists (select from :SCHEMA.round o where o.run between v_low and v_high) then
      delete from :SCHEMA.round o where o.run = any(v_keys);
    end if;
    if exists (select from :SCHEMA.wait w where w.run between v_low and v_high) then
      delete from :SCHEMA.wait w where w.run = any(v_keys);
    end if;
    if exists (select from :SCHEMA.mail m where m.run between v_low and v_high) then
      delete from :SCHEMA.mail m where m.run = any(v_keys);
    end if;
    if exists (select from :SCHEMA.value v where v.run between v_low and v_high) then
      delete from :SCHEMA.value v where v.run = any(v_keys);
    end if;
    if exists (select from :SCHEMA.item i where i.run between v_low and v_high) then
      delete from :SCHEMA.item i where i.run = any(v_keys);
    end if;
    delete from :SCHEMA.follower f where f.run = any(v_keys);
    delete from :SCHEMA.follower f where f.follower = any(v_keys);
  end if;
  return next;
end $perdure$;
