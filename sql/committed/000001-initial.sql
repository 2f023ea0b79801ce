--! Previous: -
--! Hash: sha1:773e645cf66939fc237ed6f26c16252a82fd68e6
--! Message: initial

-- The tables, in the order of a run's life: run, follower, input, checkpoint, delivery, try, round, wait, mail, outcome; then schedule, worker, lane, leader.
-- Hot rows are narrow: what changes (run) and what is only ever inserted (payloads) never share a row.
-- No foreign keys: each would lock the run row once more per insert; every writer holds that row's lock already.

-- The one source of time. Stable and inlinable, so that an index condition on it works; a schema built for tests replaces it.
create function :SCHEMA.clock() returns timestamptz language sql stable parallel safe as 'select statement_timestamp()';

-- An instant as milliseconds since 1970, the form in which instants reach JavaScript, and back.
-- to_ms is stable, as extract is: declared immutable it would not be inlined.
create function :SCHEMA.to_ms(p_at timestamptz) returns float8 language sql stable parallel safe as 'select extract(epoch from p_at)::float8 * 1000';
create function :SCHEMA.from_ms(p_ms float8) returns timestamptz language sql immutable parallel safe as 'select to_timestamp(p_ms / 1000)';
create function :SCHEMA.ms(p_ms float8) returns interval language sql immutable parallel safe as 'select p_ms * interval ''1 millisecond''';

create table :SCHEMA.run (
  key         bigint generated always as identity primary key,
  id          text not null check (octet_length(id) between 1 and 255),
  workflow    text not null,
  version     text not null,
  queue       text not null,
  priority    smallint not null,
  state       text not null check (state in ('pending', 'running', 'suspended', 'paused', 'blocked', 'completed', 'failed', 'cancelled')),
  epoch       integer not null default 0,      -- +1 at every claim: the fencing token of every write
  worker      bigint,                          -- who holds the claim
  attempt     integer not null default 1,      -- of the workflow, +1 at every retry of the whole
  crashes     smallint not null default 0,     -- claims lost to a crash since the last new checkpoint
  mail        integer not null default 0,      -- raised under the row's lock by whoever has news for the run
  ready_at    timestamptz,                     -- claimable, and since when: the claim's order within a priority; then it has a row in ready
  due         timestamptz,                     -- when a timer makes it claimable
  deadline    timestamptz,                     -- when the workflow's timeout runs out; set by the first claim
  timeout_ms  float8,
  topics      text[],                          -- what it is suspended on: kind:name
  warm        bigint,                          -- the worker that may still have it in memory, until it is claimed,
  warm_no     integer,                         -- and the how-manieth of that worker's suspensions it was
  parent      bigint,                          -- the run that started it as a child
  detached    boolean not null default false,  -- a child that is not cancelled with its parent
  followed    boolean not null default false,  -- a run may wait for its end: its parent, or one in follower
  untold      boolean not null default false,  -- it has ended, and not all that follow it have been told
  pausing     boolean not null default false,  -- it is in work, and to be paused once its steps in flight are recorded
  flexible    boolean not null default false,  -- a retry said that its replay may diverge
  tags        text[],
  schedule    text,                            -- the schedule that started it,
  slot_at     timestamptz,                     -- and for which of its times
  reason      text,                            -- why it is blocked or was cancelled
  created_at  timestamptz not null,
  started_at  timestamptz,
  finished_at timestamptz,
  -- What the indexes have in place of the columns that every run changes: of most runs these are always null.
  aside       text generated always as (case
    when state in ('running', 'completed') or (state = 'pending' and due is null) then null else state end) stored,
  timer       timestamptz generated always as (case when state <> 'paused' then due end) stored, -- a paused run keeps its time, and does not begin at it
  open_parent bigint generated always as (case when finished_at is null then parent end) stored,
  open_schedule text generated always as (case when finished_at is null then schedule end) stored,
  check ((state = 'running') = (worker is not null)),
  check (ready_at is null or state = 'pending'),
  check (due is null or state in ('pending', 'suspended', 'paused')),
  check (not pausing or state = 'running'),
  check (not untold or finished_at is not null),
  check ((topics is not null) = (state = 'suspended')),
  check (warm is null or state <> 'running'),
  check ((finished_at is not null) = (state in ('completed', 'failed', 'cancelled')))
)
-- A run's row changes at every claim, wait and finish: vacuum early and without pauses; it skips the pages of what has finished. No index has
-- what a claim and an end change (state, worker, ready_at, finished_at), so that the new version is HOT; for that a page has room for a second
-- version of each of its rows, as neighbours are claimed together.
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Bytewise, so that it also finds all that begins with something.
create unique index run_id on :SCHEMA.run (id text_pattern_ops);
-- What the listing of runs reads, and who looks for runs that nobody serves: see lanes_in_use, lane_runs.
create index run_lane on :SCHEMA.run (workflow, version, queue, key);
create index run_aside on :SCHEMA.run (workflow, version, queue, aside, key) where aside is not null;
create index run_timer on :SCHEMA.run (timer) where timer is not null;
-- Who follows a cancellation.
create index run_child on :SCHEMA.run (open_parent) where open_parent is not null;
create index run_untold on :SCHEMA.run (key) where untold;
create index run_tags on :SCHEMA.run using gin (tags) where tags is not null;

-- Runs that wait for the end of a run that is not their child: they started it with an id that was taken.
create table :SCHEMA.follower (
  run      bigint not null,
  follower bigint not null,
  primary key (run, follower)
);
-- What goes with a follower.
create index follower_of on :SCHEMA.follower (follower);

create table :SCHEMA.input (
  run     bigint primary key,
  args    json not null,                       -- the codec's envelope around the array of arguments; from: 'sql', if it was started so
  hash    text,                                -- canonical hash of the arguments; null: started from SQL
  options json,                                -- what .with() set for this run: retry
  fork    json                                 -- a fork's: [when the run that its history comes from began, [[run, up to which place], ...], the schedule of the first]
)
-- What retention deletes is old and lies together, where no statement of a run in work comes across it. Each vacuum reads all of the index, so
-- it may wait until a tenth of the rows is such; a day of thirty is a thirtieth. The same for checkpoint, mail, outcome and item.
with (autovacuum_vacuum_scale_factor = 0.1);

create table :SCHEMA.checkpoint (
  run        bigint not null,
  slot       text not null,
  attempt    integer not null,                 -- of the workflow: a slot reopened by a retry is recorded anew
  no         integer,                          -- in which order outcomes were handed to the body; null: see delivery
  kind       text not null check (kind in ('step', 'transaction', 'sleep', 'event', 'start', 'child', 'race', 'value', 'stream', 'patch')),
  name       text not null,
  outcome    text not null check (outcome in ('completed', 'failed', 'timeout')),
  value      json,
  hash       text,                             -- of the arguments, where the slot names a reference instead
  tries      integer not null,
  epoch      integer not null,                 -- the claim that wrote it
  started_at timestamptz not null,
  at         timestamptz not null,
  primary key (run, slot, attempt)
)
-- Never updated: between two days that retention deletes, a vacuum only has to freeze it.
with (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_insert_scale_factor = 0.2);

-- The order of outcomes that someone else wrote, a user's transaction for one; append-only, written with the run's next write.
create table :SCHEMA.delivery (
  run     bigint not null,
  no      integer not null,
  slot    text not null,
  attempt integer not null,
  primary key (run, no)
);

-- Tries of a step that failed, or that were marked as begun. The last, successful one is the checkpoint.
create table :SCHEMA.try (
  run         bigint not null,
  slot        text not null,
  attempt     integer not null,
  try         integer not null,
  name        text not null,
  started_at  timestamptz not null,
  finished_at timestamptz,
  error       json,
  primary key (run, slot, attempt, try)
);

-- A finished attempt of a whole workflow that is tried again: its error, and the slots whose failure it set aside.
create table :SCHEMA.round (
  run         bigint not null,
  attempt     integer not null,
  error       json not null,
  reopened    text[] not null,
  finished_at timestamptz not null,
  primary key (run, attempt)
);

-- What a run waits for: sleeps, events, children, races of them, retries of steps. The row goes when the outcome is recorded.
create table :SCHEMA.wait (
  run        bigint not null,
  slot       text not null,
  attempt    integer not null,
  kind       text not null check (kind in ('sleep', 'event', 'retry', 'child', 'race')),
  topics     text[] not null,                  -- kind:name, or child:id; a race has several
  started_at timestamptz not null,
  length_ms  float8,                           -- as the code gave it: a changed length keeps its start
  due        timestamptz,
  tries      integer not null default 0,       -- retry: how many tries failed
  woken      boolean not null default false,   -- sleep: ended early by wake
  primary key (run, slot)
)
-- A row lives as long as its wait, so the table is small and turns over all the time: vacuum early, that its space is used again.
with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

create table :SCHEMA.mail (
  seq       bigint generated always as identity,
  run       bigint not null,
  name      text not null,
  data      json not null,
  reference text,
  token     text,                              -- tells a sender whose answer was lost that its mail is here
  sent_at   timestamptz not null,
  slot      text,                              -- the wait that consumed it
  primary key (run, seq)
)
with (autovacuum_vacuum_scale_factor = 0.1);
create index mail_unread on :SCHEMA.mail (run, seq) where slot is null;
create unique index mail_reference on :SCHEMA.mail (run, name, reference) where reference is not null;
-- What a lost session has to send may arrive when it was sent again.
create unique index mail_token on :SCHEMA.mail (run, token) where reference is null;

create table :SCHEMA.outcome (
  run      bigint primary key,
  value    json,                               -- the result of a completed run, the error of a failed one
  reopened text[]                              -- failed: the slots whose failure it was; a retry sets them aside
)
with (autovacuum_vacuum_scale_factor = 0.1);

-- What is started again and again. When it fires next is computed by the library, from the instants that the database gave it.
create table :SCHEMA.schedule (
  name        text primary key check (octet_length(name) between 1 and 255),
  application text,                            -- whose code declares it; null: made by schedules.put
  cron        text,
  timezone    text,
  every_ms    float8,
  anchor_at   timestamptz not null,            -- from where an interval counts
  workflow    text not null,
  version     text not null,
  queue       text not null,
  priority    smallint not null,
  timeout_ms  float8,
  args        json not null,
  hash        text not null,
  options     json,
  tags        json,
  overlap     text not null check (overlap in ('skip', 'allow', 'cancel_previous')),
  catch_up    text not null check (catch_up in ('latest', 'none', 'all')),
  next_at     timestamptz,                     -- the first slot that has not been dealt with,
  due_at      timestamptz,                     -- and when: at that time, or a little later after trouble
  trouble     text,                            -- why it could not be fired
  last_slot   timestamptz,                     -- the last one that fired,
  last_run    text,                            -- and the run that it started, or that was triggered since
  paused_at   timestamptz,
  created_at  timestamptz not null,
  updated_at  timestamptz not null,
  check ((cron is null) = (timezone is null)),
  check ((cron is null) = (every_ms is not null)),
  check ((next_at is null) = (paused_at is not null)),
  check ((due_at is null) = (next_at is null))
)
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index schedule_due on :SCHEMA.schedule (due_at, name) where due_at is not null;
create index schedule_application on :SCHEMA.schedule (application) where application is not null;
-- What a schedule has started and is not finished: whether its next slot overlaps.
create index run_scheduled on :SCHEMA.run (open_schedule, key) where open_schedule is not null;

-- What became of schedules: changes, and slots that were left out. Kept for 90 days.
create table :SCHEMA.schedule_trace (
  seq         bigint generated always as identity primary key,
  schedule    text not null,
  what        text not null check (what in ('added', 'changed', 'removed', 'paused', 'resumed', 'skipped', 'missed', 'taken')),
  application text,
  from_slot   timestamptz,                     -- skipped, missed, taken: the first slot,
  until_slot  timestamptz,                     -- and the last
  run         text,                            -- skipped: the run that was unfinished; taken: the run that had the id
  at          timestamptz not null
);
create index schedule_trace_of on :SCHEMA.schedule_trace (schedule, seq);
create index schedule_trace_at on :SCHEMA.schedule_trace (at);

-- The applications that declare schedules. The row is locked while they are reconciled: two launches at once do so one after the other.
create table :SCHEMA.application (
  name          text primary key,
  reconciled_at timestamptz not null
);

