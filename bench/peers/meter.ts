/** What the server did for one database: statements and commits by its own counts, its log, the CPU of all its processes. */
import { readdir, readFile } from "node:fs/promises";
import type { Lab } from "../support/lab.ts";

export interface Reading {
  /** Unknown without pg_stat_statements. */
  readonly statements: number | null;
  readonly commits: number;
  /** Bytes, of the whole server. */
  readonly wal: number;
  /** Microseconds, of the whole server; unknown where its processes cannot be seen. */
  readonly cpu: number | null;
}

/** What /proc counts in. */
const TICK_US = 10_000;
const STATEMENTS = `select coalesce(sum(calls), 0)::float8 as calls from pg_stat_statements
  where dbid = (select oid from pg_database where datname = $1)`;
const COUNTS = `select xact_commit::float8 as commits, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as wal
  from pg_stat_database where datname = $1`;

export class Meter {
  readonly #lab: Lab;
  readonly #counts: boolean;
  readonly #postmaster: number | null;

  static async on(lab: Lab): Promise<Meter> {
    const counts = await lab.sql("create extension if not exists pg_stat_statements").then(
      () =>
        lab.sql("select from pg_stat_statements limit 1").then(
          () => true,
          () => false,
        ),
      () => false,
    );
    const [{ pid }] = await lab.sql("select pg_backend_pid() as pid");
    return new Meter(lab, counts, await postmasterOf(pid, lab.url));
  }

  private constructor(lab: Lab, counts: boolean, postmaster: number | null) {
    this.#lab = lab;
    this.#counts = counts;
    this.#postmaster = postmaster;
  }

  async read(database: string): Promise<Reading> {
    const [counted] = this.#counts ? await this.#lab.sql(STATEMENTS, [database]) : [];
    const [{ commits, wal }] = await this.#lab.sql(COUNTS, [database]);
    const cpu = this.#postmaster === null ? null : await cpuOf(this.#postmaster);
    return { statements: counted?.calls ?? null, commits, wal, cpu };
  }
}

/** What came between, less what the measuring itself asked. */
export function between(before: Reading, after: Reading, own: number): Reading {
  const less = (a: number | null, b: number | null): number | null => (a === null || b === null ? null : b - a);
  const statements = less(before.statements, after.statements);
  return {
    statements: statements === null ? null : statements - own,
    commits: after.commits - before.commits - own,
    wal: after.wal - before.wal,
    cpu: less(before.cpu, after.cpu),
  };
}

interface Process {
  readonly name: string;
  readonly parent: number;
  /** Of itself, and of its children that have ended. */
  readonly ticks: number;
  readonly childTicks: number;
}

async function processAt(pid: number | string): Promise<Process | null> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const [, name, rest] = /^\d+ \((.*)\) (.*)$/s.exec(text) ?? [];
  if (!name || !rest) return null;
  const field = rest.split(" ").map(Number);
  return { name, parent: field[1]!, ticks: field[11]! + field[12]!, childTicks: field[13]! + field[14]! };
}

async function postmasterOf(backend: number, url: string): Promise<number | null> {
  if (!/^(localhost|127\.0\.0\.1|\[::1\]|)$/.test(new URL(url).hostname)) return null;
  const found = await processAt(backend);
  return found?.name.startsWith("postgres") ? found.parent : null;
}

async function cpuOf(postmaster: number): Promise<number> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const [main, ...all] = await Promise.all([postmaster, ...pids].map(processAt));
  const children = all.filter((one) => one?.parent === postmaster);
  const ticks = children.reduce((sum, one) => sum + one!.ticks, main!.ticks + main!.childTicks);
  return ticks * TICK_US;
}
