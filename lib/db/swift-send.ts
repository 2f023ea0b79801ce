/**
 * An event for one run, in one statement; and its claim, where the run waits for just that in the memory of this process and nothing claimable
 * stands before it. What is not usual is left to the functions: see swift.ts.
 */
import type { QueryConfig, QueryResult } from "pg";
import {
  type Context,
  IS_SOUND,
  insteadOf,
  isFirst,
  lanesOf,
  NEWS,
  NO_LANES,
  prepared,
  tidied,
} from "./swift-parts.ts";
import type { SendRow, Writes } from "./writes.ts";

const MORE = "union all select p.seq, p.name, p.data, p.reference, p.sent_at, p.token from put p";
/**
 * As send_events and claim_runs. The row that is locked may be younger than what this statement sees: where mail has come in between, or an end
 * that the run waits for, a claim of its own reads it.
 */
const SEND = `${insteadOf("send_events")}with held as materialized (
  select r.key, r.epoch, r.mail, coalesce(r.topics && array['event:' || $2::text], false) as woken,
    r.crashes = 0 and r.warm = $6::bigint and r.warm_no >= $7::integer as warm
  from :SCHEMA.run r where r.id = $1 and r.state not in ('completed', 'failed', 'cancelled') and ${IS_SOUND}
  for no key update skip locked
), put as (
  insert into :SCHEMA.mail (run, name, data, reference, token, sent_at)
  select h.key, $2, $3::json, $4, $5, :SCHEMA.clock() from held h
  on conflict do nothing
  returning run, seq, name, data, reference, token, sent_at
), gate as materialized (
  select h.key, h.woken, case when h.woken and h.warm then exists (select from :SCHEMA.run s where s.key = h.key and s.epoch = h.epoch and s.mail = h.mail)
    and ${isFirst(8)}
    else false end as leased
  from put p join held h on h.key = p.run
), told as (
  update :SCHEMA.run r set mail = r.mail + 1,
    state = case when g.leased then 'running' when g.woken then 'pending' else r.state end,
    ready_at = case when g.leased then null when g.woken then :SCHEMA.clock() else r.ready_at end,
    due = case when not g.woken then r.due end,
    topics = case when not g.woken then r.topics end,
    worker = case when g.leased then $6::bigint else r.worker end,
    epoch = case when g.leased then r.epoch + 1 else r.epoch end,
    reason = case when not g.leased then r.reason end,
    warm = case when not g.leased then r.warm end,
    warm_no = case when not g.leased then r.warm_no end
  from gate g where r.key = g.key
  returning r.key, r.id, r.state, r.workflow, r.version, r.queue, r.epoch, r.mail, r.warm, r.started_at, r.deadline, r.followed, g.woken, g.leased
), noted as (
  insert into :SCHEMA.taken (worker, runs) select $6::bigint, array[t.key] from told t where t.leased returning no
)
select 1 as ord, 'sent' as verdict, t.key, t.woken, not t.woken and t.state = 'running' as working, t.workflow, t.version, t.queue,
  case when t.leased then $6::bigint else t.warm end as warm, t.leased, t.id, t.epoch, t.mail, t.followed, :SCHEMA.to_ms(t.started_at) as started_ms, :SCHEMA.to_ms(t.deadline) as deadline_ms,
  :SCHEMA.to_ms(:SCHEMA.clock()) as now_ms, n.unread::text, n.ended::text, n.news::text, ${IS_SOUND} as sound, ${tidied(6)}
from (select) one left join told t on true
left join lateral (${NEWS("t.key", "true", MORE)}) n on t.leased`;

/** `claim`: the one that is to come with it; null: none. */
export function send(
  { id, name, data, reference, token }: SendRow,
  claim: Writes["claim"]["row"] | null,
  context: Context,
): QueryConfig {
  const takes = claim !== null && claim.limit() > 0;
  const lease = takes ? [context.worker, claim.warmFrom(), ...lanesOf(context.lanes)] : [null, null, ...NO_LANES];
  return prepared("send", SEND, [id, name, data, reference, token, ...lease], context);
}

/** What a send and a claim have come to. The claim of a run that is not taken is still to be made. */
export function sent(result: QueryResult): QueryResult[] {
  const { rows } = result;
  return rows[0].leased ? [result, { ...result, rows: [{ ...rows[0], backlog: false }] }] : [result];
}
