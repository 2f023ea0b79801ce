/** The database's clock, set by a test: it goes on from there. All SQL takes time from one function. */

type Sql = (text: string, values?: unknown[]) => Promise<any[]>;

/** Sets the clock of a schema to an instant. */
export async function setClock(sql: Sql, instant: string): Promise<void> {
  await sql(
    `do $$ begin execute format(
    'create or replace function :SCHEMA.clock() returns timestamptz language sql stable parallel safe as
      ''select statement_timestamp() + interval %L''', timestamptz '${instant}' - clock_timestamp());
  end $$`.replaceAll(
      "''select statement_timestamp() + interval %L''",
      "$sql$select statement_timestamp() + %L::interval$sql$",
    ),
  );
}

/** Lets time pass. */
export async function pass(sql: Sql, interval: string): Promise<void> {
  const [{ later }] = await sql(`select (:SCHEMA.clock() + interval '${interval}')::text as later`);
  await setClock(sql, later);
}
