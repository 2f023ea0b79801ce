/**
 * `npm run leaks`: runs by the hundred thousand in one process, of every kind of wait, and what is left of them in it and in the database:
 * bytes a run, timers, sockets, listeners, sessions, prepared statements. `npm run leaks -- 20000` asks for another number.
 */
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { startPostgres } from "../../lib/db/embedded.ts";
import { event, Perdure, race, sleep, step, stream, transaction, value, workflow } from "../../lib/index.ts";

/** Runs in flight at a time, and those before the first measurement: caches, plans and pools are as large as they get. */
const WIDTH = 200;
const WARM = 2000;

const plain = step("plain", async (n: number) => n + 1);
const failing = step({ name: "failing", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async (n: number) => {
  if (Math.random() < 0.5) throw new Error(`no luck with ${n}`);
});
const booked = transaction("booked", async (tx, n: number) => (await tx.query("select $1::int as n", [n])).rows[0].n);
const go = event<number>("go");
const child = workflow("child", async (n: number) => plain(n));
const progress = value<number>("progress");
const lines = stream<number>("lines");

const one = workflow("one", (n: number) => plain(n));
const waiting = workflow("waiting", async () => (await go.wait({ timeout: { minutes: 10 } }))?.data);
const timed = workflow("timed", async () => (await race({ sent: go, late: 5 })).winner);
const many = workflow({ name: "many", timeout: { minutes: 10 } }, async (n: number) => {
  await failing(n).catch(() => {});
  await booked(n);
  await progress.set(n);
  await lines.write(n);
  await sleep(1);
  return child(n);
});

/** What there is at one moment, after garbage collection. */
export interface Inventory {
  readonly heap: number;
  readonly external: number;
  readonly resources: Readonly<Record<string, number>>;
  readonly listeners: number;
  readonly sessions: number;
  readonly statements: number;
  readonly locks: number;
  readonly transactions: number;
}

export interface Leaks {
  readonly runs: number;
  readonly before: Inventory;
  readonly after: Inventory;
  readonly bytesPerRun: number;
  /** Rows of tables that are about unfinished runs. */
  readonly rows: Readonly<Record<string, number>>;
  /** After the shutdown: sessions, locks, and what keeps the process alive. */
  readonly end: {
    readonly sessions: number;
    readonly locks: number;
    readonly resources: Readonly<Record<string, number>>;
  };
}

function counted(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of [...names].sort()) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

/** The names of all statements that clients of this process have prepared, by client. */
const prepared = new Map<object, Set<string>>();
const { query } = pg.Client.prototype as any;
(pg.Client.prototype as any).query = function noted(this: object, ...args: any[]) {
  const name = args[0]?.name;
  if (typeof name === "string") prepared.set(this, (prepared.get(this) ?? new Set()).add(name));
  return query.apply(this, args);
};

export async function leaks(url: string, schema: string, runs: number): Promise<Leaks> {
  const watcher = new pg.Client(url);
  await watcher.connect();
  const name = `leaks-${schema}`;
  const at = new URL(url);
  at.searchParams.set("application_name", name);
  const perdure = new Perdure({ database: at.href, schema, workflows: [one, waiting, timed, many, child] });
  await perdure.launch();
  const sql = async (text: string): Promise<any> => (await watcher.query(text.replaceAll(":NAME", name))).rows[0].n;
  const ours = "pid in (select pid from pg_stat_activity where application_name = ':NAME')";
  const count = {
    sessions: () => sql("select count(*)::int as n from pg_stat_activity where application_name = ':NAME'"),
    locks: () => sql(`select count(*)::int as n from pg_locks where locktype = 'advisory' and ${ours}`),
    transactions: () =>
      sql(
        "select count(*)::int as n from pg_stat_activity where application_name = ':NAME' and xact_start is not null and state <> 'active'",
      ),
  };
  const inventory = async (): Promise<Inventory> => {
    await settled(perdure);
    for (let n = 0; n < 5; n += 1) {
      (globalThis as unknown as { gc(): void }).gc();
      await pause(20);
    }
    const { heapUsed, external } = process.memoryUsage();
    return {
      heap: heapUsed,
      external,
      resources: counted(process.getActiveResourcesInfo()),
      listeners: process.eventNames().reduce((sum, event) => sum + process.listenerCount(event), 0),
      sessions: await count.sessions(),
      statements: Math.max(...[...prepared.values()].map((names) => names.size)),
      locks: await count.locks(),
      transactions: await count.transactions(),
    };
  };
  await flood(perdure, WARM);
  const before = await inventory();
  await flood(perdure, runs);
  const after = await inventory();
  const rows: Record<string, number> = {};
  for (const table of ["ready", "follower"])
    rows[table] = await sql(`select count(*)::int as n from "${schema}".${table}`);
  // What a run waited for when it was cancelled stays with it, for its history.
  const waits = `select count(*)::int as n from "${schema}".wait w join "${schema}".run r on r.key = w.run where r.state <> 'cancelled'`;
  rows.wait = await sql(waits);
  rows.unfinished = await sql(`select count(*)::int as n from "${schema}".run where finished_at is null`);
  await perdure.shutdown();
  for (const table of ["worker", "lane", "taken"])
    rows[table] = await sql(`select count(*)::int as n from "${schema}".${table}`);
  await settledSessions(count.sessions);
  const end = { sessions: await count.sessions(), locks: await count.locks(), resources: {} };
  await watcher.end();
  await pause(100);
  return {
    runs,
    before,
    after,
    bytesPerRun: (after.heap + after.external - before.heap - before.external) / runs,
    rows,
    end: { ...end, resources: counted(process.getActiveResourcesInfo()) },
  };
}

/** So many runs to their end, a tenth of them of the kinds that wait. */
async function flood(perdure: Perdure, runs: number): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let n = next++; n < runs; n = next++) await end(perdure, n);
  };
  await Promise.all(Array.from({ length: WIDTH }, lane));
}

async function end(perdure: Perdure, n: number): Promise<void> {
  if (n % 40 === 1) return void (await (await perdure.start(many, n)).result());
  if (n % 40 === 11) return void (await (await perdure.start(timed)).result());
  if (n % 40 === 31) return void (await (await perdure.start(waiting)).cancel());
  if (n % 40 !== 21) return void (await (await perdure.start(one, n)).result());
  const run = await perdure.start(waiting);
  const reading = (async () => {
    for await (const _ of run.watch(progress));
  })();
  await run.send(go, n);
  await run.result();
  await reading;
}

/** Nothing is at work and nothing waits. */
async function settled(perdure: Perdure): Promise<void> {
  for (;;) {
    const { runs } = await perdure.list({ state: ["pending", "running", "suspended"], limit: 1 });
    if (runs.length === 0) return;
    await pause(20);
  }
}

/** A session ends a little after its connection. */
async function settledSessions(sessions: () => Promise<number>): Promise<void> {
  for (let n = 0; n < 500 && (await sessions()) > 0; n += 1) await pause(20);
}

const runs = Number(process.argv[2] ?? 100_000);
const postgres = process.env.DATABASE_URL ? undefined : await startPostgres();
const began = performance.now();
const found = await leaks(
  process.env.DATABASE_URL ?? postgres!.url,
  process.env.SCHEMA ?? `leaks_${process.pid}`,
  runs,
);
if (process.send) process.send(found, () => process.disconnect());
else
  process.stdout.write(
    `${JSON.stringify({ ...found, seconds: Math.round((performance.now() - began) / 1000) }, null, 2)}\n`,
  );
await postgres?.stop();