create table :SCHEMA.worker (
  id         bigint primary key,               -- random per boot; also the key of its session advisory lock
  name       text not null,
  started_at timestamptz not null,
  beat_at    timestamptz not null,
  lease      interval not null,
  knows      text not null,                    -- the newest migration of its release
  hungry     boolean not null default false,   -- has a free slot: wants to hear of work
  watching   boolean not null default false,   -- waits for a result: wants to hear of finishes
  reading    boolean not null default false,   -- reads values or streams: wants to hear of what is published
  dead_at    timestamptz
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- The runs that a worker has taken, a row for each statement that took some: what it holds is among them (see held_runs), and an index of the
-- runs themselves would be changed by each of them. Rows go when the worker has given up all that they name: see tidy_taken.
create table :SCHEMA.taken (
  worker bigint not null,
  no     bigint generated always as identity,
  runs   bigint[] not null,
  primary key (worker, no)
)
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- What a process serves. Its rows go with the worker's.
create table :SCHEMA.lane (
  workflow text not null,
  version  text not null,
  queue    text not null,
  worker   bigint not null,
  primary key (workflow, version, queue, worker)
);

create table :SCHEMA.leader (
  one          boolean primary key default true check (one),
  worker       bigint,
  until        timestamptz not null,
  retention_ms float8 not null default 2592000000 -- how long ended runs are kept: 30 days, until a launch says otherwise; Infinity: for ever
);
insert into :SCHEMA.leader (until) values ('-infinity');

-- The channel of this schema's hints: fixed length, so that no schema name is cut off.
create function :SCHEMA.channel() returns text language sql stable as $perdure$
  select 'perdure_' || left(encode(sha256(convert_to(n.nspname::text, 'UTF8')), 'hex'), 16)
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.oid = (select l.tableoid from :SCHEMA.leader l)
$perdure$;

-- Functions that batches call plan each statement once per connection (plan_cache_mode: for a row or two, planning anew costs more than
-- running), perhaps when the tables are still empty and a scan of them looks cheap: they keep to the indexes (enable_seqscan), and are not
-- compiled for the price that this pretends (jit).

-- Locks the rows of runs, in key order, and says what they hold now.
-- Called by every function that changes runs. p_wait: wait for a lock; otherwise rows that a stranger holds are left out, and stay left
-- out for the rest of the transaction, so that no later write of a run overtakes a skipped one.
-- Locks: runs, in key order.
create function :SCHEMA.hold_runs(p_keys bigint[], p_wait boolean)
returns table (key bigint, epoch integer, state text, mail integer, deadline timestamptz) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_skipped bigint[] := coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[];
  v_keys bigint[];
  v_epochs integer[];
  v_states text[];
  v_mails integer[];
  v_deadlines timestamptz[];
begin
  if p_wait then
    return query select r.key, r.epoch, r.state, r.mail, r.deadline from :SCHEMA.run r
      where r.key = any(p_keys) order by r.key for no key update;
    return;
  end if;
  select coalesce(array_agg(h.key), '{}'), array_agg(h.epoch), array_agg(h.state), array_agg(h.mail), array_agg(h.deadline)
    into v_keys, v_epochs, v_states, v_mails, v_deadlines
    from (
      select r.key, r.epoch, r.state, r.mail, r.deadline from :SCHEMA.run r
      where r.key = any(p_keys) and r.key <> all (v_skipped)
      order by r.key for no key update skip locked
    ) h;
  if cardinality(v_keys) < cardinality(p_keys) and cardinality(v_keys) < (select count(distinct k) from unnest(p_keys) k) then
    perform :SCHEMA.skip_runs(array(select distinct k from unnest(p_keys) k where k <> all (v_keys)));
  end if;
  return query select * from unnest(v_keys, v_epochs, v_states, v_mails, v_deadlines);
end $perdure$;

-- Leaves runs out for the rest of the transaction: a write of theirs was skipped. Called by hold_runs, and where a start of a child is 'busy'.
create function :SCHEMA.skip_runs(p_keys bigint[]) returns void language plpgsql as $perdure$
begin
  perform set_config('perdure.skipped',
    (coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[] || p_keys)::text, true);
end $perdure$;

-- Why a write of a claim was not applied: 'busy' (a stranger holds the row: write it alone) or 'stale' (the claim is over).
-- Called by the functions below for the rows that hold_runs left out or that the fence refused.
create function :SCHEMA.refusal(p_run bigint, p_epoch integer) returns text language sql stable as $perdure$
  select case when exists (select from :SCHEMA.run r where r.key = p_run and r.epoch = p_epoch and r.state = 'running')
    then 'busy' else 'stale' end
$perdure$;

-- Locks the rows of runs that are in work, in key order, passing over what a stranger holds and what was skipped before. Who gets no row asks
-- refuse why. A function, so that whoever joins it expects many rows: from the statistics of the table the planner expects one, and would
-- compare all with all.
-- Called by the functions that record steps and ends. Locks: runs, in key order.
create function :SCHEMA.hold_working(p_keys bigint[]) returns table (key bigint, epoch integer, crashes smallint) language plpgsql rows 1000 as $perdure$
#variable_conflict use_column
declare
  v_skipped bigint[] := coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[];
begin
  return query
    select r.key, r.epoch, r.crashes from :SCHEMA.run r
    where r.key = any(p_keys) and r.state = 'running' and r.key <> all (v_skipped)
    order by r.key for no key update skip locked;
end $perdure$;

-- Why a write was refused, as refusal; a run that is 'busy' is left out from here on, as by hold_runs.
create function :SCHEMA.refuse(p_run bigint, p_epoch integer) returns text language plpgsql as $perdure$
declare
  v_verdict text := :SCHEMA.refusal(p_run, p_epoch);
begin
  if v_verdict = 'busy' then
    perform :SCHEMA.skip_runs(array[p_run]);
  end if;
  return v_verdict;
end $perdure$;

-- What claim_runs, load_runs and load_warm return: a run's own columns, then one recorded outcome, or, for a run that is still in memory, its news.
create type :SCHEMA.loaded as (
  key bigint, id text, workflow text, version text, queue text, epoch integer, attempt integer, crashes integer, mail integer,
  args text, options text, fork text, started_ms float8, deadline_ms float8, now_ms float8,
  waits text, begun text, reopened_from integer, last_no integer, unread text,
  schedule text, slot_ms float8, flexible boolean, followed boolean, reopened text, ended text,
  slot text, slot_attempt integer, no integer, kind text, name text, outcome text, value text, hash text, tries integer, at_ms float8, more boolean, backlog boolean,
  news text
);

-- Starting runs.

-- Makes runs, one per element of the arrays, and says for each what came of it:
--   created   the run is new; leased: p_worker holds it, with epoch 1 and no claim
--   existing  the id is taken by an equal start (same workflow, same input), or p_keep says to take what there is
--   conflict  the id is taken by another workflow or another input
--   circle    the id is that of a run which waits, at the end of a chain of parents, for this very child
--   stale     a child: its parent's claim is over; busy: a stranger holds the parent, or the run whose id is taken; or that run has just expired
-- A child is started by a claim of its parent (p_parents, p_epochs); its time is within its parent's, unless it is detached. A child whose
-- id is taken is followed: the parent is told of its end.
-- Called by the client's start, the engine's children, schedules and start_run. p_lease: the caller has a free slot for this one. It is
-- leased at birth when it is due and nothing claimable stands before it in what the caller serves (p_lanes_*).
-- Locks: parents and followed runs, in key order, and the new rows; waits for a stranger that has inserted the same id and not committed.
create function :SCHEMA.start_runs(
  p_ids text[], p_workflows text[], p_versions text[], p_queues text[], p_priorities smallint[],
  p_delays float8[], p_start_ats float8[], p_timeouts float8[], p_args text[], p_hashes text[], p_options text[], p_keep boolean[],
  p_tags text[], p_parents bigint[], p_epochs integer[], p_detached boolean[], p_schedules text[], p_slots float8[],
  p_lease boolean[], p_worker bigint, p_lane_workflows text[], p_lane_versions text[], p_lane_queues text[], p_wait boolean
) returns table (ord integer, verdict text, key bigint, leased boolean, workflow text, state text, deadline_ms float8, now_ms float8)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_lease boolean := p_worker is not null and true = any(p_lease);
  v_children boolean := array_remove(p_parents, null) <> '{}';
  v_parents bigint[] := '{}';
  v_parent_epochs integer[] := '{}';
  v_parent_deadlines timestamptz[] := '{}';
  v_later timestamptz;
  v_ords integer[];
  v_keys bigint[];
  v_leased boolean[];
  v_deadlines float8[];
  v_followed bigint[];
  v_followers bigint[];
  v_ready_at timestamptz;
begin
  if v_lease and current_setting('perdure.claimed_until', true) <> '' then
    select not :SCHEMA.claimable(p_lane_workflows, p_lane_versions, p_lane_queues, u.priority, u.ready_at) into v_lease
      from :SCHEMA.claimed_until(p_worker) u;
  elsif v_lease then
    v_lease := not :SCHEMA.claimable(p_lane_workflows, p_lane_versions, p_lane_queues);
  end if;
  if v_children then
    select coalesce(array_agg(h.key), '{}'), coalesce(array_agg(h.epoch), '{}'), array_agg(h.deadline)
      into v_parents, v_parent_epochs, v_parent_deadlines
      from :SCHEMA.hold_runs(array(select distinct p from unnest(p_parents) p where p is not null), p_wait) h
      where h.state = 'running';
  end if;

  if cardinality(p_ids) = 1 and not v_children then -- the same, without the arrays: a third of the time
    v_later := greatest(:SCHEMA.from_ms(p_start_ats[1]), v_now + :SCHEMA.ms(p_delays[1]));
    leased := v_lease and coalesce(v_later <= v_now, true);
    insert into :SCHEMA.run as r (id, workflow, version, queue, priority, state, epoch, worker, ready_at, due, deadline, timeout_ms,
      tags, schedule, slot_at, created_at, started_at)
    values (p_ids[1], p_workflows[1], p_versions[1], p_queues[1], p_priorities[1],
      case when leased then 'running' else 'pending' end,
      case when leased then 1 else 0 end,
      case when leased then p_worker end,
      case when not leased and coalesce(v_later <= v_now, true) then v_now end,
      case when v_later > v_now then v_later end,
      case when leased then v_now + :SCHEMA.ms(p_timeouts[1]) end,
      p_timeouts[1],
      case when p_tags[1] is not null then array(select json_array_elements_text(p_tags[1]::json)) end, p_schedules[1], :SCHEMA.from_ms(p_slots[1]),
      v_now, case when leased then v_now end)
    on conflict (id) do nothing
    returning r.key, :SCHEMA.to_ms(r.deadline), r.ready_at into key, deadline_ms, v_ready_at;
    if key is not null then
      insert into :SCHEMA.input (run, args, hash, options) values (key, p_args[1]::json, p_hashes[1], p_options[1]::json);
      if leased then
        perform :SCHEMA.note_taken(p_worker, array[key]);
      elsif v_ready_at is not null then
        insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
        values (p_workflows[1], p_versions[1], p_queues[1], p_priorities[1], v_ready_at, key, 0);
      end if;
      ord := 1;
      verdict := 'created';
      now_ms := :SCHEMA.to_ms(v_now);
      return next;
      return;
    end if;
  else
    with given as materialized (
      select nextval($seq$:SCHEMA.run_key_seq$seq$) as key, g.*, case when not g.detached then f.deadline end as limit_at,
        v_lease and g.lease and coalesce(l.later <= v_now, true) as leased, case when l.later > v_now then l.later end as later
      from unnest(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_delays, p_start_ats, p_timeouts, p_args, p_hashes, p_options,
          p_tags, p_parents, p_epochs, p_detached, p_schedules, p_slots, p_lease)
        with ordinality as g(id, workflow, version, queue, priority, delay, start_at, timeout_ms, args, hash, options,
          tags, parent, epoch, detached, schedule, slot, lease, ord)
      left join unnest(v_parents, v_parent_epochs, v_parent_deadlines) as f(key, epoch, deadline) on f.key = g.parent and f.epoch = g.epoch
      cross join lateral (select greatest(:SCHEMA.from_ms(g.start_at), v_now + :SCHEMA.ms(g.delay)) as later) l
      where g.parent is null or f.key is not null
      order by g.id collate "C", g.ord -- two processes that start the same ids do not wait for each other crosswise
    ), made as (
      insert into :SCHEMA.run (key, id, workflow, version, queue, priority, state, epoch, worker, ready_at, due, deadline, timeout_ms,
        parent, detached, followed, tags, schedule, slot_at, created_at, started_at) overriding system value
      select key, id, workflow, version, queue, priority,
        case when leased then 'running' else 'pending' end,
        case when leased then 1 else 0 end,
        case when leased then p_worker end,
        case when not leased and later is null then v_now + ord * interval '1 microsecond' end, -- the claim keeps the order of the batch
        later,
        least(limit_at, case when leased then v_now + :SCHEMA.ms(timeout_ms) end),
        timeout_ms,
        parent, coalesce(detached, false), parent is not null,
        case when tags is not null then array(select json_array_elements_text(tags::json)) end, schedule, :SCHEMA.from_ms(slot),
        v_now, case when leased then v_now end
      from given
      on conflict (id) do nothing -- the first, of those with one id
      returning key, deadline, workflow, version, queue, priority, ready_at
    ), placed as (
      insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
      select workflow, version, queue, priority, ready_at, key, 0 from made where ready_at is not null
    ), stored as (
      insert into :SCHEMA.input (run, args, hash, options)
      select g.key, g.args::json, g.hash, g.options::json from made m join given g using (key)
    )
    select array_agg(g.ord::integer), array_agg(g.key), array_agg(g.leased), array_agg(:SCHEMA.to_ms(m.deadline))
      into v_ords, v_keys, v_leased, v_deadlines
      from made m join given g using (key);
    if true = any(v_leased) then
      perform :SCHEMA.note_taken(p_worker, array(select m.key from unnest(v_keys, v_leased) as m(key, leased) where m.leased));
    end if;

    if cardinality(v_ords) = cardinality(p_ids) then
      return query select m.ord, 'created', m.key, m.leased, null::text, null::text, m.deadline, :SCHEMA.to_ms(v_now)
        from unnest(v_ords, v_keys, v_leased, v_deadlines) as m(ord, key, leased, deadline);
      return;
    end if;
  end if;
  if p_wait and exists (
    select from unnest(p_ids, p_parents) as g(id, parent) where g.parent is null and not exists (select from :SCHEMA.run r where r.id = g.id)
  ) then -- the run that had the id has expired since
    return query select * from :SCHEMA.start_runs(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_delays, p_start_ats, p_timeouts, p_args,
      p_hashes, p_options, p_keep, p_tags, p_parents, p_epochs, p_detached, p_schedules, p_slots, p_lease, p_worker, p_lane_workflows, p_lane_versions,
      p_lane_queues, p_wait);
    return;
  end if;
  if v_children then
    select array_agg(r.key order by g.ord), array_agg(g.parent order by g.ord) into v_followed, v_followers
      from unnest(p_ids, p_workflows, p_args, p_hashes, p_keep, p_parents, p_epochs) with ordinality as g(id, workflow, args, hash, keep, parent, epoch, ord)
      join unnest(v_parents, v_parent_epochs) as f(key, epoch) on f.key = g.parent and f.epoch = g.epoch
      join :SCHEMA.run r on r.id = g.id and r.parent is distinct from g.parent and r.key <> g.parent
      join :SCHEMA.input i on i.run = r.key
      where g.keep or (r.workflow = g.workflow and :SCHEMA.same_input(i.hash, i.args::text, g.hash, g.args));
    if v_followed is not null then
      perform :SCHEMA.follow_runs(v_followed, v_followers, p_wait);
    end if;
  end if;
  return query
    select g.ord::integer,
      case
        when m.ord is not null then 'created'
        when g.parent is not null and not exists (
          select from unnest(v_parents, v_parent_epochs) as f(key, epoch) where f.key = g.parent and f.epoch = g.epoch) then :SCHEMA.refusal(g.parent, g.epoch)
        when r.key is null then 'busy'
        when not (g.keep or (r.workflow = g.workflow and :SCHEMA.same_input(i.hash, i.args::text, g.hash, g.args))) then 'conflict'
        when g.parent is null or r.parent = g.parent then 'existing'
        when exists (select from :SCHEMA.follower f where f.run = r.key and f.follower = g.parent) then 'existing'
        when :SCHEMA.waits_for(g.parent, r.key) then 'circle'
        else 'busy'
      end,
      r.key, coalesce(m.leased, false), r.workflow, r.state, m.deadline, :SCHEMA.to_ms(v_now)
    from unnest(p_ids, p_workflows, p_args, p_hashes, p_keep, p_parents, p_epochs) with ordinality as g(id, workflow, args, hash, keep, parent, epoch, ord)
    left join :SCHEMA.run r on r.id = g.id
    left join :SCHEMA.input i on i.run = r.key
    left join unnest(v_ords, v_leased, v_deadlines) as m(ord, leased, deadline) on m.ord = g.ord;
end $perdure$;

-- Makes runs that may begin at once, have no parent, schedule or tags, and are left to be claimed, under ids that nobody else can have, as the
-- library has drawn them: as start_runs, without looking whether an id is taken. One row answers for all. An id that is taken after all, because
-- the statement is issued again, is an error (unique_violation), and nothing is made: then start_runs is asked.
-- Called by the client's start, for many at once. Locks: the new rows.
create function :SCHEMA.start_new_runs(
  p_ids text[], p_workflows text[], p_versions text[], p_queues text[], p_priorities smallint[], p_timeouts float8[],
  p_args text[], p_hashes text[], p_options text[]
) returns table (ord integer, verdict text, key bigint, leased boolean, workflow text, state text, deadline_ms float8, now_ms float8)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  with given as materialized (
    select nextval($seq$:SCHEMA.run_key_seq$seq$) as key, v_now + g.ord * interval '1 microsecond' as ready_at, g.* -- the claim keeps the order of the batch
    from unnest(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_timeouts, p_args, p_hashes, p_options)
      with ordinality as g(id, workflow, version, queue, priority, timeout_ms, args, hash, options, ord)
  ), made as (
    insert into :SCHEMA.run (key, id, workflow, version, queue, priority, state, ready_at, timeout_ms, created_at) overriding system value
    select key, id, workflow, version, queue, priority, 'pending', ready_at, timeout_ms, v_now from given
  ), placed as (
    insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
    select workflow, version, queue, priority, ready_at, key, 0 from given
  )
  insert into :SCHEMA.input (run, args, hash, options) select key, args::json, hash, options::json from given;
  verdict := 'created';
  leased := false;
  now_ms := :SCHEMA.to_ms(v_now);
  return next;
end $perdure$;

-- As start_runs, each run by itself: an id that a stranger has inserted and not committed is 'busy', and the others do not wait for it. Once ten
-- were, the rest is 'busy' untried: a stranger that holds so many holds them too, and each costs a wait.
-- Called by the flusher when a batch has met a lock. Locks: as start_runs.
create function :SCHEMA.start_runs_apart(
  p_ids text[], p_workflows text[], p_versions text[], p_queues text[], p_priorities smallint[],
  p_delays float8[], p_start_ats float8[], p_timeouts float8[], p_args text[], p_hashes text[], p_options text[], p_keep boolean[],
  p_tags text[], p_parents bigint[], p_epochs integer[], p_detached boolean[], p_schedules text[], p_slots float8[],
  p_lease boolean[], p_worker bigint, p_lane_workflows text[], p_lane_versions text[], p_lane_queues text[], p_wait boolean
) returns table (ord integer, verdict text, key bigint, leased boolean, workflow text, state text, deadline_ms float8, now_ms float8)
language plpgsql set lock_timeout = '10ms' as $perdure$
declare
  g record;
  v_busy integer := 0;
begin
  for g in
    select * from unnest(p_ids, p_workflows, p_versions, p_queues, p_priorities, p_delays, p_start_ats, p_timeouts, p_args, p_hashes, p_options, p_keep,
        p_tags, p_parents, p_epochs, p_detached, p_schedules, p_slots, p_lease)
      with ordinality as g(id, workflow, version, queue, priority, delay, start_at, timeout_ms, args, hash, options, keep,
        tags, parent, epoch, detached, schedule, slot, lease, ord)
  loop
    begin
      if v_busy < 10 then
        return query select g.ord::integer, s.verdict, s.key, s.leased, s.workflow, s.state, s.deadline_ms, s.now_ms
          from :SCHEMA.start_runs(array[g.id], array[g.workflow], array[g.version], array[g.queue], array[g.priority],
            array[g.delay], array[g.start_at], array[g.timeout_ms], array[g.args], array[g.hash], array[g.options], array[g.keep],
            array[g.tags], array[g.parent], array[g.epoch], array[g.detached], array[g.schedule], array[g.slot],
            array[g.lease], p_worker, p_lane_workflows, p_lane_versions, p_lane_queues, p_wait) s;
        continue;
      end if;
    exception when lock_not_available then
      v_busy := v_busy + 1;
    end;
    if g.parent is not null then
      perform :SCHEMA.skip_runs(array[g.parent]); -- no later write of the parent overtakes this one
    end if;
    ord := g.ord;
    verdict := 'busy';
    leased := false;
    return next;
  end loop;
end $perdure$;

-- Makes parents followers of runs that are not their children and whose id they asked for. The followed row is locked, so that its end
-- either sees the follower or is seen by it. One that waits for the parent is not followed. One that a stranger holds is not either, and no
-- later write of the parent overtakes its start, which is 'busy'.
-- Called by start_runs. Locks: the followed runs, in key order, passing over what a stranger holds (not if p_wait).
create function :SCHEMA.follow_runs(p_runs bigint[], p_followers bigint[], p_wait boolean) returns void language plpgsql as $perdure$
declare
  v_held bigint[];
begin
  select coalesce(array_agg(h.key), '{}') into v_held from :SCHEMA.hold_runs(p_runs, p_wait) h;
  for i in 1 .. cardinality(p_runs) loop -- one after the other: of two that name each other, the second sees the first
    if p_runs[i] <> all (v_held) then
      perform :SCHEMA.skip_runs(p_followers[i : i]);
    elsif not :SCHEMA.waits_for(p_followers[i], p_runs[i]) then
      insert into :SCHEMA.follower (run, follower) values (p_runs[i], p_followers[i]) on conflict do nothing;
    end if;
  end loop;
  update :SCHEMA.run r set followed = true where r.key = any(v_held) and not r.followed;
end $perdure$;

-- Whether one run is another, or its end is waited for by that other: as its child, as one that it follows, or down a chain of those.
-- Called by start_runs, which has locked both, so that of two runs that name each other the second sees the first. Locks: nothing.
create function :SCHEMA.waits_for(p_run bigint, p_ancestor bigint) returns boolean language sql stable as $perdure$
  with recursive line(key) as (
    select p_run
    union
    select w.waiter from line l cross join lateral (
      select r.parent as waiter from :SCHEMA.run r where r.key = l.key and r.parent is not null
      union all
      select f.follower from :SCHEMA.follower f where f.run = l.key
    ) w
  )
  select exists (select from line where key = p_ancestor)
$perdure$;

-- Whether two inputs are equal: by their canonical hashes, or, where one came from SQL and has none, as JSON.
create function :SCHEMA.same_input(p_hash text, p_args text, p_other_hash text, p_other_args text) returns boolean language plpgsql stable as $perdure$
begin
  if p_hash is not null and p_other_hash is not null then
    return p_hash = p_other_hash;
  end if;
  return p_args::jsonb - 'from' = p_other_args::jsonb - 'from';
exception when others then -- what jsonb cannot hold, a NUL for one, SQL did not send
  return p_args = p_other_args;
end $perdure$;

-- Hints at a run that was started in a user's transaction: at work, if a worker is idle, or at a timer, which the leader sets itself.
-- Called by start_run, and by the library in the caller's transaction. Locks: nothing.
create function :SCHEMA.tell_start(p_delayed boolean) returns boolean language plpgsql as $perdure$
begin
  if p_delayed then
    perform :SCHEMA.hint('t');
  elsif (select w.hungry from :SCHEMA.wanted(0) w) then
    perform :SCHEMA.hint('w');
  end if;
  return true;
end $perdure$;

-- Whether anything that a worker serves can be claimed, from a place in the claim's order on. Called by start_runs, claim_runs and peek.
-- Locks: nothing.
create function :SCHEMA.claimable(
  p_workflows text[], p_versions text[], p_queues text[], p_priority smallint default -32768, p_ready_at timestamptz default '-infinity'
) returns boolean language plpgsql stable as $perdure$
begin
  return exists (
    select from unnest(p_workflows, p_versions, p_queues) as lane(workflow, version, queue)
    cross join lateral (
      select from :SCHEMA.ready q
      where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue and (q.priority, q.ready_at) >= (p_priority, p_ready_at)
      limit 1
    ) one
  );
end $perdure$;

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

-- The workers that are alive and have a free slot that no known work will fill. Asked only where a run is claimable that another worker has in
-- memory. Called by claim_runs. Locks: nothing.
create function :SCHEMA.hungry_workers() returns setof bigint language sql stable as $perdure$
  select w.id from :SCHEMA.worker w
  where w.hungry and w.dead_at is null and w.beat_at + w.lease > :SCHEMA.clock() and exists (
    select from pg_catalog.pg_locks l
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
      and l.classid::bigint = (w.id >> 32) & 4294967295 and l.objid::bigint = w.id & 4294967295
  )
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

-- Recording outcomes. Every row names its claim (run, epoch) and is refused alone when that claim is over. Verdicts:
--   ok     recorded, or recorded before by the same claim (the answer to an earlier try was lost)
--   busy   a stranger's open transaction holds the run's row: write it alone, waiting
--   stale  the claim is over

-- Where all of many rows are ok, record_steps, finish_runs and end_runs say so in one row whose ord is null. record_steps and end_runs take one
-- element of p_epochs, p_attempts, p_kinds, p_names, p_outcomes, p_tries and p_states for all rows: most of a batch are alike in these.

-- Records outcomes of steps and waits. A new checkpoint ends the count of crashes and takes the wait and the mail of its slot. p_again: some
-- may have been recorded before. Not the first time, as a claim writes each outcome once: then many are written without a look for those that are there.
-- Called by the flusher, and by a transaction step in the user's own transaction.
-- Locks: runs, in key order.
create function :SCHEMA.record_steps(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_nos integer[], p_kinds text[], p_names text[],
  p_outcomes text[], p_values text[], p_hashes text[], p_tries integer[], p_started float8[], p_ats float8[], p_mails bigint[], p_wait boolean,
  p_again boolean default true
) returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_skipped bigint[] := coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[];
  v_steps boolean := not p_again and 'step' = all (p_kinds) and 1 = all (p_tries);
  v_many integer[] := case when cardinality(p_runs) > 1 then array[cardinality(p_runs)] end;
  v_count integer;
  v_ords integer[];
  v_crashed boolean;
begin
  if v_many is not null then
    if cardinality(p_epochs) = 1 then p_epochs := array_fill(p_epochs[1], v_many); end if;
    if cardinality(p_attempts) = 1 then p_attempts := array_fill(p_attempts[1], v_many); end if;
    if cardinality(p_kinds) = 1 then p_kinds := array_fill(p_kinds[1], v_many); end if;
    if cardinality(p_names) = 1 then p_names := array_fill(p_names[1], v_many); end if;
    if cardinality(p_outcomes) = 1 then p_outcomes := array_fill(p_outcomes[1], v_many); end if;
    if cardinality(p_tries) = 1 then p_tries := array_fill(p_tries[1], v_many); end if;
  end if;
  if p_wait then
    perform from :SCHEMA.hold_runs(p_runs, true);
  end if;
  if v_steps and cardinality(p_runs) = 1 then
    select r.crashes > 0 into v_crashed from :SCHEMA.run r
      where r.key = p_runs[1] and r.epoch = p_epochs[1] and r.state = 'running' and r.key <> all (v_skipped)
      for no key update skip locked;
    v_count := 0;
    if found then
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
      values (p_runs[1], p_slots[1], p_attempts[1], p_nos[1], 'step', p_names[1], p_outcomes[1], p_values[1]::json, p_hashes[1], 1, p_epochs[1],
        :SCHEMA.from_ms(p_started[1]), :SCHEMA.from_ms(p_ats[1]))
      on conflict do nothing;
      get diagnostics v_count = row_count;
    end if;
  elsif v_steps then -- none of them has a wait or mail
    select count(*), bool_or(h.crashes > 0) into v_count, v_crashed
      from :SCHEMA.hold_working(p_runs) h join unnest(p_runs, p_epochs) as g(run, epoch) on g.run = h.key and g.epoch = h.epoch;
    v_steps := v_count = cardinality(p_runs);
    if v_steps then
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
      select g.run, g.slot, g.attempt, g.no, 'step', g.name, g.outcome, g.value::json, g.hash, 1, g.epoch, :SCHEMA.from_ms(g.started), :SCHEMA.from_ms(g.at)
      from unnest(p_runs, p_epochs, p_slots, p_attempts, p_nos, p_names, p_outcomes, p_values, p_hashes, p_started, p_ats)
        as g(run, epoch, slot, attempt, no, name, outcome, value, hash, started, at);
    end if;
  end if;
  if not v_steps then
    with given as materialized (
      select * from unnest(p_runs, p_epochs, p_slots, p_attempts, p_nos, p_kinds, p_names, p_outcomes, p_values, p_hashes, p_tries, p_started, p_ats)
        with ordinality as g(run, epoch, slot, attempt, no, kind, name, outcome, value, hash, tries, started, at, ord)
    ), held as materialized (
      select * from :SCHEMA.hold_working(p_runs)
    ), put as (
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
      select g.run, g.slot, g.attempt, g.no, g.kind, g.name, g.outcome, g.value::json, g.hash, g.tries, g.epoch,
        coalesce(case when g.kind in ('sleep', 'event', 'child', 'race') then ( -- it began when the wait did, in another claim perhaps
          select w.started_at from :SCHEMA.wait w where w.run = g.run and w.slot = g.slot) end, :SCHEMA.from_ms(g.started)),
        :SCHEMA.from_ms(g.at)
      from given g join held h on h.key = g.run and h.epoch = g.epoch
      order by g.ord
      on conflict do nothing
      returning run, slot, attempt
    )
    select count(*), array_agg(g.ord::integer), (select bool_or(h.crashes > 0) from held h) into v_count, v_ords, v_crashed
      from put p join given g using (run, slot, attempt);
    delete from :SCHEMA.wait w using unnest(v_ords) o where w.run = p_runs[o] and w.slot = p_slots[o];
    update :SCHEMA.mail m set slot = p_slots[o] from unnest(v_ords) o where p_mails[o] is not null and m.run = p_runs[o] and m.seq = p_mails[o];
  end if;

  if v_crashed then
    update :SCHEMA.run r set crashes = 0 where r.key = any(p_runs) and r.crashes > 0 and exists (
      select from unnest(p_runs, p_epochs, p_slots, p_attempts) as g(run, epoch, slot, attempt)
      join :SCHEMA.checkpoint c on c.run = g.run and c.slot = g.slot and c.attempt = g.attempt and c.epoch = g.epoch
      where g.run = r.key and g.epoch = r.epoch and r.state = 'running');
  end if;
  if v_count = cardinality(p_runs) then
    ord := case when v_count = 1 then 1 end;
    verdict := 'ok';
    return next;
    return;
  end if;
  return query
    select g.ord::integer, case
      when c.epoch = g.epoch then 'ok'
      when c.epoch is not null then 'stale'
      else :SCHEMA.refuse(g.run, g.epoch)
    end
    from unnest(p_runs, p_epochs, p_slots, p_attempts) with ordinality as g(run, epoch, slot, attempt, ord)
    left join :SCHEMA.checkpoint c on c.run = g.run and c.slot = g.slot and c.attempt = g.attempt;
end $perdure$;

-- Records in which place of the order an outcome that someone else wrote was handed to the body.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.record_deliveries(p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_nos integer[], p_wait boolean)
returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_slots, p_attempts, p_nos) with ordinality as g(run, epoch, slot, attempt, no, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.* from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
  ), put as (
    insert into :SCHEMA.delivery (run, no, slot, attempt) select run, no, slot, attempt from own on conflict do nothing
  )
  select g.ord::integer, case when o.ord is not null then 'ok' else :SCHEMA.refusal(g.run, g.epoch) end
  from given g left join own o using (ord);
