/** The slots of a process: what finds none free is taken up when one is. */
import { test } from "tap";
import { event, start, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS } from "../support/gate.ts";

/** Behind a few polls, which come every three seconds. */
const ROUNDS = 10;
const SLOW_MS = 10_000;

test("a run that finds no slot free is taken up as soon as one is, and not at the next poll", async (t) => {
  const short = workflow("short", async (_n: number) => {});
  const { perdure } = await bench(t, { workflows: [short], worker: { concurrency: 1 } });
  const begun = performance.now();
  for (let round = 0; round < ROUNDS; round += 1) {
    const runs = await Promise.all([1, 2, 3].map((n) => perdure.start(short, n)));
    await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })));
  }
  t.ok(performance.now() - begun < SLOW_MS, `${Math.round(performance.now() - begun)} ms`);
});

test("children beyond the free slots are taken up as soon as one is free, and not at the next poll", async (t) => {
  const short = workflow("short", async (_n: number) => {});
  const parent = workflow("parent", async () => {
    const children = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => start(short, n)));
    await Promise.all(children.map((child) => child.result()));
  });
  const { perdure } = await bench(t, { workflows: [parent, short], worker: { concurrency: 4 } });
  const begun = performance.now();
  for (let round = 0; round < ROUNDS; round += 1) {
    await (await perdure.start(parent)).result({ timeout: PATIENCE_MS });
  }
  t.ok(performance.now() - begun < SLOW_MS, `${Math.round(performance.now() - begun)} ms`);
});

test("never more runs are in work than there are slots, and those that wait for something take none", async (t) => {
  const let_go = gate();
  let [now, most] = [0, 0];
  const busy = step("busy", async (_n: number) => {
    now += 1;
    most = Math.max(most, now);
    await let_go.opened;
    now -= 1;
  });
  const go = event("go");
  const working = workflow("working", async (n: number) => busy(n));
  const waiting = workflow("waiting", async (_n: number) => void (await go.wait()));
  const { perdure, sql } = await bench(t, { workflows: [working, waiting], worker: { concurrency: 3 } });
  const idle = await Promise.all(Array.from({ length: 20 }, (_, n) => perdure.start(waiting, n)));
  await eventually(async () => (await sql("select from :SCHEMA.run where state = 'suspended'")).length === 20);
  const runs = await Promise.all(Array.from({ length: 12 }, (_, n) => perdure.start(working, n)));
  await eventually(() => now === 3);
  const running = () => sql("select from :SCHEMA.run where state = 'running'");
  t.equal((await running()).length, 3);
  let_go.open();
  await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })));
  t.equal(most, 3);
  await Promise.all(idle.map((run) => run.send(go, null)));
  await Promise.all(idle.map((run) => run.result({ timeout: PATIENCE_MS })));
});

test("a process whose slots are all in use goes on leasing runs at birth as they become free", async (t) => {
  const short = workflow("short", async (_n: number) => {});
  const { perdure, sql } = await bench(t, { workflows: [short], worker: { concurrency: 100 } });
  const inTurn = async (lane: number): Promise<void> => {
    for (let n = 0; n < 10; n += 1) await (await perdure.start(short, lane * 100 + n)).result({ timeout: PATIENCE_MS });
  };
  // More than there are slots once, so that claims are made; then as many.
  await Promise.all(Array.from({ length: 150 }, (_, lane) => inTurn(lane)));
  const [{ key }] = await sql("select max(key) as key from :SCHEMA.run");
  await Promise.all(Array.from({ length: 100 }, (_, lane) => inTurn(200 + lane)));
  const [born] = await sql("select count(*)::int as n from :SCHEMA.run where key > $1 and started_at = created_at", [
    key,
  ]);
  t.ok(born.n > 500, `${born.n} of 1,000`);
});

test("a process that has just been launched is told of work by others, and does not find it by the next poll", async (t) => {
  const short = workflow("short", async (_n: number) => {});
  const { perdure, another } = await bench(t, { worker: false });
  const waited: number[] = [];
  for (let round = 0; round < 6; round += 1) {
    const worker = await another({ worker: {}, workflows: [short] });
    const begun = performance.now();
    await (await perdure.start(short, round)).result({ timeout: PATIENCE_MS });
    waited.push(performance.now() - begun);
    await worker.shutdown();
  }
  t.ok(Math.max(...waited) < 2000, waited.map(Math.round).join(", "));
});

test("while it looks for work a process with free slots still wants to hear of it", async (t) => {
  const short = workflow("short", async (_n: number) => {});
  const { perdure, sql } = await bench(t, { workflows: [short], worker: { concurrency: 3 } });
  await sql("create table :SCHEMA.sated (at timestamptz)");
  await sql(`create function :SCHEMA.sate() returns trigger language plpgsql as $$
    begin insert into :SCHEMA.sated values (now()); return new; end $$`);
  await sql(`create trigger sate after update of hungry on :SCHEMA.worker
    for each row when (not new.hungry) execute function :SCHEMA.sate()`);
  for (let round = 0; round < ROUNDS; round += 1) {
    // Not leased at birth: the run is claimed, and meanwhile somebody begins to wait for its end.
    await sql(`select :SCHEMA.start_run('short', '[${round}]', id => 'n${round}')`);
    await perdure.get(`n${round}`).result({ timeout: PATIENCE_MS });
  }
  t.same(await sql("select from :SCHEMA.sated"), []);
});
