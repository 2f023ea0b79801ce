/** Starts, sends and cancellations in the caller's own transaction: all or nothing with the caller's rows. */
import pg from "pg";
import { type Test, test } from "tap";
import { type CallerClient, event, type Schema, sleep, transaction, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

/** Well under the 3 s of a poll: what runs by then was woken by a hint. */
const PROMPT_MS = 1500;

const ping = event<number>("ping");
const greet = workflow("greet", async (name: string) => `hello ${name}`);
const listen = workflow("listen", async () => (await ping.wait()).data);

/** A connection of the application's, with a table of its own. */
async function application(t: Test, { url, sql }: Bench): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  t.teardown(() => client.end());
  await sql("create table if not exists :SCHEMA.orders (id text primary key)");
  return client;
}

/** The same connection as a client of another driver would be: it does not tell whether it is in a transaction. */
const silent = (client: pg.Client): CallerClient => ({ query: (text, values) => client.query(text, values) });

const count = async ({ sql }: Bench, table: string): Promise<number> =>
  (await sql(`select count(*)::int as n from :SCHEMA.${table}`))[0].n;

test("a run started in the caller's transaction begins when that commits, promptly, and with the caller's rows", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const client = await application(t, b);
  for (const given of [client, silent(client)]) {
    await client.query("begin");
    await client.query(`insert into "${b.schema}".orders values (gen_random_uuid())`);
    const run = await b.perdure.using(given).start(greet, "Ada");
    t.equal((await rejection(run.status())).code, "PERDURE_NOT_FOUND", "nobody sees it before the commit");
    t.same(
      await client
        .query(`select state, epoch, worker from "${b.schema}".run where id = $1`, [run.id])
        .then((r) => r.rows),
      [{ state: "pending", epoch: 0, worker: null }],
    );
    const since = performance.now();
    await client.query("commit");
    t.equal(await run.result({ timeout: PATIENCE_MS }), "hello Ada");
    t.ok(performance.now() - since < PROMPT_MS, "by the hint, not by the poll");
  }
  t.equal(await count(b, "orders"), 2);
});

test("a start, a send and a cancellation that are rolled back leave nothing", async (t) => {
  const b = await bench(t, { workflows: [greet, listen] });
  const client = await application(t, b);
  const there = await b.perdure.start(listen.with({ id: "there" }));
  await reaches(there, "suspended");
  await client.query("begin");
  const using = b.perdure.using(client);
  const run = await using.start(greet.with({ id: "gone" }), "Ada");
  await using.send("there", ping, 1);
  await using.send("gone", ping, 1);
  await using.cancel("there", "never");
  await client.query("rollback");
  t.equal((await rejection(run.result())).code, "PERDURE_NOT_FOUND", "its handle says so, too");
  t.same(await b.sql("select id, state, mail from :SCHEMA.run"), [{ id: "there", state: "suspended", mail: 0 }]);
  t.same([await count(b, "input"), await count(b, "mail")], [1, 0]);
  await there.send(ping, 7);
  t.equal(await there.result(), 7);
});

test("a send and a cancellation in the caller's transaction take effect at its commit, in the same order", async (t) => {
  const twice = workflow("twice", async () => [(await ping.wait()).data, (await ping.wait()).data]);
  const asleep = workflow("asleep", async () => void (await sleep("1h")));
  const b = await bench(t, { workflows: [twice, asleep] });
  const client = await application(t, b);
  const [run, other] = [
    await b.perdure.start(twice.with({ id: "a" })),
    await b.perdure.start(asleep.with({ id: "b" })),
  ];
  await Promise.all([reaches(run, "suspended"), reaches(other, "suspended")]);
  await client.query("begin");
  const using = b.perdure.using(client);
  await Promise.all([using.send("a", ping, 1), using.send("a", ping, 2), using.cancel("b", "not paid")]);
  t.equal((await run.status()).state, "suspended");
  t.equal((await other.status()).state, "suspended");
  const since = performance.now();
  await client.query("commit");
  t.same(await run.result(), [1, 2]);
  t.match(await rejection(other.result()), { code: "PERDURE_CANCELLED", message: /not paid/ });
  t.ok(performance.now() - since < PROMPT_MS);
});

