/** The database goes away, comes back, and loses answers: runs end with the right result, transactions take effect once. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { type Test, test } from "tap";
import { type RunningPostgres, startPostgres } from "../../lib/db/embedded.ts";
import { type Perdure, step, transaction, workflow } from "../../lib/index.ts";
import { crew } from "../support/crew.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { freshSchema, server } from "../support/postgres.ts";
import { FaultyProxy } from "../support/proxy.ts";

/** A server of the test's own, in a folder that outlives its crashes. */
async function ownServer(t: Test): Promise<{ url: string; crash: () => Promise<void>; restart: () => Promise<void> }> {
  const dataDir = await mkdtemp(join(tmpdir(), "perdure-crash-"));
  let running: RunningPostgres = await startPostgres({ dataDir });
  const { url } = running;
  const used = [running];
  t.teardown(async () => {
    for (const server of used) await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  const crash = async (): Promise<void> => {
    process.kill(running.pid, "SIGQUIT");
    await eventually(() => {
      try {
        return !process.kill(running.pid, 0);
      } catch {
        return true;
      }
    }, 10_000);
  };
  const restart = async (): Promise<void> => {
    running = await startPostgres({ dataDir, port: Number(new URL(url).port) });
    used.push(running);
  };
  return { url, crash, restart };
}

test("the server crashes again and again under load: every run ends right, transactions once, and no crash is counted", async (t) => {
  const own = await ownServer(t);
  const pool = new pg.Pool({ connectionString: own.url, max: 5 });
  pool.on("error", () => {});
  t.teardown(() => pool.end());
  const team = await crew(t, { url: own.url, schema: "crashing", pool });
  const [one, two, client] = [await team.member(), await team.member(), await team.member({ worker: false })];
  const counts = (): Promise<any[]> =>
    team.sql(
      "select coalesce(max(crashes), 0)::int as most, count(*) filter (where state <> 'completed')::int as open from :SCHEMA.run",
    );
  const ids: string[] = [];
  for (let round = 0; round < 3; round += 1) {
    const begun = Array.from({ length: 150 }, (_, n) => `r${round}-${n}`);
    ids.push(...begun);
    const starts = begun.map((id) => client.call("start", "five", id, id, ""));
    await pause(50 + 100 * round);
    await own.crash();
    if (round === 2) await pause(3000);
    await own.restart();
    await Promise.all(starts);
  }
  await eventually(async () => (await counts())[0].open === 0, 30_000).catch(() => {});
  t.same(
    await team.sql("select id, state, worker, reason, crashes from :SCHEMA.run where state <> 'completed'"),
    [],
    "all are done",
  );
  t.equal((await counts())[0].most, 0, "nothing is counted against a run");
  t.equal((await team.sql("select from :SCHEMA.run")).length, ids.length, "each start made one run");
  const booked = await team.sql("select run from :SCHEMA.ledger group by run having count(*) = 2");
  t.equal(booked.length, ids.length, "each transaction took effect once");
  const twice = await team.sql("select run, slot from :SCHEMA.checkpoint group by run, slot having count(*) > 1");
  t.same(twice, []);
  t.ok(one.alive && two.alive);
  for (const member of [one, two, client]) await member.call("shutdown");
});

/** Five steps, two of them transactions into a table of the test's. */
function orders() {
  const seen: string[] = [];
  const inTransaction = new Set<string>();
  const note = (name: string) => step(name, async (id: string) => void seen.push(`${id} ${name}`));
  const book = (name: string, schema: () => string) =>
    transaction(name, async (tx, id: string) => {
      await tx.query(`insert into ${schema()}.ledger (run, step) values ($1, $2)`, [id, name]);
      inTransaction.add(`${id} ${name}`);
      return name;
    });
  let schema = "";
  const [a, b, c] = [note("a"), note("b"), note("c")];
  const [x, y] = [book("x", () => schema), book("y", () => schema)];
  const order = workflow("order", async (id: string) => {
    await a(id);
    const first = await x(id);
    await b(id);
    const second = await y(id);
    await c(id);
    return `${id}: ${first}${second}`;
  });
  const prepare = async ({ sql, ...bench }: Bench): Promise<void> => {
    schema = `"${bench.schema}"`;
    await sql("create table :SCHEMA.ledger (run text, step text)");
  };
  return { order, seen, inTransaction, prepare };
}

/** The runs that did not do everything exactly once. */
async function wrong({ sql }: Bench, ids: readonly string[]): Promise<unknown[]> {
  const booked = await sql("select run, string_agg(step, '' order by step) as steps from :SCHEMA.ledger group by run");
  const byRun = new Map(booked.map(({ run, steps }) => [run, steps]));
  const states = await sql("select id, state, crashes from :SCHEMA.run where state <> 'completed' or crashes > 0");
  return [...ids.filter((id) => byRun.get(id) !== "xy").map((id) => [id, byRun.get(id)]), ...states];
}

const started = (perdure: Perdure, order: ReturnType<typeof orders>["order"], ids: readonly string[]) =>
  Promise.all(ids.map((id) => perdure.start(order.with({ id }), id)));

test("all sessions are ended between any two operations: the runs end with the right result", async (t) => {
  const { order, prepare } = orders();
  const { url, schema } = await freshSchema(t);
  const at = new URL(url);
  at.searchParams.set("application_name", schema);
  const made = await bench(t, { workflows: [order], database: at.href });
  await prepare(made);
  let going = true;
  let ended = 0;
  const ending = (async () => {
    while (going) {
      ended += (
        await made.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", [schema])
      ).length;
      // Time enough for some to get through on a busy machine.
      await pause(20 + Math.random() * 80);
    }
  })();
  const ids = Array.from({ length: 40 }, (_, n) => `o${n}`);
  const results: string[] = [];
  for (let at = 0; at < ids.length; at += 5) {
    const handles = await started(made.perdure, order, ids.slice(at, at + 5));
    results.push(...((await Promise.all(handles.map((handle) => handle.result()))) as string[]));
  }
  going = false;
  await ending;
  t.comment(`${ended} sessions ended`);
  t.ok(ended > 20);
  t.same(
    results,
    ids.map((id) => `${id}: xy`),
  );
  t.same(await wrong(made, ids), []);
});

/** An engine behind a proxy, whose answers can be lost. */
async function behind(t: Test, workflows: ReturnType<typeof orders>): Promise<{ made: Bench; proxy: FaultyProxy }> {
  const target = new URL(await server());
  const proxy = await FaultyProxy.open({ host: target.hostname, port: Number(target.port) });
  t.teardown(() => proxy.close());
  target.host = `127.0.0.1:${proxy.port}`;
  const made = await bench(t, { workflows: [workflows.order], database: target.href });
  await workflows.prepare(made);
  return { made, proxy };
}

test("the answer to every other commit is lost: no conflict, no double row, no claim left behind", async (t) => {
  const set = orders();
  const { made, proxy } = await behind(t, set);
  let lost = 0;
  let at = 0;
  proxy.onCommitted = () => {
    at += 1;
    if (at % 2 === 1) return "pass";
    lost += 1;
    return "reset";
  };
  const ids = Array.from({ length: 20 }, (_, n) => `o${n}`);
  const results: string[] = [];
  for (const id of ids) {
    const [handle] = await started(made.perdure, set.order, [id]);
    results.push((await handle!.result({ timeout: "20s" })) as string);
  }
  proxy.onCommitted = () => "pass";
  t.comment(`${lost} answers lost`);
  t.ok(lost > 30);
  t.same(
    results,
    ids.map((id) => `${id}: xy`),
  );
  t.same(await wrong(made, ids), [], "transactions included");
  t.same(
    set.seen,
    ids.flatMap((id) => ["a", "b", "c"].map((name) => `${id} ${name}`)),
    "no step ran twice",
  );
  t.same(await made.sql("select from :SCHEMA.run where worker is not null"), []);
});

test("the answer to a claim is lost: its runs are not left to a lease", async (t) => {
  const set = orders();
  const { made, proxy } = await behind(t, set);
  // Started from elsewhere, so that each has to be claimed; whatever commits is answered by a cut line.
  const client = await made.another({ worker: false, database: made.url });
  let cuts = 6;
  proxy.onCommitted = () => {
    cuts -= 1;
    return cuts < 0 ? "pass" : "reset";
  };
  const ids = Array.from({ length: 20 }, (_, n) => `c${n}`);
  const handles = await started(client, set.order, ids);
  t.same(
    await Promise.all(handles.map((handle) => handle.result({ timeout: "15s" }))),
    ids.map((id) => `${id}: xy`),
  );
  t.ok(cuts < 0, "answers were lost");
  t.same(await wrong(made, ids), []);
});

test("the database is away at shutdown: it ends all the same, soon after its timeout", async (t) => {
  const hold = step("hold", () => pause(400));
  const held = workflow("held", async () => hold());
  const target = new URL(await server());
  const proxy = await FaultyProxy.open({ host: target.hostname, port: Number(target.port) });
  t.teardown(() => proxy.close());
  target.host = `127.0.0.1:${proxy.port}`;
  const made = await bench(t, { workflows: [held], database: target.href });
  await made.perdure.start(held);
  proxy.mode = "refuse";
  proxy.cut();
  const since = performance.now();
  await made.perdure.shutdown({ timeout: "1s" });
  t.ok(performance.now() - since < 15_000);
});

test("an error that only looks like a lost connection is the step's own", async (t) => {
  let tries = 0;
  const call = transaction("call", async () => {
    tries += 1;
    throw Object.assign(new Error("connect ECONNREFUSED of a service"), { code: "ECONNREFUSED" });
  });
  const calling = workflow("calling", async () => call());
  const { perdure } = await bench(t, { workflows: [calling] });
  await t.rejects((await perdure.start(calling)).result(), /ECONNREFUSED/);
  t.equal(tries, 1);
});

test("the answer to a transaction's commit never comes: it took effect once", async (t) => {
  const set = orders();
  const { made, proxy } = await behind(t, set);
  let silenced = 0;
  // The first commit once the step's function has run, other than that of a batch of writes, is its transaction's.
  proxy.onCommitted = (batch) => {
    if (batch || !set.inTransaction.has("o x") || silenced > 0) return "pass";
    silenced += 1;
    return "silence";
  };
  const [handle] = await started(made.perdure, set.order, ["o"]);
  const since = performance.now();
  t.equal(await handle!.result({ timeout: "20s" }), "o: xy");
  t.equal(silenced, 1);
  t.ok(performance.now() - since < 14_000, "it is asked what became of it, long before a batch would be given up");
  t.same(await wrong(made, ["o"]), []);
});
