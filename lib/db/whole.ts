/** A run with all that a replay of it needs, read in one statement: for an export. */

/** See load_runs in sql/schema/03-claim.sql, which reads the same for a claim, in pages. */
export const WHOLE = `
  select r.id, r.workflow, r.version, r.queue, r.state, r.attempt, r.reason, r.flexible, r.schedule, :SCHEMA.to_ms(r.slot_at) as slot,
    :SCHEMA.to_ms(r.started_at) as started, i.args::text as args, i.options::text as options, i.fork::text as fork, o.value::text as result,
    (
      select json_agg(json_build_array(w.slot, w.kind, w.length_ms, :SCHEMA.to_ms(w.due), w.tries, w.woken) order by w.slot)
      from :SCHEMA.wait w where w.run = r.key and w.attempt = r.attempt
    )::text as waits,
    (select json_agg(t.slot order by t.slot) from :SCHEMA.try t where t.run = r.key and t.attempt = r.attempt and t.finished_at is null)::text as begun,
    (
      select min(coalesce(c.no, d.no)) from :SCHEMA.checkpoint c
      join :SCHEMA.round u on u.run = c.run and u.attempt >= c.attempt and c.slot = any(u.reopened)
      left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt
      where c.run = r.key
    ) as reopened_from,
    case when r.attempt > 1 then greatest(
      (select max(c.no) from :SCHEMA.checkpoint c where c.run = r.key), (select max(d.no) from :SCHEMA.delivery d where d.run = r.key)
    ) end as last_no,
    (select json_agg(s.slot order by s.slot) from :SCHEMA.round u cross join unnest(u.reopened) as s(slot) where u.run = r.key)::text as reopened,
    :SCHEMA.unread(r.key, 0)::text as unread,
    :SCHEMA.ended(r.key)::text as ended,
    (
      select json_agg(json_build_array(h.slot, h.attempt, h.no, h.kind, h.name, h.outcome, h.value, h.hash, h.tries, :SCHEMA.to_ms(h.at)) order by h.no nulls last, h.at, h.slot)
      from (
        select c.slot, c.attempt, coalesce(c.no, d.no) as no, c.kind, c.name, c.outcome, c.value, c.hash, c.tries, c.at
        from :SCHEMA.checkpoint c
        left join :SCHEMA.delivery d on d.run = c.run and d.slot = c.slot and d.attempt = c.attempt and c.no is null
        where c.run = r.key and not exists (
          select from :SCHEMA.round u where u.run = c.run and u.attempt >= c.attempt and c.slot = any(u.reopened))
      ) h
    )::text as history
  from :SCHEMA.run r join :SCHEMA.input i on i.run = r.key left join :SCHEMA.outcome o on o.run = r.key
  where r.id = $1`;

/** What it gives; JSON as text. */
export interface WholeRow {
  readonly id: string;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly state: string;
  readonly attempt: number;
  readonly reason: string | null;
  readonly flexible: boolean;
  readonly schedule: string | null;
  readonly slot: number | null;
  readonly started: number | null;
  readonly args: string;
  readonly options: string | null;
  readonly fork: string | null;
  readonly result: string | null;
  readonly waits: string | null;
  readonly begun: string | null;
  readonly reopened_from: number | null;
  readonly last_no: number | null;
  readonly reopened: string | null;
  readonly unread: string | null;
  readonly ended: string | null;
  readonly history: string | null;
}
