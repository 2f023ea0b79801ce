/** What must hold at the end of a chaos run, as research/reliability.md numbers it: each check returns what breaks it, a line each. */
import { isDeepStrictEqual } from "node:util";
import { nextSlot } from "../../lib/schedule/slots.ts";
import { exportHistory, replayHistory } from "../../lib/testing/index.ts";
import { SCHEMA } from "./audit.ts";
import { type Case, type Driver, VERSIONS } from "./driver.ts";
import type { Observer } from "./observers.ts";
import { effectsOf, KIDS, receiptOf } from "./orders.ts";

export interface Ground {
  sql(text: string, values?: unknown[]): Promise<any[]>;
  readonly driver: Driver;
  readonly observers: readonly Observer[];
  readonly cases: readonly Case[];
  /** What the servers have logged. */
  readonly serverLog: string;
  /** Finished runs whose history is replayed. */
  readonly replays: number;
}

export interface Check {
  readonly invariant: string;
  readonly says: string;
  /** `logs`: what the servers logged, once they have ended. */
  readonly reads?: "logs";
  find(ground: Ground): Promise<string[]>;
}

/** A little later than the commit: what begins within it cannot have known. */
const EPSILON_MS = 50;
const TERMINAL = "('completed', 'failed', 'cancelled')";

const rowsOf =
  (text: string, line: (row: any) => string) =>
  async ({ sql }: Ground): Promise<string[]> =>
    (await sql(text.replaceAll(":SCHEMA", SCHEMA))).map(line);

const noted =
  (invariant: string) =>
  async ({ sql }: Ground): Promise<string[]> =>
    (await sql("select detail from chaos.violation where what = $1 order by at", [invariant])).map(
      ({ detail }) => detail,
    );

const sinksOf = ({ cases }: Ground): Case[] => cases.filter(({ kind }) => kind === "sink");

