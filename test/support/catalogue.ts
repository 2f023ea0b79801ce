/** What a schema holds, as text that two schemas can be compared by. */

import type pg from "pg";

const CATALOGUE = `
  with s as (select oid from pg_namespace where nspname = $1),
  relation as (select c.* from pg_class c join s on s.oid = c.relnamespace where c.relname !~ '^migrations(_pkey)?$')
  select 'relation' as kind, relname || ' ' || relkind::text || ' ' || relpersistence::text || ' ' || coalesce(reloptions::text, '')
    || coalesce(' partition of ' || (select inhparent::regclass::text from pg_inherits where inhrelid = r.oid), '')
    || coalesce(pg_get_viewdef(oid), '') || coalesce(relacl::text, '') || coalesce(obj_description(oid, 'pg_class'), '') as text
  from relation r
  union all
  select 'column', r.relname || '.' || a.attnum || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' '
    || a.attnotnull::text || a.attidentity::text || a.attgenerated::text || a.attstorage::text || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
    || coalesce(col_description(r.oid, a.attnum), '')
  from pg_attribute a join relation r on r.oid = a.attrelid left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
  where a.attnum > 0 and not a.attisdropped and r.relkind <> 'i'
  union all
  select 'constraint', r.relname || ' ' || c.conname || ' ' || pg_get_constraintdef(c.oid) || c.convalidated
  from pg_constraint c join relation r on r.oid = c.conrelid
  union all
  select 'index', pg_get_indexdef(i.indexrelid) || i.indisvalid from pg_index i join relation r on r.oid = i.indexrelid
  union all
  select 'trigger', pg_get_triggerdef(t.oid) from pg_trigger t join relation r on r.oid = t.tgrelid where not t.tgisinternal
  union all
  select 'function', case p.prokind when 'a' then p.oid::regprocedure::text else pg_get_functiondef(p.oid) end
    || coalesce(p.proacl::text, '') || coalesce(obj_description(p.oid, 'pg_proc'), '')
  from pg_proc p join s on s.oid = p.pronamespace
  union all
  select 'type', t.typname || ' ' || t.typtype::text || coalesce((select string_agg(enumlabel, ',' order by enumsortorder)
    from pg_enum where enumtypid = t.oid), '') from pg_type t join s on s.oid = t.typnamespace
  where t.typname !~ '^_?migrations$'
  order by 1, 2`;

/** One line for each table, column, constraint, index, view, trigger, function and type; our ledger left out. */
export async function catalogue(client: pg.ClientBase, schema: string): Promise<string[]> {
  await client.query("set search_path = ''");
  const { rows } = await client.query(CATALOGUE, [schema]);
  await client.query("reset search_path");
  const quoted = /^[a-z_][a-z0-9_]*$/.test(schema) ? schema : `"${schema}"`;
  return rows.map(
    ({ kind, text }) => `${kind} ${text.replaceAll(`"${schema}"`, "SCHEMA").replaceAll(quoted, "SCHEMA")}`,
  );
}
