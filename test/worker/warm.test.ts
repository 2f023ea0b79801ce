/** Warm runs: a suspended run goes on where it is in memory, without a replay; and everything that must hold as if it had been replayed. */
import pg from "pg";
import { test } from "tap";
import {
  currentRun,
  event,
  now,
  type Perdure,
  type RunHandle,
  race,
  random,
  runStep,
  sleep,
  start,
  step,
  uuid,
  value,
  workflow,
} from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS } from "../support/gate.ts";
import { commitsIn, traffic } from "../support/traffic.ts";

const patient = { timeout: "30s" } as const;
const item = event<number>("item");
const other = event<number>("other");
const add = step("add", async (n: number) => n + 1);

/** How often bodies began, by the mark that they were given. */
const begun = new Map<string, number>();
const begins = (mark: string): void => void begun.set(mark, (begun.get(mark) ?? 0) + 1);
const times = (mark: string): number => begun.get(mark) ?? 0;

/** Takes so many items, each through a step. */
const takes = workflow("takes", async (mark: string, count: number) => {
  begins(mark);
  let sum = 0;
  for (let n = 0; n < count; n += 1) {
    const { data } = await item.wait();
    sum += await add(data);
  }
  return sum;
});

const rowOf = async ({ sql }: Bench, id: string): Promise<any> =>
  (await sql("select key, state, epoch, warm::text, warm_no, worker::text from :SCHEMA.run where id = $1", [id]))[0];

/** Waits until a run has been suspended after so many claims. */
async function rests(b: Bench, run: Pick<RunHandle, "id">, epoch: number): Promise<void> {
  await eventually(async () => {
    const row = await rowOf(b, run.id);
    return row.state === "suspended" && row.epoch >= epoch;
  }, PATIENCE_MS);
}

test("a run that waits again and again goes on without a replay", async (t) => {
  const b = await bench(t, { workflows: [takes] });
  const run = await b.perdure.start(takes, "loop", 20);
  for (let n = 0; n < 20; n += 1) {
    await rests(b, run, n + 1);
    await run.send(item, n);
  }
  t.equal(await run.result(patient), 210);
  t.equal(times("loop"), 1);
  const history = await run.history();
  t.equal(history.filter(({ kind }) => kind === "event").length, 20);
});

test("with warm: 0 it is replayed each time", async (t) => {
  const b = await bench(t, { workflows: [takes], worker: { warm: 0 } });
  const run = await b.perdure.start(takes, "cold", 5);
  for (let n = 0; n < 5; n += 1) {
    await rests(b, run, n + 1);
    await run.send(item, n);
  }
  t.equal(await run.result(patient), 15);
  t.equal(times("cold"), 6);
  t.equal((await rowOf(b, run.id)).warm, null);
});

test("a turn of a loop costs two commits: the event with the claim, the outcome with the next wait", async (t) => {
  const counted = traffic(t);
  const listens = workflow("listens", async (count: number) => {
    for (let n = 0; n < count; n += 1) await item.wait();
  });
  const b = await bench(t, { workflows: [listens] });
  const run = await b.perdure.start(listens, 12);
  await rests(b, run, 1);
  counted.take();
  for (let n = 1; n <= 10; n += 1) {
    await run.send(item, n);
    await rests(b, run, n + 1);
  }
  const sent = counted.take().filter((text) => /^commit|_(runs|steps|waits|events)\(/.test(text));
  t.ok(commitsIn(sent) <= 20, `${commitsIn(sent)} commits`);
  t.equal(sent.filter((text) => text.includes(".read_runs(")).length, 0);
  await run.send(item, 11);
  await run.send(item, 12);
  await run.result(patient);
});

test("sleeps, timeouts, races, children and retries go on warm, and come to what a replay comes to", async (t) => {
  const child = workflow("child", async (n: number) => {
    await sleep(20);
    return n * 2;
  });
  let fails = 0;
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 3, delay: 20 } }, async () => {
    fails += 1;
    if (fails < 3) throw new Error("not yet");
    return fails;
  });
  const drawn: unknown[] = [];
  const many = workflow("many", async (mark: string) => {
    begins(mark);
    const woken = (await sleep(20)).woken;
    const late = await item.wait({ timeout: 20 });
    const won = await race({ item, late: 30 });
    const doubled = await child(21);
    const tried = await flaky();
    const handle = await start(child, 4);
    const joined = await handle.result();
    drawn.push([now(), uuid(), random()]);
    await other.wait();
    return { woken, late, won: won.winner, doubled, tried, joined };
  });
  const b = await bench(t, { workflows: [many, child] });
  const run = await b.perdure.start(many, "many");
  await eventually(() => Promise.resolve(drawn.length === 1), PATIENCE_MS);
  await eventually(async () => (await run.status()).waitingFor === "event", PATIENCE_MS);
  t.equal(times("many"), 1);
  // Another process replays it all.
  await b.sql("update :SCHEMA.run set warm = null where id = $1", [run.id]);
  await run.send(other, 1);
  t.same(await run.result(patient), { woken: false, late: null, won: "late", doubled: 42, tried: 3, joined: 8 });
  t.equal(times("many"), 2);
  t.same(drawn[1], drawn[0], "the clock, uuid and random are the same on replay");
});