test("a run, and what is sent to it, can be made in one transaction; many at once are one statement", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const client = await application(t, b);
  const statements: string[] = [];
  const counted: CallerClient = {
    query: (text, values) => {
      statements.push(text);
      return client.query(text, values);
    },
  };
  await client.query("begin");
  const using = b.perdure.using(counted);
  const ids = Array.from({ length: 50 }, (_, n) => `run-${n}`);
  const runs = await Promise.all(ids.map((id) => using.start(listen.with({ id }))));
  const sent = await using.send([...ids, "nobody"], ping, 7, { reference: "once" });
  t.same(sent.sent, ids);
  t.match(sent.failed, [{ id: "nobody", error: { code: "PERDURE_NOT_FOUND" } }]);
  t.equal(statements.length, 3, "one look, one for the starts, one for the events");
  await client.query("commit");
  t.same(
    await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS }))),
    ids.map(() => 7),
  );
});

test("the errors are those of the engine, and leave the caller's transaction as it is", async (t) => {
  const even: Schema<number> = {
    "~standard": {
      version: 1,
      vendor: "test",
      validate: (value) => (Number(value) % 2 === 0 ? { value: Number(value) } : { issues: [{ message: "is odd" }] }),
    },
  };
  const halve = workflow({ name: "halve", input: even }, async (n: number) => n / 2);
  const b = await bench(t, { workflows: [greet, halve] });
  const client = await application(t, b);
  await (await b.perdure.start(greet.with({ id: "done" }), "Ada")).result();
  await client.query("begin");
  const using = b.perdure.using(client);
  t.equal((await using.start(greet.with({ id: "done" }), "Ada")).id, "done", "an equal start gives the run there is");
  t.match(await rejection(using.start(greet.with({ id: "done" }), "Bob")), {
    name: "RunConflictError",
    code: "PERDURE_CONFLICT",
    message: /run "done" is taken and was started with other input \(it is completed\)/,
  });
  t.equal((await using.start(greet.with({ id: "done", onConflict: "return_existing" }), "Bob")).id, "done");
  t.match(await rejection(using.send("nobody", ping, 1)), { code: "PERDURE_NOT_FOUND" });
  t.match(await rejection(using.send("done", ping, 1)), { name: "RunFinishedError", code: "PERDURE_FINISHED" });
  await using.send("done", ping, 1, { ignoreFinished: true });
  t.match(await rejection(using.cancel("nobody")), { code: "PERDURE_NOT_FOUND" });
  t.match(await rejection(using.cancel("done")), { code: "PERDURE_STATE", message: /"done" is completed/ });
  t.match(await rejection(using.cancel("")), { code: "PERDURE_NAME" });
  t.match(await rejection(using.start(halve, 3)), { code: "PERDURE_INVALID", message: /is odd/ });
  t.match(await rejection(using.start("great", 1)), {
    code: "PERDURE_UNKNOWN_WORKFLOW",
    message: /did you mean "greet"/,
  });
  t.match(await rejection(using.start(greet, (() => 1) as never)), { code: "PERDURE_SERIALIZE" });
  const run = await using.start(halve, 4);
  await client.query(`insert into "${b.schema}".orders values ('after all')`);
  await client.query("commit");
  t.equal(await run.result(), 2);
  t.equal(await count(b, "orders"), 1);
});

test("a pool, an ORM and anything else without a transaction are refused at the door, a client without one at the call", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const client = await application(t, b);
  const pool = new pg.Pool({ connectionString: b.url, max: 1 });
  t.teardown(() => pool.end());
  const door = async (given: unknown) => rejection((async () => b.perdure.using(given as never))());
  t.match(await door(pool), {
    code: "PERDURE_OPTION",
    message: /a Pool runs each statement on any of its connections/,
  });
  for (const given of [undefined, null, "client", () => 1, {}, { query: 1 }])
    t.match(await door(given), { code: "PERDURE_OPTION", message: /perdure\/adapters/ });
  for (const given of [client, silent(client)]) {
    const using = b.perdure.using(given);
    const none = { code: "PERDURE_STATE", message: /in no transaction, so nothing was written: begin one/ };
    t.match(await rejection(using.start(greet, "Ada")), none);
    t.match(await rejection(using.send("a", ping, 1)), none);
    t.match(await rejection(using.cancel("a")), none);
    await client.query("begin");
    await using.start(greet, "Ada");
    await client.query("rollback");
    t.match(await rejection(using.start(greet, "Ada")), none, "nor after it has ended");
  }
  t.equal(await count(b, "run"), 0);
  await client.query("begin");
  await b.perdure.shutdown();
  t.match(await door(client), { code: "PERDURE_STATE" });
});