export const CHECKS: readonly Check[] = [
  {
    invariant: "I1",
    says: "every start that was acknowledged has come to its end",
    find: async (ground) => {
      const rows = await ground.sql(`select id, state, reason, parent from ${SCHEMA}.run`);
      const states = new Map(rows.map(({ id, state }) => [id, state]));
      const missing = ground.cases.filter(({ started, order }) => started && !states.has(order.id));
      const deadly = new Set(ground.cases.filter(({ kind }) => kind === "poison").map(({ order }) => order.id));
      const open = rows.filter(
        ({ id, state }) => !["completed", "failed", "cancelled"].includes(state) && !deadly.has(id),
      );
      return [
        ...missing.map(({ order }) => `${order.id} is not there`),
        ...ground.cases
          .filter(({ started }) => !started)
          .map(({ order }) => `the start of ${order.id} was never answered`),
        ...open.map(({ id, state, reason }) => `${id} is ${state}: ${reason}`),
      ];
    },
  },
  {
    invariant: "I2",
    says: "no run without an intent",
    find: async ({ sql, cases }) => {
      const meant = new Set(cases.map(({ order }) => order.id));
      const rows = await sql(`select id from ${SCHEMA}.run where parent is null and schedule is null`);
      return rows.filter(({ id }) => !meant.has(id)).map(({ id }) => `nobody started ${id}`);
    },
  },
  {
    invariant: "I3",
    says: "a transaction's effect is there exactly when its checkpoint is, once",
    find: rowsOf(
      `select coalesce(e.run, c.run) as run, coalesce(e.step, c.step) as step, coalesce(e.n, 0) as effects, coalesce(c.n, 0) as checkpoints from
        (select run, step, count(*) as n from chaos.effect group by run, step) e
        full join (select r.id as run, c.name as step, count(*) as n from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run where c.kind = 'transaction' group by r.id, c.name) c
        on c.run = e.run and c.step = e.step where coalesce(e.n, 0) <> 1 or coalesce(c.n, 0) <> 1`,
      ({ run, step, effects, checkpoints }) => `${run} ${step}: ${effects} effects, ${checkpoints} checkpoints`,
    ),
  },
  { invariant: "I4", says: "checkpoints and outcomes never change", find: noted("I4") },
  {
    invariant: "I4",
    says: "a slot has one checkpoint",
    find: rowsOf(
      "select run, slot, attempt, count(*) as n from :SCHEMA.checkpoint group by run, slot, attempt having count(*) > 1",
      ({ run, slot, n }) => `${slot} of run ${run} has ${n}`,
    ),
  },
  {
    invariant: "I5",
    says: "no step begins after its checkpoint, but in a process that has lost the run",
    find: rowsOf(
      // Had lost it: at that time the newest claim was not its own.
      `with done as (
        select r.key, r.id, c.name, c.tries, pg_xact_commit_timestamp(c.xmin) as at from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run where c.kind in ('step', 'transaction')
      )
      select d.id, d.name, a.worker, a.begun, d.at from chaos.attempt a join done d on d.id = a.run and d.name = a.step
      where a.begun > d.at + interval '${EPSILON_MS} milliseconds'
        and a.worker = (select p.name from chaos.claim c join chaos.process p on p.id = c.worker where c.run = d.key and c.at <= a.begun order by c.epoch desc limit 1)`,
      ({ id, name, worker, begun, at }) =>
        `${name} of ${id} began at ${iso(begun)} in ${worker}, and was recorded at ${iso(at)}`,
    ),
  },
  {
    invariant: "I6",
    // A transaction that was rolled back with its connection begins anew within its claim.
    says: "a step that is no transaction begins anew only where a claim was lost",
    find: rowsOf(
      `select a.run, a.step, a.try, count(*) as begun, coalesce(max(l.n), 0) as lost from chaos.attempt a join :SCHEMA.run r on r.id = a.run
        left join (select run, count(*) as n from chaos.lost group by run) l on l.run = r.key
        where a.step not in (select c.name from :SCHEMA.checkpoint c where c.kind = 'transaction')
        group by a.run, a.step, a.try having count(*) > 1 + coalesce(max(l.n), 0)`,
      ({ run, step, begun, lost }) => `${step} of ${run} began ${begun} times, though it lost ${lost} claims`,
    ),
  },
  { invariant: "I7", says: "every accepted write is of the claim that holds the run", find: noted("I7") },
  {
    invariant: "I7",
    says: "claims are numbered one by one",
    find: rowsOf(
      `select r.id, r.epoch, count(*) as claims, count(distinct c.epoch) as epochs from :SCHEMA.run r join chaos.claim c on c.run = r.key
        group by r.id, r.epoch having count(*) <> r.epoch or count(distinct c.epoch) <> r.epoch`,
      ({ id, epoch, claims }) => `${id} is at ${epoch} after ${claims} claims`,
    ),
  },
  { invariant: "I8", says: "an event is consumed by one wait", find: noted("I8") },
  {
    invariant: "I8",
    says: "every event that was acknowledged is there once, and consumed in its order or still pending",
    find: async (ground) => {
      const rows = await ground.sql(
        `select r.id, r.state, m.seq, m.slot, m.data::text as data, m.slot like '%#1' as second from ${SCHEMA}.mail m join ${SCHEMA}.run r on r.key = m.run order by m.seq`,
      );
      const byRun = new Map<string, any[]>();
      for (const row of rows) byRun.set(row.id, [...(byRun.get(row.id) ?? []), row]);
      return sinksOf(ground).flatMap(({ order, sent, told }) => {
        const mail = byRun.get(order.id) ?? [];
        const wrong: string[] = [];
        if (mail.length < sent.length) wrong.push(`${order.id}: ${sent.length} sent, ${mail.length} there`);
        if (mail.length > 2) wrong.push(`${order.id}: ${mail.length} events of two`);
        if (told?.state === "completed" && mail.some(({ slot }) => slot === null))
          wrong.push(`${order.id} left an event`);
        const read = mail.filter(({ slot }) => slot !== null);
        if (read.length === 2 && read[0].second) wrong.push(`${order.id} read its events in the wrong order`);
        if (new Set(read.map(({ slot }) => slot)).size < read.length)
          wrong.push(`a wait of ${order.id} read two events`);
        return wrong;
      });
    },
  },
  { invariant: "I9", says: "each slot of a schedule fires once, and none early", find: slots },
  {
    invariant: "I10",
    says: "no sleep is over early",
    find: rowsOf(
      `select r.id, c.started_at, c.at, i.args::text as args from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run join :SCHEMA.input i on i.run = r.key
        where c.kind = 'sleep' and c.at < c.started_at + :SCHEMA.ms(substring(i.args::text from '"napMs":\\s*(\\d+)')::float8)`,
      ({ id, started_at, at }) => `${id} slept from ${iso(started_at)} to ${iso(at)}`,
    ),
  },
  {
    invariant: "I10",
    says: "outcomes bear the database's time, whatever the clock of their process says",
    find: rowsOf(
      `select r.id, c.slot, c.at, pg_xact_commit_timestamp(c.xmin) as committed from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run
        where abs(extract(epoch from c.at - pg_xact_commit_timestamp(c.xmin))) > 1800`,
      ({ id, slot, at, committed }) => `${slot} of ${id} is of ${iso(at)}, committed at ${iso(committed)}`,
    ),
  },
  {
    invariant: "I14",
    says: "each child is there once, and none is left behind",
    find: rowsOf(
      `select p.id, p.state, count(c.key) as kids, count(*) filter (where c.state not in ${TERMINAL}) as open from :SCHEMA.run p left join :SCHEMA.run c on c.parent = p.key
        where p.workflow = 'sink' group by p.key, p.id, p.state
        having (p.state = 'completed' and count(c.key) <> ${KIDS}) or count(c.key) > ${KIDS} or count(*) filter (where c.state not in ${TERMINAL}) > 0`,
      ({ id, state, kids, open }) => `${id} is ${state} with ${kids} children, ${open} of them unfinished`,
    ),
  },
  {
    invariant: "I15",
    says: "what took effect stands in the order of the code, and is undone in reverse",
    find: async (ground) => {
      const rows = await ground.sql("select run, array_agg(step order by no) as steps from chaos.effect group by run");
      const done = new Map(rows.map(({ run, steps }) => [run, steps as string[]]));
      return sinksOf(ground).flatMap(({ order, told }) => {
        const expected = effectsOf(order);
        const found = done.get(order.id) ?? [];
        const right = told?.state === "completed" ? expected : expected.slice(0, found.length);
        return isDeepStrictEqual(found, [...right]) ? [] : [`${order.id}: ${found} instead of ${right}`];
      });
    },
  },
  { invariant: "I16", says: "states go only where TRANSITIONS lead", find: noted("I16") },
  {
    invariant: "I16",
    says: "every observer sees the same end",
    find: async (ground) => {
      const rows = await ground.sql(`select id, state from ${SCHEMA}.run where parent is null and schedule is null`);
      const wrong = ground.observers.flatMap((one) => [
        ...one.wrong,
        ...rows
          .filter(({ id, state }) => one.seen.get(id) !== state)
          .map(({ id, state }) => `${one.name} saw ${id} ${one.seen.get(id)}; it is ${state}`),
      ]);
      const states = new Map(rows.map(({ id, state }) => [id, state]));
      const told = sinksOf(ground).filter((made) => made.told?.state !== states.get(made.order.id));
      return [
        ...wrong,
        ...told.map(
          (made) => `result() of ${made.order.id} said ${made.told?.state}; it is ${states.get(made.order.id)}`,
        ),
      ];
    },
  },
  {
    invariant: "I16",
    says: "a run ends as its client was told: cancelled where that was acknowledged, otherwise completed",
    find: async (ground) =>
      sinksOf(ground)
        .filter(({ told, cancelled, started }) => started && told?.state !== (cancelled ? "cancelled" : "completed"))
        .map(({ order, told, cancelled }) => `${order.id} is ${told?.state}: ${told?.value}; cancelled: ${cancelled}`),
  },
  {
    invariant: "I17",
    says: "no call came to what it must not, as other input under the same id",
    find: async ({ driver }) => driver.wrong,
  },
  {
    invariant: "I18",
    says: "a run that kills its process is blocked after exactly five crashes, and names its step",
    find: async ({ sql, cases }) => {
      const rows = await sql(
        `select r.id, r.state, r.crashes, r.reason, (select count(*) from chaos.lost l where l.run = r.key and l.crash
          and l.at > coalesce((select max(pg_xact_commit_timestamp(c.xmin)) from ${SCHEMA}.checkpoint c where c.run = r.key), '-infinity'))::int as lost
        from ${SCHEMA}.run r where r.workflow = 'poison'`,
      );
      const found = new Map(rows.map((row) => [row.id, row]));
      return cases
        .filter(({ kind }) => kind === "poison")
        .map(({ order }) => found.get(order.id) ?? { id: order.id })
        .filter(
          ({ state, crashes, lost, reason }) =>
            state !== "blocked" || crashes !== 5 || lost !== 5 || !/step "deadly"/.test(reason),
        )
        .map(
          ({ id, state, crashes, lost, reason }) =>
            `${id} is ${state} after ${lost} crashes, ${crashes} counted: ${reason}`,
        );
    },
  },
  {
    invariant: "I19",
    says: "nothing is left: no claim, wait, place in line, session, lock or open transaction",
    find: async ({ sql }) => {
      const left: Record<string, string> = {
        "runs in work": `select 1 from ${SCHEMA}.run where state = 'running'`,
        "places in line": `select 1 from ${SCHEMA}.ready`,
        "waits of ended runs": `select 1 from ${SCHEMA}.wait w join ${SCHEMA}.run r on r.key = w.run where r.state = 'completed'`,
        "ends that were not told": `select 1 from ${SCHEMA}.run where untold`,
        "runs that a worker has taken": `select 1 from ${SCHEMA}.taken`,
        "session locks":
          "select 1 from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' and a.application_name <> 'chaos-client'",
        "open transactions": "select 1 from pg_stat_activity where state like 'idle in transaction%'",
        sessions: "select 1 from pg_stat_activity where application_name ~ '^chaos-[0-9]'",
      };
      const found = await Promise.all(
        Object.entries(left).map(async ([what, text]) => [what, (await sql(text)).length] as const),
      );
      return found.filter(([, many]) => many > 0).map(([what, many]) => `${many} ${what}`);
    },
  },
  {
    invariant: "I19",
    says: "the servers logged no deadlock and no error but those of the faults",
    reads: "logs",
    find: async ({ serverLog }) => unexpected(serverLog),
  },
  {
    invariant: "I20",
    says: "what comes back is what was to be, to the byte",
    find: async (ground) =>
      sinksOf(ground)
        .filter(
          ({ told, order, version }) =>
            told?.state === "completed" && !isDeepStrictEqual(told.value, receiptOf(order, version)),
        )
        .map(({ order, told }) => `${order.id}: ${JSON.stringify(told!.value)}`),
  },
  {
    invariant: "I21",
    says: "histories replay without divergence",
    find: async (ground) => {
      const ended = sinksOf(ground).filter(({ told }) => told?.state === "completed");
      const every = Math.max(1, Math.floor(ended.length / ground.replays));
      const workflows = VERSIONS.flatMap(({ sink, kid }) => [sink, kid]);
      const wrong: string[] = [];
      for (const { order } of ended.filter((_, at) => at % every === 0)) {
        const golden = await exportHistory(ground.driver.engines[0]!, order.id);
        const { same } = await replayHistory(golden, { workflows }).catch((error: Error) => {
          wrong.push(`${order.id}: ${error.message}`);
          return { same: true };
        });
        if (!same) wrong.push(`${order.id} would do something new`);
      }
      return wrong;
    },
  },
  {
    invariant: "I22",
    says: "no step was executed by another version's code, and children are of their parent's",
    find: rowsOf(
      "select a.run, a.step, a.version, r.version as own from chaos.attempt a join :SCHEMA.run r on r.id = a.run where a.version <> r.version",
      ({ run, step, version, own }) => `${step} of ${run} (version ${own}) was executed by version ${version}`,
    ),
  },
  {
    invariant: "I23",
    says: "what was acknowledged outlives every crash",
    find: async (ground) => {
      const rows = await ground.sql(`select r.id, r.state from ${SCHEMA}.run r where r.parent is null`);
      const states = new Map(rows.map(({ id, state }) => [id, state]));
      return ground.cases
        .filter(({ told, order }) => told && states.get(order.id) !== told.state)
        .map(({ order, told }) => `${order.id} was ${told!.state}, and is ${states.get(order.id)}`);
    },
  },
];