end $perdure$;

-- Records tries of steps: begun (p_errors null) or failed.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.record_tries(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_tries integer[], p_names text[], p_started float8[], p_ats float8[],
  p_errors text[], p_wait boolean
) returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_slots, p_attempts, p_tries, p_names, p_started, p_ats, p_errors)
      with ordinality as g(run, epoch, slot, attempt, try, name, started, at, error, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.* from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
  ), put as (
    insert into :SCHEMA.try as t (run, slot, attempt, try, name, started_at, finished_at, error)
    -- one row per key: a try that begins and fails within one batch is written as failed
    select distinct on (run, slot, attempt, try) run, slot, attempt, try, name, :SCHEMA.from_ms(started), :SCHEMA.from_ms(at), error::json
    from own order by run, slot, attempt, try, ord desc
    on conflict (run, slot, attempt, try) do update set started_at = excluded.started_at, finished_at = excluded.finished_at, error = excluded.error
    where t.finished_at is null
  )
  select g.ord::integer, case when o.ord is not null then 'ok' else :SCHEMA.refusal(g.run, g.epoch) end
  from given g left join own o using (ord);
end $perdure$;

-- A run's recorded outcomes with their place in the order, whoever wrote it. Called by effective and fork_run. Locks: nothing.
create function :SCHEMA.numbered(p_run bigint) returns setof :SCHEMA.checkpoint language sql stable as $perdure$
  select c.run, c.slot, c.attempt, coalesce(c.no, d.no), c.kind, c.name, c.outcome, c.value, c.hash, c.tries, c.epoch, c.started_at, c.at
  from :SCHEMA.checkpoint c
  left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt and c.no is null
  where c.run = p_run
$perdure$;

-- What counts of them: all but those that a retry of the workflow set aside.
-- Called by fork_run. Locks: nothing.
create function :SCHEMA.effective(p_run bigint) returns setof :SCHEMA.checkpoint language sql stable as $perdure$
  select c.* from :SCHEMA.numbered(p_run) c
  where not exists (
    select from :SCHEMA.round o where o.run = c.run and o.attempt >= c.attempt and c.slot = any(o.reopened))
$perdure$;

-- Waiting: what a run waits for is written when the wait begins; the run is given up when nothing else is left to do.

