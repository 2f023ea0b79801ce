/** What the LISTEN connection promises through every kind of outage. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import t, { type Test } from "tap";
import { type ListenerOptions, openListener } from "../../lib/db/listener.ts";
import { sql, startCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { FaultyProxy } from "../support/proxy.ts";

const target = await startCluster(t);
let listeners = 0;

function backends(name: string): Promise<{ pid: number }[]> {
  return sql(target, "select pid from pg_stat_activity where application_name = $1", [name]);
}

function terminate(name: string): Promise<unknown> {
  return sql(target, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", [name]);
}

async function listen(t: Test, options: Partial<ListenerOptions> & { port?: number } = {}) {
  const name = `listener ${++listeners}`;
  const channel = `perdure_test_${listeners}`;
  const heard: string[] = [];
  const troubles: string[] = [];
  const seen = { looks: 0 };
  const { port = target.port, ...rest } = options;
  const listener = openListener({
    config: { ...target, port, application_name: name },
    channel,
    onHint: (payload) => heard.push(payload),
    onLook: () => seen.looks++,
    onTrouble: (message, error) => troubles.push(`${message}: ${error}`),
    ...rest,
  });
  t.teardown(() => listener.close());
  const notify = (payload: string) => sql(target, "select pg_notify($1, $2)", [channel, payload]);
  /** Sends until one arrives: how long the listener stays deaf. */
  const deafMs = async () => {
    const start = performance.now();
    heard.length = 0;
    await eventually(async () => {
      await notify("w");
      return heard.length;
    }, 15_000);
    return performance.now() - start;
  };
  return { name, channel, heard, troubles, seen, listener, notify, deafMs };
}

async function proxy(t: Test): Promise<FaultyProxy> {
  const proxy = await FaultyProxy.open(target);
  t.teardown(() => proxy.close());
  return proxy;
}

await t.test("a hint arrives as it was sent, an empty one too, and a canary is none", async (t) => {
  const { listener, heard, notify, seen, troubles } = await listen(t);
  await listener.ready;
  t.equal(listener.listening, true);
  t.equal(seen.looks, 1, "whoever waits looks after the LISTEN");
  for (const payload of ["w", "~0123", "", "cd"]) await notify(payload);
  await eventually(() => heard.length === 3);
  t.same(heard, ["w", "", "cd"]);
  t.same(troubles, []);
});

await t.test("a terminated listener hears again, looks again and tells one trouble", async (t) => {
  const { name, listener, seen, troubles, deafMs } = await listen(t);
  await listener.ready;
  await sleep(1000); // A connection counts as steady after a second.
  await terminate(name);
  await eventually(() => !listener.listening);
  t.ok((await deafMs()) < 1000);
  t.equal(seen.looks, 2);
  t.equal(listener.listening, true);
  t.equal(troubles.length, 1, troubles.join("; "));
  t.equal((await backends(name)).length, 1, "the old connection is gone");
});

await t.test("a server away for 4 s is heard from within 1 s of its return", async (t) => {
  const between = await proxy(t);
  const { listener, deafMs, seen, troubles } = await listen(t, { port: between.port });
  await listener.ready;
  between.mode = "refuse";
  between.cut();
  await sleep(4000); // Nothing can happen: the outage.
  t.equal(listener.listening, false);
  t.ok(between.accepted < 60, `${between.accepted} attempts`);
  between.mode = "pass";
  const deaf = await deafMs();
  t.ok(deaf < 1000, `deaf for ${deaf} ms`);
  t.equal(seen.looks, 2);
  t.equal(troubles.length, 1, troubles.join("; "));
});

await t.test("a server that is away at the start is found when it comes", async (t) => {
  const between = await proxy(t);
  between.mode = "refuse";
  const { listener, seen } = await listen(t, { port: between.port });
  await eventually(() => between.accepted > 2);
  t.equal(seen.looks, 0);
  between.mode = "pass";
  await listener.ready;
  t.equal(listener.listening, true);
});

await t.test("a socket that is dead without a word is replaced within heartbeat and deadline", async (t) => {
  const between = await proxy(t);
  const { listener, deafMs, seen } = await listen(t, { port: between.port, heartbeatMs: 300, deadlineMs: 200 });
  await listener.ready;
  between.freeze();
  const deaf = await deafMs();
  t.ok(deaf < 300 + 200 + 400, `deaf for ${deaf} ms`);
  t.equal(seen.looks, 2);
  t.equal(listener.listening, true);
});

await t.test("a network that swallows every connection is outlasted", async (t) => {
  const between = await proxy(t);
  const { listener, deafMs } = await listen(t, { port: between.port, heartbeatMs: 200, deadlineMs: 100 });
  await listener.ready;
  between.mode = "half-open";
  between.freeze();
  await eventually(() => !listener.listening);
  await eventually(() => between.accepted > 4);
  between.mode = "pass";
  t.ok((await deafMs()) < 3000);
});

await t.test(
  "a heartbeat that finds all well changes nothing, and puts nothing into the notification queue",
  async (t) => {
    const { name, listener, seen, heard, troubles } = await listen(t, { heartbeatMs: 20 });
    await listener.ready;
    const [before] = await backends(name);
    await sleep(500); // Nothing happens.
    const [after] = await sql(target, "select pid, query from pg_stat_activity where application_name = $1", [name]);
    t.equal(after.pid, before?.pid);
    t.match(after.query, /^(UN)?LISTEN perdure_test_\d+_beat$/);
    t.equal(seen.looks, 1);
    t.same([heard, troubles], [[], []]);
  },
);

