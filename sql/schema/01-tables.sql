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