test("mail that comes while the run is being given up is not missed", async (t) => {
  const b = await bench(t, { workflows: [takes] });
  const runs = await Promise.all(Array.from({ length: 20 }, (_, n) => b.perdure.start(takes, `rush-${n}`, 30)));
  // Sent from all sides, with no regard to where each run is.
  for (let n = 0; n < 30; n += 1) {
    await Promise.all(
      runs.map((run, at) =>
        at % 2 === 0
          ? run.send(item, n)
          : b.sql("select :SCHEMA.send_event($1, 'item', to_json($2::int))", [run.id, n]),
      ),
    );
  }
  for (const run of runs) t.equal(await run.result(patient), 465);
});

test("so many are kept as the option says, and the others are replayed", async (t) => {
  const b = await bench(t, { workflows: [takes], worker: { warm: 10, concurrency: 50 } });
  const runs = await Promise.all(
    Array.from({ length: 60 }, (_, n) => b.perdure.start(takes.with({ id: `kept-${n}` }), `kept-${n}`, 2)),
  );
  for (const run of runs) await rests(b, run, 1);
  const kept = new Set(
    (await b.sql("select id from :SCHEMA.run order by warm_no desc limit 10")).map(({ id }: { id: string }) => id),
  );
  await b.perdure.send([...kept], item, 1);
  for (const run of runs) if (kept.has(run.id)) await rests(b, run, 2);
  for (const id of kept) t.equal(times(id), 1, id);
  const rest = runs.filter(({ id }) => !kept.has(id));
  await b.perdure.send(
    rest.map(({ id }) => id),
    item,
    1,
  );
  for (const run of rest) await rests(b, run, 2);
  for (const { id } of rest) t.equal(times(id), 2, id);
  await b.perdure.send(
    runs.map(({ id }) => id),
    item,
    1,
  );
  for (const run of runs) t.equal(await run.result(patient), 4);
});

test("a run that was dropped between its wake and its claim is read and replayed", async (t) => {
  const b = await bench(t, { workflows: [takes], worker: { warm: 1 } });
  const first = await b.perdure.start(takes, "dropped", 2);
  await rests(b, first, 1);
  const second = await b.perdure.start(takes, "kept", 2);
  await rests(b, second, 1);
  // As if the claim had been put together before the second was suspended.
  await b.sql("update :SCHEMA.run set warm_no = 1000 where id = $1", [first.id]);
  await first.send(item, 1);
  await first.send(item, 2);
  t.equal(await first.result(patient), 5);
  t.ok(times("dropped") > 1);
  await second.send(item, 1);
  await second.send(item, 2);
  t.equal(await second.result(patient), 5);
});

test("a run whose copy here is out of date goes on elsewhere, and the copy writes nothing", async (t) => {
  const b = await bench(t, { workflows: [takes] });
  const run = await b.perdure.start(takes, "moved", 3);
  await rests(b, run, 1);
  // Another process has had it in between: one epoch more, and it is nobody's.
  await b.sql("update :SCHEMA.run set epoch = epoch + 1, warm = null, warm_no = null where id = $1", [run.id]);
  await run.send(item, 1);
  await rests(b, run, 3);
  t.equal(times("moved"), 2);
  // The row names a copy that is not the one in memory.
  await b.sql("update :SCHEMA.run set epoch = epoch + 1 where id = $1", [run.id]);
  await run.send(item, 2);
  await rests(b, run, 5);
  t.equal(times("moved"), 3);
  await run.send(item, 3);
  t.equal(await run.result(patient), 9);
  t.equal(times("moved"), 3);
});

