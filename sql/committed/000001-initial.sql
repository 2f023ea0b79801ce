--! Previous: -
--! Hash: sha1:b8e5641bbfb5f20fa73b7b585a22303539f91932
--! Message: initial

create table :SCHEMA.run (
  key bigint generated always as identity primary key,
  id text not null unique
);