-- Begins waits. A wait that is there keeps its start, so a changed length counts from it, and stays woken; a retry of a step begins anew.
-- due_ms: when it is due, in milliseconds since 1970; null: no timer. p_topics: a JSON array each. ended: a run whose end it waits for has ended
-- before, when nobody was told: that is news, so the mail counter is raised, and no suspension gets past it.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.begin_waits(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_kinds text[], p_topics text[],
  p_lengths float8[], p_untils float8[], p_tries integer[], p_wait boolean
) returns table (ord integer, verdict text, due_ms float8, ended boolean) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_ended bigint[];
begin
  select array_agg(g.ord) into v_ended
    from unnest(p_kinds, p_topics) with ordinality as g(kind, topics, ord)
    where g.kind in ('child', 'race') and exists (
      select from json_array_elements_text(g.topics::json) as t(topic) join :SCHEMA.run c on c.id = substr(t.topic, 7)
      where starts_with(t.topic, 'child:') and c.finished_at is not null
    );
  return query
  with given as materialized (
    select g.*, array(select json_array_elements_text(g.topics_json::json)) as topics
    from unnest(p_runs, p_epochs, p_slots, p_attempts, p_kinds, p_topics, p_lengths, p_untils, p_tries)
      with ordinality as g(run, epoch, slot, attempt, kind, topics_json, length, until, tries, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.* from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
  ), put as (
    insert into :SCHEMA.wait as w (run, slot, attempt, kind, topics, started_at, length_ms, due, tries)
    select run, slot, attempt, kind, topics, v_now, length, coalesce(:SCHEMA.from_ms(until), v_now + :SCHEMA.ms(length)), tries from own
    on conflict (run, slot) do update set
      started_at = case when w.kind = 'retry' then excluded.started_at else w.started_at end,
      length_ms = excluded.length_ms,
      due = case when w.woken then w.due when w.kind = 'retry' or excluded.length_ms is null then excluded.due else w.started_at + :SCHEMA.ms(excluded.length_ms) end,
      tries = excluded.tries, topics = excluded.topics
    returning run, slot, due
  ), news as (
    update :SCHEMA.run r set mail = r.mail + 1 where r.key in (select run from own where ord = any(v_ended))
  )
  select g.ord::integer, case when o.ord is not null then 'ok' else :SCHEMA.refusal(g.run, g.epoch) end,
    :SCHEMA.to_ms(p.due),
    coalesce(g.ord = any(v_ended), false)
  from given g left join own o using (ord) left join put p on p.run = g.run and p.slot = g.slot;
end $perdure$;

-- Gives runs up until one of the named slots has news. Not if there is news already: the mail counter, read under the row's lock,
-- is not the one that the claim has seen ('mail'), or a timer is due ('due'). Then the claim goes on and looks. A run that is to be paused
-- is paused here. One that waits for many children is told of them by number ('children:1000'), so that its row stays narrow; see tell_followers.
-- due_ms: when the run's first timer is due, in milliseconds since 1970: so the time that the answer takes is none of it. p_slots: a JSON array of slots per run. p_warm_nos: the worker keeps it in memory, as the
-- how-manieth of its suspensions; null: it does not.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.suspend_runs(p_runs bigint[], p_epochs integer[], p_mails integer[], p_slots text[], p_warm_nos integer[], p_worker bigint, p_wait boolean)
returns table (ord integer, verdict text, due_ms float8) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_mails, p_slots, p_warm_nos) with ordinality as g(run, epoch, mail, slots, warm_no, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), own as materialized (
    select g.ord, g.run, g.warm_no, h.mail <> g.mail as mailed, least(w.due, h.deadline) as due,
      case when w.children > 16 then array_append(coalesce(w.others, '{}'), 'children:' || w.children) else coalesce(w.topics, '{}') end as topics
    from given g
    join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    cross join lateral (
      select min(w.due) as due, array_agg(t.topic) filter (where t.topic is not null) as topics, array_agg(t.topic) filter (where not starts_with(t.topic, 'child:')) as others,
        count(*) filter (where starts_with(t.topic, 'child:')) as children
      from json_array_elements_text(g.slots::json) as s(slot)
      join :SCHEMA.wait w on w.run = g.run and w.slot = s.slot left join unnest(w.topics) as t(topic) on true
    ) w
  ), done as (
    update :SCHEMA.run r set worker = null, pausing = false,
      state = case when r.pausing then 'paused' else 'suspended' end,
      due = case when not r.pausing then o.due end,
      topics = case when not r.pausing then o.topics end,
      warm = case when o.warm_no is not null then p_worker end, warm_no = o.warm_no
    from own o where r.key = o.run and not o.mailed and coalesce(o.due > v_now, true)
    returning r.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when o.mailed then 'mail'
      when o.ord is not null then 'due'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state in ('suspended', 'paused')) then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end,
    :SCHEMA.to_ms(o.due)
  from given g left join own o using (ord) left join done d on d.key = g.run;
end $perdure$;

-- Takes a suspended run back for the claim that suspended it: its body, still in memory, goes on by itself (an await of its own ended).
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.reclaim_runs(p_runs bigint[], p_epochs integer[], p_worker bigint, p_wait boolean)
returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  perform :SCHEMA.note_taken(p_worker, p_runs);
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs) with ordinality as g(run, epoch, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set state = 'running', worker = p_worker, epoch = r.epoch + 1, due = null, topics = null, warm = null, warm_no = null
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'suspended'
    where r.key = g.run
    returning r.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state = 'suspended') then 'busy'
      else 'stale'
    end
  from given g left join done d on d.key = g.run;
end $perdure$;

-- What is new for runs: the mail counter, unread mail after a position, the slots whose timer is due, the ends that were waited for, and
-- whether the claim still holds, and is to be given up for a pause.
-- next_ms: milliseconds until the next timer of an open wait.
-- Called by the engine after a hint, after a timer, and when a suspension was refused. One snapshot, so counter and mail agree.
-- Locks: nothing.
create function :SCHEMA.look_runs(p_runs bigint[], p_epochs integer[], p_after bigint[])
returns table (run bigint, held boolean, pausing boolean, mail integer, unread text, due text, ended text, next_ms float8, now_ms float8) language sql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
  select g.run,
    r.epoch = g.epoch and r.state = 'running',
    r.pausing,
    r.mail,
    :SCHEMA.unread(g.run, g.after)::text,
    w.due::text,
    (case when w.ends then :SCHEMA.ended(g.run) end)::text,
    :SCHEMA.to_ms(w.next) - :SCHEMA.to_ms(:SCHEMA.clock()),
    :SCHEMA.to_ms(:SCHEMA.clock())
  from unnest(p_runs, p_epochs, p_after) as g(run, epoch, after)
  join :SCHEMA.run r on r.key = g.run
  cross join lateral (
    select json_agg(json_build_array(w.slot, json_build_object('at', :SCHEMA.to_ms(w.due), 'woken', w.woken))) filter (where w.due <= :SCHEMA.clock()) as due,
      min(w.due) filter (where w.due > :SCHEMA.clock()) as next, bool_or(w.kind in ('child', 'race')) as ends
    from :SCHEMA.wait w where w.run = g.run
  ) w
$perdure$;

-- Ends the sleeps of runs early, not those that are over by the clock. Says 'woken', or the state of a run that is not asleep, or null: no such run.
-- Called by the handle's wake. Locks: runs, in key order.
create function :SCHEMA.wake_runs(p_ids text[]) returns table (id text, verdict text) language plpgsql as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  -- A statement of its own: a sleep that begins meanwhile is seen by one that begins once the row is locked.
  perform from :SCHEMA.run r where r.id = any(p_ids) order by r.key for no key update;
  return query
  with held as materialized (
    select r.key, r.id, r.state from :SCHEMA.run r where r.id = any(p_ids)
  ), asleep as (
    update :SCHEMA.wait w set due = v_now, woken = true
    from held h where w.run = h.key and w.kind = 'sleep' and w.due > v_now and h.state in ('running', 'suspended')
    returning w.run
  ), told as (
    update :SCHEMA.run r set mail = r.mail + 1,
      state = case r.state when 'suspended' then 'pending' else r.state end,
      ready_at = case r.state when 'suspended' then v_now end, due = null, topics = null
    where r.key in (select run from asleep)
    returning r.key
  )
  select h.id, case when t.key is not null then 'woken' else h.state end from held h left join told t using (key);
  perform :SCHEMA.hint('cw');
end $perdure$;

-- Makes runs claimable whose timer is due: sleeps, timeouts of waits, retries, delayed starts. next_ms: until the next timer of all, or
-- the next slot of a schedule, counted from now_ms; a run that is due and that somebody holds is looked for again after 100 ms. scheduled: slots are due.
-- No merge and no hash join: of a limit that is a parameter the planner expects a tenth of the table, and would read all of it to join them.
-- Called by the leader's sweeper, and by a worker for the timers of runs that it suspended.
-- Locks: runs, in the order of their timers, skipping what is locked.
create function :SCHEMA.wake_due(p_limit integer) returns table (woken integer, next_ms float8, now_ms float8, scheduled boolean) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_mergejoin = off set enable_hashjoin = off set jit = off as $perdure$
declare
  v_now timestamptz := :SCHEMA.clock();
  v_due integer;
begin
  with late as materialized ( -- materialized, so that the limited, locking subquery runs once
    select r.key from :SCHEMA.run r where r.timer <= v_now order by r.timer limit p_limit for no key update skip locked
  ), done as (
    update :SCHEMA.run r set state = 'pending', ready_at = r.due, due = null, topics = null from late where r.key = late.key returning 1
  )
  select (select count(*) from done),
      (select count(*) from (select from :SCHEMA.run r where r.timer <= v_now order by r.timer limit p_limit) d)
    into woken, v_due;
  select :SCHEMA.to_ms(least(
      (select min(r.timer) from :SCHEMA.run r where r.timer > v_now),
      (select min(s.due_at) from :SCHEMA.schedule s where s.due_at > v_now)
    )) - :SCHEMA.to_ms(v_now), exists (select from :SCHEMA.schedule s where s.due_at <= v_now)
    into next_ms, scheduled;
  if woken < v_due then
    next_ms := least(next_ms, 100);
  end if;
  now_ms := :SCHEMA.to_ms(v_now);
  return next;
end $perdure$;

-- Events: rows in a run's mailbox, kept before anyone waits.

-- A hint to everybody: letters for what there is to look for (w work, c change of a run in work, t timer, d done, v published, n new worker,
-- b busy). A number behind w names the worker that is to take it; the others look a moment later.
-- Called at the end of SQL functions in a user's transaction. The library hints behind its commits, by lib/db/hint.ts.
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

-- The ends of an attempt: finished, tried again, blocked.

-- Finishes runs, and tells those that wait for their end. p_reopened: for a failure, a JSON array of the slots that it came from.
-- woken, working, next_ms, untold: what tell_followers says, the same in each row.
-- Called by the flusher. Locks: runs, in key order; then those that follow them, passing over what is locked.
create function :SCHEMA.finish_runs(p_runs bigint[], p_epochs integer[], p_states text[], p_values text[], p_reopened text[], p_wait boolean)
returns table (ord integer, verdict text, woken integer, working integer, next_ms float8, untold integer) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_skipped bigint[] := coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[];
  v_count integer;
  v_followed bigint[];
begin
  if p_wait then
    perform from :SCHEMA.hold_runs(p_runs, true);
  end if;
  if cardinality(p_runs) = 1 then
    perform from :SCHEMA.run r
      where r.key = p_runs[1] and r.epoch = p_epochs[1] and r.state = 'running' and r.key <> all (v_skipped)
      for no key update skip locked;
    v_count := 0;
    if found then
      v_count := 1;
      update :SCHEMA.run r set state = p_states[1], worker = null, pausing = false, finished_at = v_now
        where r.key = p_runs[1] returning case when r.followed then p_runs end into v_followed;
      insert into :SCHEMA.outcome (run, value, reopened)
        values (p_runs[1], p_values[1]::json, case when p_reopened[1] is not null then array(select json_array_elements_text(p_reopened[1]::json)) end);
    end if;
  else
  with held as materialized (
    select * from :SCHEMA.hold_working(p_runs)
  ), done as (
    update :SCHEMA.run r set state = g.state, worker = null, pausing = false, finished_at = v_now
    from unnest(p_runs, p_epochs, p_states, p_values, p_reopened) as g(run, epoch, state, value, reopened)
    join held h on h.key = g.run and h.epoch = g.epoch
    where r.key = g.run
    returning r.key, r.followed, g.value, g.reopened
  ), put as (
    insert into :SCHEMA.outcome (run, value, reopened)
    select d.key, d.value::json, case when d.reopened is not null then array(select json_array_elements_text(d.reopened::json)) end from done d
  )
  select count(*), array_agg(key) filter (where followed) into v_count, v_followed from done;
  end if;

  if v_followed is not null then
    select t.woken, t.working, t.next_ms, t.untold into woken, working, next_ms, untold from :SCHEMA.tell_followers(v_followed) t;
  end if;
  if v_count = cardinality(p_runs) then
    ord := case when v_count = 1 then 1 end;
    verdict := 'ok';
    return next;
    return;
  end if;
  return query
  select g.ord::integer, case
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state = g.state) then 'ok'
      else :SCHEMA.refuse(g.run, g.epoch)
    end, woken, working, next_ms, untold
  from unnest(p_runs, p_epochs, p_states) with ordinality as g(run, epoch, state, ord);
end $perdure$;

-- Records the last step of runs and finishes them: record_steps and finish_runs in one, with one look at each run's row. A step that
-- succeeded or failed at its first try, so it has no wait and no mail. recorded: what record_steps would say; the rest as finish_runs. p_again: as
-- there.
-- Called by the flusher. Locks: as finish_runs.
create function :SCHEMA.end_runs(
  p_runs bigint[], p_epochs integer[], p_slots text[], p_attempts integer[], p_nos integer[], p_names text[], p_outcomes text[], p_values text[],
  p_hashes text[], p_started float8[], p_ats float8[], p_states text[], p_results text[], p_reopened text[], p_wait boolean,
  p_again boolean default true
) returns table (ord integer, verdict text, recorded text, woken integer, working integer, next_ms float8, untold integer)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_skipped bigint[] := coalesce(nullif(current_setting('perdure.skipped', true), ''), '{}')::bigint[];
  v_many integer[] := case when cardinality(p_runs) > 1 then array[cardinality(p_runs)] end;
  v_count integer := 0;
  v_followed bigint[];
  v_said text[];
begin
  if v_many is not null then -- see record_steps
    if cardinality(p_epochs) = 1 then p_epochs := array_fill(p_epochs[1], v_many); end if;
    if cardinality(p_attempts) = 1 then p_attempts := array_fill(p_attempts[1], v_many); end if;
    if cardinality(p_names) = 1 then p_names := array_fill(p_names[1], v_many); end if;
    if cardinality(p_outcomes) = 1 then p_outcomes := array_fill(p_outcomes[1], v_many); end if;
    if cardinality(p_states) = 1 then p_states := array_fill(p_states[1], v_many); end if;
  end if;
  if p_wait then
    perform from :SCHEMA.hold_runs(p_runs, true);
  end if;
  if not p_again and cardinality(p_runs) = 1 then -- the same, without the arrays: less than half the time
    perform from :SCHEMA.run r
      where r.key = p_runs[1] and r.epoch = p_epochs[1] and r.state = 'running' and r.key <> all (v_skipped)
      for no key update skip locked;
    if found then
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
        values (p_runs[1], p_slots[1], p_attempts[1], p_nos[1], 'step', p_names[1], p_outcomes[1], p_values[1]::json, p_hashes[1], 1, p_epochs[1],
          :SCHEMA.from_ms(p_started[1]), :SCHEMA.from_ms(p_ats[1]))
        on conflict do nothing;
    end if;
    if found then
      update :SCHEMA.run r set state = p_states[1], worker = null, pausing = false, crashes = 0, finished_at = v_now
        where r.key = p_runs[1] returning case when r.followed then p_runs end into v_followed;
      insert into :SCHEMA.outcome (run, value, reopened)
        values (p_runs[1], p_results[1]::json, case when p_reopened[1] is not null then array(select json_array_elements_text(p_reopened[1]::json)) end);
      v_count := 1;
    end if;
  elsif not p_again then
    select count(*) into v_count
      from :SCHEMA.hold_working(p_runs) h join unnest(p_runs, p_epochs) as g(run, epoch) on g.run = h.key and g.epoch = h.epoch;
    if v_count = cardinality(p_runs) then
      insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
      select g.run, g.slot, g.attempt, g.no, 'step', g.name, g.outcome, g.value::json, g.hash, 1, g.epoch, :SCHEMA.from_ms(g.started), :SCHEMA.from_ms(g.at)
      from unnest(p_runs, p_epochs, p_slots, p_attempts, p_nos, p_names, p_outcomes, p_values, p_hashes, p_started, p_ats)
        as g(run, epoch, slot, attempt, no, name, outcome, value, hash, started, at);
      with done as (
        update :SCHEMA.run r set state = g.state, worker = null, pausing = false, crashes = 0, finished_at = v_now
        from unnest(p_runs, p_states, p_results, p_reopened) as g(run, state, result, reopened)
        where r.key = g.run
        returning r.key, r.followed, g.result, g.reopened
      ), stored as (
        insert into :SCHEMA.outcome (run, value, reopened)
        select d.key, d.result::json, case when d.reopened is not null then array(select json_array_elements_text(d.reopened::json)) end from done d
      )
      select array_agg(d.key) filter (where d.followed) into v_followed from done d;
    end if;
  end if;

  if v_count < cardinality(p_runs) then -- some are refused, or may be recorded already
    select case when s.ord is null then array_fill(s.verdict, array[cardinality(p_runs)]) else s.said end into v_said from (
      select min(s.ord) as ord, min(s.verdict) as verdict, array_agg(s.verdict order by s.ord) as said
      from :SCHEMA.record_steps(p_runs, p_epochs, p_slots, p_attempts, p_nos, array_fill('step'::text, array[cardinality(p_runs)]), p_names, p_outcomes,
        p_values, p_hashes, array_fill(1, array[cardinality(p_runs)]), p_started, p_ats, '{}', p_wait, true) s
    ) s;
    return query select g.ord, f.verdict, v_said[g.ord], f.woken, f.working, f.next_ms, f.untold
      from :SCHEMA.finish_runs(p_runs, p_epochs, p_states, p_results, p_reopened, p_wait) f
      join generate_series(1, cardinality(p_runs)) as g(ord) on f.ord = g.ord or f.ord is null;
    return;
  end if;
  if v_followed is not null then
    select t.woken, t.working, t.next_ms, t.untold into woken, working, next_ms, untold from :SCHEMA.tell_followers(v_followed) t;
  end if;
  ord := case when v_count = 1 then 1 end;
  verdict := 'ok';
  recorded := 'ok';
  return next;
