/** What a chaos run came to in numbers: whether it was rough, and how fast things went on after a fault. */
import { SCHEMA } from "./audit.ts";
import type { Driver } from "./driver.ts";
import type { Worker } from "./fleet.ts";
import type { Nemesis } from "./nemesis.ts";
import { FAULTS, type Fault, type Size } from "./size.ts";

/** Milliseconds: of how many, the median, the 99th in a hundred, the longest. */
export interface Spread {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface Figures {
  readonly faults: Readonly<Record<Fault, number>>;
  readonly runs: number;
  readonly checkpoints: number;
  readonly claims: number;
  /** Writes of claims that were over. */
  readonly refused: number;
  /** Runs that were taken from a dead or silent worker. */
  readonly takenOver: number;
  /** Calls, and commits of workers, whose answer was lost. */
  readonly ambiguous: number;
  /** Times that a process listened anew. */
  readonly listenedAgain: number;
  /** Processes that died by a step of theirs. */
  readonly deaths: number;
  readonly recovery: Readonly<Record<"kill" | "freeze" | "crash" | "failover" | "sleep", Spread>>;
}

type Sql = (text: string, values?: unknown[]) => Promise<any[]>;

interface Seen {
  readonly driver: Driver;
  readonly workers: readonly Worker[];
  readonly listens: number;
}

export async function measure({ driver, workers, listens }: Seen, nemesis: Nemesis, sql: Sql): Promise<Figures> {
  const [counts] = await sql(
    `select (select count(*) from ${SCHEMA}.run)::int as runs, (select count(*) from ${SCHEMA}.checkpoint)::int as checkpoints, (select count(*) from chaos.claim)::int as claims,
      (select last_value * is_called::int from chaos.refused)::int as refused, (select count(*) from chaos.lost where dead)::int as taken`,
  );
  const processes = workers.reduce((sum, worker) => sum + worker.processes, 0);
  const { happened } = nemesis;
  const faults = Object.fromEntries(
    Object.keys(FAULTS).map((fault) => [fault, happened.filter((one) => one.fault === fault).length]),
  ) as Record<Fault, number>;
  return {
    faults,
    runs: counts.runs,
    checkpoints: counts.checkpoints,
    claims: counts.claims,
    refused: counts.refused,
    takenOver: counts.taken,
    ambiguous: nemesis.lost + driver.unknown,
    listenedAgain: Math.max(0, listens - processes),
    deaths: workers.reduce((sum, worker) => sum + worker.deaths, 0),
    recovery: {
      kill: spread(await takeOvers(nemesis, sql, "kill")),
      freeze: spread(await takeOvers(nemesis, sql, "freeze")),
      crash: spread(await comebacks(nemesis, sql, "crash")),
      failover: spread(await comebacks(nemesis, sql, "failover")),
      sleep: spread(await lateness(sql)),
    },
  };
}

/** From the fault until the first run of the victim was taken from it, of those that held one; of a frozen one, while it was frozen. */
async function takeOvers(nemesis: Nemesis, sql: Sql, fault: "kill" | "freeze"): Promise<number[]> {
  const rows = await sql(
    `select p.name, extract(epoch from min(l.at))::float8 * 1000 as at from chaos.lost l join chaos.process p on p.id = l.worker where l.dead group by p.name, l.worker`,
  );
  return nemesis.happened
    .filter((one) => one.fault === fault)
    .flatMap(({ name, at, until }) => {
      const taken = rows.filter((row) => row.name === name && row.at > at && row.at < (until ?? Infinity));
      return taken.length > 0 ? [Math.min(...taken.map((row) => row.at)) - at] : [];
    });
}

/** From when the server took connections until the first outcome was recorded. */
async function comebacks(nemesis: Nemesis, sql: Sql, fault: "crash" | "failover"): Promise<number[]> {
  const found: number[] = [];
  for (const { until } of nemesis.happened.filter((one) => one.fault === fault)) {
    const [row] = await sql(
      `select extract(epoch from min(pg_xact_commit_timestamp(c.xmin)))::float8 * 1000 as at from ${SCHEMA}.checkpoint c where pg_xact_commit_timestamp(c.xmin) > to_timestamp($1::float8 / 1000)`,
      [until],
    );
    if (row.at !== null) found.push(row.at - until!);
  }
  return found;
}

/** By how much sleeps were longer than they were to be. */
async function lateness(sql: Sql): Promise<number[]> {
  const rows = await sql(
    `select extract(epoch from c.at - c.started_at)::float8 * 1000 - substring(i.args::text from '"napMs":\\s*(\\d+)')::float8 as late
      from ${SCHEMA}.checkpoint c join ${SCHEMA}.input i on i.run = c.run where c.kind = 'sleep'`,
  );
  return rows.map(({ late }) => late);
}

function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((one, other) => one - other);
  const at = (share: number): number =>
    Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN);
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

/** What happened too seldom. A run of the full size is to have 20 refused writes, 50 take-overs, 10 lost answers and 5 new LISTENs at least. */
export function tooGentle(figures: Figures, size: Size): string[] {
  const { faults } = size;
  const least: Record<string, [found: number, least: number]> = {
    "writes refused": [figures.refused, Math.ceil(faults.freeze / 7.5)],
    "runs taken over": [figures.takenOver, Math.ceil(faults.kill / 4)],
    "answers lost": [figures.ambiguous, Math.ceil(faults.lost / 6)],
    "times listened anew": [figures.listenedAgain, Math.ceil((faults.listener + faults.reset) / 4)],
    "deaths by a step": [figures.deaths, size.poison * 3],
  };
  for (const [fault, many] of Object.entries(faults))
    least[FAULTS[fault as Fault]] = [figures.faults[fault as Fault], fault === "lost" ? Math.ceil(many / 2) : many];
  return Object.entries(least).flatMap(([what, [found, wanted]]) =>
    found < wanted ? [`${what}: ${found}, and at least ${wanted} were meant`] : [],
  );
}

/** As lines for a person. */
export function told(figures: Figures): string[] {
  const { recovery, faults } = figures;
  const times = (name: string, { count, p50, p99, max }: Spread): string =>
    `  ${name.padEnd(58)} ${count === 0 ? "–" : `p50 ${p50} ms, p99 ${p99} ms, max ${max} ms (${count})`}`;
  return [
    `runs ${figures.runs}, checkpoints ${figures.checkpoints}, claims ${figures.claims}`,
    `faults: ${Object.entries(faults)
      .filter(([, many]) => many > 0)
      .map(([fault, many]) => `${fault} ${many}`)
      .join(", ")}`,
    `writes refused ${figures.refused}, runs taken over ${figures.takenOver}, answers lost ${figures.ambiguous}, listened anew ${figures.listenedAgain}, deaths by a step ${figures.deaths}`,
    times("a worker is killed → its first run is taken over", recovery.kill),
    times("a worker is frozen → its first run is taken over", recovery.freeze),
    times("Postgres accepts after a crash → first checkpoint", recovery.crash),
    times("the standby is promoted → first checkpoint", recovery.failover),
    times("a sleep is longer than it was to be by", recovery.sleep),
  ];
}
