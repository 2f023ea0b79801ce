-- What a person or another program may read. Stable columns, no payloads. A view reads the tables with the rights of the schema's owner, but calls
-- functions with those of its reader, who has them only for what computes: so a view calls no function that reads.

create view :SCHEMA.runs as
  select r.id, r.workflow, r.version, r.state,
    case
      when r.state = 'suspended' and cardinality(r.topics) = 1 then replace(split_part(r.topics[1], ':', 1), 'children', 'child')
      when r.state = 'suspended' then 'several'
      when r.state = 'pending' and r.due is not null and (r.attempt > 1 or r.started_at is not null) then 'retry'
      when r.state = 'pending' and r.due is not null then 'start'
    end as waiting_for,
    case
      when r.pausing then 'pausing'
      when r.state in ('pending', 'suspended') and not exists ( -- as served
        select from :SCHEMA.lane l join :SCHEMA.worker w on w.id = l.worker
        where l.workflow = r.workflow and l.version = r.version and l.queue = r.queue and w.dead_at is null and w.beat_at + w.lease > :SCHEMA.clock()
      ) then 'unserved'
      when r.state = 'suspended' then coalesce(
        (select 'child "' || c.id || '" is blocked' from unnest(r.topics) as t(topic) join :SCHEMA.run c on c.id = substr(t.topic, 7)
          where starts_with(t.topic, 'child:') and c.state = 'blocked' limit 1),
        (select 'child "' || c.id || '" is blocked' from unnest(r.topics) as t(topic) join :SCHEMA.run c on c.open_parent = r.key
          where starts_with(t.topic, 'children:') and c.state = 'blocked' limit 1))
      else r.reason
    end as reason,
    r.queue, r.priority, r.attempt, (select p.id from :SCHEMA.run p where p.key = r.parent) as parent_id, r.created_at, r.started_at, r.finished_at,
    r.due, r.worker, r.epoch, coalesce(r.tags, '{}') as tags
  from :SCHEMA.run r;
comment on view :SCHEMA.runs is 'One row per run. waiting_for: sleep, event, child, retry, several, or start for a delayed one. reason: why it is blocked, was cancelled, or could not begin; unserved: no process that is alive serves its workflow, version and queue; pausing; or which child is blocked.';

create view :SCHEMA.steps as
  select r.id as run_id, c.slot, c.kind, c.name, c.tries as attempts, c.started_at, c.at as finished_at, c.outcome, c.attempt as run_attempt
  from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run
  union all
  select r.id, w.slot, w.kind, (select string_agg(substr(t.topic, strpos(t.topic, ':') + 1), ', ') from unnest(w.topics) as t(topic)), w.tries, w.started_at, null, 'waiting', w.attempt
  from :SCHEMA.wait w join :SCHEMA.run r on r.key = w.run and r.finished_at is null
  union all
  select r.id, t.slot, 'step', t.name, t.try, t.started_at, null, 'running', t.attempt
  from :SCHEMA.try t join :SCHEMA.run r on r.key = t.run and r.state = 'running' and r.attempt = t.attempt
  where t.finished_at is null
    and not exists (select from :SCHEMA.checkpoint c where c.run = t.run and c.slot = t.slot and c.attempt = t.attempt);
comment on view :SCHEMA.steps is 'One row per recorded step or wait of a run, one per open wait, and one per step that has run for a second or more.';

create view :SCHEMA.events as
  select m.seq as id, r.id as run_id, m.name, m.reference, m.sent_at, m.slot as consumed_by
  from :SCHEMA.mail m join :SCHEMA.run r on r.key = m.run;
comment on view :SCHEMA.events is 'One row per event sent to a run. consumed_by: the slot of the wait that took it.';

create view :SCHEMA.workers as
  select w.id, w.name, w.started_at, w.beat_at, w.lease, w.dead_at, l.worker is not null as leads,
    (
      select count(distinct r.key) from :SCHEMA.taken t -- as held_runs
      cross join lateral (select r.key from :SCHEMA.run r where r.key = any(t.runs) and r.worker = t.worker offset 0) r
      where t.worker = w.id
    ) as runs
  from :SCHEMA.worker w left join :SCHEMA.leader l on l.worker = w.id and l.until > :SCHEMA.clock();
comment on view :SCHEMA.workers is 'One row per process.';

create view :SCHEMA.queues as
  select r.queue,
    count(*) filter (where r.state = 'pending' and r.due is null) as ready,
    count(*) filter (where r.state = 'pending' and r.due is not null) as delayed,
    count(*) filter (where r.state = 'running') as running,
    count(*) filter (where r.state = 'suspended') as suspended,
    count(*) filter (where r.state = 'paused') as paused,
    count(*) filter (where r.state = 'blocked') as blocked,
    min(r.ready_at) as oldest_ready_at,
    (select count(distinct l.worker) from :SCHEMA.lane l join :SCHEMA.worker w on w.id = l.worker
      where l.queue = r.queue and w.dead_at is null and w.beat_at + w.lease > :SCHEMA.clock()) as workers
  from :SCHEMA.run r where r.finished_at is null
  group by r.queue;
comment on view :SCHEMA.queues is 'One row per queue with unfinished runs: how many of each kind, and how many live workers serve it. Counts them: as slow as they are many.';

create view :SCHEMA.timeline as
  select r.id as run_id, row_number() over (partition by r.id order by t.at, t.rank) as no, t.at, t.what, t.kind, t.name, t.slot, t.attempt
  from :SCHEMA.run r
  cross join lateral (
    select r.created_at as at, 'created' as what, null::text as kind, null::text as name, null::text as slot, null::integer as attempt, 0 as rank
    union all
    select r.started_at, 'started', null, null, null, 1, 1 where r.started_at is not null
    union all
    select c.started_at, 'began', c.kind, c.name, c.slot, c.attempt, 2 from :SCHEMA.checkpoint c where c.run = r.key and c.started_at < c.at
    union all
    select c.at, c.outcome, c.kind, c.name, c.slot, c.attempt, 4 from :SCHEMA.checkpoint c where c.run = r.key
    union all
    select w.started_at, 'began', w.kind, array_to_string(w.topics, ', '), w.slot, w.attempt, 2 from :SCHEMA.wait w where w.run = r.key
    union all
    select y.finished_at, 'try failed', 'step', y.name, y.slot, y.attempt, 3 from :SCHEMA.try y where y.run = r.key and y.finished_at is not null
    union all
    select m.sent_at, 'sent', 'event', m.name, m.slot, null, 2 from :SCHEMA.mail m where m.run = r.key
    union all
    select o.finished_at, 'attempt failed', null, null, null, o.attempt, 5 from :SCHEMA.round o where o.run = r.key
    union all
    select r.finished_at, r.state, null, null, null, r.attempt, 6 where r.finished_at is not null
  ) t;
comment on view :SCHEMA.timeline is 'What happened to a run, and when: one row for each thing. Ask for one run, ordered by no.';