end $perdure$;

-- Tells the runs that wait for the end of these: raises their mail counter, and wakes those that are suspended on it. One that waits for
-- many is woken when all have ended, and otherwise a little later, 0.1 ms for each, so that it replays once for many ends and not once for each.
-- What a stranger's transaction holds is passed over; the ended run is marked 'untold', and told of again by tell_untold.
-- woken, working: how many became claimable, how many are in work and should look; next_ms: until the first of those that are woken later.
-- Called where runs end. Locks: the followers, in key order, passing over what is locked; then the ended runs, which the caller holds.
create function :SCHEMA.tell_followers(p_keys bigint[]) returns table (woken integer, working integer, next_ms float8, untold integer)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
  v_ended bigint[];
  v_topics text[];
  v_followers bigint[];
  v_held bigint[];
begin
  select array_agg(p.ended), array_agg('child:' || p.id), array_agg(p.follower) into v_ended, v_topics, v_followers from (
    select r.key as ended, r.id, r.parent as follower from :SCHEMA.run r where r.key = any(p_keys) and r.parent is not null
    union
    select r.key, r.id, f.follower from :SCHEMA.follower f join :SCHEMA.run r on r.key = f.run where f.run = any(p_keys)
  ) p;
  select array_agg(h.key) into v_held from (
    select r.key from :SCHEMA.run r where r.key = any(v_followers) order by r.key for no key update skip locked
  ) h;
  with news as materialized (
    select n.follower, count(*)::integer as ends, array_agg(n.topic) as topics
    from unnest(v_followers, v_topics) as n(follower, topic) where n.follower = any(v_held) group by n.follower
  ), weighed as materialized (
    select n.follower, m.many, m.many - n.ends as left_over,
      r.state = 'suspended' and (r.topics && n.topics or m.many <= n.ends) as wakes
    from news n join :SCHEMA.run r on r.key = n.follower
    left join lateral (
      select substr(t.topic, 10)::integer as many from unnest(r.topics) as t(topic) where starts_with(t.topic, 'children:')
    ) m on true
    where r.finished_at is null
  ), told as (
    update :SCHEMA.run r set mail = r.mail + 1,
      state = case when w.wakes then 'pending' else r.state end,
      ready_at = case when w.wakes then v_now else r.ready_at end,
      due = case when w.wakes then null when w.many is not null then least(r.due, v_now + w.many * interval '100 microseconds') else r.due end,
      topics = case
        when w.wakes then null
        when w.many is not null then array_replace(r.topics, 'children:' || w.many, 'children:' || w.left_over)
        else r.topics end
    from weighed w where r.key = w.follower
    returning w.wakes, r.state, case when w.many is not null then r.due end as due
  )
  select count(*) filter (where t.wakes), count(*) filter (where t.state = 'running'), :SCHEMA.to_ms(min(t.due)) - :SCHEMA.to_ms(v_now)
    into woken, working, next_ms from told t;

  with missed as (
    select distinct n.ended from unnest(v_ended, v_followers) as n(ended, follower)
    where n.follower <> all (coalesce(v_held, '{}')) and exists (select from :SCHEMA.run r where r.key = n.follower) -- it may be gone
  )
  update :SCHEMA.run r set untold = r.key in (select ended from missed)
    where r.key = any(p_keys) and r.untold <> (r.key in (select ended from missed));
  select count(*) into untold from :SCHEMA.run r where r.key = any(p_keys) and r.untold;
  return next;
end $perdure$;

-- Tells of ends that not all were told of. Called by the flusher soon after, and by the leader. Locks: ended runs, passing over what is
-- locked, then as tell_followers.
create function :SCHEMA.tell_untold(p_limit integer) returns table (woken integer, working integer, next_ms float8, untold integer)
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_keys bigint[];
begin
  select array_agg(u.key) into v_keys from (
    select r.key from :SCHEMA.run r where r.untold order by r.key limit p_limit for no key update skip locked
  ) u;
  if v_keys is not null then
    return query select * from :SCHEMA.tell_followers(v_keys);
  end if;
end $perdure$;

-- Begins the next attempt of workflows: the failures that ended this one are set aside, what else is recorded stays.
-- p_reopened: a JSON array of slots per run. p_delays: milliseconds until the next attempt; the workflow's timeout does not wait for it.
-- due_ms: when the run is claimable by the clock, in milliseconds since 1970; null: it is now.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.next_attempts(p_runs bigint[], p_epochs integer[], p_attempts integer[], p_errors text[], p_reopened text[], p_delays float8[], p_wait boolean)
returns table (ord integer, verdict text, due_ms float8) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_attempts, p_errors, p_reopened, p_delays)
      with ordinality as g(run, epoch, attempt, error, reopened, delay, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set worker = null, attempt = g.attempt + 1, pausing = false,
      state = case when r.pausing then 'paused' else 'pending' end,
      ready_at = case when g.delay <= 0 and not r.pausing then v_now end,
      due = case when g.delay > 0 then least(v_now + :SCHEMA.ms(g.delay), r.deadline) end
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    where r.key = g.run
    returning r.key, r.due
  ), put as (
    insert into :SCHEMA.round (run, attempt, error, reopened, finished_at)
    select g.run, g.attempt, g.error::json, array(select json_array_elements_text(g.reopened::json)), v_now
    from given g join done d on d.key = g.run
  ), gone as (
    delete from :SCHEMA.wait w using done d where w.run = d.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.attempt = g.attempt + 1) then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end,
    :SCHEMA.to_ms(d.due)
  from given g left join done d on d.key = g.run;
end $perdure$;

-- Hands back runs whose body could not begin, as the application could not make its context: nothing has run, and it is no attempt. They
-- are claimable again after p_delays milliseconds; a pause waits for its resume. due_ms: when that is, in milliseconds since 1970.
-- Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.postpone_runs(p_runs bigint[], p_epochs integer[], p_reasons text[], p_delays float8[], p_wait boolean)
returns table (ord integer, verdict text, due_ms float8) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_now timestamptz := :SCHEMA.clock();
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_reasons, p_delays) with ordinality as g(run, epoch, reason, delay, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set worker = null, pausing = false, reason = g.reason,
      state = case when r.pausing then 'paused' else 'pending' end,
      due = least(v_now + :SCHEMA.ms(g.delay), r.deadline)
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    where r.key = g.run
    returning r.key, r.due
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state in ('pending', 'paused')) then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end,
    :SCHEMA.to_ms(d.due)
  from given g left join done d on d.key = g.run;
end $perdure$;

-- Sets runs aside until a person or a deploy acts; nothing is lost. Called by the flusher. Locks: runs, in key order.
create function :SCHEMA.block_runs(p_runs bigint[], p_epochs integer[], p_reasons text[], p_wait boolean)
returns table (ord integer, verdict text) language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
begin
  return query
  with given as materialized (
    select * from unnest(p_runs, p_epochs, p_reasons) with ordinality as g(run, epoch, reason, ord)
  ), held as materialized (
    select * from :SCHEMA.hold_runs(p_runs, p_wait)
  ), done as (
    update :SCHEMA.run r set state = 'blocked', worker = null, pausing = false, reason = g.reason
    from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running'
    where r.key = g.run
    returning r.key
  )
  select g.ord::integer, case
      when d.key is not null then 'ok'
      when exists (select from :SCHEMA.run r where r.key = g.run and r.epoch = g.epoch and r.state = 'blocked') then 'ok'
      else :SCHEMA.refusal(g.run, g.epoch)
    end
  from given g left join done d on d.key = g.run;
end $perdure$;

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

-- The catalogue: which workflows there are, as the launches have told, and which runs nobody serves.

create table :SCHEMA.definition (
  workflow   text not null,
  version    text not null,
  queue      text not null,
  timeout_ms float8,
  options    json,                             -- retry: the plan, but for shouldRetry
  replay     text not null check (replay in ('strict', 'flexible')),
  first_seen timestamptz not null,
  last_seen  timestamptz not null,             -- the last launch that registered it
  primary key (workflow, version)
);
comment on table :SCHEMA.definition is 'One row per workflow and version that any launch has registered. The newest version of a workflow is the one first seen last.';

-- Writes what a launch registers. Of the versions that one launch brings, the last given is the newest, by microseconds.
-- Called at launch. Locks: the definitions, in order.
create function :SCHEMA.register_definitions(
  p_workflows text[], p_versions text[], p_queues text[], p_timeouts float8[], p_options text[], p_replays text[]
) returns void language sql as $perdure$
  insert into :SCHEMA.definition as d (workflow, version, queue, timeout_ms, options, replay, first_seen, last_seen)
  select g.workflow, g.version, g.queue, g.timeout_ms, g.options::json, g.replay, c.now, c.now
  from unnest(p_workflows, p_versions, p_queues, p_timeouts, p_options, p_replays)
    with ordinality as g(workflow, version, queue, timeout_ms, options, replay, ord)
  cross join lateral (select :SCHEMA.clock() + g.ord * interval '1 microsecond' as now) c
  order by g.workflow, g.version
  on conflict (workflow, version) do update set
    queue = excluded.queue, timeout_ms = excluded.timeout_ms, options = excluded.options, replay = excluded.replay, last_seen = excluded.last_seen
$perdure$;

-- The combinations of workflow, version and queue that runs have, of one workflow or of all (null). Jumps from one to the next in the
-- index run_lane, so that it costs as much as there are combinations, however many runs there are.
-- Called by list_runs and unserved_lanes. Locks: nothing.
create function :SCHEMA.lanes_in_use(p_workflow text) returns table (workflow text, version text, queue text)
language sql stable set enable_seqscan = off set enable_bitmapscan = off set jit = off as $perdure$
  with recursive lane as (
    (
      select r.workflow, r.version, r.queue from :SCHEMA.run r
      where r.workflow >= coalesce(p_workflow, '')
      order by r.workflow, r.version, r.queue limit 1
    )
    union all
    select n.* from lane l cross join lateral (
      select r.workflow, r.version, r.queue from :SCHEMA.run r
      where (r.workflow, r.version, r.queue) > (l.workflow, l.version, l.queue)
      order by r.workflow, r.version, r.queue limit 1
    ) n
    where p_workflow is null or l.workflow = p_workflow
  )
  select * from lane l where p_workflow is null or l.workflow = p_workflow
$perdure$;

-- Workflows, versions and queues with unfinished runs that no process serves which is alive; at most p_limit.
-- Called at launch. Locks: nothing.
create function :SCHEMA.unserved_lanes(p_limit integer) returns table (workflow text, version text, queue text)
language sql stable set enable_seqscan = off set jit = off as $perdure$
  select l.workflow, l.version, l.queue from :SCHEMA.lanes_in_use(null) l
  where not :SCHEMA.served(l.workflow, l.version, l.queue) and (
    exists (
      select from :SCHEMA.run r where r.workflow = l.workflow and r.version = l.version and r.queue = l.queue
        and r.aside in ('pending', 'suspended', 'paused', 'blocked'))
    or :SCHEMA.claimable(array[l.workflow], array[l.version], array[l.queue])
    or exists (
      select from :SCHEMA.taken t cross join unnest(t.runs) as k(key) join :SCHEMA.run r on r.key = k.key and r.worker = t.worker
      where r.workflow = l.workflow and r.version = l.version and r.queue = l.queue)
  )
  order by 1, 2, 3 limit p_limit
$perdure$;

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

-- What an application asks about runs: a page of them, and the history of one.

-- The key from which on runs were made at or after an instant, or later than all. Keys and times grow together, as one statement takes both;
-- who asks leaves room for statements that took long. Called by list_runs. Locks: nothing.
create function :SCHEMA.key_at(p_at timestamptz) returns bigint language plpgsql stable set enable_seqscan = off as $perdure$
declare
  v_low bigint;
  v_high bigint;
  v_middle bigint;
  v_run record;
begin
  select min(r.key), max(r.key) + 1 into v_low, v_high from :SCHEMA.run r;
  while v_low < v_high loop
    v_middle := v_low + (v_high - v_low) / 2;
    select r.key, r.created_at into v_run from :SCHEMA.run r where r.key >= v_middle order by r.key limit 1;
    if v_run.created_at >= p_at then
      v_high := v_middle;
    else
      v_low := v_run.key + 1;
    end if;
  end loop;
  return v_low;
end $perdure$;

-- Of one workflow, version and queue, the newest runs in states that most runs go through: claimable, running, completed. They are in no index
-- by state, which each run would have to change. So first the newest of all, where what is common is found at once; of what is older, claimable
-- ones in ready, running ones as workers have noted, completed ones among all.
-- Called by lane_runs. Locks: nothing.
create function :SCHEMA.common_runs(
  p_workflow text, p_version text, p_queue text, p_states text[], p_after timestamptz, p_before timestamptz, p_low bigint, p_high bigint, p_limit integer
) returns table (key bigint, id text) language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_high bigint := (
    select min(n.key) from (
      select r.key from :SCHEMA.run r
      where r.workflow = p_workflow and r.version = p_version and r.queue = p_queue and r.key >= p_low and r.key < p_high
      order by r.key desc limit 10000
    ) n);
  v_count integer;
begin
  return query
    select r.key, r.id from :SCHEMA.run r
    where r.workflow = p_workflow and r.version = p_version and r.queue = p_queue and r.key >= v_high and r.key < p_high
      and r.aside is null and r.state = any(p_states) and r.created_at >= p_after and r.created_at < p_before
    order by r.key desc limit p_limit;
  get diagnostics v_count = row_count;
  if v_count = p_limit or v_high is null then
    return;
  end if;
  if 'pending' = any(p_states) then
    return query
      select r.key, r.id from :SCHEMA.ready q join :SCHEMA.run r on r.key = q.run and r.ready_at is not null
      where q.workflow = p_workflow and q.version = p_version and q.queue = p_queue and q.run >= p_low and q.run < v_high
        and r.created_at >= p_after and r.created_at < p_before
      order by q.run desc limit p_limit;
  end if;
  if 'running' = any(p_states) then
    return query
      select distinct r.key, r.id from :SCHEMA.taken t cross join unnest(t.runs) as k(key) join :SCHEMA.run r on r.key = k.key and r.worker = t.worker
      where r.workflow = p_workflow and r.version = p_version and r.queue = p_queue and r.key >= p_low and r.key < v_high
        and r.created_at >= p_after and r.created_at < p_before
      order by r.key desc limit p_limit;
  end if;
  if 'completed' = any(p_states) then
    return query
      select r.key, r.id from :SCHEMA.run r
      where r.workflow = p_workflow and r.version = p_version and r.queue = p_queue and r.key >= p_low and r.key < v_high
        and r.state = 'completed' and r.created_at >= p_after and r.created_at < p_before
      order by r.key desc limit p_limit;
  end if;
