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
