/** One row alone in one prepared statement: it does what the functions do, or nothing. On a real server, in two schemas side by side. */
import { type AddressInfo, connect, createServer } from "node:net";
import type pg from "pg";
import { type Test, test } from "tap";
import { type Item, runBatch } from "../../lib/db/batch.ts";
import { connectClient } from "../../lib/db/connect.ts";
import { connectSwift } from "../../lib/db/swift.ts";
import type { WriteKind } from "../../lib/db/writes.ts";
import { bench } from "../support/engine.ts";
import { rejection } from "../support/gate.ts";
import { stranger } from "../support/stranger.ts";

const LANES = { workflows: ["w", 'odd "one"\\'], versions: ["1", "1"], queues: ["default", "default"] };
const START = {
  workflow: "w",
  version: "1",
  queue: "default",
  priority: 0,
  delay: null,
  startAt: null,
  timeout: null,
  args: '{"json":[1]}',
  hash: "h",
  options: null,
  keep: false,
  tags: null,
  run: null,
  epoch: null,
  detached: false,
  schedule: null,
  scheduledFor: null,
  lease: () => true,
};
const STEP = { slot: "s#0", attempt: 1, no: 1, kind: "step", name: "s", outcome: "completed", value: '{"json":1}' };
const RECORD = { ...STEP, hash: null, tries: 1, started: 1, at: 2, mail: null };
const FINISH = { state: "completed", value: '{"json":2}', reopened: null };

/** What is left, without instants and keys. */
const DUMP = `select json_agg(to_jsonb(x) order by id, slot)::text as dump from (
  select r.id, r.workflow, r.queue, r.priority, r.state, r.epoch, r.worker, r.crashes, r.timeout_ms, r.tags, r.followed,
    r.ready_at is not null as ready, (select count(*) from :SCHEMA.ready q where q.run = r.key and q.ready_at = r.ready_at) as placed,
    (select count(*) from :SCHEMA.taken t where t.worker = 7 and r.key = any(t.runs)) as noted, r.due is not null as due, r.deadline - r.started_at as allowed, r.finished_at is not null as over,
    i.args, i.hash, i.options, c.slot, c.name, c.outcome, c.value, c.epoch as by, c.started_at, c.at, o.value as result, o.reopened
  from :SCHEMA.run r join :SCHEMA.input i on i.run = r.key left join :SCHEMA.checkpoint c on c.run = r.key left join :SCHEMA.outcome o on o.run = r.key
) x`;

/** One of the two sides. */
class Side {
  readonly client: pg.Client;
  readonly #schema: string;
  readonly sql: (text: string, values?: unknown[]) => Promise<any[]>;
  readonly #keys = new Map<string, string>();

  constructor(client: pg.Client, schema: string, sql: Side["sql"]) {
    this.client = client;
    this.#schema = schema;
    this.sql = sql;
  }