test("a transaction that is begun, saved and rolled back in any order is seen as it is", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const client = await application(t, b);
  for (const given of [client, silent(client)]) {
    const using = b.perdure.using(given);
    // Not awaited: the client itself does not know of it yet.
    const begun = client.query("begin");
    await using.start(greet, "Ada");
    await begun;
    await client.query("savepoint before");
    const gone = await using.start(greet, "Bob");
    await client.query("rollback to before");
    await using.start(greet, "Eve");
    await client.query("commit");
    t.equal((await rejection(gone.status())).code, "PERDURE_NOT_FOUND");
    await client.query("begin");
    await using.start(greet, "Zoe");
    await client.query("commit");
  }
  t.equal(await count(b, "run"), 6);
});

test("a read-only or aborted transaction is told so, and a read-only one goes on", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const client = await application(t, b);
  for (const given of [client, silent(client)]) {
    const using = b.perdure.using(given);
    await client.query("begin read only");
    t.match(await rejection(using.start(greet, "Ada")), {
      code: "PERDURE_READ_ONLY",
      message: /begin it with `read write`/,
    });
    t.same((await client.query("select 1 as one")).rows, [{ one: 1 }], "it is not aborted");
    await client.query("rollback");
    await client.query("begin");
    await rejection(client.query("select 1 / 0"));
    const aborted = await rejection(using.start(greet, "Ada"));
    t.match(aborted, { name: "PerdureError", code: "PERDURE_STATE", message: /aborted the transaction: roll it back/ });
    await client.query("rollback");
  }
  t.equal(await count(b, "run"), 0);
});

test("a serializable transaction starts and sends; where another was in the way, the error says to run it again", async (t) => {
  const b = await bench(t, { workflows: [listen] });
  const [client, rival] = [await application(t, b), await application(t, b)];
  const run = await b.perdure.start(listen.with({ id: "a" }));
  await reaches(run, "suspended");
  const attempt = async (during: () => Promise<void>): Promise<void> => {
    await client.query("begin isolation level serializable");
    await client.query("select 1");
    await during();
    const using = b.perdure.using(client);
    await using.start(listen.with({ id: "b" }));
    await using.send("a", ping, 1);
    await client.query("commit");
  };
  const refused = await rejection(
    attempt(async () => {
      await rival.query(`update "${b.schema}".run set priority = 1 where id = 'a'`);
    }),
  );
  t.match(refused, { name: "PerdureError", code: "PERDURE_DATABASE", message: /roll back, and run this one again/ });
  t.equal(refused.error.cause.code, "40001");
  await client.query("rollback");
  t.equal(await count(b, "run"), 1);
  await attempt(async () => {});
  t.equal(await run.result(), 1);
});

test("a start waits for a transaction that holds its id, and then sees what became of it", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const [first, second] = [await application(t, b), await application(t, b)];
  for (const [end, verdict] of [
    ["rollback", "created"],
    ["commit", "existing"],
    ["commit", "conflict"],
  ] as const) {
    const named = greet.with({ id: `${end}-${verdict}` });
    await first.query("begin");
    await b.perdure.using(first).start(named, "Ada");
    await second.query("begin");
    const waiting = b.perdure
      .using(second)
      .start(named, verdict === "conflict" ? "Bob" : "Ada")
      .then(
        (run) => run.id,
        (error) => error.code,
      );
    const blocked = "select from pg_stat_activity where wait_event_type = 'Lock' and query like $1";
    await eventually(async () => (await b.sql(blocked, [`%"${b.schema}".start_runs(%`])).length > 0, PATIENCE_MS);
    await first.query(end);
    t.equal(await waiting, verdict === "conflict" ? "PERDURE_CONFLICT" : `${end}-${verdict}`);
    await second.query("commit");
    t.equal(await b.perdure.get(`${end}-${verdict}`).result({ timeout: PATIENCE_MS }), "hello Ada");
  }
  t.equal(await count(b, "run"), 3);
});

test("a lock timeout of the caller's ends the wait with an error of ours", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const [first, second] = [await application(t, b), await application(t, b)];
  await first.query("begin");
  await b.perdure.using(first).start(greet.with({ id: "a" }), "Ada");
  await second.query("begin; set local lock_timeout = 10");
  const refused = await rejection(b.perdure.using(second).start(greet.with({ id: "a" }), "Ada"));
  t.match(refused, { name: "PerdureError", code: "PERDURE_DATABASE", message: /open transaction elsewhere/ });
  await second.query("rollback");
  await first.query("rollback");
});

test("a delayed start of a transaction that has committed is not left to the poll", async (t) => {
  const b = await bench(t, { workflows: [greet] });
  const client = await application(t, b);
  await eventually(async () => (await b.sql("select from :SCHEMA.workers where leads")).length > 0, PATIENCE_MS);
  await client.query("begin");
  const run = await b.perdure.using(client).start(greet.with({ delay: 50 }), "Ada");
  await client.query("commit");
  const since = performance.now();
  t.equal(await run.result({ timeout: PATIENCE_MS }), "hello Ada");
  t.ok(performance.now() - since < PROMPT_MS);
});

