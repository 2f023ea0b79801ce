/** Calls beside the batches: READ COMMITTED and patient, whatever the role brings along; and what a pooler in transaction mode changes. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type Test, test } from "tap";
import { sleep, step, transaction, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS } from "../support/gate.ts";
import { startPgBouncer } from "../support/pgbouncer.ts";
import { server } from "../support/postgres.ts";
import { blockedIn, stranger } from "../support/stranger.ts";

const wait = workflow("wait", async () => void (await sleep("1h")));

async function through(options: string): Promise<string> {
  const url = new URL(await server());
  url.searchParams.set("options", options);
  return url.href;
}

test("under a serializable default, a cancel that waited for a row decides from the row as it is then", async (t) => {
  const b = await bench(t, {
    workflows: [wait],
    database: await through("-c default_transaction_isolation=serializable"),
  });
  const other = await stranger(t, b);
  const run = await b.perdure.start(wait);
  await eventually(async () => (await run.status()).state === "suspended", PATIENCE_MS);
  await other("begin");
  await other("update :SCHEMA.run set priority = 1");
  const cancelled = run.cancel("not needed");
  await blockedIn(b, "cancel_runs");
  await other("commit");
  await cancelled;
  t.match(await run.status(), { state: "cancelled", priority: 1 });
  // A retry would have gone unnoticed: the function itself says how it was called.
  await b.sql(`create function :SCHEMA.note_isolation() returns trigger language plpgsql as $$ begin
    insert into :SCHEMA.isolation values (current_setting('transaction_isolation')); return null; end $$`);
  await b.sql("create table :SCHEMA.isolation (name text)");
  await b.sql(
    "create trigger note after insert or update or delete on :SCHEMA.worker execute function :SCHEMA.note_isolation()",
  );
  await b.sql("create trigger note after update on :SCHEMA.run execute function :SCHEMA.note_isolation()");
  const second = await b.perdure.start(wait);
  await eventually(async () => (await second.status()).state === "suspended", PATIENCE_MS);
  await second.cancel();
  await b.perdure.shutdown();
  const seen = await b.sql("select name, count(*) > 2 as often from :SCHEMA.isolation group by name");
  t.strictSame(seen, [{ name: "read committed", often: true }]);
});

for (const setting of ["statement_timeout", "lock_timeout"]) {
  test(`a cancel that the role's ${setting} cuts off is made again, and given time`, async (t) => {
    const b = await bench(t, { workflows: [wait], database: await through(`-c ${setting}=200`) });
    const other = await stranger(t, b);
    const run = await b.perdure.start(wait);
    await eventually(async () => (await run.status()).state === "suspended", PATIENCE_MS);
    await other("begin");
    await other("update :SCHEMA.run set priority = 1");
    const cancelled = run.cancel();
    // The second one says before how long it waits.
    await eventually(async () => {
      const text = `select from pg_stat_activity a join pg_locks l using (pid) where not l.granted and a.query like $1
        and clock_timestamp() - a.query_start > interval '250 milliseconds'`;
      return (await b.sql(text, [`%"${b.schema}".cancel_runs(%`])).length > 0;
    }, PATIENCE_MS);
    await other("commit");
    await cancelled;
    t.equal((await run.status()).state, "cancelled");
  });
}

/** In front of a server: clients are told another session's number, as poolers do. Returns its host, and the names of what clients prepared. */
async function disguise(t: Test): Promise<{ host: string; names: string[] }> {
  const { hostname, port } = new URL(await server());
  const names: string[] = [];
  const sockets = new Set<Socket>();
  const front = createServer((near) => {
    const far = connect(Number(port), hostname);
    for (const socket of [near, far]) sockets.add(socket.on("error", () => {}));
    near.on("data", (bytes: Buffer) => {
      // 'P', its length, a name.
      for (let at = bytes.indexOf("P\0\0"); at >= 0; at = bytes.indexOf("P\0\0", at + 1)) {
        const name = bytes.subarray(at + 5, bytes.indexOf(0, at + 5)).toString();
        if (/^perdure_\w+:/.test(name)) names.push(name);
      }
      far.write(bytes);
    });
    far.on("data", (bytes: Buffer) => {
      const at = bytes.indexOf("K\0\0\0\f");
      if (at >= 0) bytes.writeInt32BE(bytes.readInt32BE(at + 5) + 1_000_000, at + 5);
      near.write(bytes);
    });
    near.on("close", () => far.destroy());
    far.on("close", () => near.destroy());
  });
  await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    front.close();
  });
  return { host: `127.0.0.1:${(front.address() as AddressInfo).port}`, names };
}

const plus = step("plus", async (n: number) => n + 1);
const booked = transaction(
  "booked",
  async (tx, n: number) => (await tx.query("select $1::int + 1 as n", [n])).rows[0].n,
);
const count = workflow("count", async (n: number) => {
  const first = await plus(n);
  await sleep(5);
  return booked(await plus(first));
});

async function counts(t: Test, database: string): Promise<void> {
  const b = await bench(t, { workflows: [count], database, listenUrl: await server() });
  const one = await b.perdure.start(count, 0);
  t.equal(await one.result({ timeout: PATIENCE_MS }), 3);
  const many = await Promise.all(Array.from({ length: 40 }, (_, n) => b.perdure.start(count, n)));
  const results = await Promise.all(many.map((run) => run.result({ timeout: PATIENCE_MS })));
  t.same(
    results,
    many.map((_, n) => n + 3),
  );
}

test("where a pooler answers for the server, nothing is prepared under a name, as the next session would not know it", async (t) => {
  const { host, names } = await disguise(t);
  await counts(t, Object.assign(new URL(await server()), { host }).href);
  t.same(names, []);
  const direct = await bench(t, { workflows: [count] });
  t.equal(await (await direct.perdure.start(count, 0)).result({ timeout: PATIENCE_MS }), 3);
});

test("runs come to their ends through PgBouncer in transaction mode", async (t) => {
  const pooler = await startPgBouncer(await server());
  if (!pooler) return void t.pass("there is none on this machine");
  t.teardown(() => pooler.stop());
  await counts(t, Object.assign(new URL(await server()), { host: pooler.host }).href);
});

test("through PgBouncer alone, without a direct connection, an engine works that neither listens nor holds a lock", async (t) => {
  const pooler = await startPgBouncer(await server());
  if (!pooler) return void t.pass("there is none on this machine");
  t.teardown(() => pooler.stop());
  const database = Object.assign(new URL(await server()), { host: pooler.host }).href;
  const b = await bench(t, { workflows: [count], database, notify: false, sessionLock: false });
  t.equal(await (await b.perdure.start(count, 0)).result({ timeout: PATIENCE_MS }), 3);
});
