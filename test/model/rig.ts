/** What programs are played on, one after the other: a server of its own that can crash, processes that can be killed, a schema with a clock that can be moved. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { type RunningPostgres, startPostgres } from "../../lib/db/embedded.ts";
import { Perdure } from "../../lib/index.ts";
import { Member } from "../support/crew.ts";
import { INVARIANTS, READY_INVARIANTS } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";

const MEMBER = fileURLToPath(new URL("./member.js", import.meta.url));
export const SCHEMA = "model";
export const HOUR_MS = 3_600_000;
const PATIENCE_MS = 60_000;

/** Time goes on by itself, too, but no program takes an hour. */
const TABLES = `
  create table :SCHEMA.test_clock (ahead interval not null);
  insert into :SCHEMA.test_clock values ('0');
  create or replace function :SCHEMA.clock() returns timestamptz language sql stable parallel safe as
    'select statement_timestamp() + (select ahead from :SCHEMA.test_clock)';
  create table :SCHEMA.gate (family text primary key);
  create table :SCHEMA.journal (run text, at text);
  create table :SCHEMA.ledger (run text, at text)`;

/** A timer that ends what it times before it is due breaks the transaction. */
const NEVER_EARLY = `
  create function :SCHEMA.check_timer() returns trigger language plpgsql as $$
  begin
    if old.due > :SCHEMA.clock() and not old.woken and exists (
      select from :SCHEMA.checkpoint c where c.run = old.run and c.slot = old.slot and c.attempt = old.attempt
        and (old.kind in ('sleep', 'retry') or c.outcome = 'timeout')
    ) then
      raise exception '% of run % was over before %', old.slot, old.run, old.due;
    end if;
    return null;
  end $$;
  create constraint trigger check_timer after delete on :SCHEMA.wait deferrable initially deferred
    for each row execute function :SCHEMA.check_timer()`;

/** An hour passes; not for leases, which are about real time. */
const PASS = `
  with clock as (update :SCHEMA.test_clock set ahead = ahead + interval '1 hour'),
    beats as (update :SCHEMA.worker set beat_at = beat_at + interval '1 hour' where dead_at is null),
    lead as (update :SCHEMA.leader set until = until + interval '1 hour' where isfinite(until))
  select :SCHEMA.hint('tcw')`;

/** A process has been silent for longer than its lease. */
const EXPIRE = `
  with silent as (update :SCHEMA.worker set beat_at = beat_at - lease * 2 where name like '%:' || $1 and dead_at is null returning id)
  update :SCHEMA.leader set until = :SCHEMA.clock() - interval '1 second' where worker in (select id from silent)`;

const EMPTY = `
  select string_agg(format('delete from %I.%I;', n.nspname, c.relname), ' ') as text
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = $1 and c.relkind = 'r' and c.relname not in ('migrations', 'leader', 'test_clock')`;
const AS_MADE =
  "update :SCHEMA.leader set worker = null, until = '-infinity'; update :SCHEMA.test_clock set ahead = '0'";

export class Rig {
  readonly #dataDir: string;
  #server: RunningPostgres;
  readonly #servers: RunningPostgres[];
  #pool: pg.Pool;
  readonly #idle: Member[] = [];
  readonly #all = new Set<Member>();
  #made = 0;

  private constructor(dataDir: string, server: RunningPostgres) {
    this.#dataDir = dataDir;
    this.#server = server;
    this.#servers = [server];
    this.#pool = poolOf(server.url);
  }

  static async open(): Promise<Rig> {
    const dataDir = await mkdtemp(join(tmpdir(), "perdure-model-"));
    const rig = new Rig(dataDir, await startPostgres({ dataDir }));
    await new Perdure({ database: rig.url, schema: SCHEMA }).migrate();
    await rig.sql(TABLES);
    await rig.sql(INVARIANTS);
    await rig.sql(READY_INVARIANTS);
    await rig.sql(NEVER_EARLY);
    await rig.#hire(3);
    return rig;
  }

  get url(): string {
    return this.#server.url;
  }

  /** Runs SQL, through outages. */
  async sql<T = any>(text: string, values: unknown[] = []): Promise<T[]> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return (await this.#pool.query(text.replaceAll(":SCHEMA", SCHEMA), values)).rows as T[];
      } catch (error) {
        if (!CUT.test((error as Error).message) || performance.now() > deadline) throw error;
        await pause(20);
      }
    }
  }

  pass(): Promise<unknown> {
    return this.sql(PASS);
  }

  expire(pid: number): Promise<unknown> {
    return this.sql(EXPIRE, [`${pid}`]);
  }

  /** The server crashes, and is started again. */
  async restart(): Promise<void> {
    const { pid } = this.#server;
    process.kill(pid, "SIGQUIT");
    await eventually(() => isGone(pid), PATIENCE_MS);
    this.#server = await startPostgres({ dataDir: this.#dataDir, port: Number(new URL(this.url).port) });
    this.#servers.push(this.#server);
  }

  /** The sessions that listen are ended. */
  deafen(): Promise<unknown> {
    return this.sql(
      "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen %' and pid <> pg_backend_pid()",
    );
  }

  /** A process with no engine yet. */
  async member(): Promise<Member> {
    if (this.#idle.length < 2) void this.#hire(1);
    const member = await eventually(() => this.#idle.shift(), PATIENCE_MS);
    return member.alive ? member : this.member();
  }

  /** Its engine is gone, and it may have another. */
  release(member: Member): void {
    if (member.alive) this.#idle.push(member);
    else this.#all.delete(member);
  }

  /** Everything is as if nobody had been here. */
  async empty(): Promise<void> {
    await this.sql(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'perdure' and pid <> pg_backend_pid()",
    );
    const [found] = await this.sql<{ text: string }>(EMPTY, [SCHEMA]);
    await this.sql(`begin; ${found!.text} ${AS_MADE}; commit`);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#all].map((member) => member.end("SIGKILL")));
    await this.#pool.end();
    for (const server of this.#servers) await server.stop();
    await rm(this.#dataDir, { recursive: true, force: true });
  }

  async #hire(many: number): Promise<void> {
    await Promise.all(
      Array.from({ length: many }, async () => {
        this.#made += 1;
        const settings = JSON.stringify({ url: this.url });
        const env = { ...process.env, NODE_OPTIONS: "" };
        const child = fork(MEMBER, [settings], { stdio: ["ignore", "ignore", "inherit", "ipc"], execArgv: [], env });
        const member = new Member(child, `${this.#made}`);
        this.#all.add(member);
        await Promise.race([once(child, "message"), once(child, "exit")]);
        if (member.alive) this.#idle.push(member);
      }),
    );
  }
}

function poolOf(connectionString: string): pg.Pool {
  const pool = new pg.Pool({ connectionString, max: 6 });
  pool.on("error", () => {});
  return pool;
}

/** The server is away: it is asked again. */
const CUT = /terminat|ECONNRE|starting up|shutting down|recovery mode|not yet accepting/i;
function isGone(pid: number): boolean {
  try {
    return !process.kill(pid, 0);
  } catch {
    return true;
  }
}
