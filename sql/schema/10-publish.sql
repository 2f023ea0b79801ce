-- What runs publish: values, of which the latest counts, and streams, of which every item does. Readers look from outside.

create table :SCHEMA.value (
  run   bigint not null,
  name  text not null,
  n     integer not null,                      -- grows each time it is set
  value json not null,
  no    integer,                               -- the place in the order of the body that set it; null: a step did
  epoch integer not null,                      -- the claim that set it,
  seq   integer not null,                      -- and with which of its writes: one that is issued again is not applied again
  at    timestamptz not null,
  primary key (run, name)
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

create table :SCHEMA.item (
  run    bigint not null,
  stream text not null,
  pos    integer not null,                     -- from 0, without gaps
  value  json,                                 -- null: the stream is closed here
  no     integer,                              -- as in value
  epoch  integer not null,
  seq    integer not null,
  at     timestamptz not null,
  primary key (run, stream, pos)
)
-- Never updated: between two days that retention deletes, a vacuum only has to freeze it.
with (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_insert_scale_factor = 0.2);

-- Sets values and appends to streams, in the order of the arrays. From a body (p_slots) a checkpoint goes along, so that replay writes
-- nothing twice; from a step there is none. p_values null: closes the stream. p_seqs grow within a claim, in the order of its writes, which
-- the flusher keeps: what is not above the last one there came before (an answer was lost, or a lost session commits late). What comes after
-- a close is dropped. Verdicts as those of record_steps.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.publish(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_nos integer[], p_kinds text[], p_names text[], p_values text[],
  p_seqs integer[], p_ats float8[], p_wait boolean
) returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_held integer[]; -- rows of claims that hold
  v_new integer[];  -- of these, those to apply
begin
  -- The last item of a stream and the checkpoints are read by later statements: the snapshot of this one is older than the locks.
  select coalesce(array_agg(g.ord::integer order by g.ord), '{}') into v_held
    from unnest(p_runs, p_epochs) with ordinality as g(run, epoch, ord)
    join :SCHEMA.hold_runs(p_runs, p_wait) h on h.key = g.run and h.epoch = g.epoch and h.state = 'running';
  v_new := v_held;
  if exists (select from unnest(p_slots) s(slot) where s.slot is not null) then
    with put as (
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, tries, epoch, started_at, at)
      select p_runs[o], p_slots[o], p_attempts[o], p_nos[o], p_kinds[o], p_names[o], 'completed', 1, p_epochs[o],
        :SCHEMA.from_ms(p_ats[o]), :SCHEMA.from_ms(p_ats[o])
      from unnest(v_held) o where p_slots[o] is not null
      on conflict do nothing
      returning run, slot, attempt
    ), reset as (
      update :SCHEMA.run r set crashes = 0 where r.crashes > 0 and r.key in (select p.run from put p)
    )
    select coalesce(array_agg(o order by o), '{}') into v_new
      from unnest(v_held) o left join put p on p.run = p_runs[o] and p.slot = p_slots[o] and p.attempt = p_attempts[o]
      where p_slots[o] is null or p.slot is not null;
  end if;

  if 'stream' = any(p_kinds) then
    with given as materialized (
      select g.* from unnest(p_runs, p_epochs, p_nos, p_kinds, p_names, p_values, p_seqs, p_ats)
        with ordinality as g(run, epoch, no, kind, name, value, seq, at, ord)
      join unnest(v_new) o on o = g.ord
      where g.kind = 'stream'
    ), last as materialized (
      select s.run, s.name, l.* from (select distinct run, name from given) s
      cross join lateral (
        select i.pos, i.epoch, i.seq, i.value is null as closed from :SCHEMA.item i
        where i.run = s.run and i.stream = s.name order by i.pos desc limit 1
      ) l
    ), next as (
      select g.*, coalesce(l.pos, -1) + row_number() over w as pos,
        coalesce(bool_or(g.value is null) over (w rows between unbounded preceding and 1 preceding), false) as closed
      from given g left join last l using (run, name)
      where not coalesce(l.closed, false) and (l.epoch is distinct from g.epoch or l.seq < g.seq)
      window w as (partition by g.run, g.name order by g.ord)
    )
    insert into :SCHEMA.item (run, stream, pos, value, no, epoch, seq, at)
      select n.run, n.name, n.pos, n.value::json, n.no, n.epoch, n.seq, :SCHEMA.from_ms(n.at) from next n where not n.closed order by n.ord;
  end if;

  if 'value' = any(p_kinds) then
    insert into :SCHEMA.value as v (run, name, n, value, no, epoch, seq, at)
      select distinct on (g.run, g.name) g.run, g.name, count(*) over (partition by g.run, g.name), g.value::json, g.no, g.epoch, g.seq, :SCHEMA.from_ms(g.at)
      from unnest(p_runs, p_epochs, p_nos, p_kinds, p_names, p_values, p_seqs, p_ats)
        with ordinality as g(run, epoch, no, kind, name, value, seq, at, ord)
      join unnest(v_new) o on o = g.ord
      where g.kind = 'value'
      order by g.run, g.name, g.ord desc
    on conflict (run, name) do update
      set n = v.n + excluded.n, value = excluded.value, no = excluded.no, epoch = excluded.epoch, seq = excluded.seq, at = excluded.at
      where v.epoch <> excluded.epoch or v.seq < excluded.seq;
  end if;

  if cardinality(v_new) = cardinality(p_runs) then
    return query select o, 'ok' from unnest(v_new) o;
    return;
  end if;
  return query
    select g.ord::integer, case
      when g.ord = any(v_new) then 'ok'
      when g.slot is not null then case
        when c.epoch = g.epoch then 'ok'
        when c.epoch is not null then 'stale'
        else :SCHEMA.refusal(g.run, g.epoch)
      end
      when (select i.epoch = g.epoch and i.seq >= g.seq from :SCHEMA.item i
        where g.kind = 'stream' and i.run = g.run and i.stream = g.name order by i.pos desc limit 1) then 'ok'
      when (select v.epoch = g.epoch and v.seq >= g.seq from :SCHEMA.value v
        where g.kind = 'value' and v.run = g.run and v.name = g.name) then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end
    from unnest(p_runs, p_epochs, p_slots, p_attempts, p_kinds, p_names, p_seqs) with ordinality as g(run, epoch, slot, attempt, kind, name, seq, ord)
    left join :SCHEMA.checkpoint c on c.run = g.run and c.slot = g.slot and c.attempt = g.attempt;
