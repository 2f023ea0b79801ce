/** Processes of a test: each a worker of its own on one schema, told what to do over IPC, killed or frozen at will. */
import { type ChildProcess, type ForkOptions, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import type { Test } from "tap";
import { Perdure } from "../../lib/index.ts";
import { eventually } from "./eventually.ts";
import { freshSchema } from "./postgres.ts";

const MEMBER = fileURLToPath(new URL("../crash/member.js", import.meta.url));

/** What the tests' own tables hold: who entered which step when, and what transactions did. */
const TABLES = `
  create table :SCHEMA.journal (no bigint generated always as identity, run text, step text, pid int, at timestamptz default clock_timestamp());
  create table :SCHEMA.ledger (run text, step text)`;

// Neither the loaders of the test runner nor its options: a member starts as fast as an application does. `npm run matrix` has options of its own.
const HOW: ForkOptions = {
  stdio: ["ignore", "ignore", "inherit", "ipc"],
  execArgv: [],
  env: { ...process.env, NODE_OPTIONS: process.env.PERDURE_TEST_NODE_OPTIONS ?? "" },
};

/** Options of a member; those of new Perdure that JSON can hold, and what it registers. */
export interface MemberOptions {
  readonly lease?: string;
  readonly notify?: boolean;
  readonly worker?: false | { concurrency?: number };
  readonly shutdownOn?: readonly string[];
  readonly workflows?: readonly string[];
  readonly version?: string;
  /** Where it connects to, if not to the server itself. */
  readonly url?: string;
  /** A schema other than the test's. */
  readonly schema?: string;
  readonly migrate?: boolean;
  /** The folder of the release that it runs: see release.ts. Default: this one. */
  readonly release?: string;
}

export interface Entry {
  readonly no: string;
  readonly run: string;
  readonly step: string;
  readonly pid: number;
  /** Milliseconds since 1970 on the database's clock. */
  readonly at: number;
}

export class Member {
  readonly process: ChildProcess;
  readonly name: string;
  #calls = 0;

  constructor(process: ChildProcess, name: string) {
    this.process = process;
    this.name = name;
    process.setMaxListeners(0);
  }

  get pid(): number {
    return this.process.pid!;
  }

  get alive(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null;
  }

  /** Has the process do something, and waits for its answer. */
  call(what: string, ...args: unknown[]): Promise<any> {
    this.#calls += 1;
    const no = this.#calls;
    return new Promise((resolve, reject) => {
      const done = (settle: () => void): void => {
        this.process.off("message", hear).off("exit", died);
        settle();
      };
      const hear = (answer: { no: number; value?: unknown; error?: string }): void => {
        if (answer.no === no)
          done(() => (answer.error === undefined ? resolve(answer.value) : reject(new Error(answer.error))));
      };
      const died = (): void => done(() => reject(new Error(`member ${this.name} died during ${what}`)));
      if (!this.alive) return died();
      this.process.on("message", hear).on("exit", died);
      this.process.send({ no, what, args }, () => {});
    });
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    if (!this.alive) return;
    const gone = once(this.process, "exit");
    this.process.kill(signal);
    await gone;
  }
}

export interface Crew {
  readonly url: string;
  readonly schema: string;
  /** Runs SQL; `:SCHEMA` stands for the schema. */
  sql(text: string, values?: unknown[]): Promise<any[]>;
  /** A process that has loaded all it needs, and is not launched. */
  recruit(options?: MemberOptions): Promise<Member>;
  /** A process at work. */
  member(options?: MemberOptions): Promise<Member>;
  /** The entries of a run's steps, in order. */
  journal(run: string): Promise<Entry[]>;
  /** The entry of a step, once it is there; `nth` from 1. */
  entered(run: string, step: string, nth?: number): Promise<Entry>;
  state(
    run: string,
  ): Promise<{ state: string; reason: string | null; crashes: number; worker: string | null; epoch: number }>;
  /** The run, once it is in a state. */
  reaches(run: string, state: string, ms?: number): Promise<{ reason: string | null; crashes: number }>;
}

/** A migrated schema with the tests' own tables; every process ends with the test. */
export async function crew(
  t: Pick<Test, "teardown">,
  given?: { url: string; schema: string; pool: pg.Pool },
): Promise<Crew> {
  const { url, schema, pool } = given ?? (await freshSchema(t));
  const members: Member[] = [];
  const sql = async (text: string, values: unknown[] = []) =>
    (await pool.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
  t.teardown(async () => {
    await Promise.all(members.map((member) => member.end("SIGKILL")));
    // A session ends a little after its process; until then it may hold locks.
    const left = `select from pg_stat_activity where application_name like 'member-%-${schema}'`;
    await eventually(async () => (await sql(left)).length === 0, 10_000);
  });
  // Only migrated: an engine in this process could become the leader.
  await new Perdure({ database: url, schema }).migrate();
  await sql(TABLES);
  const recruit = async ({ release, ...options }: MemberOptions = {}): Promise<Member> => {
    const name = `member-${members.length + 1}-${schema}`;
    const at = new URL(options.url ?? url);
    at.searchParams.set("application_name", name);
    const settings = JSON.stringify({ schema, ...options, url: at.href, direct: url });
    const file = release === undefined ? MEMBER : join(release, "dist/test/crash/member.js");
    const member = new Member(fork(file, [settings], HOW), name);
    members.push(member);
    await once(member.process, "message");
    return member;
  };
  const journal = (run: string): Promise<Entry[]> =>
    sql(
      "select no, run, step, pid, extract(epoch from at)::float8 * 1000 as at from :SCHEMA.journal where run = $1 order by no",
      [run],
    );
  const state = async (run: string) =>
    (await sql("select state, reason, crashes, worker, epoch from :SCHEMA.run where id = $1", [run]))[0];
  return {
    url,
    schema,
    sql,
    recruit,
    journal,
    state,
    member: async (options) => {
      const member = await recruit(options);
      await member.call("launch");
      return member;
    },
    entered: (run, step, nth = 1) =>
      eventually(async () => (await journal(run)).filter((entry) => entry.step === step)[nth - 1], 20_000),
    reaches: (run, wanted, ms = 30_000) =>
      eventually(async () => {
        const found = await state(run);
        return found?.state === wanted && found;
      }, ms),
  };
}
