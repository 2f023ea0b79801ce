/** The flusher under pressure: whose turn it is, what it holds, rows that the database refuses. On a real server. */
import { type Test, test } from "tap";
import { ValueCodec } from "../../lib/core/codec.ts";
import { StoredCodec } from "../../lib/core/stored.ts";
import type { Item } from "../../lib/db/batch.ts";
import { connectClient } from "../../lib/db/connect.ts";
import { Flusher } from "../../lib/db/flusher.ts";
import { Queue } from "../../lib/db/queue.ts";
import { toStartRow } from "../../lib/db/start-row.ts";
import { internalsOf } from "../../lib/define/workflow.ts";
import { event, Perdure, start, step, workflow } from "../../lib/index.ts";
import { bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, reaches, rejection } from "../support/gate.ts";
import { FaultyProxy } from "../support/proxy.ts";

const ROOM = { rows: 10, lanes: 100, bytes: 1000 };
const TEN = { ...ROOM, bytes: 1e6 };

function item(kind: Item["kind"], lane: string | null, value = ""): Item {
  const row = kind === "start" ? { run: null, args: value } : { value };
  return { kind, lane, row, since: 0, told: { onAside: () => {}, resolve: () => {}, reject: () => {} } };
}
const lanes = (items: readonly Item[]): (string | null)[] => items.map(({ lane }) => lane);
const times = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));

test("in a full batch runs take turns, half of it is for what comes from outside, and each keeps its own order", (t) => {
  const queue = new Queue();
  for (const i of times(100, (n) => n)) queue.push(item("record", "a", `a${i}`));
  for (const i of times(100, (n) => n)) queue.push(item("start", `id:${i}`));
  queue.push(item("record", "b", "b0"));
  queue.push(item("claim", null));
  const first = queue.take(TEN);
  t.strictSame(lanes(first), [null, "a", "b", "a", "a", "a", "id:0", "id:1", "id:2", "id:3"]);
  const second = queue.take(TEN);
  t.strictSame(lanes(second), [...times(5, (i) => `id:${i + 4}`), ...times(5, () => "a")]);
  const values = [...first, ...second].filter(({ lane }) => lane === "a").map(({ row }) => (row as any).value);
  t.strictSame(
    values,
    times(9, (i) => `a${i}`),
  );
  const all = [...first, ...second];
  while (queue.size > 0) all.push(...queue.take(TEN));
  t.equal(all.length, 202);
  t.equal(new Set(all).size, 202, "each once");
  t.equal(queue.outsideBytes, 0);
  t.end();
});

test("a batch is of so many runs at most, with all that they have written; what comes from outside is not always last", (t) => {
  const queue = new Queue();
  for (const kind of ["record", "finish"] as const) for (const i of times(6, (n) => n)) queue.push(item(kind, `r${i}`));
  for (const i of times(6, (n) => n)) queue.push(item("start", `id:${i}`));
  const few = { rows: 100, lanes: 4, bytes: 1e6 };
  t.strictSame(lanes(queue.take(few)), ["r0", "r1", "r0", "r1", "id:0", "id:1"]);
  t.strictSame(lanes(queue.take(few)), ["id:2", "id:3", "r2", "r3", "r2", "r3"]);
  t.strictSame(lanes(queue.take(few)), ["r4", "r5", "r4", "r5", "id:4", "id:5"]);
  t.equal(queue.size, 0);
  t.end();
});

test("what one side leaves of a batch the other takes; one of a single row goes to each in turn", (t) => {
  const queue = new Queue();
  for (const i of times(30, (n) => n)) queue.push(item("record", `r${i}`));
  queue.push(item("start", "id:0"));
  t.strictSame(
    lanes(queue.take(ROOM)),
    [...times(5, (i) => `r${i}`), "id:0", ...times(4, (i) => `r${i + 5}`)].slice(0, 10),
  );
  for (const i of times(3, (n) => n)) queue.push(item("start", `id:${i + 1}`));
  const one = { ...TEN, rows: 1 };
  t.strictSame(lanes(times(4, () => queue.take(one)[0]!)), ["id:1", "r9", "id:2", "r10"]);
  const big = new Queue();
  for (const lane of ["a", "a", "b"]) big.push(item("record", lane, "x".repeat(800)));
  t.strictSame(lanes(big.take(ROOM)), ["a", "b"], "and no more bytes than fit, but for the last row");
  t.end();
});

