/** What the role of this process may do on a schema that is there, and who else may put functions in its way. */
import type pg from "pg";
import { PerdureError } from "../core/errors.ts";
import { grantWorker } from "./pg-errors.ts";
import { TYPES } from "./reading.ts";

interface Rights {
  readonly role: string;
  readonly owner: string;
  readonly owns: boolean;
  readonly works: boolean;
}

/** All that grant_to gives a worker, of what a migration may have made since. */
const RIGHTS = `select current_user::text as role, pg_get_userbyid(c.relowner)::text as owner, pg_has_role(c.relowner, 'usage') as owns,
  has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'insert, update')
    and not exists (select from pg_class t where t.relnamespace = n.oid and t.relkind = 'r' and not has_table_privilege(t.oid, 'select'))
    and not exists (select from pg_proc p where p.pronamespace = n.oid and not has_function_privilege(p.oid, 'execute')
      and p.proname not in ('grant_to', 'revoke_from', 'settle_rights', 'grants_of', 'check_grant')) as works
  from pg_namespace n join pg_class c on c.relnamespace = n.oid and c.relname = 'run' and c.relkind = 'r' where n.nspname = $1`;

/** Refuses a role that may not work on the schema; says whether it owns it, and who does. Undefined: the schema is not made yet. */
export async function checkRights(client: pg.ClientBase, schema: string): Promise<Rights | undefined> {
  const { rows } = await client.query({ text: RIGHTS, values: [schema], types: TYPES } as pg.QueryConfig);
  const rights = rows[0] as Rights | undefined;
  if (!rights || rights.owns || rights.works) return rights;
  const text = `role "${rights.role}" lacks rights that an engine needs on schema "${schema}", which belongs to "${rights.owner}"; ${grantWorker(rights.role, schema)}`;
  throw new PerdureError("PERDURE_PRIVILEGE", text);
}

/** The schemas of the search path in which somebody else may make functions, and one who may. */
const OPEN = `select s.name, min(r.rolname)::text as who, count(*)::integer as many
  from unnest(current_schemas(false)) with ordinality as s(name, no) join pg_namespace n on n.nspname = s.name
  join pg_roles r on r.rolcanlogin and not r.rolsuper and has_schema_privilege(r.oid, n.oid, 'create') and has_database_privilege(r.oid, current_database(), 'connect')
    and not pg_has_role(r.oid, n.nspowner, 'usage')
  where r.rolname <> current_user group by s.name, s.no order by s.no limit 1`;

/** A warning where what is called by name alone, here or in the application, may be another's; undefined: nobody may. */
export async function openSearchPath(client: pg.ClientBase): Promise<string | undefined> {
  const { rows } = await client.query({ text: OPEN, types: TYPES } as pg.QueryConfig);
  const [open] = rows as { name: string; who: string; many: number }[];
  if (!open) return undefined;
  const others = open.many > 1 ? ` and ${open.many - 1} other roles` : "";
  return `role "${open.who}"${others} may make functions in schema "${open.name}", which is on the search path: what SQL of this process calls by name may be theirs; run: revoke create on schema "${open.name}" from public`;
}