test("two workers: each wake goes to one of them, and no item is lost or taken twice", async (t) => {
  const seen: number[] = [];
  const collects = workflow("collects", async (count: number) => {
    const taken: number[] = [];
    for (let n = 0; n < count; n += 1) taken.push((await item.wait()).data);
    seen.push(taken.length);
    return taken;
  });
  const b = await bench(t, { workflows: [collects] });
  const more = await b.another();
  const outside = await b.another({ worker: false });
  const runs = await Promise.all(Array.from({ length: 10 }, () => b.perdure.start(collects, 40)));
  const senders: Perdure[] = [b.perdure, more, outside];
  for (let n = 0; n < 40; n += 1) {
    await Promise.all(runs.map((run, at) => senders[(n + at) % 3]!.send(run.id, item, n)));
  }
  for (const run of runs)
    t.same(
      await run.result(patient),
      Array.from({ length: 40 }, (_, n) => n),
    );
});

test("a claim leaves a run for a moment to a worker that has it in memory, if that one is alive and has a slot", async (t) => {
  const b = await bench(t, { workflows: [takes] });
  const run = await b.perdure.start(takes, "sticky", 1);
  await rests(b, run, 1);
  const { warm: owner } = await rowOf(b, run.id);
  const client = new pg.Client({ connectionString: b.url });
  await client.connect();
  t.teardown(() => client.end());
  const ask = async (text: string): Promise<any[]> => (await client.query(text.replaceAll(":SCHEMA", b.schema))).rows;
  const claimAfter = async (...before: string[]): Promise<unknown[]> => {
    await ask("begin");
    // In the same transaction, so that the owner cannot take it.
    await ask(
      "update :SCHEMA.run set state = 'pending', ready_at = :SCHEMA.clock() + interval '1 hour', topics = null",
    );
    for (const text of before) await ask(text);
    const rows = await ask("select id, news from :SCHEMA.claim_runs(1, '{takes}', '{1}', '{default}', 10, 0)");
    await ask("rollback");
    return rows.map(({ id }) => id);
  };
  t.same(await claimAfter(), [null], "left, and said so");
  t.same(await claimAfter("update :SCHEMA.worker set hungry = false"), [run.id], "it has no slot");
  t.same(await claimAfter("update :SCHEMA.worker set dead_at = :SCHEMA.clock()"), [run.id], "it was buried");
  t.same(
    await claimAfter("update :SCHEMA.worker set beat_at = beat_at - interval '1 minute'"),
    [run.id],
    "its lease is over",
  );
  t.same(
    await claimAfter("update :SCHEMA.run set ready_at = :SCHEMA.clock() - interval '50 ms'"),
    [run.id],
    "its moment is over",
  );
  // Nobody holds the lock of that id: it has died, and is not buried yet.
  t.same(
    await claimAfter("update :SCHEMA.worker set id = 2", "update :SCHEMA.run set warm = 2"),
    [run.id],
    "it is dead",
  );
  t.same(await claimAfter("update :SCHEMA.run set warm = 1"), [run.id], "it is the one that asks");
  t.same(await claimAfter("update :SCHEMA.run set warm = null"), [run.id], "nobody has it in memory");
  t.equal((await rowOf(b, run.id)).warm, owner);
  await run.send(item, 1);
  t.equal(await run.result(patient), 2);
});

test("a run that another worker has in memory is taken where that one has no slot", async (t) => {
  const held = gate();
  const holds = workflow("holds", async () => runStep("hold", () => held.opened));
  const b = await bench(t, { workflows: [takes, holds], worker: { concurrency: 2 } });
  const run = await b.perdure.start(takes, "taken", 2);
  await rests(b, run, 1);
  const { warm: owner } = await rowOf(b, run.id);
  await Promise.all([b.perdure.start(holds), b.perdure.start(holds)]);
  await eventually(async () => {
    const [{ hungry }] = await b.sql("select hungry from :SCHEMA.worker where id = $1", [owner]);
    return !hungry;
  }, PATIENCE_MS);
  const more = await b.another({ worker: { concurrency: 5 } });
  await more.send(run.id, item, 1);
  await rests(b, run, 2);
  t.not((await rowOf(b, run.id)).warm, owner, "the other has taken it");
  t.equal(times("taken"), 2);
  held.open();
  await more.send(run.id, item, 2);
  t.equal(await run.result(patient), 5);
});

