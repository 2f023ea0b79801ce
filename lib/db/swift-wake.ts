/**
 * Timers that are due and the claim of their runs in one statement, where all of these runs are in the memory of this process, it has a slot for
 * each, and nothing claimable stands before them. Otherwise it wakes them only, and the claim is still to be made: see swift.ts.
 */
import type { QueryConfig, QueryResult } from "pg";
import { type Context, IS_SOUND, insteadOf, isFirst, lanesOf, NEWS, prepared, tidied } from "./swift-parts.ts";
import type { Writes } from "./writes.ts";

/** So many at most. A number in the text, as of a limit that is a parameter the planner expects a tenth of the table. */
const MOST = 64;

/**
 * As wake_due and claim_runs. The rows that are locked may be younger than what this statement sees: where mail has come in between, or an end
 * that a run waits for, a claim of its own reads it.
 */
const WAKE = `${insteadOf("wake_due")}with late as materialized (
  select r.key, r.epoch, r.mail, coalesce(r.crashes = 0 and r.warm = $1::bigint and r.warm_no >= $2::integer, false) as warm
  from :SCHEMA.run r where r.timer <= :SCHEMA.clock() and ${IS_SOUND} order by r.timer limit ${MOST + 1} for no key update skip locked
), gate as materialized (
  select count(*) as woken, count(*) <= ${MOST} as usual, coalesce(bool_and(l.warm), false) and count(*) <= $3::integer and count(*) = count(s.key) and ${isFirst(4)} as leased
  from late l left join :SCHEMA.run s on s.key = l.key and s.epoch = l.epoch and s.mail = l.mail and l.warm
), done as (
  update :SCHEMA.run r set state = case when g.leased then 'running' else 'pending' end,
    ready_at = case when not g.leased then r.due end,
    due = null,
    topics = null,
    worker = case when g.leased then $1::bigint end,
    epoch = case when g.leased then r.epoch + 1 else r.epoch end,
    reason = case when not g.leased then r.reason end,
    warm = case when not g.leased then r.warm end,
    warm_no = case when not g.leased then r.warm_no end
  from late l cross join gate g where g.usual and r.key = l.key
  returning r.key, r.id, r.epoch, r.mail, r.started_at, r.deadline, r.followed, g.leased
), noted as (
  insert into :SCHEMA.taken (worker, runs) select $1::bigint, array_agg(d.key) from done d where d.leased having count(*) > 0 returning no
)
select g.usual, g.woken::integer, case when g.leased then 0 else g.woken end::integer as "left",
  case when g.woken < (select count(*) from (select from :SCHEMA.run r where r.timer <= :SCHEMA.clock() order by r.timer limit ${MOST + 1}) d)
    then least(a.next_ms, 100) else a.next_ms end as next_ms,
  exists (select from :SCHEMA.schedule s where s.due_at <= :SCHEMA.clock()) as scheduled,
  d.key, d.id, d.epoch, d.mail, d.followed, :SCHEMA.to_ms(d.started_at) as started_ms, :SCHEMA.to_ms(d.deadline) as deadline_ms,
  :SCHEMA.to_ms(:SCHEMA.clock()) as now_ms, n.unread::text, n.ended::text, n.news::text, ${IS_SOUND} as sound, ${tidied(1)}
from gate g
cross join (
  select :SCHEMA.to_ms(least(
    (select min(r.timer) from :SCHEMA.run r where r.timer > :SCHEMA.clock()),
    (select min(s.due_at) from :SCHEMA.schedule s where s.due_at > :SCHEMA.clock())
  )) - :SCHEMA.to_ms(:SCHEMA.clock()) as next_ms
) a
left join done d on d.leased
left join lateral (${NEWS("d.key", "d.mail > 0", "")}) n on d.leased
order by d.key`;

/** For the claim that is to come with it. */
export function wake(claim: Writes["claim"]["row"], context: Context): QueryConfig | null {
  const slots = claim.limit();
  const values = [context.worker, claim.warmFrom(), slots, ...lanesOf(context.lanes)];
  return slots > 0 ? prepared("wake", WAKE, values, context) : null;
}

/** What timers and a claim have come to. The claim of runs that are not taken is still to be made. Null: more is due. */
export function woken(result: QueryResult): QueryResult[] | null {
  const [row] = result.rows;
  if (!row.usual) return null;
  if (row.left > 0 || row.woken === 0) return [result];
  return [result, { ...result, rows: result.rows.map((loaded) => ({ ...loaded, backlog: false })) }];
}