test("a busy worker is not hinted at, and takes the run when it has a slot", async (t) => {
  const wait = workflow(
    "wait",
    async () => void (await new Promise((resolve) => void free.push(resolve as () => void))),
  );
  const free: (() => void)[] = [];
  const b = await bench(t, { workflows: [greet, wait], worker: { concurrency: 1 } });
  const client = await application(t, b);
  const heard: string[] = [];
  const ear = await application(t, b);
  ear.on("notification", ({ payload }) => void heard.push(payload!));
  const [{ channel }] = await b.sql("select :SCHEMA.channel() as channel");
  await ear.query(`listen ${channel}`);
  await b.perdure.start(wait);
  await eventually(async () => (await b.sql("select from :SCHEMA.worker where hungry")).length === 0, PATIENCE_MS);
  await ear.query("select 1");
  heard.length = 0;
  await client.query("begin");
  const run = await b.perdure.using(client).start(greet, "Ada");
  await client.query("commit");
  await client.query(`notify ${channel}, 'mine'`);
  await eventually(() => heard.includes("mine"), PATIENCE_MS);
  t.same(heard, ["mine"]);
  for (const open of free) open();
  t.equal(await run.result({ timeout: PATIENCE_MS }), "hello Ada");
});

test("without hints nothing is notified, and the run is found by polling", async (t) => {
  const b = await bench(t, { workflows: [greet], notify: false });
  const client = await application(t, b);
  const heard: string[] = [];
  client.on("notification", ({ payload }) => void heard.push(payload!));
  const [{ channel }] = await b.sql("select :SCHEMA.channel() as channel");
  await client.query(`listen ${channel}`);
  await client.query("begin");
  const run = await b.perdure.using(client).start(greet, "Ada");
  await client.query("commit");
  t.equal(await run.result({ timeout: PATIENCE_MS }), "hello Ada");
  t.same(heard, []);
});

test("a transaction step that starts a run starts it exactly once, with its own checkpoint", async (t) => {
  let tries = 0;
  const order = transaction({ name: "order", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async (tx) => {
    const run = await b.perdure.using(tx).start(greet, "Ada");
    tries += 1;
    if (tries === 1) throw new Error("too early");
    return run.id;
  });
  const checkout = workflow("checkout", async () => order());
  const b = await bench(t, { workflows: [greet, checkout] });
  const id = await (await b.perdure.start(checkout)).result();
  t.equal(await b.perdure.get(id).result({ timeout: PATIENCE_MS }), "hello Ada");
  t.equal(tries, 2);
  t.equal(await count(b, "run"), 2, "that of the failed try was rolled back");
});

test("a transaction step that starts and sends by using() is run again when its connection ends, or it collides with another", async (t) => {
  let calls = 0;
  let spoil: (pid: number) => Promise<unknown> = async () => {};
  const book = transaction("book", async (tx, id: string) => {
    calls += 1;
    if (calls === 1) await spoil((tx as pg.PoolClient & { processID: number }).processID);
    const using = b.perdure.using(tx);
    await using.start(listen.with({ id }));
    await using.send(id, ping, 7);
  });
  const flow = workflow("flow", async (id: string) => book(id));
  const b = await bench(t, { workflows: [flow, listen] });
  spoil = (pid) => b.sql("select pg_terminate_backend($1, 5000)", [pid]);
  await (await b.perdure.start(flow, "one")).result({ timeout: PATIENCE_MS });
  t.equal(calls, 2, "the server had ended its session");
  await b.sql(`create sequence :SCHEMA.starts`);
  await b.sql(
    `create function :SCHEMA.collide() returns trigger language plpgsql as $$ begin
    if nextval('":SCHEMA_NAME".starts') = 1 then raise exception 'deadlock detected' using errcode = '40P01'; end if;
    return new;
  end $$`.replace(":SCHEMA_NAME", b.schema),
  );
  await b.sql(
    `create trigger collide before insert on :SCHEMA.run for each row when (new.id = 'two') execute function :SCHEMA.collide()`,
  );
  calls = 1;
  await (await b.perdure.start(flow, "two")).result({ timeout: PATIENCE_MS });
  t.equal(calls, 3, "it was chosen to end a deadlock");
  for (const id of ["one", "two"]) t.equal(await b.perdure.get(listen, id).result({ timeout: PATIENCE_MS }), 7);
});
