create table :SCHEMA.run (
  key bigint generated always as identity primary key,
  id text not null unique
);
