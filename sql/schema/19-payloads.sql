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
