/**
 * One row alone, the usual one, in one prepared statement: no function, no arrays, no settings to put on and off, which is two thirds of the
 * time. What is not usual (an id that is taken, a claim that is over, a row that is held, a run that others wait for) it leaves as it is, and the
 * functions under sql/ are asked, which know it all. It means what they mean: test/db/swift.test.ts puts both side by side.
 */
import type { Client, ClientBase, ClientConfig, QueryConfig, QueryResult } from "pg";
import type { Item } from "./batch.ts";
import { connectClient } from "./connect.ts";
import { isSettingRefused } from "./pg-errors.ts";
import { isDue } from "./start-row.ts";
import { claim, claimed } from "./swift-claim.ts";
import { type Context, IS_SOUND, insteadOf, isNext, lanesOf, NO_LANES, prepared, tidied } from "./swift-parts.ts";
import { send, sent } from "./swift-send.ts";
import { wake, woken } from "./swift-wake.ts";
import type { FinishRow, RecordRow, SendRow, StartRow, Writes } from "./writes.ts";

/** Plans are made once, perhaps when the tables are still empty and a scan of them looks cheap: they keep to the indexes, as the functions do. */
const PLANS = "-c enable_seqscan=off -c jit=off -c plan_cache_mode=force_generic_plan";
/** A frozen process reads no answer, and a transaction that cannot get rid of its answers keeps the rows of its runs locked: the server ends it. */
const PATIENCE = "-c tcp_user_timeout=25000";

/** Opens a connection with settings for such statements; without them where a pooler does not take any. */
export async function connectSwift(config: ClientConfig): Promise<Client> {
  try {
    return await connectClient(config, `${PLANS} ${PATIENCE}`);
  } catch (error) {
    if (!isSettingRefused(error)) throw error;
    return connectClient(config);
  }
}

/** How long a start waits for a stranger that has made a run of the same id and not committed. Nothing else in a batch waits for rows. */
export const START_LOCK_MS = 100;

/** As start_runs, of a run that may begin at once and has no parent, schedule or tags. */
const START = `${insteadOf("start_runs")}with gate as materialized (
  select ${isNext(10)} as leased
  where ${IS_SOUND} and set_config('lock_timeout', '${START_LOCK_MS}ms', true) is not null
), made as (
  insert into :SCHEMA.run as r (id, workflow, version, queue, priority, state, epoch, worker, ready_at, deadline, timeout_ms, created_at, started_at)
  select $1, $2, $3, $4, $5::smallint,
    case when g.leased then 'running' else 'pending' end,
    case when g.leased then 1 else 0 end,
    case when g.leased then $10::bigint end,
    case when not g.leased then :SCHEMA.clock() end,
    case when g.leased then :SCHEMA.clock() + :SCHEMA.ms($6::float8) end,
    $6::float8, :SCHEMA.clock(), case when g.leased then :SCHEMA.clock() end
  from gate g
  on conflict (id) do nothing
  returning r.key, r.workflow, r.version, r.queue, r.priority, r.worker, r.ready_at, r.deadline
), put as (
  insert into :SCHEMA.input (run, args, hash, options) select m.key, $7::json, $8, $9::json from made m
), placed as (
  insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
  select m.workflow, m.version, m.queue, m.priority, m.ready_at, m.key, 0 from made m where m.ready_at is not null
), noted as (
  insert into :SCHEMA.taken (worker, runs) select m.worker, array[m.key] from made m where m.worker is not null returning no
)
select 1 as ord, 'created' as verdict, m.key, m.worker is not null as leased, null as workflow, null as state,
  :SCHEMA.to_ms(m.deadline) as deadline_ms, :SCHEMA.to_ms(:SCHEMA.clock()) as now_ms, exists (select from gate) as sound,
  ${tidied(10)}
from (select) one left join made m on true`;

const HELD = `held as materialized (
  select r.key from :SCHEMA.run r
  where r.key = $1 and r.epoch = $2 and r.state = 'running' and :USUAL and ${IS_SOUND}
  for no key update skip locked
)`;
const PUT = `put as (
  insert into :SCHEMA.checkpoint (run, slot, attempt, no, kind, name, outcome, value, hash, tries, epoch, started_at, at)
  select h.key, $3, $4, $5, 'step', $6, $7, $8::json, $9, 1, $2, :SCHEMA.from_ms($10), :SCHEMA.from_ms($11) from held h
  on conflict do nothing
  returning 1
)`;
const RECORDED = `coalesce((select 'ok' from put), (
    select case when c.epoch = $2 then 'ok' else 'stale' end from :SCHEMA.checkpoint c where c.run = $1 and c.slot = $3 and c.attempt = $4
  ), 'ok')`;
const SOUND = `${IS_SOUND} as sound from (select) one left join`;

/** As record_steps, of a step that ended at its first try, in a run that has not crashed. */
const RECORD = `${insteadOf("record_steps")}with ${HELD.replace(":USUAL", "r.crashes = 0")}, ${PUT}
select 1 as ord, case when h.key is not null then ${RECORDED} end as verdict, ${SOUND} held h on true`;