end $perdure$;

-- What is new for readers: of a stream the items from p_froms on, of a value the latest if its n is at least that. One row at least for each
-- reader. ended: the run has ended, and what is returned is all unless there is more; null: no such run. value null with a pos: closed.
-- p_rows, p_bytes: per reader; one item is returned whatever its size.
-- Called by the client. One statement and so one snapshot: a run seen as ended has nothing more to come. In plpgsql, so that a session
-- plans it a few times only. Locks: nothing.
create function :SCHEMA.read_published(p_ids text[], p_kinds text[], p_names text[], p_froms integer[], p_rows integer, p_bytes integer)
returns table (ord integer, key bigint, ended boolean, pos integer, value text, more boolean) language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  select g.ord::integer, r.key, case when r.key is not null then r.finished_at is not null end, p.pos, p.value, coalesce(p.more, false)
  from unnest(p_ids, p_kinds, p_names, p_froms) with ordinality as g(id, kind, name, "from", ord)
  left join :SCHEMA.run r on r.id = g.id
  left join lateral (
    select q.pos, q.value, q.more from (
      select c.*, bool_or(c.cut) over () as more
      from (
        select i.pos, i.value, row_number() over w > p_rows or sum(i.size) over w - i.size >= p_bytes as cut
        from (
          select i.pos, i.value::text as value, coalesce(octet_length(i.value::text), 0) as size from :SCHEMA.item i
          where i.run = r.key and i.stream = g.name and i.pos >= g."from" order by i.pos limit p_rows + 1
        ) i
        window w as (order by i.pos rows unbounded preceding)
      ) c
    ) q where g.kind = 'stream' and not q.cut
    union all
    select v.n, v.value::text, false from :SCHEMA.value v where g.kind = 'value' and v.run = r.key and v.name = g.name and v.n >= g."from"
  ) p on true
  order by g.ord, p.pos;
end $perdure$;

-- Gives a new run what an old one had published before a place in its order, or, from steps, before an instant. A value that was set again
-- since is left out: what it was is not known.
-- Called by fork_run. Locks: nothing.
create function :SCHEMA.copy_published(p_old bigint, p_new bigint, p_no integer, p_at timestamptz) returns void language sql as $perdure$
  insert into :SCHEMA.item (run, stream, pos, value, no, epoch, seq, at)
    select p_new, i.stream, row_number() over (partition by i.stream order by i.pos) - 1, i.value, i.no, 0, 0, i.at
    from :SCHEMA.item i where i.run = p_old and case when i.no is null then i.at < p_at else i.no < p_no end;
  insert into :SCHEMA.value (run, name, n, value, no, epoch, seq, at)
    select p_new, v.name, v.n, v.value, v.no, 0, 0, v.at
    from :SCHEMA.value v where v.run = p_old and case when v.no is null then v.at < p_at else v.no < p_no end;
$perdure$;
