-- Retention: runs that ended long enough ago go, with all that belongs to them.

-- Says how long ended runs are kept, in this schema. Called at launch, where the option is given. Locks: the leader's row.
create function :SCHEMA.retain(p_keep_ms float8) returns void language sql as $perdure$
  update :SCHEMA.leader set retention_ms = p_keep_ms where retention_ms <> p_keep_ms
$perdure$;

-- Deletes runs that ended at least p_keep_ms milliseconds ago; null: as long as retain has said. Looks at up to p_limit runs behind a key, in the order in which they were
-- started. last: the key to go on behind; null: those that are left were started too late to be due. gone: how many went.
-- What stays for now: a run that not all have been told of, one that a stranger holds, and one whose end another run may ask for: its parent, or
-- one that follows it. Those go first, or in the same call. Whether they have read it does not count: a handle may ask for an end again.
-- A run and its rows go in one transaction, so that a statement of a reader's finds all or nothing of it.
-- Called by the leader, and when a test moves the clock; two at once do no harm. It runs with the rights of the schema's owner: nobody else deletes
-- runs, and what it deletes has ended. Locks: runs, in key order, passing over what is locked.
create function :SCHEMA.expire_runs(p_keep_ms float8, p_behind bigint, p_limit integer) returns table (gone integer, last bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off set lock_timeout = '10ms' as $perdure$
declare
  v_keep float8 := coalesce(p_keep_ms, (select l.retention_ms from :SCHEMA.leader l));
  v_until timestamptz := case when v_keep < 'Infinity' then :SCHEMA.clock() - :SCHEMA.ms(v_keep) else '-infinity' end;
  v_high bigint;
  v_seen integer;
  v_due integer;
  v_followed bigint[];
  v_keys bigint[];
begin
  select max(p.key), count(*), count(*) filter (where p.finished_at <= v_until and not p.followed),
      array_agg(p.key) filter (where p.finished_at <= v_until and p.followed),
      -- keys and times grow together, give or take what one statement takes
      case when count(*) = p_limit and max(p.created_at) <= v_until + interval '5 minutes' then max(p.key) end
    into v_high, v_seen, v_due, v_followed, last
    from (
      select r.key, r.created_at, r.finished_at, r.followed from :SCHEMA.run r where r.key > p_behind order by r.key limit p_limit
    ) p;
  if v_due > 0 then
    begin
      with old as (
        delete from :SCHEMA.run r
        where r.key > p_behind and r.key <= v_high and r.finished_at <= v_until and not r.untold and not r.followed
        returning r.key
      )
      select array_agg(key) into v_keys from old;
    exception when lock_not_available then -- somebody holds one of them: the others, at the price of a lock for each
      select array_agg(h.key) into v_keys from (
        select r.key from :SCHEMA.run r
        where r.key > p_behind and r.key <= v_high and r.finished_at <= v_until and not r.untold and not r.followed
        order by r.key for update skip locked
      ) h;
      delete from :SCHEMA.run r where r.key = any(v_keys);
    end;
  end if;
  v_keys := coalesce(v_keys, '{}') || case when v_followed is not null then :SCHEMA.expire_followed(v_until, v_followed) end;
  gone := cardinality(v_keys);
  if gone > 0 then
    perform :SCHEMA.forget_runs(v_keys, gone * 2 > v_seen);
  end if;
  return next;
end $perdure$;

-- Of ended runs that others may ask for, deletes those that nobody is left for who may, and returns their keys.
-- Called by expire_runs. Locks: the runs, in key order, skipping what is locked.
create function :SCHEMA.expire_followed(p_until timestamptz, p_keys bigint[]) returns bigint[]
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
declare
  v_keys bigint[];
  v_needed bigint[];
begin
  select coalesce(array_agg(h.key), '{}') into v_keys from (
    select r.key from :SCHEMA.run r where r.key = any(p_keys) and r.finished_at <= p_until and not r.untold order by r.key for update skip locked
  ) h;
  loop -- those that one of these asks for go with it, unless it is needed itself
    select array_agg(r.key) into v_needed from :SCHEMA.run r
      cross join lateral (
        select r.parent as key union all select f.follower from :SCHEMA.follower f where f.run = r.key
      ) w
      join :SCHEMA.run k on k.key = w.key
      left join unnest(v_keys) as g(key) on g.key = w.key
      where r.key = any(v_keys) and g.key is null;
    exit when v_needed is null;
    v_keys := array(select k from unnest(v_keys) k except select n from unnest(v_needed) n);
  end loop;
  delete from :SCHEMA.run r where r.key = any(v_keys);
  return v_keys;
end $perdure$;

-- Deletes all that belongs to runs that are deleted in the same transaction. p_dense: most of the runs between the first and the last of them
-- are among them, so that reading the rows in their order is cheaper than looking for those of each.
-- Called by expire_runs. Locks: nothing that anybody else would.
create function :SCHEMA.forget_runs(p_keys bigint[], p_dense boolean) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
declare
  v_low bigint;
  v_high bigint;
begin
  select min(k), max(k) into v_low, v_high from unnest(p_keys) k;
  if p_dense then -- + 0: no index is asked for each key
    delete from :SCHEMA.input i using unnest(p_keys) as k(key) where i.run between v_low and v_high and i.run + 0 = k.key;
    delete from :SCHEMA.outcome o using unnest(p_keys) as k(key) where o.run between v_low and v_high and o.run + 0 = k.key;
    delete from :SCHEMA.checkpoint c using unnest(p_keys) as k(key) where c.run between v_low and v_high and c.run + 0 = k.key;
  else
    delete from :SCHEMA.input i where i.run = any(p_keys);
    delete from :SCHEMA.outcome o where o.run = any(p_keys);
    delete from :SCHEMA.checkpoint c where c.run = any(p_keys);
  end if;
  -- Most runs have no rows in these: one look for all of them.
  if exists (select from :SCHEMA.delivery d where d.run between v_low and v_high) then
    delete from :SCHEMA.delivery d where d.run = any(p_keys);
  end if;
  if exists (select from :SCHEMA.try t where t.run between v_low and v_high) then
    delete from :SCHEMA.try t where t.run = any(p_keys);
  end if;
  if exists (select from :SCHEMA.round o where o.run between v_low and v_high) then
    delete from :SCHEMA.round o where o.run = any(p_keys);
  end if;
  if exists (select from :SCHEMA.wait w where w.run between v_low and v_high) then
    delete from :SCHEMA.wait w where w.run = any(p_keys);
  end if;
  if exists (select from :SCHEMA.mail m where m.run between v_low and v_high) then
    delete from :SCHEMA.mail m where m.run = any(p_keys);
  end if;
  if exists (select from :SCHEMA.value v where v.run between v_low and v_high) then
    delete from :SCHEMA.value v where v.run = any(p_keys);
  end if;
  if exists (select from :SCHEMA.item i where i.run between v_low and v_high) then
    delete from :SCHEMA.item i where i.run = any(p_keys);
  end if;
  if exists (select from :SCHEMA.follower f where f.run between v_low and v_high) then
    delete from :SCHEMA.follower f where f.run = any(p_keys);
  end if;
  if exists (select from :SCHEMA.follower f where f.follower between v_low and v_high) then
    delete from :SCHEMA.follower f where f.follower = any(p_keys);
  end if;
end $perdure$;
