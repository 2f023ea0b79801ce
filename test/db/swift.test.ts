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
  async batch(rows: readonly (readonly [WriteKind, any])[], again = false): Promise<unknown[]> {
    const items = rows.map(([kind, row]): Item => {
      const fenced = row.run === null || row.run === undefined ? row : { ...row, run: this.#keys.get(row.run) };
      return { kind, row: fenced, lane: null, since: 0, told: { onAside() {}, resolve() {}, reject() {} } };
    });
    const context = { schema: this.#schema, worker: "7", lanes: LANES, again, lockMs: null, apart: false, named: true };
    const { answered, busy } = await runBatch(this.client, items, context, () => null);
    const answers = answered.map(({ item, answer }) => {
      const { key, now_ms, sound, tidied, deadline_ms, ...said } = answer as Record<string, unknown>;
      if (item.kind === "start" && key) this.#keys.set((item.row as { id: string }).id, key as string);
      return { kind: item.kind, limited: typeof deadline_ms === "number", ...said };
    });
    return [...answers, ...busy.map(({ kind }) => ({ kind, busy: true }))];
  }

  /** Starts runs and suspends them: each waits for news and for a timer that is due in so many milliseconds, and is kept by worker 7. */
  async suspend(ids: readonly string[], due: number, warm = true): Promise<void> {
    for (const [at, id] of ids.entries()) {
      await this.batch([["start", { ...START, id }]]);
      const wait = { run: id, epoch: 1, slot: "w#0", attempt: 1, kind: "event", topics: '["event:news"]' };
      await this.batch([
        ["wait", { ...wait, length: 60_000, until: null, tries: 0 }],
        ["suspend", { run: id, epoch: 1, mail: 0, slots: '["w#0"]', warm: warm ? at + 1 : null }],
      ]);
    }
    const past = `clock_timestamp() + ${due} * interval '1 millisecond'`;
    await this.sql(`update :SCHEMA.wait set due = ${past}`);
    await this.sql(`update :SCHEMA.run set due = ${past} where due is not null`);
  }

  /** What is claimable or held, and what waits in mailboxes. */
  async state(): Promise<unknown> {
    return this.sql(`select r.id, r.state, r.epoch, r.worker, r.mail, r.due is not null as due, r.topics, r.warm, r.warm_no, r.ready_at is not null as ready,
      (select count(*) from :SCHEMA.ready q where q.run = r.key and q.ready_at = r.ready_at) as placed,
      (select count(*) from :SCHEMA.taken t where t.worker = 7 and r.key = any(t.runs)) as noted,
      (select json_agg(json_build_array(m.name, m.data, m.reference, m.token, m.slot) order by m.seq) from :SCHEMA.mail m where m.run = r.key) as mails
      from :SCHEMA.run r order by r.id`);
  }

  /** A claim has taken long: those that follow look from where it ended. */
  async claimedSlowly(): Promise<void> {
    const text = `select "${this.#schema}".note_claimed(7, 0::smallint, now() - interval '1 minute', interval '1 second')`;
    await this.client.query(text);
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
    const functions = /:(start_runs|record_steps|end_runs|finish_runs|send_events|wake_due|claim_runs)/;
    return { swift: sum(/:swift$/), function: sum(functions) };
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
  t.match(await same("ended", end("a", 1, { slot: "s#1", hash: "x" })), [{ verdict: "ok" }, { verdict: "ok" }]);
  t.match(await same("failed", end("b", 1, { outcome: "failed" }, { state: "failed", reopened: '["s#0"]' })), [
    { verdict: "ok" },
    { verdict: "ok" },
  ]);
  await same("for the next", [start("c")]);
  t.match(await same("finished", [["finish", { ...FINISH, run: "c", epoch: 1 }]]), [{ verdict: "ok" }]);
  const { swift, function: functions } = await both[0]!.used();
  t.strictSame([swift, functions], [7, 0], "all of that without a function");

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
  await same("for those that are given up", [start("g")]);
  const places = { suspended: "topics = '{event:news}'", paused: "topics = null", cancelled: "finished_at = now()" };
  for (const [state, place] of Object.entries(places)) {
    const given = `update :SCHEMA.run set state = '${state}', ${place}, epoch = 1, worker = null, ready_at = null where id = 'g'`;
    t.match(await same(`a step, ${state}`, [["record", { ...RECORD, run: "g", epoch: 1 }]], given), [
      { verdict: "stale" },
    ]);
    t.match(await same(`an end, ${state}`, end("g", 1)), [{ verdict: "stale" }, { verdict: "stale" }]);
    t.match(await same(`a finish, ${state}`, [["finish", { ...FINISH, run: "g", epoch: 1 }]]), [{ verdict: "stale" }]);
  }
});

const MAIL = { name: "news", data: '{"json":1}', reference: null };
const send = (id: string, token: string, more: object = {}) => ["send", { ...MAIL, id, token, ...more }] as const;
const claim = (limit = 10, from = 1) => ["claim", { limit: () => limit, warmFrom: () => from }] as const;
const due = ["due", { limit: 100 }] as const;

/** What an engine reads of the answers to events, timers and claims, but for keys and instants. */
function read(answers: readonly unknown[]): unknown[] {
  return (answers as any[]).map(
    ({ kind, verdict, busy, woken, working, warm, workflow, scheduled, next_ms, loaded }) => ({
      ...{ kind, verdict, busy, woken, working, warm, workflow, scheduled, later: typeof next_ms === "number" },
      loaded: loaded?.map(({ id, epoch, mail, followed, deadline_ms, unread, ended, news, backlog }: any) => ({
        ...{ id, epoch, mail, followed, deadline_ms, ended, backlog },
        mails:
          unread &&
          JSON.parse(unread).map(([, name, data, reference, , token]: unknown[]) => [name, data, reference, token]),
        due: news && JSON.parse(news)[0]?.map(([slot, { woken }]: any) => [slot, woken]),
        next: news && typeof JSON.parse(news)[1],
      })),
    }),
  );
}

test("an event for one run, and its claim, are answered and written as the functions do it", async (t) => {
  const both = await sides(t);
  const same = async (what: string, rows: readonly (readonly [WriteKind, any])[], before?: string): Promise<any[]> => {
    const [swift, plain] = await Promise.all(
      both.map(async (side) => {
        if (before) await side.sql(before);
        return { said: read(await side.batch(rows)), left: await side.state() };
      }),
    );
    t.strictSame(swift, plain, what);
    return swift!.said as any[];
  };
  await Promise.all(both.map((side) => side.suspend(["a", "b", "c", "d", "e", "f", "g"], 60_000)));
  await Promise.all(both.map((side) => side.suspend(["cold"], 60_000, false)));
  const before = (await both[0]!.used()).function;

  await same("another event", [send("a", "1", { name: "other", reference: "r" })]);
  t.match(await same("taken, with all its mail", [send("a", "2"), claim()]), [
    { verdict: "sent", woken: true },
    { loaded: [{ id: "a", epoch: 2, mail: 2, mails: [["other"], ["news"]] }] },
  ]);
  await same("to one in work", [send("a", "3")]);
  await same(
    "a timer that is due with it",
    [send("b", "1"), claim()],
    "update :SCHEMA.wait set due = now() where run = 2",
  );
  t.equal((await both[0]!.used()).function, before, "all of that without a function");

  t.match(await same("not what it waits for, with a claim", [send("c", "1", { name: "other" }), claim()]), [
    { woken: false },
    { loaded: [] },
  ]);
  t.match(await same("not in memory any more", [send("c", "2"), claim(10, 4)]), [
    { woken: true },
    { loaded: [{ id: "c", news: undefined }] },
  ]);
  t.match(await same("no slot", [send("d", "1"), claim(0)]), [{ woken: true }, { loaded: [] }]);
  t.match(await same("behind that one", [send("e", "1"), claim()]), [{ woken: true }, { loaded: { length: 2 } }]);
  t.match(await same("never kept", [send("cold", "1"), claim()]), [{ woken: true }, { loaded: [{ id: "cold" }] }]);
  t.match(await same("without a claim", [send("f", "1")]), [{ woken: true, warm: "7" }]);
  await same("its claim", [claim()]);
  await same(
    "a suspect is claimed by the function",
    [send("g", "1"), claim()],
    "update :SCHEMA.run set crashes = 3 where id = 'g'",
  );

  t.match(await same("a reference again", [send("a", "4", { name: "other", reference: "r" })]), [
    { verdict: "duplicate" },
  ]);
  t.match(await same("to nobody", [send("z", "1"), claim()]), [{ verdict: "unknown" }, { loaded: [] }]);
  await same("its end", [["finish", { ...FINISH, run: "a", epoch: 2 }]]);
  t.match(await same("to one that has ended", [send("a", "5")]), [{ verdict: "finished" }]);
});

test("timers that are due, and the claim of their runs, are answered and written as the functions do it", async (t) => {
  const both = await sides(t);
  const same = async (what: string, rows: readonly (readonly [WriteKind, any])[], before?: string): Promise<any[]> => {
    const [swift, plain] = await Promise.all(
      both.map(async (side) => {
        if (before) await side.sql(before);
        return { said: read(await side.batch(rows)), left: await side.state() };
      }),
    );
    t.strictSame(swift, plain, what);
    return swift!.said as any[];
  };
  const again = "update :SCHEMA.run set due = now() where state = 'suspended'";
  await Promise.all(both.map((side) => side.suspend(["a", "b", "c"], -1)));
  await both[0]!.batch([send("b", "1", { name: "other" })]);
  await both[1]!.batch([send("b", "1", { name: "other" })]);
  const before = (await both[0]!.used()).function;
  t.match(await same("all of them", [due, claim()]), [
    { woken: 3 },
    { loaded: [{ id: "a", epoch: 2, due: [["w#0", false]] }, { id: "b", mails: [["other"]] }, { id: "c" }] },
  ]);
  t.equal((await both[0]!.used()).function, before, "all of that without a function");
  await Promise.all(both.map((side) => side.suspend(["d"], 60_000)));
  t.match(await same("none", [due, claim()]), [{ woken: 0, later: true }, { loaded: [] }]);

  await Promise.all(both.map((side) => side.suspend(["e", "f"], -1)));
  t.match(await same("more than slots", [due, claim(1)]), [{ woken: 3 }, { loaded: { length: 1 } }]);
  await same("the others", [claim()]);
  await Promise.all(both.map((side) => side.suspend(["g", "h"], -1)));
  t.match(await same("one has left the memory", [due, claim(10, 2)]), [{ woken: 2 }, { loaded: { length: 2 } }]);
  await Promise.all(both.map((side) => side.suspend(["i"], -1)));
  const late =
    "insert into :SCHEMA.schedule (name, every_ms, anchor_at, workflow, version, queue, priority, args, hash, overlap, catch_up, next_at, due_at, created_at, updated_at) values ('s', 1000, now(), 'w', '1', 'default', 0, '[]', 'h', 'skip', 'none', now(), now(), now(), now())";
  t.match(await same("a schedule is due too", [due, claim()], late), [
    { woken: 1, scheduled: true },
    { loaded: [{ id: "i" }] },
  ]);
  await Promise.all(both.map((side) => side.suspend(["j"], -1, false)));
  t.match(await same("one that was never kept", [due, claim()]), [{ woken: 1 }, { loaded: [{ id: "j" }] }]);
  t.match(await same("nobody", [due], again), [{ woken: 0 }]);
});

test("a claim of a few new runs is answered and written as the function does it; of others the function is asked, and not tried each time", async (t) => {
  const both = await sides(t);
  const whole = (answers: readonly unknown[]): unknown[] =>
    (answers as any[]).map(({ kind, loaded }) => ({
      kind,
      loaded: loaded
        ?.map(({ key, sound, usual, passed, tidied, now_ms, started_ms, deadline_ms, unread, news, ...said }: any) => ({
          ...{
            key: typeof key,
            at: typeof now_ms + typeof started_ms + typeof deadline_ms,
            mails: unread && JSON.parse(unread).length,
            due: news && JSON.parse(news)[0]?.length,
          },
          ...Object.fromEntries(Object.entries(said).filter(([, value]) => value !== null)),
        }))
        .sort((one: any, other: any) => (one.id < other.id ? -1 : 1)),
    }));
  const same = async (what: string, rows: readonly (readonly [WriteKind, any])[], before?: string): Promise<any[]> => {
    const [swift, plain] = await Promise.all(
      both.map(async (side) => {
        if (before) await side.sql(before);
        return { said: whole(await side.batch(rows)), left: await side.state() };
      }),
    );
    t.strictSame(swift, plain, what);
    return swift!.said as any[];
  };
  const pending = async (...ids: string[]): Promise<void> => {
    for (const side of both)
      for (const [at, id] of ids.entries())
        await side.batch([
          ["start", { ...START, id, priority: 9 - at, timeout: at * 1000 || null, options: "{}", lease: () => false }],
        ]);
  };
  const used = async (): Promise<number> => (await both[0]!.used()).function;
  const before = await used();
  t.match(await same("none", [claim()]), [{ loaded: [] }]);
  await pending("a", "b", "c");
  t.match(await same("all", [claim()]), [
    { loaded: [{ id: "a", epoch: 1, args: START.args }, { id: "b" }, { id: "c" }] },
  ]);
  t.equal(await used(), before, "all of that without a function");

  await pending("d", "e", "f");
  t.match(await same("more than slots: those that stand first", [claim(2)]), [
    { loaded: [{ id: "e" }, { id: "f", backlog: true }] },
  ]);
  t.match(await same("the rest", [claim(2)]), [{ loaded: [{ id: "d" }] }]);
  await same("none, twice", [claim()]);
  await same("none, twice", [claim()]);
  const asked = await used();
  await same("back to the statement", [claim()]);
  t.equal(await used(), asked);

  await pending("g", "h");
  await both[0]!.batch([send("g", "1")]);
  await both[1]!.batch([send("g", "1")]);
  t.match(await same("one has mail", [claim()]), [{ loaded: [{ id: "g", mail: 1, mails: 1 }, { id: "h" }] }]);
  await Promise.all(both.map((side) => side.claimedSlowly()));
  await pending("m");
  t.match(await same("where claims have taken long", [claim()]), [{ loaded: [{ id: "m" }] }]);
  await Promise.all(both.map((side) => side.suspend(["n"], -1)));
  await Promise.all(both.map((side) => side.claimedSlowly()));
  t.match(await same("timers there", [due, claim()]), [{}, { loaded: [{ id: "n" }] }]);
  await Promise.all(both.map((side) => side.suspend(["o"], 60_000)));
  await Promise.all(both.map((side) => side.claimedSlowly()));
  t.match(await same("an event there", [send("o", "1"), claim()]), [{}, { loaded: [{ id: "o" }] }]);
});

test("what is recorded already is told as it is told when a batch is issued again", async (t) => {
  const both = await sides(t);
  for (const [side, again] of [
    [both[0], false],
    [both[1], true],
  ] as const) {
    await side.batch([["start", { ...START, id: "g" }]]);
    const record = (epoch: number) => ["record", { ...RECORD, run: "g", epoch }] as const;
    t.match(await side.batch([record(1)]), [{ verdict: "ok" }]);
    t.match(await side.batch([record(1)], again), [{ verdict: "ok" }]);
    await side.sql("update :SCHEMA.run set epoch = 2 where id = 'g'");
    t.match(await side.batch([record(2)], again), [{ verdict: "stale" }], "by an older claim");
    const ended = await side.batch([record(2), ["finish", { ...FINISH, run: "g", epoch: 2 }]], again);
    t.match(ended, [{ verdict: "stale" }, { verdict: "ok" }]);
  }
  t.strictSame(await both[0].dump(), await both[1].dump());
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