/** A flusher by itself, and starts to write with it: what is given is called whenever the start leaves. */
async function writer(t: Test) {
  const { url, schema } = await bench(t, { worker: false });
  const config = { connectionString: url, pipeline: true };
  const flusher = new Flusher({
    schema,
    worker: "1",
    lanes: { workflows: [], versions: [], queues: [] },
    connect: () => connectClient(config as object),
    beside: () => Promise.reject(new Error("nothing is held")),
    hintTurn: () => null,
    onNews: () => {},
    onTrouble: () => {},
    onLostAnswer: () => {},
    named: true,
    gathers: true,
    follows: true,
  });
  t.teardown(() => flusher.close(1000));
  const definition = internalsOf(workflow("w", async () => {}))!.definition;
  const codec = new StoredCodec(new ValueCodec());
  const start = (leaves: () => void): Promise<unknown> => {
    const lease = (): boolean => {
      leaves();
      return false;
    };
    return flusher.write("start", { ...toStartRow(definition, {}, [], codec), lease });
  };
  return { flusher, start };
}

test("what has gathered leaves before the answers of the batch before it are told, but not what hands back runs that nobody here knows of", async (t) => {
  const writing = await writer(t);
  const { flusher } = writing;
  /** What happens, in its order: a start that leaves, its answer, the question which runs are known here. */
  const seen: string[] = [];
  const start = async (name: string, leaves = (): void => {}): Promise<void> => {
    await writing.start(() => {
      seen.push(`${name} leaves`);
      leaves();
    });
    seen.push(`${name} told`);
  };
  const crowd = async (also: () => Promise<unknown>[]): Promise<string[]> => {
    const behind: Promise<unknown>[] = [];
    const first = start("first", () =>
      queueMicrotask(() => behind.push(...also(), ...times(40, () => start("second")))),
    );
    await first;
    await Promise.all(behind);
    return [...new Set(seen.splice(0))];
  };
  await crowd(() => []); // the connection is open
  t.strictSame(await crowd(() => []), ["first leaves", "second leaves", "first told", "second told"]);
  const handBack = (): Promise<unknown>[] => [
    flusher.write("handBack", {
      keep: () => {
        seen.push("asked");
        return [];
      },
    }),
  ];
  const order = await crowd(handBack);
  t.ok(order.indexOf("first told") < order.indexOf("asked"), order.join(", "));
});

test("of many that write on when they are told half waits, and the halves take turns", async (t) => {
  const { start } = await writer(t);
  const batches: number[] = [0];
  const leaves = (): void => {
    if (batches.at(-1) === 0) queueMicrotask(() => batches.push(0));
    batches[batches.length - 1]! += 1;
  };
  await start(() => {}); // the connection is open
  const one = async (): Promise<void> => {
    for (let n = 0; n < 10; n += 1) await start(leaves);
  };
  await Promise.all(times(100, one));
  batches.pop();
  t.equal(
    batches.reduce((sum, size) => sum + size),
    1000,
  );
  t.ok(Math.max(...batches) <= 50, batches.join(", "));
});

/** A run that takes two steps once it is told to. */
function narrow(go: Promise<void>) {
  const little = step("little", async () => 1);
  return workflow("narrow", async () => {
    await go;
    return (await little()) + (await little());
  });
}
const idle = workflow({ name: "idle", queue: "elsewhere" }, async () => {});

test("ten thousand starts from outside hold up a run's steps by no more than a batch each", async (t) => {
  const MANY = 10_000;
  const go = gate();
  const w = narrow(go.opened);
  const { perdure, sql } = await bench(t, { workflows: [w, idle], worker: { queues: ["default"] } });
  const run = await perdure.start(w);
  await eventually(async () => (await run.status()).state === "running");
  const others = times(MANY, () => perdure.start(idle));
  go.open();
  t.equal(await run.result(), 2);
  const [{ count }] = await sql("select count(*)::integer as count from :SCHEMA.run");
  t.ok(count < MANY, `${count} of ${MANY} were made before it`);
  await Promise.all(others);
});