  /** Runs a batch. `run` of a row is an id. */
  async batch(rows: readonly (readonly [WriteKind, any])[]): Promise<unknown[]> {
    const items = rows.map(([kind, row]): Item => {
      const fenced = row.run === null || row.run === undefined ? row : { ...row, run: this.#keys.get(row.run) };
      return { kind, row: fenced, lane: null, since: 0, told: { onAside() {}, resolve() {}, reject() {} } };
    });
    const context = { schema: this.#schema, worker: "7", lanes: LANES, again: false, lockMs: null, apart: false };
    const { answered, busy } = await runBatch(this.client, items, context, () => null);
    const answers = answered.map(({ item, answer }) => {
      const { key, now_ms, sound, tidied, deadline_ms, ...said } = answer as Record<string, unknown>;
      if (item.kind === "start" && key) this.#keys.set((item.row as { id: string }).id, key as string);
      return { kind: item.kind, limited: typeof deadline_ms === "number", ...said };
    });
    return [...answers, ...busy.map(({ kind }) => ({ kind, busy: true }))];
  }

  async dump(): Promise<unknown> {
    return JSON.parse((await this.sql(DUMP))[0].dump);
  }

  /** How often statements of this kind were executed here, by what they are. */
  async used(): Promise<{ swift: number; function: number }> {
    const { rows } = await this.client.query(
      "select name, generic_plans + custom_plans as n from pg_prepared_statements",
    );
    const sum = (of: RegExp): number =>
      rows.filter(({ name }) => of.test(name)).reduce((n, row) => n + Number(row.n), 0);
    return { swift: sum(/:swift$/), function: sum(/:(start_runs|record_steps|end_runs|finish_runs)/) };
  }
}

async function sides(t: Test, options?: string): Promise<readonly [swift: Side, plain: Side]> {
  const made = await Promise.all(
    [connectSwift, connectClient].map(async (connect) => {
      const { url, schema } = await bench(t, { worker: false });
      const client = await connect({ connectionString: url, pipeline: true, options } as object);
      t.teardown(() => client.end());
      return new Side(client, schema, await stranger(t, { url, schema }));
    }),
  );
  return made as unknown as readonly [Side, Side];
}

test("one row alone is answered and written as the functions do it, and does not need them where nothing is unusual", async (t) => {
  const both = await sides(t);
  const same = async (what: string, rows: readonly (readonly [WriteKind, any])[], before?: string): Promise<any[]> => {
    const [swift, plain] = await Promise.all(
      both.map(async (side) => {
        if (before) await side.sql(before);
        return { said: await side.batch(rows), left: await side.dump() };
      }),
    );
    t.strictSame(swift, plain, what);
    return swift!.said as any[];
  };
  const start = (id: string, more: object = {}) => ["start", { ...START, id, ...more }] as const;
  const end = (run: string, epoch: number, step: object = {}, more: object = {}) =>
    [
      ["record", { ...RECORD, run, epoch, ...step }],
      ["finish", { ...FINISH, run, epoch, ...more }],
    ] as const;

  t.match(await same("leased", [start("a")]), [{ verdict: "created", leased: true }]);
  t.match(await same("a limit, a policy, a place", [start("b", { timeout: 5000, options: "{}", priority: 3 })]), [
    { leased: true, limited: true },
  ]);
  t.match(await same("recorded", [["record", { ...RECORD, run: "a", epoch: 1 }]]), [{ verdict: "ok" }]);
  t.match(await same("recorded again", [["record", { ...RECORD, run: "a", epoch: 1 }]]), [{ verdict: "ok" }]);
  t.match(await same("ended", end("a", 1, { slot: "s#1", hash: "x" })), [{ verdict: "ok" }, { verdict: "ok" }]);
  t.match(await same("failed", end("b", 1, { outcome: "failed" }, { state: "failed", reopened: '["s#0"]' })), [
    { verdict: "ok" },
    { verdict: "ok" },
  ]);
  await same("for the next", [start("c")]);
  t.match(await same("finished", [["finish", { ...FINISH, run: "c", epoch: 1 }]]), [{ verdict: "ok" }]);
  const { swift, function: functions } = await both[0]!.used();
  t.strictSame([swift, functions], [8, 0], "all of that without a function");

  t.match(await same("the same again", [start("a")]), [{ verdict: "existing" }]);
  t.match(await same("other input", [start("a", { hash: "other" })]), [{ verdict: "conflict" }]);
  t.match(await same("no slot", [start("d", { lease: () => false })]), [{ leased: false }]);
  t.match(await same("behind that one", [start("e")]), [{ leased: false }]);
  t.match(await same("late, with tags", [start("f", { delay: 60_000, tags: '["x"]' })]), [{ leased: false }]);
  t.match(await same("of a claim that is over", [["record", { ...RECORD, run: "d", epoch: 1 }]]), [
    { verdict: "stale" },
  ]);
  t.match(await same("an end of one", end("d", 1)), [{ verdict: "stale" }, { verdict: "stale" }]);
  t.match(await same("a finish of one", [["finish", { ...FINISH, run: "d", epoch: 1 }]]), [{ verdict: "stale" }]);
  const claim = (id: string, set: string): string => `with it as (select key from :SCHEMA.run where id = '${id}'),
    gone as (delete from :SCHEMA.ready using it where run = key),
    noted as (insert into :SCHEMA.taken (worker, runs) select 7, array[key] from it)
    update :SCHEMA.run set state = 'running', epoch = epoch + 1, worker = 7, ready_at = null, ${set} where id = '${id}'`;
  await same("after a crash", [["record", { ...RECORD, run: "d", epoch: 1 }]], claim("d", "crashes = 2"));
  t.equal((await both[0]!.sql("select crashes from :SCHEMA.run where id = 'd'"))[0].crashes, 0);
  t.match(await same("its end", end("d", 2)), [{ verdict: "stale" }, { verdict: "stale" }], "of the next claim");
  t.match(await same("its end", end("d", 1, { slot: "s#1" })), [{ verdict: "ok" }, { verdict: "ok" }]);
  t.match(await same("a run that others wait for", end("e", 1), claim("e", "followed = true")), [
    { verdict: "ok" },
    { verdict: "ok" },
  ]);
  await same("with a checkpoint of an older claim", [start("g")]);
  await same("it", [["record", { ...RECORD, run: "g", epoch: 1 }]]);
  t.match(await same("ended", end("g", 2), "update :SCHEMA.run set epoch = 2 where id = 'g'"), [
    { verdict: "stale" },
    { verdict: "ok" },
  ]);
});

test("a row that a stranger holds is busy; an id that one has taken and not committed is waited for, and not long", async (t) => {
  const { url, schema } = await bench(t, { worker: false });
  const client = await connectSwift({ connectionString: url, pipeline: true } as object);
  t.teardown(() => client.end());
  const sql = await stranger(t, { url, schema });
  const side = new Side(client, schema, sql);
  await side.batch([["start", { ...START, id: "held" }]]);
  await sql("begin");
  await sql("select from :SCHEMA.run where id = 'held' for update");
  for (const rows of [
    [["record", { ...RECORD, run: "held", epoch: 1 }]],
    [["finish", { ...FINISH, run: "held", epoch: 1 }]],
  ] as const)
    t.match(await side.batch(rows as any), [{ busy: true }]);
  await sql(
    "insert into :SCHEMA.run (id, workflow, version, queue, priority, state, created_at) values ('new', 'w', '1', 'default', 0, 'paused', now())",
  );
  const refused = await rejection(side.batch([["start", { ...START, id: "new" }]]));
  t.equal((refused as { code?: string }).code, "55P03");
  await sql("rollback");
  t.match(await side.batch([["start", { ...START, id: "new" }]]), [{ verdict: "created" }]);
});

test("where transactions are of another kind by default, such a statement does nothing, and the functions do it", async (t) => {
  const both = await sides(t, "-c default_transaction_isolation=serializable");
  for (const side of both) {
    t.match(await side.batch([["start", { ...START, id: "a" }]]), [{ verdict: "created", leased: true }]);
    t.match(await side.batch([["record", { ...RECORD, run: "a", epoch: 1 }]]), [{ verdict: "ok" }]);
    t.match(await side.batch([["finish", { ...FINISH, run: "a", epoch: 1 }]]), [{ verdict: "ok" }]);
    t.equal((await side.used()).swift, 1, "tried once");
  }
});

test("the settings of such statements stand beside those of the URL; a pooler that takes none is met without", async (t) => {
  const { url } = await bench(t, { worker: false });
  const with5MB = new URL(url);
  with5MB.searchParams.set("options", "-c work_mem=5MB");
  const settings = async (connectionString: string): Promise<unknown> => {
    const client = await connectSwift({ connectionString });
    t.teardown(() => client.end());
    const text = "select current_setting('work_mem') as mem, current_setting('enable_seqscan') as scans";
    return (await client.query(text)).rows[0];
  };
  t.strictSame(await settings(with5MB.href), { mem: "5MB", scans: "off" });

  // As PgBouncer refuses it.
  const said = "SFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
  const refusal = Buffer.concat([Buffer.from("E\0\0\0"), Buffer.from([said.length + 4]), Buffer.from(said)]);
  const pooler = createServer((socket) => {
    socket.once("data", (startup) => {
      if (startup.includes("options\0")) return void socket.end(refusal);
      const server = connect(Number(new URL(url).port), new URL(url).hostname);
      server.write(startup);
      socket.pipe(server).pipe(socket);
      for (const side of [socket, server]) side.on("error", () => {});
    });
  });
  await new Promise<void>((resolve) => pooler.listen(0, "127.0.0.1", resolve));
  t.teardown(() => pooler.close());
  const through = new URL(url);
  through.host = `127.0.0.1:${(pooler.address() as AddressInfo).port}`;
  t.match(await settings(through.href), { scans: "on" });
});