end $perdure$;

-- The newest runs of the combinations of workflow, version and queue, and of the states, that fit; made in a span of time, with keys in a range.
-- Called by list_runs. Locks: nothing.
create function :SCHEMA.lane_runs(
  p_workflow text, p_version text, p_queue text, p_states text[], p_after timestamptz, p_before timestamptz, p_low bigint, p_high bigint, p_limit integer
) returns table (key bigint, id text) language sql stable set enable_seqscan = off set enable_bitmapscan = off set jit = off as $perdure$
  select n.key, n.id from :SCHEMA.lanes_in_use(p_workflow) l
  cross join lateral (
    (
      select r.key, r.id from :SCHEMA.run r
      where p_states is null and r.workflow = l.workflow and r.version = l.version and r.queue = l.queue
        and r.key >= p_low and r.key < p_high and r.created_at >= p_after and r.created_at < p_before
      order by r.key desc limit p_limit
    )
    union all
    select a.key, a.id from unnest(p_states) as s(state)
    cross join lateral (
      select r.key, r.id from :SCHEMA.run r
      where r.workflow = l.workflow and r.version = l.version and r.queue = l.queue and r.aside = s.state
        and r.key >= p_low and r.key < p_high and r.created_at >= p_after and r.created_at < p_before
      order by r.key desc limit p_limit
    ) a
    union all
    select c.key, c.id from :SCHEMA.common_runs(l.workflow, l.version, l.queue, p_states, p_after, p_before, p_low, p_high, p_limit) c
    where p_states && array['pending', 'running', 'completed']
  ) n
  where (p_version is null or l.version = p_version) and (p_queue is null or l.queue = p_queue)
  order by n.key desc limit p_limit
$perdure$;

-- A page of runs, newest first: those below p_before (null: from the newest on) that fit all that is not null. p_tags: all of them;
-- p_prefix, p_prefix_end: ids from the one to before the other, bytewise; p_created_after: from that instant on, p_created_before: before it.
-- Which rows are read:
--   tags or prefix  first the newest, where what is common is found at once; then all that the index has of them
--   lanes           of each combination of workflow, version and queue that fits, the newest in these states
--   newest          the rows in their order; the times bound them
-- Called by the client's list. Locks: nothing.
create function :SCHEMA.list_runs(
  p_workflow text, p_version text, p_queue text, p_states text[], p_tags text[], p_prefix text, p_prefix_end text,
  p_created_after float8, p_created_before float8, p_before bigint, p_limit integer
) returns table (key bigint, id text) language plpgsql stable set enable_seqscan = off set jit = off as $perdure$
#variable_conflict use_column
declare
  v_after timestamptz := coalesce(:SCHEMA.from_ms(p_created_after), '-infinity');
  v_before timestamptz := coalesce(:SCHEMA.from_ms(p_created_before), 'infinity');
  v_low bigint := coalesce(case when p_created_after is not null then :SCHEMA.key_at(v_after - interval '5 minutes') end, 0);
  v_high bigint := least(p_before, case when p_created_before is not null then :SCHEMA.key_at(v_before + interval '5 minutes') end, 9223372036854775807);
  v_left integer := p_limit;
  v_count integer;
  v_way text;
begin
  if p_tags is null and p_prefix is null then
    if p_workflow is null and p_version is null and p_queue is null and p_states is null then
      return query
        select r.key, r.id from :SCHEMA.run r
        where r.key >= v_low and r.key < v_high and r.created_at >= v_after and r.created_at < v_before
        order by r.key desc limit p_limit;
      return;
    end if;
    return query select n.key, n.id from :SCHEMA.lane_runs(p_workflow, p_version, p_queue, p_states, v_after, v_before, v_low, v_high, p_limit) n;
    return;
  end if;
  foreach v_way in array array['newest', case when p_tags is null then 'prefix' else 'tags' end] loop
    return query
      select c.key, c.id from (
        (
          select r.* from :SCHEMA.run r where v_way = 'newest' and r.key >= v_low and r.key < v_high order by r.key desc limit 10000
        )
        union all
        select r.* from :SCHEMA.run r where v_way = 'tags' and r.tags @> p_tags
        union all
        select r.* from :SCHEMA.run r where v_way = 'prefix' and r.id ~>=~ p_prefix and r.id ~<~ p_prefix_end
      ) c
      where (c.key + 0) >= v_low and (c.key + 0) < v_high -- + 0: not by the primary key, which would read all others too
        and c.created_at >= v_after and c.created_at < v_before
        and (p_workflow is null or c.workflow = p_workflow) and (p_version is null or c.version = p_version)
        and (p_queue is null or c.queue = p_queue) and (p_states is null or c.state = any(p_states))
        and (p_tags is null or c.tags @> p_tags) and (p_prefix is null or starts_with(c.id, p_prefix))
      order by c.key desc limit v_left;
    get diagnostics v_count = row_count;
    v_left := v_left - v_count;
    exit when v_left = 0;
    select min(n.key) into v_high from (
      select r.key from :SCHEMA.run r where r.key >= v_low and r.key < v_high order by r.key desc limit 10000
    ) n;
    exit when v_high is null;
  end loop;
end $perdure$;

-- What history shows of a slot. no: its place in the order, and the place after which a patch or a failed attempt of the workflow stands.
-- value: of a failed one the error. tries: a JSON array of [try, begun, failed, error] of those that failed.
create type :SCHEMA.history_entry as (
  no integer, slot text, attempt integer, kind text, name text, outcome text, value text, tries integer,
  started_ms float8, finished_ms float8, set_aside boolean, failures text
);

-- The tries of a slot that failed. Called by the two functions below. Locks: nothing.
create function :SCHEMA.failed_tries(p_run bigint, p_slot text, p_attempt integer) returns text language sql stable as $perdure$
  select json_agg(json_build_array(t.try, :SCHEMA.to_ms(t.started_at), :SCHEMA.to_ms(t.finished_at), t.error::text) order by t.try)::text
  from :SCHEMA.try t where t.run = p_run and t.slot = p_slot and t.attempt = p_attempt and t.error is not null
$perdure$;