test("a run goes on elsewhere when the worker that has it in memory shuts down", async (t) => {
  const b = await bench(t, { workflows: [takes] });
  const run = await b.perdure.start(takes.with({ id: "left" }), "left", 2);
  await rests(b, run, 1);
  const more = await b.another();
  await b.perdure.shutdown();
  await more.send("left", item, 1);
  await more.send("left", item, 2);
  t.equal(await more.get("left").result(patient), 5);
  t.equal(times("left"), 2);
});

test("cancel, pause, resume, wake and fork do to a warm run what they do to a cold one", async (t) => {
  const naps = workflow("naps", async (mark: string) => {
    begins(mark);
    const first = await runStep("first", () => 1);
    const { woken } = await sleep("1h");
    const { data } = await item.wait();
    return { first, woken, data };
  });
  const b = await bench(t, { workflows: [naps] });
  const run = await b.perdure.start(naps, "napping");
  await rests(b, run, 1);
  await run.pause();
  await run.send(item, 7);
  await run.resume();
  await rests(b, run, 2);
  await run.wake();
  t.same(await run.result(patient), { first: 1, woken: true, data: 7 });
  t.equal(times("napping"), 1);

  const cancelled = await b.perdure.start(naps, "cancelled");
  await rests(b, cancelled, 1);
  const fork = await cancelled.fork({ from: "first" });
  await cancelled.cancel("enough");
  t.equal((await cancelled.status()).state, "cancelled");
  await rests(b, fork, 2);
  await fork.wake();
  await fork.send(item, 8);
  t.same(await fork.result(patient), { first: 1, woken: true, data: 8 });
  t.equal((await cancelled.status()).state, "cancelled");
});

test("the time of a workflow runs out while it is warm", async (t) => {
  const waits = workflow({ name: "waits", timeout: 150 }, async () => item.wait());
  const b = await bench(t, { workflows: [waits] });
  const run = await b.perdure.start(waits);
  const error: any = await run.result(patient).catch((thrown) => thrown);
  t.equal(error.cause?.name, "TimeoutError");
});

test("a body that goes on by itself while it is warm, goes on, and once", async (t) => {
  const own = gate();
  const mixes = workflow("mixes", async (mark: string) => {
    begins(mark);
    const mail = item.wait();
    await own.opened;
    const sum = await add(1);
    return sum + (await mail).data;
  });
  const b = await bench(t, { workflows: [mixes] });
  const run = await b.perdure.start(mixes, "mixes");
  await rests(b, run, 1);
  own.open();
  await eventually(async () => (await b.sql("select from :SCHEMA.checkpoint")).length === 1, PATIENCE_MS);
  await run.send(item, 5);
  t.equal(await run.result(patient), 7);
  t.equal(times("mixes"), 1);
});

test("a warm run is the same execution: context, log, signal, and what the body holds", async (t) => {
  const lines: string[] = [];
  let made = 0;
  const held = value<number>("held");
  const says = workflow("says", async () => {
    const { log, context, attempt } = currentRun<{ n: number }>();
    const list = [context.n];
    for (let n = 0; n < 3; n += 1) {
      log.info(`turn ${n}`);
      list.push((await item.wait()).data);
      await held.set(n);
    }
    return [...list, currentRun<{ n: number }>().context.n, attempt];
  });
  const logger = {
    debug: () => {},
    info: (line: string) => void (line.includes("turn") && lines.push(line)),
    warn: () => {},
    error: () => {},
  };
  const context = (): { n: number } => {
    made += 1;
    return { n: made };
  };
  const b = await bench(t, { workflows: [says], context, logger });
  const run = await b.perdure.start(says.with({ id: "says" }));
  for (let n = 0; n < 3; n += 1) {
    await rests(b, run, n + 1);
    await run.send(item, n * 10);
  }
  t.same(await run.result(patient), [1, 0, 10, 20, 1, 1]);
  t.equal(made, 1);
  t.same(
    lines.map((line) => line.replace(/^.*turn/, "turn")),
    ["turn 0", "turn 1", "turn 2"],
  );
  t.equal(await run.get(held), 2);
});
