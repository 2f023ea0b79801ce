/**
 * A claim of a few runs that nobody has held yet, or that are in the memory of this process, in one statement. Where others are claimable, or many,
 * it takes none, and the function is asked: see swift.ts.
 */
import type { ClientBase, QueryConfig, QueryResult } from "pg";
import { ANYWHERE, type Context, IS_SOUND, insteadOf, lanesOf, NEWS, prepared, tidied } from "./swift-parts.ts";
import type { LoadedRow, Writes } from "./writes.ts";

/** So many at most. A number in the text, as of a limit that is a parameter the planner expects a tenth of the table. */
const FEW = 8;

/**
 * As claim_runs. The rows that are locked may be younger than what this statement sees: where mail has come in between, or an end that a run in
 * memory waits for, it takes none; nor where a claim has taken long before, and this one is to begin where that ended. It locks no more than it may
 * take: another that looks meanwhile would find nothing, and leave to this one for good what is beyond its slots.
 */
const CLAIM = `${insteadOf("claim_runs")}with seen as materialized (
  select count(*) as many, count(*) <= $3::integer as few from (
    select from unnest($4::text[], $5::text[], $6::text[]) as lane(workflow, version, queue)
    cross join lateral (
      select from :SCHEMA.ready q where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue limit ${FEW + 1}
    ) c
    where ${IS_SOUND} and ${ANYWHERE}
    limit ${FEW + 1}
  ) c
), free as materialized (
  select c.* from unnest($4::text[], $5::text[], $6::text[]) as lane(workflow, version, queue)
  cross join lateral (
    select q.place, q.run, r.* from ( -- locked before its run, as claim_runs does
      select q.ctid as place, q.ready_at, q.run from :SCHEMA.ready q
      where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue
      order by q.priority, q.ready_at, q.run
      for update skip locked
    ) q
    cross join lateral (
      select r.epoch, r.mail, r.epoch = 0 and r.mail = 0 as fresh, coalesce(r.crashes = 0 and r.warm = $1::bigint and r.warm_no >= $2::integer, false) as warm
      from :SCHEMA.run r where r.key = q.run and r.ready_at = q.ready_at
      for no key update skip locked
    ) r
    limit ${FEW + 1}
  ) c
  where (select s.few from seen s) and ${IS_SOUND} and ${ANYWHERE} -- or nothing is free here, and nothing usual
), judged as materialized (
  select count(*) < (select s.many from seen s) as passed, ${ANYWHERE} and (select s.few from seen s) and count(*) <= least($3::integer, ${FEW}) and coalesce(bool_and(f.fresh or (f.warm and s.key is not null)), true) as usual
  from free f left join :SCHEMA.run s on s.key = f.run and s.epoch = f.epoch and s.mail = f.mail
), gone as (
  delete from :SCHEMA.ready q using free f cross join judged j where j.usual and q.ctid = f.place returning q.run, f.fresh
), claimed as (
  update :SCHEMA.run r set state = 'running', worker = $1::bigint, epoch = r.epoch + 1, ready_at = null, reason = null, warm = null, warm_no = null,
    started_at = coalesce(r.started_at, :SCHEMA.clock()),
    deadline = case when r.started_at is null then least(r.deadline, :SCHEMA.clock() + :SCHEMA.ms(r.timeout_ms)) else r.deadline end
  from gone g where r.key = g.run
  returning r.key, r.id, r.workflow, r.version, r.queue, r.epoch, r.attempt, r.mail, r.started_at, r.deadline, r.schedule, r.slot_at, r.flexible, r.followed, g.fresh
), noted as (
  insert into :SCHEMA.taken (worker, runs) select $1::bigint, array_agg(c.key) from claimed c having count(*) > 0 returning no
)
select c.key, c.id, c.workflow, c.version, c.queue, c.epoch, c.attempt, c.mail, :SCHEMA.to_ms(c.started_at) as started_ms, :SCHEMA.to_ms(c.deadline) as deadline_ms,
  :SCHEMA.to_ms(:SCHEMA.clock()) as now_ms, c.schedule, :SCHEMA.to_ms(c.slot_at) as slot_ms, c.flexible, c.followed,
  i.args::text, i.options::text, i.fork::text, n.unread::text, n.ended::text, n.news::text, j.usual, j.passed, ${IS_SOUND} as sound, ${tidied(1)}
from judged j
left join claimed c on true
left join :SCHEMA.input i on c.fresh and i.run = c.key
left join lateral (${NEWS("c.key", "c.mail > 0", "")}) n on not c.fresh
order by c.fresh desc, c.key`;

/** What the function says beside that of a run that has no history. */
const NOTHING: Partial<LoadedRow> = {
  crashes: 0,
  waits: null,
  begun: null,
  reopened_from: null,
  last_no: null,
  reopened: null,
  slot: null,
  more: false,
  backlog: false,
};

/** How many claims go straight to the function, as the last were none of the usual: twice as many each time. */
interface Patience {
  skips: number;
  next: number;
}
const MOST_SKIPPED = 64;
const patience = new WeakMap<ClientBase, Patience>();

/** Null: the last claims were none of the usual, and this one is tried as one later. */
export function claim(client: ClientBase, row: Writes["claim"]["row"], context: Context): QueryConfig | null {
  const known = patience.get(client);
  if (known && known.skips > 0) {
    known.skips -= 1;
    return null;
  }
  const values = [context.worker, row.warmFrom(), row.limit(), ...lanesOf(context.lanes)];
  return prepared("claim", CLAIM, values, context);
}

/** The runs that were taken; null: none, and the function is to be asked. */
export function claimed(client: ClientBase, result: QueryResult): QueryResult[] | null {
  const [row] = result.rows;
  if (row.usual) {
    patience.delete(client);
    const loaded = row.key === null ? [] : result.rows.map((taken) => ({ ...NOTHING, ...taken }));
    // Others have locked some, and may leave them: as the function says it.
    if (row.passed) loaded.push({ ...NOTHING, key: null });
    return [{ ...result, rows: loaded }];
  }
  const next = Math.min(MOST_SKIPPED, 2 * (patience.get(client)?.next ?? 1));
  patience.set(client, { skips: next, next });
  return null;
}