-- A page of what a run was handed, in the order in which it was, and of its attempts that failed and were followed by another; from after a
-- place on, at least p_limit if there are as many.
-- Called by the handle's history. Locks: nothing.
create function :SCHEMA.told_slots(p_id text, p_after integer, p_limit integer) returns setof :SCHEMA.history_entry
language sql stable set enable_seqscan = off set jit = off as $perdure$
  with place as materialized (
    select coalesce(c.no, d.no, case when c.kind = 'patch' then (c.value #>> '{}')::integer end) as no, c.run, c.slot, c.attempt,
      case when c.kind = 'patch' then 1 else 0 end as rank, c.at
    from :SCHEMA.run r join :SCHEMA.checkpoint c on c.run = r.key
    left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt and c.no is null
    where r.id = p_id
  ), page as (
    select p.* from (
      select * from place
      union all
      select coalesce((select max(p.no) from place p where p.attempt <= o.attempt), 0), o.run, null, o.attempt, 2, o.finished_at
      from :SCHEMA.run r join :SCHEMA.round o on o.run = r.key where r.id = p_id
    ) p
    where p.no > p_after order by p.no fetch first p_limit rows with ties
  )
  select p.no, coalesce(c.slot, 'attempt#' || p.attempt), p.attempt, coalesce(c.kind, 'attempt'), coalesce(c.name, r.workflow),
    coalesce(c.outcome, 'failed'), case when p.slot is null then o.error::text else c.value::text end, coalesce(c.tries, 1),
    case when p.slot is not null then :SCHEMA.to_ms(c.started_at) else :SCHEMA.to_ms(coalesce(
      (select b.finished_at from :SCHEMA.round b where b.run = p.run and b.attempt = p.attempt - 1), r.started_at, p.at)) end,
    :SCHEMA.to_ms(p.at),
    exists (select from :SCHEMA.round b where b.run = p.run and b.attempt >= p.attempt and (p.slot is null or p.slot = any(b.reopened))),
    case when c.tries > 1 then :SCHEMA.failed_tries(p.run, p.slot, p.attempt) end
  from page p join :SCHEMA.run r on r.key = p.run
  left join :SCHEMA.checkpoint c on c.run = p.run and c.slot = p.slot and c.attempt = p.attempt
  left join :SCHEMA.round o on p.slot is null and o.run = p.run and o.attempt = p.attempt
  order by p.no, p.rank, p.at, p.slot
$perdure$;

-- What a run has open: outcomes that it has not been handed yet, waits, steps between two tries, and those that have run for a while.
-- Called by the handle's history, before told_slots, so that what is handed over meanwhile is in both and not in neither. Locks: nothing.
create function :SCHEMA.open_slots(p_id text) returns setof :SCHEMA.history_entry language sql stable set enable_seqscan = off set jit = off as $perdure$
  select null::integer, o.slot, o.attempt, o.kind, o.name, o.outcome, o.value, o.tries, :SCHEMA.to_ms(o.started_at), :SCHEMA.to_ms(o.at), false,
    :SCHEMA.failed_tries(o.run, o.slot, o.attempt)
  from (
    select distinct on (o.slot) * from (
      select 0 as rank, c.run, c.slot, c.attempt, c.kind, c.name, c.outcome, c.value::text, c.tries, c.started_at, c.at
      from :SCHEMA.run r join :SCHEMA.checkpoint c on c.run = r.key
      left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt
      where r.id = p_id and c.no is null and d.no is null and c.kind <> 'patch'
      union all
      select 1, t.run, t.slot, t.attempt, case when t.slot like 'transaction:%' then 'transaction' else 'step' end, t.name, 'running', null, t.try, t.started_at, null
      from :SCHEMA.run r join :SCHEMA.try t on t.run = r.key and t.attempt = r.attempt
      where r.id = p_id and r.state = 'running' and t.finished_at is null
        and not exists (select from :SCHEMA.checkpoint c where c.run = t.run and c.slot = t.slot and c.attempt = t.attempt)
      union all
      select 2, w.run, w.slot, w.attempt,
        case when w.kind <> 'retry' then w.kind when w.slot like 'transaction:%' then 'transaction' else 'step' end,
        (select string_agg(substr(t.topic, strpos(t.topic, ':') + 1), ', ') from unnest(w.topics) as t(topic)),
        'waiting', null, w.tries, w.started_at, null
      from :SCHEMA.run r join :SCHEMA.wait w on w.run = r.key and w.attempt = r.attempt
      where r.id = p_id and r.finished_at is null
    ) o
    order by o.slot, o.rank
  ) o
  order by o.started_at, o.slot
$perdure$;

-- The verbs for SQL: psql, triggers, pg_cron and other languages. Each works in the caller's own transaction: rolled back, nothing has
-- happened. They run with the rights of the schema's owner, so that a role needs no right on the tables, and only who is granted them may
-- call them: see grant_to. The search path is pinned, so that no object of a caller's is taken for one of Postgres's own, and so is the way in
-- which string literals are read: the functions that they call are compiled in the caller's session.
-- What they bring in is tagged: no schema of the application's has checked it.
-- All raise PD001 (no such run or workflow), PD002 (the run has finished), PD003 (the id is taken), PD004 (the run's state does not allow it)
-- or PD005 (bad input).

-- Refuses what cannot be a name, by the rule of the library's checkName. Called by the verbs below. Locks: nothing.
create function :SCHEMA.check_name(p_verb text, p_what text, p_name text) returns void language plpgsql immutable as $perdure$
declare
  v_problem text := case
    when p_name is null then 'is null'
    when p_name = '' then 'is empty'
    when octet_length(p_name) > 255 then format('has %s bytes', octet_length(p_name))
    when p_name ~ '[\u0001-\u001f\u007f-\u009f]' then 'contains a control character'
    when p_name ~ '^[\s\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]|[\s\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]$' then 'begins or ends with a blank'
  end;
begin
  if v_problem is not null then
    raise exception '%: % %; it must have 1 to 255 bytes, no control characters, and no blanks at its ends', p_verb,
        p_what || coalesce(' "' || left(nullif(p_name, ''), 60) || '"', ''), v_problem
      using errcode = 'PD005';
  end if;
end $perdure$;

-- The tenants whose runs the caller of a verb may touch; null: all runs. The caller is the role that has been set, or else the login: neither can be
-- feigned. Once a role is bound to a tenant, a caller that has no grant is refused: it came through a function of somebody's who has one.
-- Called by the verbs below, so that current_user is the schema's owner. Locks: nothing.
create function :SCHEMA.tenants_of_caller(p_verb text) returns text[] language plpgsql stable as $perdure$
declare
  v_caller name := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_grants integer;
  v_tenants text[];
begin
  if not exists (select from :SCHEMA.grantee g where g.tenant is not null) or pg_has_role(v_caller, current_user, 'usage') then
    return null;
  end if;
  select count(*), case when bool_and(g.tenant is not null) then array_agg(distinct g.tenant::text) end into v_grants, v_tenants
    from :SCHEMA.grantee g join pg_roles r on r.rolname = g.role
    where g.kind in ('worker', 'sender') and pg_has_role(v_caller, r.oid, 'usage');
  if v_grants = 0 then
    raise exception '%: role "%" has no grant here, and there are tenants', p_verb, v_caller
      using errcode = 'insufficient_privilege', hint = 'As the owner of the schema, call grant_to for it.';
  end if;
  return v_tenants;
end $perdure$;

-- Refuses what cannot be the id of a run, before it is looked for. Called by may_touch. Locks: nothing.
create function :SCHEMA.check_run_id(p_verb text, p_run_id text) returns void language plpgsql immutable as $perdure$
begin
  if p_run_id is null then
    raise exception '%: run_id must be given', p_verb using errcode = 'PD005';
  elsif octet_length(p_run_id) > 255 then
    raise exception '%: run_id "%" has % bytes; it must have 1 to 255', p_verb, left(p_run_id, 60), octet_length(p_run_id) using errcode = 'PD005';
  end if;
end $perdure$;

-- Whether the caller of a verb may know of a run. Called by the verbs below. Locks: nothing.
create function :SCHEMA.may_touch(p_verb text, p_run_id text) returns boolean language plpgsql stable as $perdure$
declare
  v_tenants text[];
begin
  perform :SCHEMA.check_run_id(p_verb, p_run_id);
  v_tenants := :SCHEMA.tenants_of_caller(p_verb);
  return v_tenants is null or exists (select from unnest(v_tenants) t where starts_with(p_run_id, t || '/'));
end $perdure$;

-- The verdict of a control function for one run. Called by the verbs below. Locks: nothing.
create function :SCHEMA.check_verdict(p_verb text, p_run_id text, p_verdict text, p_rule text) returns void language plpgsql as $perdure$
begin
  if p_verdict is null then
    raise exception '%: there is no run "%"', p_verb, p_run_id using errcode = 'PD001', detail = p_run_id, hint = 'Check the id.';
  elsif p_verdict not in ('ok', 'woken') then
    raise exception '%: run "%" is %; %', p_verb, p_run_id, p_verdict, p_rule using errcode = 'PD004', detail = p_run_id;
  end if;
end $perdure$;

-- Starts a run. The version left out is the newest that a launch has registered; queue and timeout are those of that version.
-- Locks: nothing but the new row; waits for a stranger that has inserted the same id and not committed.
create function :SCHEMA.start_run(
  workflow text, args json default '[]', id text default null, version text default null, queue text default null,
  priority integer default 0, delay interval default null, on_conflict text default 'error'
) returns text language plpgsql security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
#variable_conflict use_variable
declare
  v_now timestamptz := :SCHEMA.clock();
  v_definition :SCHEMA.definition;
  v_delayed boolean := coalesce(delay <> interval '0', false);
  v_args json := coalesce(args, '[]');
  v_id text := id;
  v_tenants text[] := :SCHEMA.tenants_of_caller('start_run');
  v record;
begin
  perform :SCHEMA.check_name('start_run', 'workflow', workflow);
  if version is not null then perform :SCHEMA.check_name('start_run', 'version', version); end if;
  if queue is not null then perform :SCHEMA.check_name('start_run', 'queue', queue); end if;
  if id is not null then perform :SCHEMA.check_name('start_run', 'id', id); end if;
  if json_typeof(v_args) <> 'array' then
    raise exception 'start_run: args of workflow "%" must be a JSON array of the arguments, not a JSON %', workflow, json_typeof(v_args)
      using errcode = 'PD005', hint = 'For one argument write json_build_array(…).';
  elsif octet_length(v_args::text) > 1048576 then
    raise exception 'start_run: args of workflow "%" have % bytes; at most 1048576 are stored', workflow, octet_length(v_args::text)
      using errcode = 'PD005', hint = 'Store them in a table of your own and pass its key.';
  elsif priority not between -32768 and 32767 then
    raise exception 'start_run: the priority % of workflow "%" is not from -32768 to 32767', priority, workflow using errcode = 'PD005';
  elsif delay < interval '0' or delay > interval '365000 days' then
    raise exception 'start_run: the delay % of workflow "%" is %', delay, workflow,
        case when delay < interval '0' then 'negative' else 'longer than 365000 days' end
      using errcode = 'PD005';
  elsif on_conflict is null or on_conflict not in ('error', 'return_existing') then
    raise exception 'start_run: on_conflict cannot be "%"; it must be "error" or "return_existing"', left(on_conflict, 60) using errcode = 'PD005';
  end if;

  if v_tenants is not null and not exists (
    select from unnest(v_tenants) t where case when id is null then cardinality(v_tenants) = 1 else starts_with(id, t || '/') end
  ) then
    raise exception 'start_run: the id of a run must begin with "%/"', array_to_string(v_tenants, '/" or "')
      using errcode = 'PD005', hint = 'This role is bound to a tenant, whose runs are those with such ids.';
  end if;

  select * into v_definition from :SCHEMA.definition d
    where d.workflow = workflow and (version is null or d.version = version) order by d.first_seen desc, d.version desc limit 1;
  if not found then
    raise exception 'start_run: no launch has registered workflow "%"%', workflow, coalesce(' version "' || version || '"', '')
      using errcode = 'PD001', hint = coalesce(
        'Registered are: ' || (
          select string_agg(format('"%s" version "%s"', k.workflow, k.version), ', ')
          from (select * from :SCHEMA.definition d order by d.workflow = workflow desc, d.last_seen desc, d.workflow limit 10) k
        ) || '. ', '') || 'Launch an engine that has it among its workflows.';
  end if;

  if v_id is null then -- a UUID that grows with time, version 7: a random one with the milliseconds in its first 48 bits
    v_id := coalesce(v_tenants[1] || '/', '') || encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
      substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid::text;
  end if;
  select s.* into v from :SCHEMA.start_runs(
    array[v_id], array[workflow], array[v_definition.version], array[coalesce(queue, v_definition.queue)], array[coalesce(priority, 0)::smallint],
    array[null::float8], array[case when v_delayed then :SCHEMA.to_ms(v_now + delay) end], array[v_definition.timeout_ms],
    array['{"from":"sql","json":' || v_args::text || '}'], array[null::text], array[null::text], array[on_conflict = 'return_existing'],
    array[null::text], array[null::bigint], array[null::integer], array[false], array[null::text], array[null::float8],
    array[false], null, '{}', '{}', '{}', true) s;
  if v.verdict = 'conflict' then
    raise exception 'start_run: run "%" is taken and % (it is %)', v_id,
        case v.workflow when workflow then 'was started with other input' else format('belongs to workflow "%s"', v.workflow) end, v.state
      using errcode = 'PD003', detail = v_id, hint = 'Choose another id, or say on_conflict => ''return_existing''.';
  elsif v.verdict = 'created' then
    perform :SCHEMA.tell_start(v_delayed);
  end if;
  return v_id;
end $perdure$;
comment on function :SCHEMA.start_run is 'Starts a run in the caller''s transaction and returns its id. args: a JSON array of the arguments. version: by default the newest that was registered. An id that is taken by an equal start gives that run; by another, an error, or that run if on_conflict is return_existing.';

-- Sends an event. True: sent; false: the reference was used before. Locks: the run, until the caller commits.
create function :SCHEMA.send_event(run_id text, event text, data json default 'null', reference text default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
#variable_conflict use_variable
declare
  v record;
  v_known boolean := :SCHEMA.may_touch('send_event', run_id);
begin
  perform :SCHEMA.check_name('send_event', 'event', event);
  if octet_length(reference) not between 1 and 255 then
    raise exception 'send_event: the reference of event "%" for run "%" must have 1 to 255 bytes, not %', event, run_id, octet_length(reference)
      using errcode = 'PD005', hint = 'Send a hash of it.';
  end if;
  if octet_length(data::text) > 1048576 then
    raise exception 'send_event: the data of event "%" for run "%" has % bytes; at most 1048576 are stored', event, run_id, octet_length(data::text)
      using errcode = 'PD005', hint = 'Store the data in a table of your own and send its key.';
  end if;
  select s.* into v from :SCHEMA.send_events(array[case when v_known then run_id end], array[event], array['{"from":"sql","json":' || coalesce(data, 'null')::text || '}'],
    array[reference], array[gen_random_uuid()::text], false, true) s;
  if v.verdict = 'unknown' then
    raise exception 'send_event: there is no run "%"', run_id
      using errcode = 'PD001', detail = run_id, hint = 'Start the run first, or check its id.';
  elsif v.verdict = 'finished' then
    raise exception 'send_event: run "%" has finished and takes no more events', run_id using errcode = 'PD002', detail = run_id;
  end if;
  if v.woken or v.working then
    perform :SCHEMA.hint(case when v.woken then 'w' else 'c' end);
  end if;
  return v.verdict = 'sent';
end $perdure$;
comment on function :SCHEMA.send_event is 'Sends an event to a run in the caller''s transaction. True: sent; false: a duplicate reference.';

-- Cancels a run, and its children. True: cancelled; false: it had finished. Locks: the run, and those below it.
create function :SCHEMA.cancel_run(run_id text, reason text default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
#variable_conflict use_variable
declare
  v_verdict text;
  v_known boolean := :SCHEMA.may_touch('cancel_run', run_id);
begin
  if length(reason) > 1000 then
    raise exception 'cancel_run: the reason for run "%" has % characters; at most 1000 are stored', run_id, length(reason) using errcode = 'PD005';
  end if;
  v_verdict := case when v_known then (select c.verdict from :SCHEMA.cancel_runs(array[run_id], reason) c) end;
  perform :SCHEMA.check_verdict('cancel_run', run_id, case when v_verdict is null then null else 'ok' end, '');
  return v_verdict = 'ok';
end $perdure$;
comment on function :SCHEMA.cancel_run is 'Cancels a run and its children in the caller''s transaction. True: cancelled; false: it had finished.';

-- Pauses a run: it begins no new step. Locks: the run.
create function :SCHEMA.pause_run(run_id text) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
#variable_conflict use_variable
begin
  perform :SCHEMA.check_verdict('pause_run', run_id, case when :SCHEMA.may_touch('pause_run', run_id) then (select c.verdict from :SCHEMA.pause_runs(array[run_id]) c) end,
    'only a pending, running or suspended run can be paused');
end $perdure$;
comment on function :SCHEMA.pause_run is 'Pauses a run in the caller''s transaction: it begins no new step. Timers and events go on counting.';

-- Lets a paused run go on. Locks: the run.
create function :SCHEMA.resume_run(run_id text) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
#variable_conflict use_variable
begin
  perform :SCHEMA.check_verdict('resume_run', run_id, case when :SCHEMA.may_touch('resume_run', run_id) then (select c.verdict from :SCHEMA.resume_runs(array[run_id]) c) end,
    'only a paused run can be resumed');
end $perdure$;
comment on function :SCHEMA.resume_run is 'Lets a paused run go on, in the caller''s transaction.';

-- Ends a run's sleep early. Locks: the run.
create function :SCHEMA.wake_run(run_id text) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
#variable_conflict use_variable
begin
  perform :SCHEMA.check_verdict('wake_run', run_id, case when :SCHEMA.may_touch('wake_run', run_id) then (select c.verdict from :SCHEMA.wake_runs(array[run_id]) c) end,
    'it is not asleep, and only a sleep can be ended early');
end $perdure$;
comment on function :SCHEMA.wake_run is 'Ends a run''s sleep early, in the caller''s transaction.';

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

-- What the columns of the views mean, for whoever looks into the catalogue.

comment on column :SCHEMA.runs.id is 'The run''s id, unique in the schema.';
comment on column :SCHEMA.runs.workflow is 'The name of the workflow.';
comment on column :SCHEMA.runs.version is 'The version that the run was started on and stays on.';
comment on column :SCHEMA.runs.state is 'pending, running, suspended, paused, blocked, completed, failed or cancelled.';
comment on column :SCHEMA.runs.waiting_for is 'What a suspended run waits for: sleep, event, child, retry or several; start: a delayed one. Null: nothing.';
comment on column :SCHEMA.runs.reason is 'Why it is blocked, was cancelled or does not go on.';
comment on column :SCHEMA.runs.queue is 'The queue that it lines up in.';
comment on column :SCHEMA.runs.priority is 'Lower first.';
comment on column :SCHEMA.runs.attempt is 'Which attempt of the whole workflow this is, from 1.';
comment on column :SCHEMA.runs.parent_id is 'The run that started it as a child.';
comment on column :SCHEMA.runs.created_at is 'When it was started.';
comment on column :SCHEMA.runs.started_at is 'When a worker first took it.';
comment on column :SCHEMA.runs.finished_at is 'When it completed, failed or was cancelled.';
comment on column :SCHEMA.runs.due is 'When its next timer makes it claimable.';
comment on column :SCHEMA.runs.worker is 'The id of the worker that has it in work.';
comment on column :SCHEMA.runs.epoch is 'How often it was taken into work.';
comment on column :SCHEMA.runs.tags is 'The labels that its start gave it.';

comment on column :SCHEMA.steps.run_id is 'The id of the run.';
comment on column :SCHEMA.steps.slot is 'The key of the call in its run: its address and the how many-eth such call.';
comment on column :SCHEMA.steps.kind is 'step, transaction, sleep, event and so on.';
comment on column :SCHEMA.steps.name is 'The name of the step, or what is waited for.';
comment on column :SCHEMA.steps.attempts is 'How often it was tried.';
comment on column :SCHEMA.steps.started_at is 'When the last try, or the wait, began.';
comment on column :SCHEMA.steps.finished_at is 'When its outcome was recorded. Null: it has none yet.';
comment on column :SCHEMA.steps.outcome is 'completed, failed, timeout, waiting or running.';
comment on column :SCHEMA.steps.run_attempt is 'In which attempt of the whole workflow.';

comment on column :SCHEMA.events.id is 'The event''s id; grows in the order in which a run received its events.';
comment on column :SCHEMA.events.run_id is 'The id of the run it was sent to.';
comment on column :SCHEMA.events.name is 'The name of the event.';
comment on column :SCHEMA.events.reference is 'What the sender called it; a second of that reference was dropped.';
comment on column :SCHEMA.events.sent_at is 'When it was sent.';
comment on column :SCHEMA.events.consumed_by is 'The slot of the wait that took it. Null: it is unread.';

comment on column :SCHEMA.workers.id is 'The worker''s id, random for each start of a process.';
comment on column :SCHEMA.workers.name is 'Its host and process.';
comment on column :SCHEMA.workers.started_at is 'When it was launched.';
comment on column :SCHEMA.workers.beat_at is 'Its last heartbeat.';
comment on column :SCHEMA.workers.lease is 'How long after a heartbeat it keeps its runs.';
comment on column :SCHEMA.workers.dead_at is 'When it left, or was found dead.';
comment on column :SCHEMA.workers.leads is 'Whether it does the upkeep.';
comment on column :SCHEMA.workers.runs is 'How many runs it has in work.';

comment on column :SCHEMA.queues.queue is 'The name of the queue.';
comment on column :SCHEMA.queues.ready is 'How many runs a worker could take now.';
comment on column :SCHEMA.queues.delayed is 'How many runs begin, or are tried again, later.';
comment on column :SCHEMA.queues.running is 'How many runs are in work.';
comment on column :SCHEMA.queues.suspended is 'How many runs wait for something.';
comment on column :SCHEMA.queues.paused is 'How many runs were paused.';
comment on column :SCHEMA.queues.blocked is 'How many runs wait for a person or a deploy.';
comment on column :SCHEMA.queues.oldest_ready_at is 'Since when the run that waits longest could be taken.';
comment on column :SCHEMA.queues.workers is 'How many live workers serve it.';

comment on column :SCHEMA.timeline.run_id is 'The id of the run.';
comment on column :SCHEMA.timeline.no is 'Its place among what happened to the run, from 1.';
comment on column :SCHEMA.timeline.at is 'When it happened.';
comment on column :SCHEMA.timeline.what is 'created, started, began, completed, failed, timeout, try failed, sent, attempt failed, or the state in which the run ended.';
comment on column :SCHEMA.timeline.kind is 'Of what: step, transaction, sleep, event and so on. Null: of the run itself.';
comment on column :SCHEMA.timeline.name is 'The name of the step or event, or what is waited for.';
comment on column :SCHEMA.timeline.slot is 'The slot of the call; of an event, of the wait that took it.';
comment on column :SCHEMA.timeline.attempt is 'In which attempt of the whole workflow.';

comment on column :SCHEMA.schedules.name is 'The name of the schedule.';
comment on column :SCHEMA.schedules.application is 'Whose code declares it. Null: it was made at run time.';
comment on column :SCHEMA.schedules.cron is 'Its times as a cron expression. Null: it has an interval.';
comment on column :SCHEMA.schedules.timezone is 'The zone whose clocks the expression means.';
comment on column :SCHEMA.schedules.every is 'Its interval. Null: it has a cron expression.';
comment on column :SCHEMA.schedules.workflow is 'The workflow that it starts.';
comment on column :SCHEMA.schedules.version is 'In which version.';
comment on column :SCHEMA.schedules.queue is 'The queue that its runs line up in.';
comment on column :SCHEMA.schedules.priority is 'Of its runs; lower first.';
comment on column :SCHEMA.schedules.overlap is 'What happens while a run is unfinished: skip, allow or cancel_previous.';
comment on column :SCHEMA.schedules.catch_up is 'Which slots are made up that nobody was there for: latest, none or all.';
comment on column :SCHEMA.schedules.next_at is 'Its next slot. Null while paused.';
comment on column :SCHEMA.schedules.last_slot is 'The last slot that started a run.';
comment on column :SCHEMA.schedules.last_run_id is 'The id of the last run.';
comment on column :SCHEMA.schedules.paused is 'Whether it is paused.';
comment on column :SCHEMA.schedules.trouble is 'Why it could not be fired at its last slot; it is tried again.';
comment on column :SCHEMA.schedules.created_at is 'When it was made.';
comment on column :SCHEMA.schedules.updated_at is 'When it was changed, paused or resumed last.';

comment on column :SCHEMA.schedule_history.id is 'Grows with time.';
comment on column :SCHEMA.schedule_history.schedule is 'The name of the schedule.';
comment on column :SCHEMA.schedule_history.what is 'added, changed, removed, paused, resumed, skipped, missed or taken.';
comment on column :SCHEMA.schedule_history.application is 'Whose launch changed it.';
comment on column :SCHEMA.schedule_history.from_slot is 'The first slot that this is about.';
comment on column :SCHEMA.schedule_history.until_slot is 'The last slot that this is about.';
comment on column :SCHEMA.schedule_history.run_id is 'The run that was unfinished, or that had the id of the slot.';
comment on column :SCHEMA.schedule_history.at is 'When it was written.';

-- What codecs wrote: for a person who wants to know whether a key can go.

-- One row for each codec, with its key or method, and each kind of value. Reads all payloads: on a big database it takes its time.
create view :SCHEMA.codecs as
  select t.codec, p.kind, count(*) as stored, count(*) filter (where p.open) as in_use
  from (
    select 'input' as kind, i.args as value, r.finished_at is null as open from :SCHEMA.input i join :SCHEMA.run r on r.key = i.run
    union all select 'checkpoint', c.value, r.finished_at is null from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run
    union all select 'try', t.error, r.finished_at is null from :SCHEMA.try t join :SCHEMA.run r on r.key = t.run
    union all select 'round', o.error, r.finished_at is null from :SCHEMA.round o join :SCHEMA.run r on r.key = o.run
    union all select 'event', m.data, r.finished_at is null from :SCHEMA.mail m join :SCHEMA.run r on r.key = m.run
    union all select 'result', o.value, r.finished_at is null from :SCHEMA.outcome o join :SCHEMA.run r on r.key = o.run
    union all select 'value', v.value, r.finished_at is null from :SCHEMA.value v join :SCHEMA.run r on r.key = v.run
    union all select 'stream', s.value, r.finished_at is null from :SCHEMA.item s join :SCHEMA.run r on r.key = s.run
    union all select 'schedule', s.args, true from :SCHEMA.schedule s
  ) p
  cross join json_array_elements_text(:SCHEMA.codecs_of(p.value)) as t(codec)
  group by t.codec, p.kind;
comment on view :SCHEMA.codecs is 'Which codecs, with which keys, wrote what is stored. codec: its name, and its key''s id or its method. stored: values; in_use: those of unfinished runs, and of schedules.';
comment on column :SCHEMA.codecs.codec is 'The name of the codec, and what it noted: the id of its key, or its method.';
comment on column :SCHEMA.codecs.kind is 'What the values are: input, checkpoint, try, round, event, result, value, stream or schedule.';
comment on column :SCHEMA.codecs.stored is 'How many values.';
comment on column :SCHEMA.codecs.in_use is 'How many of these belong to unfinished runs, or to schedules.';

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

-- What is stored, for who may read it: granted apart from the other views.

create view :SCHEMA.payloads as
  select r.id as run_id, p.kind, p.slot, p.name, p.at, p.value
  from (
    select i.run, 'input' as kind, null::text as slot, null::text as name, null::timestamptz as at, i.args as value from :SCHEMA.input i
    union all select c.run, 'checkpoint', c.slot, c.name, c.at, c.value from :SCHEMA.checkpoint c
    union all select t.run, 'try', t.slot, t.name, t.finished_at, t.error from :SCHEMA.try t
    union all select o.run, 'round', null, null, o.finished_at, o.error from :SCHEMA.round o
    union all select m.run, 'event', m.slot, m.name, m.sent_at, m.data from :SCHEMA.mail m
    union all select o.run, 'result', null, null, null, o.value from :SCHEMA.outcome o
    union all select v.run, 'value', null, v.name, v.at, v.value from :SCHEMA.value v
    union all select s.run, 'stream', null, s.stream, s.at, s.value from :SCHEMA.item s
  ) p
  join :SCHEMA.run r on r.key = p.run
  where p.value is not null;
comment on view :SCHEMA.payloads is 'One row per stored value of a run, as it is stored: with a codec, encrypted. Ask for one run.';
comment on column :SCHEMA.payloads.run_id is 'The id of the run.';
comment on column :SCHEMA.payloads.kind is 'What the value is: input, checkpoint, try, round, event, result, value or stream.';
comment on column :SCHEMA.payloads.slot is 'Of a checkpoint or a try: its slot; of an event: that of the wait which took it.';
comment on column :SCHEMA.payloads.name is 'The name of the step, the event, the value or the stream.';
comment on column :SCHEMA.payloads.at is 'When it was recorded. Null: with the run, or with its end.';
comment on column :SCHEMA.payloads.value is 'The value in its envelope.';

-- Rights: what a role may do that does not own the schema. Public may nothing, not even name a type: a table of a stranger's with a column of
-- such a type would stand in the way of migrations.

-- Who was granted what: a migration grants it again on what it makes.
create table :SCHEMA.grantee (
  role   name not null,
  kind   text not null check (kind in ('worker', 'sender', 'observer', 'payloads')),
  tenant text,                                 -- the runs whose ids begin with this and a slash; null: all runs
  primary key (role, kind),
  check (tenant is null or kind <> 'worker')
);

-- The tenants of the role that asks, for each kind of grant. The schema's owner is a member of all.
create view :SCHEMA.tenants as
  select distinct g.kind, g.tenant from :SCHEMA.grantee g join pg_catalog.pg_roles r on r.rolname = g.role
  where g.tenant is not null and pg_has_role(current_user, r.oid, 'usage');
comment on view :SCHEMA.tenants is 'The tenants that the role which asks is bound to.';
comment on column :SCHEMA.tenants.kind is 'For what: sender, observer or payloads.';
comment on column :SCHEMA.tenants.tenant is 'The tenant: its runs are those whose ids begin with this and a slash.';

-- The views as a tenant sees them. The ids of a tenant are a range of the index (0 follows the slash), and a condition of the reader's is asked only
-- of rows that it may see.
create view :SCHEMA.tenant_runs with (security_barrier) as
  select v.* from :SCHEMA.tenants t join :SCHEMA.runs v on v.id ~>=~ (t.tenant || '/') and v.id ~<~ (t.tenant || '0') where t.kind = 'observer';
create view :SCHEMA.tenant_steps with (security_barrier) as
  select v.* from :SCHEMA.tenants t join :SCHEMA.steps v on v.run_id ~>=~ (t.tenant || '/') and v.run_id ~<~ (t.tenant || '0') where t.kind = 'observer';
create view :SCHEMA.tenant_events with (security_barrier) as
  select v.* from :SCHEMA.tenants t join :SCHEMA.events v on v.run_id ~>=~ (t.tenant || '/') and v.run_id ~<~ (t.tenant || '0') where t.kind = 'observer';
create view :SCHEMA.tenant_timeline with (security_barrier) as
  select v.* from :SCHEMA.tenants t join :SCHEMA.timeline v on v.run_id ~>=~ (t.tenant || '/') and v.run_id ~<~ (t.tenant || '0') where t.kind = 'observer';
create view :SCHEMA.tenant_payloads with (security_barrier) as
  select v.* from :SCHEMA.tenants t join :SCHEMA.payloads v on v.run_id ~>=~ (t.tenant || '/') and v.run_id ~<~ (t.tenant || '0') where t.kind = 'payloads';
do $perdure$
declare
  v record;
begin
  for v in
    select n.nspname as schema, c.relname as view, a.attname as attribute, col_description(c.oid, a.attnum) as text, a.attnum = 1 as first
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
    where n.oid = (select t.relnamespace from pg_class t where t.oid = (select l.tableoid from :SCHEMA.leader l))
      and c.relname in ('runs', 'steps', 'events', 'timeline', 'payloads')
  loop
    execute format('comment on column %I.%I.%I is %L', v.schema, 'tenant_' || v.view, v.attribute, v.text);
    if v.first then
      execute format('comment on view %I.%I is %L', v.schema, 'tenant_' || v.view, format('As %s, of the runs of the tenant that the reader is bound to.', v.view));
    end if;
  end loop;
end $perdure$;

-- The schema's name. Called by the functions below. Locks: nothing.
create function :SCHEMA.own_name() returns name language sql stable as $perdure$
  select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = (select l.tableoid from :SCHEMA.leader l)
$perdure$;

-- What each kind of role may do, as statements: %1$I is the role, %2$I the schema.
-- Called by grant_to and settle_rights. Locks: nothing.
create function :SCHEMA.grants_of(p_kind text, p_tenant text) returns text[] language sql immutable as $perdure$
  select array['grant usage on schema %2$I to %1$I'] || case
    when p_kind = 'worker' then array[
      'grant select on all tables in schema %2$I to %1$I',
      'grant execute on all functions in schema %2$I to %1$I',
      'revoke execute on function %2$I.grant_to, %2$I.revoke_from, %2$I.settle_rights, %2$I.grants_of, %2$I.check_grant from %1$I',
      -- What is only ever added to.
      'grant insert on %2$I.checkpoint, %2$I.delivery, %2$I.follower, %2$I.input, %2$I.item, %2$I.round to %1$I',
      'grant insert, update on %2$I.run, %2$I.mail, %2$I.try, %2$I.value, %2$I.application, %2$I.definition to %1$I',
      'grant insert, delete on %2$I.outcome, %2$I.lane to %1$I',
      'grant insert, update, delete on %2$I.ready, %2$I.wait, %2$I.taken, %2$I.worker, %2$I.schedule, %2$I.schedule_trace to %1$I',
      'grant update on %2$I.leader to %1$I',
      'grant usage on all sequences in schema %2$I to %1$I']
    when p_kind = 'sender' then array['grant execute on function %2$I.start_run, %2$I.send_event, %2$I.cancel_run to %1$I']
    when p_kind = 'observer' then array['grant execute on function %2$I.clock, %2$I.ms, %2$I.codecs_of to %1$I', case
      when p_tenant is null then
        'grant select on %2$I.runs, %2$I.steps, %2$I.events, %2$I.timeline, %2$I.schedules, %2$I.schedule_history, %2$I.queues, %2$I.workers, %2$I.codecs to %1$I'
      else 'grant select on %2$I.tenant_runs, %2$I.tenant_steps, %2$I.tenant_events, %2$I.tenant_timeline to %1$I' end]
    else array[case when p_tenant is null then 'grant select on %2$I.payloads to %1$I' else 'grant select on %2$I.tenant_payloads to %1$I' end]
  end
$perdure$;

-- Refuses a role that does not exist or owns the schema, and a caller who may not grant. Called by grant_to and revoke_from. Locks: nothing.
create function :SCHEMA.check_grant(p_verb text, p_role name) returns void language plpgsql stable as $perdure$
declare
  v_owner name := (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = (select l.tableoid from :SCHEMA.leader l));
begin
  if p_role is null then
    raise exception '%: role must be given', p_verb using errcode = 'PD005';
  elsif not exists (select from pg_roles r where r.rolname = p_role) then
    raise exception '%: there is no role "%"', p_verb, p_role using errcode = 'PD005', hint = format('Create it first: create role %I login.', p_role);
  elsif p_role = v_owner then
    raise exception '%: role "%" owns the schema, and may do everything', p_verb, p_role using errcode = 'PD005', hint = 'Let another role work.';
  elsif not pg_has_role(current_user, v_owner, 'usage') then
    raise exception '%: only the owner of the schema, "%", can grant', p_verb, v_owner using errcode = 'insufficient_privilege';
  end if;
end $perdure$;

-- Lets a role do what an engine needs (worker), call start_run, send_event and cancel_run (sender), read the views (observer), or read what is
-- stored (payloads). Of a role that is bound to a tenant: with the runs whose ids begin with the tenant's name and a slash. Grants add up.
-- Called by the schema's owner: select perdure.grant_to('webhooks', 'sender'). Locks: nothing.
create function :SCHEMA.grant_to(role name, kind text, tenant text default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
#variable_conflict use_variable
declare
  v_statement text;
  v_bound text;
begin
  perform :SCHEMA.check_grant('grant_to', role);
  if kind is null or kind not in ('worker', 'sender', 'observer', 'payloads') then
    raise exception 'grant_to: kind cannot be "%"; it must be "worker", "sender", "observer" or "payloads"', left(kind, 60) using errcode = 'PD005';
  elsif tenant is not null then
    perform :SCHEMA.check_name('grant_to', 'tenant', tenant);
    if strpos(tenant, '/') > 0 or octet_length(tenant) > 100 then
      raise exception 'grant_to: the tenant "%" has %; it must have 1 to 100 bytes, and no slash', left(tenant, 60),
        case when strpos(tenant, '/') > 0 then 'a slash' else octet_length(tenant) || ' bytes' end using errcode = 'PD005';
    elsif kind = 'worker' then
      raise exception 'grant_to: a worker cannot be bound to a tenant' using errcode = 'PD005', hint = 'It executes the runs of all. For workers apart, take a schema for each tenant.';
    end if;
  end if;
  select coalesce('to tenant "' || g.tenant || '"', 'to no tenant') into v_bound from :SCHEMA.grantee g where g.role = role and g.tenant is distinct from tenant limit 1;
  if found then
    raise exception 'grant_to: role "%" is bound %', role, v_bound using errcode = 'PD005', hint = 'Take it back first with revoke_from, or make another role.';
  end if;
  insert into :SCHEMA.grantee (role, kind, tenant) values (role, kind, tenant) on conflict do nothing;
  foreach v_statement in array :SCHEMA.grants_of(kind, tenant) loop
    execute format(v_statement, role, :SCHEMA.own_name());
  end loop;
end $perdure$;
comment on function :SCHEMA.grant_to is 'Grants a role what an engine needs (worker), to start, send and cancel (sender), to read the views (observer) or what is stored (payloads); to a tenant''s runs only, if a tenant is named. Called by the schema''s owner.';

-- Takes back from a role all that it has in this schema. Called by the schema's owner. Locks: nothing.
create function :SCHEMA.revoke_from(role name) returns void
language plpgsql set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
#variable_conflict use_variable
begin
  perform :SCHEMA.check_grant('revoke_from', role);
  delete from :SCHEMA.grantee g where g.role = role;
  execute format('revoke all on all tables in schema %I from %I', :SCHEMA.own_name(), role);
  execute format('revoke all on all sequences in schema %I from %I', :SCHEMA.own_name(), role);
  execute format('revoke all on all routines in schema %I from %I', :SCHEMA.own_name(), role);
  execute format('revoke all on schema %I from %I', :SCHEMA.own_name(), role);
end $perdure$;
comment on function :SCHEMA.revoke_from is 'Takes back from a role all that it was granted in this schema. Called by the schema''s owner.';

-- Takes all from public, and grants again what was granted, as a migration has made things that are public's by default and nobody else's.
-- A role that was dropped, and perhaps made anew, has no right on the schema left, and gets none.
-- Called behind every migration. Locks: nothing.
create function :SCHEMA.settle_rights() returns void
language plpgsql set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $perdure$
declare
  v record;
begin
  revoke all on schema :SCHEMA from public;
  revoke all on all tables in schema :SCHEMA from public;
  revoke all on all sequences in schema :SCHEMA from public;
  revoke all on all routines in schema :SCHEMA from public;
  for v in
    select t.oid from pg_type t left join pg_class c on c.oid = t.typrelid
    join pg_namespace n on n.oid = t.typnamespace where n.nspname = :SCHEMA.own_name()
      and (t.typtype in ('d', 'e') or c.relkind in ('c', 'r', 'v', 'p'))
  loop
    execute format('revoke usage on type %s from public', v.oid::regtype);
  end loop;
  delete from :SCHEMA.grantee g where not exists (
    select from pg_roles r join pg_namespace n on n.nspname = :SCHEMA.own_name()
    cross join lateral aclexplode(n.nspacl) a where r.rolname = g.role and a.grantee = r.oid and a.privilege_type = 'USAGE'
  );
  for v in select g.role, s.statement from :SCHEMA.grantee g cross join lateral unnest(:SCHEMA.grants_of(g.kind, g.tenant)) with ordinality as s(statement, no)
    order by g.role, g.kind, s.no
  loop
    execute format(v.statement, v.role, :SCHEMA.own_name());
  end loop;
end $perdure$;

select :SCHEMA.settle_rights();