test("a run that starts thousands of children at once holds up another by no more than a batch each", async (t) => {
  const MANY = 5000;
  const go = gate();
  const w = narrow(go.opened);
  const wide = workflow("wide", async () => {
    go.open();
    await Promise.all(times(MANY, (n) => start(idle.with({ id: `child-${n}` }))));
  });
  const { perdure, sql } = await bench(t, { workflows: [w, wide, idle], worker: { queues: ["default"] } });
  const run = await perdure.start(w);
  await eventually(async () => (await run.status()).state === "running");
  const parent = await perdure.start(wide);
  t.equal(await run.result(), 2);
  const [{ count }] = await sql("select count(*)::integer as count from :SCHEMA.run where parent is not null");
  t.ok(count < MANY, `${count} of ${MANY} were started before it`);
  await parent.result();
});

/** A user's own trigger, which the database obeys: a checkpoint of this step is refused in such a way. */
const refusing = (how: string): string => `
  create table if not exists :SCHEMA.refusing (name text); create sequence if not exists :SCHEMA.refusals;
  create or replace function :SCHEMA.refuse() returns trigger language plpgsql as $$ begin
    if exists (select from :SCHEMA.refusing r where r.name = new.name) then perform nextval(':SCHEMA.refusals'); ${how} end if;
    return new;
  end $$;
  create or replace trigger refuse before insert on :SCHEMA.checkpoint for each row execute function :SCHEMA.refuse()`;

test("a row that the database refuses fails alone, in as many more commits as halving takes, and its neighbours arrive", async (t) => {
  const MANY = 400;
  const all = gate();
  let waiting = 0;
  const meet = async (): Promise<number> => {
    waiting += 1;
    await all.opened;
    return waiting;
  };
  const good = step("good", meet);
  const bad = step("bad", meet);
  const w = workflow("w", (n: number) => (n === 77 ? bad() : good()));
  const world = await bench(t, { workflows: [w], worker: { concurrency: MANY } });
  const { perdure } = world;
  await world.sql(refusing("raise exception 'a trigger says no';"));
  await world.sql("insert into :SCHEMA.refusing values ('bad')");
  const runs = await Promise.all(times(MANY, (n) => perdure.start(w, n)));
  await eventually(() => waiting === MANY, 60_000);
  all.open();
  await Promise.all(runs.filter((_, n) => n !== 77).map((run) => run.result()));
  await reaches(runs[77]!, "blocked");
  t.match((await runs[77]!.status()).reason, /a trigger says no/);
  t.strictSame(
    await world.sql("select from :SCHEMA.outcome where run = (select key from :SCHEMA.run where id = $1)", [
      runs[77]!.id,
    ]),
    [],
    "its finish fell with it",
  );
  await world.sql("delete from :SCHEMA.refusing");
  await runs[77]!.retry();
  await runs[77]!.result();
  const [{ last_value: refusals }] = await world.sql("select last_value::integer from :SCHEMA.refusals");
  t.ok(refusals <= 2 + Math.ceil(Math.log2(MANY * 2)), `refused ${refusals} times`);
});

test("while the server's disk is full runs wait, and go on when it is not", async (t) => {
  const fill = step("fill", async () => 1);
  const w = workflow("w", async () => fill());
  const world = await bench(t, { workflows: [w] });
  await world.sql(refusing("raise exception 'no space left on device' using errcode = 'disk_full';"));
  await world.sql("insert into :SCHEMA.refusing values ('fill')");
  const run = await world.perdure.start(w);
  await eventually(async () => (await world.sql("select last_value::integer as n from :SCHEMA.refusals"))[0].n > 2);
  t.equal((await run.status()).state, "running");
  await world.sql("delete from :SCHEMA.refusing");
  t.equal(await run.result(), 1);
});

test("a batch that takes longer than a statement may is written in parts", async (t) => {
  const MANY = 64;
  const all = gate();
  let waiting = 0;
  const slow = step("slow", async () => {
    waiting += 1;
    await all.opened;
  });
  const w = workflow("w", async (_n: number) => slow());
  const world = await bench(t, { workflows: [w], worker: { concurrency: MANY } });
  const url = new URL(world.url);
  url.searchParams.set("options", "-c statement_timeout=500");
  await world.sql(refusing("perform pg_sleep(0.02);"));
  await world.perdure.shutdown();
  const hasty = await world.another({ database: url.href });
  await world.sql("insert into :SCHEMA.refusing values ('slow')");
  const runs = await Promise.all(times(MANY, (n) => hasty.start(w, n)));
  await eventually(() => waiting === MANY, 60_000);
  all.open();
  await Promise.all(runs.map((run) => run.result()));
  t.equal((await world.sql("select from :SCHEMA.checkpoint")).length, MANY);
});

