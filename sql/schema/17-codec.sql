-- What codecs wrote: for a person who wants to know whether a key can go.

-- One row for each codec, with its key or method, and each kind of value. Reads all payloads: on a big database it takes its time.
create view :SCHEMA.codecs as
  select t.codec, p.kind, count(*) as stored, count(*) filter (where p.open) as in_use
  from (
    select 'input' as kind, i.args as value, r.finished_at is null as open from :SCHEMA.input i join :SCHEMA.run r on r.key = i.run
    union all select 'checkpoint', c.value, r.finished_at is null from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run
    union all select 'try', t.error, r.finished_at is null from :SCHEMA.try t join :SCHEMA.run r on r.key = t.run
    union all select 'round', o.error, r.finished_at is null from :SCHEMA.round o join :SCHEMA.run r on r.key = o.run
    union all select 'event', m.data, r.finished_at is null from :SCHEMA.mail m join :SCHEMA.run r on r.key = m.run
    union all select 'result', o.value, r.finished_at is null from :SCHEMA.outcome o join :SCHEMA.run r on r.key = o.run
    union all select 'value', v.value, r.finished_at is null from :SCHEMA.value v join :SCHEMA.run r on r.key = v.run
    union all select 'stream', s.value, r.finished_at is null from :SCHEMA.item s join :SCHEMA.run r on r.key = s.run
    union all select 'schedule', s.args, true from :SCHEMA.schedule s
  ) p
  cross join json_array_elements_text(:SCHEMA.codecs_of(p.value)) as t(codec)
  group by t.codec, p.kind;
comment on view :SCHEMA.codecs is 'Which codecs, with which keys, wrote what is stored. codec: its name, and its key''s id or its method. stored: values; in_use: those of unfinished runs, and of schedules.';
comment on column :SCHEMA.codecs.codec is 'The name of the codec, and what it noted: the id of its key, or its method.';
comment on column :SCHEMA.codecs.kind is 'What the values are: input, checkpoint, try, round, event, result, value, stream or schedule.';
comment on column :SCHEMA.codecs.stored is 'How many values.';
comment on column :SCHEMA.codecs.in_use is 'How many of these belong to unfinished runs, or to schedules.';
