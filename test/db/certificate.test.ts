/** What a worker's lock promises: held while the worker lives, taken again whenever the connection was lost. */
import { setTimeout as sleep } from "node:timers/promises";
import t, { type Test } from "tap";
import { holdCertificate } from "../../lib/db/certificate.ts";
import { sql, startCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { FaultyProxy } from "../support/proxy.ts";

const target = await startCluster(t);
let certificates = 0;

function holders(lock: string): Promise<{ pid: number }[]> {
  const id = "((classid::bigint << 32) | objid::bigint)";
  return sql(target, `select pid from pg_locks where locktype = 'advisory' and granted and ${id} = $1`, [lock]);
}

function hold(t: Test, port = target.port) {
  const number = ++certificates;
  const lock = String(7_000_000_000_000_000_000n + BigInt(number));
  const name = `certificate ${number}`;
  const troubles: string[] = [];
  const onTrouble = (message: string, error: unknown) => troubles.push(`${message}: ${error}`);
  const certificate = holdCertificate({ config: { ...target, port, application_name: name }, lock, onTrouble });
  t.teardown(() => certificate.close());
  return { lock, name, troubles, certificate };
}

async function proxy(t: Test): Promise<FaultyProxy> {
  const proxy = await FaultyProxy.open(target);
  t.teardown(() => proxy.close());
  return proxy;
}

await t.test("the lock is held from ready to close, and pg_locks shows it", async (t) => {
  const { lock, certificate, troubles } = hold(t);
  await t.rejects(certificate.query({ text: "select 1" }), /not there/);
  await certificate.ready;
  t.equal(certificate.held, true);
  t.equal((await holders(lock)).length, 1);
  await certificate.close();
  t.equal(certificate.held, false);
  await eventually(async () => (await holders(lock)).length === 0);
  await t.rejects(certificate.query({ text: "select 1" }), /not there/);
  t.same(troubles, []);
});

await t.test("a terminated worker session has its lock again within 300 ms, in another backend", async (t) => {
  const { lock, name, certificate, troubles } = hold(t);
  await certificate.ready;
  await sleep(1000); // A connection counts as steady after a second.
  const [before] = await holders(lock);
  const start = performance.now();
  await sql(target, "select pg_terminate_backend($1)", [before?.pid]);
  const pid = await eventually(async () => (await holders(lock)).find((holder) => holder.pid !== before?.pid)?.pid);
  t.ok(performance.now() - start < 300, `${performance.now() - start} ms`);
  await eventually(() => certificate.held);
  const { rows } = await certificate.query({
    text: "select pg_backend_pid() as pid, current_setting('application_name') as name",
  });
  t.same(rows, [{ pid, name }]);
  t.equal(troubles.length, 1, troubles.join("; "));
});

await t.test("a lock that another backend still holds is taken as soon as it is let go", async (t) => {
  const { lock, certificate } = hold(t);
  await certificate.ready;
  const second = holdCertificate({ config: target, lock });
  t.teardown(() => second.close());
  await eventually(() =>
    second.query({ text: "select 1" }).then(
      () => true,
      () => false,
    ),
  );
  await sleep(100); // Nothing happens.
  t.equal(second.held, false);
  await certificate.close();
  await second.ready;
  t.equal(second.held, true);
});

await t.test("the session's settings bound what a lost worker leaves behind", async (t) => {
  const { certificate } = hold(t);
  await certificate.ready;
  const setting = async (name: string) =>
    (await certificate.query({ text: "select current_setting($1) as value", values: [name] })).rows[0].value;
  await eventually(async () => (await setting("client_connection_check_interval")) === "1s");
  t.equal(await setting("tcp_keepalives_idle"), "10");
  t.equal(await setting("statement_timeout"), "5s");
  t.equal(await setting("idle_in_transaction_session_timeout"), "10s");
});

await t.test("a statement that fails is refused alone, and the lock stays", async (t) => {
  const { lock, certificate, troubles } = hold(t);
  await certificate.ready;
  const [before] = await holders(lock);
  await t.rejects(certificate.query({ text: "select 1 / 0" }), { code: "22012" });
  const named = { name: "beat", text: "select $1::int + 1 as n" };
  const answers = await Promise.all([1, 2, 3, 4].map((n) => certificate.query({ ...named, values: [n] })));
  t.same(
    answers.map(({ rows }) => rows[0].n),
    [2, 3, 4, 5],
  );
  t.equal((await holders(lock))[0]?.pid, before?.pid);
  t.same(troubles, []);
});

await t.test("a query without an answer in 2 s is refused and the connection replaced", async (t) => {
  const between = await proxy(t);
  const { lock, certificate } = hold(t, between.port);
  await certificate.ready;
  between.freeze();
  const start = performance.now();
  await t.rejects(certificate.query({ text: "select 1" }), /no answer within 2000 ms/);
  t.ok(performance.now() - start < 2300);
  t.equal(certificate.held, false);
  await eventually(() =>
    certificate.query({ text: "select 1" }).then(
      () => true,
      () => false,
    ),
  );
  t.equal(certificate.held, false, "the lost backend has the lock until the server finds its client gone");
  between.cut();
  await eventually(async () => certificate.held || (await holders(lock)).length === 0);
});

await t.test("a server away for a while gets its lock back, and queries meanwhile are refused at once", async (t) => {
  const between = await proxy(t);
  const { lock, certificate, troubles } = hold(t, between.port);
  await certificate.ready;
  between.mode = "refuse";
  between.cut();
  await eventually(() => !certificate.held);
  const start = performance.now();
  await t.rejects(certificate.query({ text: "select 1" }));
  t.ok(performance.now() - start < 50);
  await sleep(1500); // Nothing can happen: the outage.
  between.mode = "pass";
  await eventually(() => certificate.held, 1200);
  t.equal((await holders(lock)).length, 1);
  t.equal(troubles.length, 1, troubles.join("; "));
});

await t.test("a blocked event loop does not cost the lock", async (t) => {
  const { lock, certificate } = hold(t);
  await certificate.ready;
  const [before] = await holders(lock);
  const answer = certificate.query({ text: "select 1 as one" });
  const end = performance.now() + 2500;
  while (performance.now() < end);
  t.same((await answer).rows, [{ one: 1 }]);
  t.equal((await holders(lock))[0]?.pid, before?.pid);
});

await t.test("closing leaves no backend, at whatever moment", async (t) => {
  for (const moment of [0, 1, 2, 4, 8, 16, 32]) {
    const { name, certificate } = hold(t);
    await sleep(moment);
    await certificate.close();
    await certificate.ready;
    await eventually(
      async () => (await sql(target, "select from pg_stat_activity where application_name = $1", [name])).length === 0,
    );
  }
});