/** Not asked, as what they are about is not there yet. */
export const NOT_ASKED = {
  I11: "concurrency limits of queues",
  I12: "order by key",
  I13: "rate limits",
} as const;

async function slots({ sql }: Ground): Promise<string[]> {
  const schedules = await sql(
    `select name, cron, timezone, every_ms, extract(epoch from anchor_at)::float8 * 1000 as anchor, extract(epoch from last_slot)::float8 * 1000 as last from ${SCHEMA}.schedule`,
  );
  const rows = await sql(
    `select schedule, extract(epoch from slot_at)::float8 * 1000 as slot, count(*)::int as n, min(created_at) < slot_at as early from ${SCHEMA}.run
      where schedule is not null group by schedule, slot_at order by slot_at`,
  );
  const traces = await sql(
    `select schedule, what, from_slot from ${SCHEMA}.schedule_trace where what in ('skipped', 'missed', 'taken', 'removed')`,
  );
  const wrong = traces.map(({ schedule, what, from_slot }) => `${schedule} has ${what} ${iso(from_slot)}`);
  for (const { name, cron, timezone, every_ms, anchor, last } of schedules) {
    const timing = cron === null ? { everyMs: every_ms, anchor } : { cron, timezone };
    const fired = rows.filter(({ schedule }) => schedule === name);
    if (fired.length === 0) wrong.push(`${name} has never fired`);
    for (const { slot, n, early } of fired)
      if (n > 1 || early) wrong.push(`${name} at ${iso(slot)}: ${n} runs${early ? ", early" : ""}`);
    const seen = new Set(fired.map(({ slot }) => Math.round(slot)));
    for (let slot = nextSlot(timing, anchor); slot <= last; slot = nextSlot(timing, slot))
      if (!seen.has(Math.round(slot))) wrong.push(`${name} did not fire at ${iso(slot)}`);
  }
  return wrong;
}

/** SQLSTATEs that faults bring: sessions terminated, the server going and coming, a transaction that was open then, a lock that a dead one holds. */
const OF_FAULTS = /^(00000|55P03|01\w{3}|57P0\d|08\w{3}|25P0\d|XX000 could not (send|receive))/;
const LOG_LINE = /^\S+ \S+ \S+ \[\d+\] (\w{5}) (ERROR|PANIC|FATAL): {2}(.*)$/;

function unexpected(log: string): string[] {
  const found = new Map<string, number>();
  for (const text of log.split("\n")) {
    const [, state, level, message] = LOG_LINE.exec(text) ?? [];
    if (!state || OF_FAULTS.test(state)) continue;
    const line = `${level} ${state}: ${message}`;
    found.set(line, (found.get(line) ?? 0) + 1);
  }
  return [...found].map(([line, many]) => `${many} × ${line}`);
}

const iso = (at: Date | number): string => new Date(at).toISOString();