await t.test(
  "where LISTEN is accepted and nothing arrives, listening is false and the logger is told once",
  async (t) => {
    const between = await proxy(t);
    between.pooling = true;
    const { listener, troubles, name } = await listen(t, { port: between.port, heartbeatMs: 50, deadlineMs: 1000 });
    await listener.ready;
    t.equal(listener.listening, false);
    t.equal(troubles.length, 1);
    t.match(troubles[0], /pooler/);
    await sleep(300); // Nothing more happens.
    t.equal(troubles.length, 1);
    t.equal((await backends(name)).length, 1, "the session stays, without the self-test's connection");
  },
);

await t.test("20,000 junk notifications do no harm", async (t) => {
  const { listener, channel, heard, troubles, notify, name } = await listen(t);
  await listener.ready;
  const [before] = await backends(name);
  await sql(target, "select pg_notify($1, 'junk ' || repeat('x', 500) || n) from generate_series(1, 20000) n", [
    channel,
  ]);
  await notify("w");
  await eventually(() => heard.at(-1) === "w", 10_000);
  t.equal(heard.length, 20_001);
  t.same(troubles, []);
  t.equal((await backends(name))[0]?.pid, before?.pid);
});

await t.test("a callback that throws is told once and costs no hint", async (t) => {
  const told: string[] = [];
  let calls = 0;
  const onHint = () => {
    calls++;
    throw new Error("mine");
  };
  const { listener, notify, seen } = await listen(t, { onHint, onTrouble: (message) => told.push(message) });
  await listener.ready;
  for (const payload of ["w", "d", "c"]) await notify(payload);
  await eventually(() => calls === 3);
  t.same(told, ["onHint or onLook has thrown; this is told once"]);
  t.equal(seen.looks, 1);
});

await t.test("a blocked event loop does not cost the connection", async (t) => {
  const { listener, name, seen } = await listen(t, { heartbeatMs: 20, deadlineMs: 100 });
  await listener.ready;
  const [before] = await backends(name);
  for (let block = 0; block < 5; block++) {
    const end = performance.now() + 300;
    while (performance.now() < end);
    await sleep(15);
  }
  t.equal((await backends(name))[0]?.pid, before?.pid);
  t.equal(seen.looks, 1);
});

await t.test("closing leaves no backend, at whatever moment of a life", async (t) => {
  for (const moment of [0, 1, 2, 4, 8, 16, 32]) {
    const { listener, name } = await listen(t);
    await sleep(moment);
    await listener.close();
    await listener.ready;
    t.equal(listener.listening, false);
    await eventually(async () => (await backends(name)).length === 0);
  }
});

await t.test("closing while it reconnects leaves no backend", async (t) => {
  for (const moment of [0, 20, 40, 60]) {
    const { listener, name } = await listen(t);
    await listener.ready;
    await terminate(name);
    await sleep(moment);
    await listener.close();
    await sleep(100); // Nothing comes back.
    t.same(await backends(name), []);
  }
});

await t.test("a process that closes during an outage exits by itself and leaves no backend", async (t) => {
  const child = new URL("../support/close-during-outage.js", import.meta.url);
  for (const mode of ["refuse", "half-open", "pass"] as const) {
    const between = await proxy(t);
    between.mode = mode;
    const started = fork(child, [String(between.port), "300"]);
    const exit = once(started, "exit", { signal: AbortSignal.timeout(10_000) });
    await once(started, "message");
    const closedAt = performance.now();
    const [code] = await exit;
    t.equal(code, 0);
    t.ok(performance.now() - closedAt < 500, `${mode}: ${performance.now() - closedAt} ms from closed to exit`);
    await eventually(async () => (await backends("outage child")).length === 0);
  }
});

await t.test("a canary goes through the session when nothing was heard for long; hints stand in for it", async (t) => {
  const { name, listener, seen, heard, troubles, notify } = await listen(t, { heartbeatMs: 100, canaryMs: 500 });
  await listener.ready;
  const lastQuery = async () =>
    (await sql(target, "select query from pg_stat_activity where application_name = $1", [name]))[0]?.query;
  const canaries = new Set<string>();
  const watch = async (ms: number, meanwhile: () => Promise<unknown>) => {
    for (const end = performance.now() + ms; performance.now() < end; await meanwhile())
      canaries.add(await lastQuery());
    const sent = [...canaries].filter((query) => query.startsWith("NOTIFY"));
    canaries.clear();
    return sent.length;
  };
  t.equal(await watch(1000, () => notify("w")), 0);
  heard.length = 0;
  const sent = await watch(2000, () => sleep(1));
  t.ok(sent >= 1 && sent <= 4, `${sent} canaries seen`);
  t.same([seen.looks, heard, troubles], [1, [], []]);
});

await t.test("a session that answers but does not deliver is replaced, and is not called listening", async (t) => {
  const between = await proxy(t);
  const timing = { heartbeatMs: 20, deadlineMs: 100, canaryMs: 100 };
  const { listener, seen, deafMs } = await listen(t, { port: between.port, ...timing });
  await listener.ready;
  between.muted = true;
  await eventually(() => seen.looks === 2);
  t.equal(listener.listening, false);
  between.muted = false;
  await eventually(() => listener.listening);
  t.ok((await deafMs()) < 100);
});
