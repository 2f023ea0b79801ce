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