/** As end_runs and finish_runs, of a run whose end nobody waits for: others who do are told by functions. */
const NOBODY_WAITS = "not r.followed";
const DONE = `done as (
  update :SCHEMA.run r set state = :STATE, worker = null, pausing = false:CRASHES, finished_at = :SCHEMA.clock() from held h where r.key = h.key
  returning r.key
), stored as (
  insert into :SCHEMA.outcome (run, value, reopened)
  select h.key, :RESULT::json, case when :REOPENED::text is not null then array(select json_array_elements_text(:REOPENED::json)) end from held h
)
select 1 as ord, 'ok' as verdict`;
const NOBODY_TOLD = "null as woken, null as working, null as next_ms, null as untold";
const done = (state: string, result: string, reopened: string, crashes: string): string =>
  DONE.replace(":STATE", state)
    .replace(":RESULT", result)
    .replaceAll(":REOPENED", reopened)
    .replace(":CRASHES", crashes);
const END = `${insteadOf("end_runs")}with ${HELD.replace(":USUAL", NOBODY_WAITS)}, ${PUT}, ${done("$12", "$13", "$14", ", crashes = 0")},
  d.key, ${RECORDED} as recorded, ${NOBODY_TOLD}, ${SOUND} done d on true`;
const FINISH = `${insteadOf("finish_runs")}with ${HELD.replace(":USUAL", NOBODY_WAITS)}, ${done("$3", "$4", "$5", "")}, d.key, ${NOBODY_TOLD}, ${SOUND} done d on true`;

/** One row of a batch, or a step and the end of its run. */
export interface Single {
  readonly kind: Item["kind"];
  readonly items: readonly Item[];
  readonly steps?: readonly Item[];
}

/** The statement for all of a batch; null: it is none of the usual. */
export function swift(client: ClientBase, groups: readonly Single[], context: Context): QueryConfig | null {
  const [group, next] = groups as [Single, ...Single[]];
  if (groups.length > 2 || (next ? !isNews(group, next) : group.kind === "due")) return null;
  const { kind, items, steps } = group;
  if (items.length !== 1 || context.lockMs !== null || context.apart || context.again) return null;
  const { row } = items[0]!;
  if (kind === "start") return start(row as StartRow, context);
  const nextRow = (next ? next.items[0]!.row : null) as Writes["claim"]["row"] | null;
  if (kind === "due") return wake(nextRow!, context);
  if (kind === "send") return send(row as SendRow, nextRow, context);
  if (kind === "claim") return claim(client, row as Writes["claim"]["row"], context);
  if (kind === "record")
    return isPlainStep(row as RecordRow) ? prepared("record", RECORD, stepOf(row as RecordRow), context) : null;
  if (kind !== "finish") return null;
  const { run, epoch, state, value, reopened } = row as FinishRow;
  if (!steps) return prepared("finish", FINISH, [run, epoch, state, value, reopened], context);
  return prepared("end", END, [...stepOf(steps[0]!.row as RecordRow), state, value, reopened], context);
}

/** An event or timers, and the claim of who waits for them. */
const isNews = (group: Single, then: Single): boolean =>
  (group.kind === "send" || group.kind === "due") && then.kind === "claim";

function start(row: StartRow, context: Context): QueryConfig | null {
  if (!isDue(row) || row.run !== null || row.schedule !== null || row.tags !== null) return null;
  const { id, workflow, version, queue, priority, timeout, args, hash, options } = row;
  const worker = row.lease() ? context.worker : null;
  const lanes = worker === null ? NO_LANES : lanesOf(context.lanes);
  const values = [id, workflow, version, queue, priority, timeout, args, hash, options, worker, ...lanes];
  return prepared("start", START, values, context);
}

const isPlainStep = ({ kind, tries }: RecordRow): boolean => kind === "step" && tries === 1;

const stepOf = ({ run, epoch, slot, attempt, no, name, outcome, value, hash, started, at }: RecordRow): unknown[] => [
  run,
  epoch,
  slot,
  attempt,
  no,
  name,
  outcome,
  value,
  hash,
  started,
  at,
];

/** Sessions where such statements do nothing. */
const unsound = new WeakSet<ClientBase>();

export const mayBeSwift = (client: ClientBase): boolean => !unsound.has(client);

/** What the statement has done, of one group after the other; null: nothing. */
export function didSwiftly(
  client: ClientBase,
  [{ kind }, next]: readonly [Single, ...Single[]],
  result: QueryResult,
): QueryResult[] | null {
  const [row] = result.rows;
  if (!row.sound) {
    unsound.add(client);
    return null;
  }
  if (kind === "claim") return claimed(client, result);
  if (kind === "due") return woken(result);
  const isDone = kind === "record" ? row.verdict !== null : row.key !== null;
  if (!isDone) return null;
  return next ? sent(result) : [result];
}