/** An engine whose way to the server can be stopped. */
async function behindProxy(t: Parameters<typeof bench>[0], workflows: any[]) {
  const world = await bench(t, { workflows, worker: false });
  const { hostname: host, port } = new URL(world.url);
  const proxy = await FaultyProxy.open({ host, port: Number(port || 5432) });
  const database = Object.assign(new URL(world.url), { host: `127.0.0.1:${proxy.port}` }).href;
  const logger = collector();
  const perdure = new Perdure({ database, schema: world.schema, workflows, logger, worker: { concurrency: 20 } });
  t.teardown(async () => {
    await perdure.shutdown({ timeout: "1s" });
    await proxy.close();
  });
  await perdure.launch();
  return { ...world, perdure, proxy, logger };
}

test("while the database is silent each run has one result in memory, however many steps are to come", async (t) => {
  let began = 0;
  const large = step("large", async (_n: number) => {
    began += 1;
    return "x".repeat(1_000_000);
  });
  const go = gate();
  const w = workflow("w", async () => {
    await go.opened;
    for (let n = 0; n < 5; n += 1) await large(n);
  });
  const { perdure, proxy } = await behindProxy(t, [w]);
  const runs = await Promise.all(times(20, () => perdure.start(w)));
  await eventually(async () =>
    (await Promise.all(runs.map((run) => run.status()))).every(({ state }) => state === "running"),
  );
  proxy.freeze();
  go.open();
  await eventually(() => began === 20);
  await new Promise((resolve) => setTimeout(resolve, 200));
  t.equal(began, 20, "no run begins its second step");
  // The connections of before are dead: it finds out, and goes on over new ones.
  proxy.cut();
  await Promise.all(runs.map((run) => run.result()));
  t.equal(began, 100);
});

test("starts and sends are refused once those that wait take too much memory; what was taken arrives", async (t) => {
  const news = event<string>("news");
  const w = workflow("w", async () => news.wait());
  const { perdure, proxy } = await behindProxy(t, [w]);
  const run = await perdure.start(w);
  proxy.freeze();
  const strangers = perdure.send(
    times(300, (n) => `nobody-${n}`),
    news,
    "x".repeat(1_000_000),
  );
  const busy = { code: "PERDURE_BUSY", message: /256 MiB of starts and events wait to be written/ };
  t.match(await rejection(run.send(news, "too much")), busy);
  t.match(await rejection(perdure.start(w)), busy);
  // The connections of before are dead: it finds out, and goes on over new ones.
  proxy.cut();
  const { sent, failed } = await strangers;
  t.strictSame(sent, []);
  const codes = failed.map(({ error }) => error.code);
  const first = codes.indexOf("PERDURE_BUSY");
  t.ok(first > 250 && first < 300, `${first} of 300 had room`);
  t.strictSame(new Set(codes.slice(0, first)), new Set(["PERDURE_NOT_FOUND"]));
  t.strictSame(new Set(codes.slice(first)), new Set(["PERDURE_BUSY"]));
  await run.send(news, "in time");
  t.match(await run.result(), { data: "in time" });
});

test("an outcome that is recorded already, by a try whose answer was lost, is taken as recorded", async (t) => {
  const note = step("note", async (n: number) => {
    await b.sql(
      `insert into :SCHEMA.checkpoint
        select r.key, c.slot, c.attempt, c.no, c.kind, c.name, c.outcome, c.value, c.hash, c.tries, r.epoch, c.started_at, c.at
        from :SCHEMA.run r, :SCHEMA.run model join :SCHEMA.checkpoint c on c.run = model.key
        where r.id = 'again' and model.id = 'model' and c.no = $1`,
      [n],
    );
    return n;
  });
  const notes = workflow("notes", async () => (await note(1)) + (await note(2)));
  const b = await bench(t, { workflows: [notes] });
  t.equal(await (await b.perdure.start(notes.with({ id: "model" }))).result(), 3);
  // The first is recorded by itself, the second with the end of its run.
  t.equal(await (await b.perdure.start(notes.with({ id: "again" }))).result(), 3);
  t.equal((await b.sql("select from :SCHEMA.checkpoint")).length, 4);
});
