/** Connections that break or fall silent: a process gives up what it cannot hold, and takes it up again when it can. */
import { test } from "tap";
import { currentStep, event, Perdure, step, transaction, workflow } from "../../lib/index.ts";
import { bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { freshDatabase, inDatabase, server } from "../support/postgres.ts";
import { FaultyProxy } from "../support/proxy.ts";

const DEADLINE_MS = 20_000;

test("a claim that is issued again after a lost connection leaves every slot free", async (t) => {
  const admin = await freshDatabase(t);
  const w = workflow("w", async () => 1);
  const perdure = new Perdure({ database: admin, workflows: [w], worker: { concurrency: 2 }, logger: collector() });
  await perdure.launch();
  t.teardown(() => perdure.shutdown({ timeout: 1000 }));
  const end =
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
  for (let round = 0; round < 5; round += 1) {
    await inDatabase(admin, async (client) => {
      // Made by hand, so that it must be claimed; the claim meets a dead connection.
      await client.query(end);
      await client.query(
        `with r as (insert into perdure.run (id, workflow, version, queue, priority, state, ready_at, created_at)
           values ($1, 'w', '1', 'default', 0, 'pending', now(), now()) returning *),
           q as (insert into perdure.ready select workflow, version, queue, priority, ready_at, key, 0 from r)
         insert into perdure.input (run, args) select key, '{"json":[]}' from r`,
        [`r${round}`],
      );
      await client.query("select perdure.hint('w')");
    });
    t.equal(await perdure.get(`r${round}`).result({ timeout: DEADLINE_MS }), 1);
  }
  const both = await Promise.all([perdure.start(w), perdure.start(w)]);
  for (const run of both) t.equal(await run.result({ timeout: DEADLINE_MS }), 1);
});

test("a process whose heartbeat does not get through gives its runs up, and goes on with them when it does", async (t) => {
  const url = new URL(await server());
  const proxy = await FaultyProxy.open({ host: url.hostname, port: Number(url.port) });
  t.teardown(() => proxy.close());
  const listenUrl = Object.assign(new URL(url), { port: String(proxy.port) }).href;
  let release: (() => void) | undefined;
  const signals: AbortSignal[] = [];
  const gate = event<number>("gate");
  const stuck = step("stuck", async () => {
    if (signals.length === 0) {
      signals.push(currentStep().signal);
      await new Promise<void>((resolve) => {
        release = resolve;
      });
    }
    return signals.length;
  });
  const w = workflow("w", async () => [await stuck(), (await gate.wait()).data]);
  const { perdure, sql } = await bench(t, { workflows: [w], listenUrl, lease: "1s", notify: false });
  const run = await perdure.start(w);
  await eventually(() => signals.length === 1, DEADLINE_MS);
  // Everything else goes through: only the heartbeat's connection is silent.
  proxy.mode = "half-open";
  proxy.freeze();
  await eventually(() => signals[0]!.aborted, DEADLINE_MS);
  proxy.mode = "pass";
  await run.send(gate, 7);
  t.same(await run.result({ timeout: DEADLINE_MS }), [1, 7]);
  release?.();
  t.equal((await sql("select count(*)::int as n from :SCHEMA.run where state = 'running'"))[0].n, 0);
});

test("a transaction that hangs does not keep a shutdown from returning, and its session is gone", async (t) => {
  let client: { query(text: string): Promise<{ rows: any[] }> } | undefined;
  const hang = transaction("hang", async (tx) => {
    client = tx;
    await new Promise(() => {});
  });
  const w = workflow("w", async () => hang());
  const { perdure, sql, another } = await bench(t, { workflows: [w] });
  const other = await another({ worker: false });
  const run = await perdure.start(w);
  const tx = await eventually(() => client, DEADLINE_MS);
  const [{ pid }] = (await tx.query("select pg_backend_pid() as pid")).rows;
  await perdure.shutdown({ timeout: 100 });
  t.equal((await other.get(run.id).status()).state, "pending");
  const gone = async (): Promise<boolean> =>
    (await sql("select from pg_stat_activity where pid = $1", [pid])).length === 0;
  t.ok(await eventually(gone, DEADLINE_MS));
});

test("a transaction whose function fails to reach another server is tried as its policy says, and no more", async (t) => {
  let calls = 0;
  const pay = transaction({ name: "pay", retry: { type: "fixed", maxAttempts: 2, delay: 0 } }, async () => {
    calls += 1;
    throw Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
  });
  const w = workflow("w", async () => pay());
  const { perdure } = await bench(t, { workflows: [w] });
  await t.rejects((await perdure.start(w)).result(), { cause: { message: "connect ECONNREFUSED" } });
  t.equal(calls, 2);
});

test("a transaction whose own session is ended runs again, without a try of its policy", async (t) => {
  let calls = 0;
  const pay = transaction("pay", async (tx) => {
    calls += 1;
    if (calls === 1) await tx.query("select pg_terminate_backend(pg_backend_pid())");
    if (calls === 2) await tx.query("select pg_terminate_backend(pg_backend_pid())").catch(() => {});
    await tx.query("select 1");
    return calls;
  });
  const w = workflow("w", async () => pay());
  const { perdure } = await bench(t, { workflows: [w] });
  t.equal(await (await perdure.start(w)).result(), 3);
});
