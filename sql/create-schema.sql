-- For graphile-migrate alone, before all migrations: at run time lib/db/migrate.ts makes the schema.
create schema if not exists :SCHEMA;
