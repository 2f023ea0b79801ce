/** What a run publishes is written once from its body, at least once from its steps, in order, and by nobody whose claim is over. */
import pg from "pg";
import { type Test, test } from "tap";
import {
  currentStep,
  event,
  type PerdureError,
  type RunHandle,
  type Stream,
  step,
  stream,
  transaction,
  value,
  workflow,
} from "../../lib/index.ts";
import { type Bench, coldBench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";
import { server } from "../support/postgres.ts";
import { FaultyProxy } from "../support/proxy.ts";
import { atGate, loseClaims, gate as waiting } from "../support/replay.ts";

const words = stream<unknown>("words");
const mood = value<unknown>("mood");

async function all<T>(run: RunHandle<any>, from: Stream<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of run.read(from)) items.push(item);
  return items;
}

const rows = ({ sql }: Bench, run: { id: string }): Promise<any[]> =>
  sql(
    "select i.stream, i.pos, i.value -> 'json' as value, i.epoch from :SCHEMA.item i join :SCHEMA.run r on r.key = i.run where r.id = $1 order by 1, 2",
    [run.id],
  );
const values = ({ sql }: Bench, run: { id: string }): Promise<any[]> =>
  sql(
    "select v.name, v.n, v.value -> 'json' as value from :SCHEMA.value v join :SCHEMA.run r on r.key = v.run where r.id = $1 order by 1",
    [run.id],
  );

/** A session that holds a run's row, as a stranger's transaction does, until it is told to let go. */
async function holder(t: Test, { url, schema }: Bench, run: { id: string }): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  t.teardown(() => client.end());
  await client.query(`begin; select from "${schema}".run where id = '${run.id}' for update`);
  return async () => void (await client.query("rollback"));
}

test("a body publishes once, through suspensions, a lost claim and a retry of the whole", async (t) => {
  const go = event("go");
  const passes = { begun: 0, failed: 0 };
  const shaky = step("shaky", async () => {
    passes.failed += 1;
    if (passes.failed === 1) throw new Error("once");
  });
  const body = workflow({ name: "body", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async () => {
    passes.begun += 1;
    await Promise.all([mood.set("early"), value("other").set(1)]);
    await words.write("a");
    await words.write("a");
    await waiting.wait();
    await words.write("b");
    await go.wait();
    await words.write("c");
    await shaky();
    await mood.set("late");
    await words.close();
    return "done";
  });
  const b = await coldBench(t, { workflows: [body], worker: { concurrency: 5 } });
  const run = await b.perdure.start(body);
  await atGate(run);
  t.equal(await run.get(mood), "early", "readable while the run is suspended");
  await run.send(waiting);
  await eventually(async () => (await rows(b, run)).length === 3, PATIENCE_MS);
  await loseClaims(b);
  await run.send(go);
  t.equal(await run.result({ timeout: "30s" }), "done");
  t.ok(passes.begun >= 3, "it began anew");
  t.same(
    (await rows(b, run)).map(({ pos, value: item }) => [pos, item]),
    [
      [0, "a"],
      [1, "a"],
      [2, "b"],
      [3, "c"],
      [4, null],
    ],
  );
  t.same(await values(b, run), [
    { name: "mood", n: 2, value: "late" },
    { name: "other", n: 1, value: 1 },
  ]);
  const kinds = await b.sql(
    "select kind, count(*)::int as n from :SCHEMA.steps where run_id = $1 and kind in ('value', 'stream') group by 1 order by 1",
    [run.id],
  );
  t.same(
    kinds,
    [
      { kind: "stream", n: 5 },
      { kind: "value", n: 3 },
    ],
    "each write has its place in the history",
  );
});

test("a publication that new code puts before what is recorded blocks the run, and nothing is published", async (t) => {
  const work = step("work", async () => 1);
  const make = (chatty: boolean) =>
    workflow("changing", async () => {
      if (chatty) await mood.set("new");
      await work();
      await waiting.wait();
    });
  const old = make(false);
  const b = await coldBench(t, { workflows: [old] });
  const run = await b.perdure.start(old.with({ id: "changing" }));
  await atGate(run);
  await b.perdure.shutdown();
  const next = await b.another({ workflows: [make(true)] });
  await next.send("changing", waiting);
  await reaches(next.get("changing"), "blocked");
  t.match((await next.get("changing").status()).reason, /"value:mood#0", which is new/);
  t.equal(await next.get("changing").get(mood), undefined);
});

test("the answer to every other commit is lost: each item and value is there once, in order, from body and steps", async (t) => {
  const { hostname, port } = new URL(await server());
  const proxy = await FaultyProxy.open({ host: hostname, port: Number(port) });
  t.teardown(() => proxy.close());
  const chatter = step("chatter", async (name: string) => {
    for (let n = 0; n < 60; n += 1) {
      await stream("steps").write(`${name} ${n}`);
      if (n % 7 === 0) await mood.set(n);
      if (n % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
  const body = workflow("body", async () => {
    const steps = Promise.all([chatter("x"), chatter("y")]);
    for (let n = 0; n < 60; n += 1) {
      await words.write(n);
      if (n % 20 === 0) await runSoon(n);
    }
    await steps;
    await words.close();
  });
  const runSoon = step("soon", async (n: number) => n);
  const b = await coldBench(t, { workflows: [body], logger: collector(), notify: false });
  const flaky = new URL(b.url);
  flaky.port = String(proxy.port);
  let commits = 0;
  const cutting = await b.another({ database: flaky.href, lease: "20s" });
  await b.perdure.shutdown();
  proxy.onCommitted = () => {
    commits += 1;
    return commits % 2 === 0 ? "reset" : "pass";
  };
  const run = await cutting.start(body.with({ id: "flaky" }));
  await run.result({ timeout: "60s" });
  proxy.onCommitted = () => "pass";
  t.ok(commits > 4, `${commits} commits, half of them cut off`);
  const found = await rows(b, run);
  const of = (name: string) => found.filter((row) => row.stream === name);
  t.same(
    of("words").map((row) => row.value),
    [...Array.from({ length: 60 }, (_, n) => n), null],
  );
  const steps = of("steps");
  t.same(
    steps.map(({ pos }) => pos),
    Array.from({ length: 120 }, (_, n) => n),
    "dense, and nothing twice",
  );
  for (const name of ["x", "y"]) {
    t.same(
      steps.map((row) => row.value).filter((text) => text.startsWith(name)),
      Array.from({ length: 60 }, (_, n) => `${name} ${n}`),
    );
  }
});

test("a batch that is issued again, or commits late, adds nothing: its numbers are not above the last there", async (t) => {
  const stop = gate();
  const hold = step("hold", () => stop.opened);
  const b = await coldBench(t, { workflows: [workflow("w", async () => hold())] });
  const run = await b.perdure.start("w");
  await reaches(run, "running");
  const publish = async (seqs: number[], epoch = "r.epoch", kind = "stream"): Promise<string[]> => {
    const fill = (text: string): string => `array_fill(${text}, array[${seqs.length}])`;
    const found = await b.sql(
      `select p.verdict from :SCHEMA.run r cross join lateral :SCHEMA.publish(${fill("r.key")}, ${fill(epoch)}, ${fill("null::text")}, ${fill("1")}, ${fill("null::int")},
        ${fill(`'${kind}'::text`)}, ${fill("'words'::text")}, $2::text[], $3::int[], ${fill("0::float8")}, true) p where r.id = $1 order by p.ord`,
      [run.id, seqs.map((seq) => `{"json":${seq}}`), seqs],
    );
    return found.map(({ verdict }) => verdict);
  };
  t.same(await publish([10, 11, 12]), ["ok", "ok", "ok"]);
  t.same(await publish([10, 11, 12]), ["ok", "ok", "ok"], "as before");
  t.same(await publish([12, 13]), ["ok", "ok"], "one of them new");
  t.same(await publish([10, 11]), ["ok", "ok"], "late");
  t.same(
    (await rows(b, run)).map((row) => row.value),
    [10, 11, 12, 13],
  );
  t.same(
    [await publish([20, 21], "r.epoch", "value"), await publish([20], "r.epoch", "value")],
    [["ok", "ok"], ["ok"]],
  );
  t.equal(await run.get(value("words")), 21, "an older value does not come back");
  t.same(await publish([30], "r.epoch - 1"), ["stale"], "of a claim that is over nothing is taken");
  t.equal((await rows(b, run)).length, 4);
  stop.open();
  await run.result();
  t.same(await publish([13]), ["ok"], "what was there when the run ended was written");
  t.same(await publish([14]), ["stale"]);
});

test("a step that lost its claim publishes nothing more, is told so, and its writes are refused", async (t) => {
  const stop = gate();
  const told: unknown[] = [];
  const talk = step("talk", async () => {
    await words.write("before");
    if (currentStep().signal.aborted) return;
    await stop.opened;
    for (let n = 0; n < 1000; n += 1) {
      try {
        await words.write(`after ${n}`);
      } catch (error) {
        told.push(error);
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  });
  const b = await coldBench(t, { workflows: [workflow("w", async () => talk())], notify: false });
  const run = await b.perdure.start("w");
  await eventually(async () => (await rows(b, run)).length === 1, PATIENCE_MS);
  // Somebody else's: nobody here works on it.
  await b.sql("update :SCHEMA.run set epoch = epoch + 1, worker = -1");
  stop.open();
  const error = (await eventually(() => told[0], PATIENCE_MS)) as PerdureError;
  t.equal(error.code, "PERDURE_STATE");
  t.match(
    error.message,
    /step "talk" published nothing to stream "words" of run ".*": the run is not in work here any more/,
  );
  t.same(
    (await rows(b, run)).map((row) => row.value),
    ["before"],
  );
  await run.cancel();
});

test("a step that is tried again writes again, and its last try's items are all there", async (t) => {
  const talk = step({ name: "talk", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async () => {
    const { attempt } = currentStep();
    for (const word of ["a", "b"]) void words.write(`${word}${attempt}`);
    await mood.set(attempt);
    if (attempt === 1) throw new Error("once");
    await words.close();
    await words.write("after the close");
    await words.close();
  });
  const talking = workflow("talking", async () => talk());
  const b = await coldBench(t, { workflows: [talking] });
  const run = await b.perdure.start(talking);
  await run.result();
  t.same(await all(run, words), ["a1", "b1", "a2", "b2"], "what comes after the close is dropped");
  t.equal(await run.get(mood), 2);
});

test("steps side by side write to one stream: its places are dense, and each step's items in its order", async (t) => {
  const WRITERS = 8;
  const ITEMS = 200;
  const talk = step("talk", async (writer: number) => {
    for (let n = 0; n < ITEMS; n += 1) {
      await words.write([writer, n]);
      if (n % 17 === writer) await new Promise((resolve) => setImmediate(resolve));
    }
  });
  const talking = workflow("talking", async () => {
    const steps = Array.from({ length: WRITERS }, (_, writer) => talk(writer));
    for (let n = 0; n < ITEMS; n += 1) await words.write([WRITERS, n]);
    await Promise.all(steps);
  });
  const b = await coldBench(t, { workflows: [talking] });
  const run = await b.perdure.start(talking);
  await run.result();
  const found = await rows(b, run);
  t.same(
    found.map(({ pos }) => pos),
    Array.from({ length: (WRITERS + 1) * ITEMS }, (_, n) => n),
  );
  for (let writer = 0; writer <= WRITERS; writer += 1) {
    t.same(
      found
        .map((row) => row.value)
        .filter(([who]) => who === writer)
        .map(([, n]) => n),
      Array.from({ length: ITEMS }, (_, n) => n),
    );
  }
});

test("what a stranger's transaction holds up does not pile up: after 256 writes a step, and a body, wait for the commit", async (t) => {
  const counts = { step: 0, body: 0 };
  const write = async (where: "step" | "body"): Promise<void> => {
    for (; counts[where] < 2000; counts[where] += 1) await words.write(counts[where]);
  };
  const start = gate();
  const talk = step("talk", async () => {
    await start.opened;
    await write("step");
  });
  const begin = step("begin", () => start.opened);
  const fromStep = workflow("from-step", async () => talk());
  const fromBody = workflow("from-body", async () => {
    await begin();
    await write("body");
  });
  const free = workflow("free", async () => begin());
  const b = await coldBench(t, { workflows: [fromStep, fromBody, free] });
  const runs = [await b.perdure.start(fromStep), await b.perdure.start(fromBody)];
  for (const run of runs) await reaches(run, "running");
  const release = await Promise.all(runs.map((run) => holder(t, b, run)));
  start.open();
  await eventually(() => counts.step > 250 && counts.body > 250, PATIENCE_MS);
  for (let n = 0; n < 5; n += 1) await (await b.perdure.start(free)).result();
  t.ok(counts.step < 260 && counts.body < 260, `${JSON.stringify(counts)}, and other runs go on`);
  for (const letGo of release) await letGo();
  for (const run of runs) {
    await run.result();
    t.equal((await all(run, words)).length, 2000);
  }
});

test("what a transaction publishes is committed before its own commit", async (t) => {
  const b = await coldBench(t, { workflows: [] });
  await b.sql("create table :SCHEMA.seen (items int)");
  await b.sql(`create function :SCHEMA.note() returns trigger language plpgsql as $$ begin
    insert into "${b.schema}".seen select count(*) from "${b.schema}".item; return new; end $$`);
  await b.sql(
    "create trigger note after insert on :SCHEMA.checkpoint for each row when (new.kind = 'transaction') execute function :SCHEMA.note()",
  );
  const book = transaction("book", async (tx) => {
    await tx.query("select 1");
    for (let n = 0; n < 50; n += 1) void words.write(n);
    await mood.set("booked");
  });
  const booking = workflow("booking", async () => book());
  const engine = await b.another({ workflows: [booking] });
  const run = await engine.start(booking);
  await run.result();
  t.same(await b.sql("select items from :SCHEMA.seen"), [{ items: 50 }]);
  t.equal(await run.get(mood), "booked");
});

test("a transaction that holds its own run's row does not wait for its publications for ever", async (t) => {
  const book = transaction("book", async (tx) => {
    await tx.query(`select from ${schema}.run for update`);
    await words.write("a");
  });
  let schema = "";
  const booking = workflow("booking", async () => book());
  const b = await coldBench(t, { workflows: [booking] });
  schema = `"${b.schema}"`;
  const run = await b.perdure.start(booking);
  await run.result({ timeout: "30s" });
  t.same(await all(run, words), ["a"]);
});

test("what cannot be published is refused at the call, with its path, and the run goes on without it", async (t) => {
  const errors: unknown[] = [];
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    await work().catch((error: PerdureError) => errors.push([error.code, error.message.split(";")[0]]));
  };
  const bad = async (): Promise<void> => {
    await attempt(async () => words.write({ deep: [() => 1] }));
    await attempt(async () => mood.set("x".repeat(1_048_577)));
  };
  const inStep = step("in-step", bad);
  const trying = workflow("trying", async () => {
    await bad();
    await inStep();
    await words.write("good");
    await words.close();
    await attempt(async () => words.write("late"));
  });
  const b = await coldBench(t, { workflows: [trying] });
  const run = await b.perdure.start(trying.with({ id: "run-1" }));
  await run.result();
  const refused = [
    ["PERDURE_SERIALIZE", 'item of stream "words" of run "run-1": cannot store $.deep[0]: function'],
    ["PERDURE_TOO_LARGE", /^value "mood" of run "run-1": the value is too large: 1048588 bytes/],
  ];
  const last = ["PERDURE_STATE", 'stream "words" of run "run-1" is closed, so nothing can be written to it'];
  t.match(errors, [...refused, ...refused, last]);
  t.equal(errors.length, 5);
  t.same(await all(run, words), ["good"]);
  t.equal(await run.get(mood), undefined);
});

test("outside a workflow, and from a step that has ended, nothing is published", async (t) => {
  const outside = await rejection((async () => words.write("x"))());
  t.equal(outside.code, "PERDURE_CONTEXT");
  t.match(outside.message, 'write() of stream "words" works only inside a workflow or a step of one');
  t.equal((await rejection((async () => mood.set("x"))())).code, "PERDURE_CONTEXT");
  const held = gate();
  let error: PerdureError | undefined;
  const keep = step("keep", async () => {
    const later = async (): Promise<void> => {
      await held.opened;
      await words.write("late");
    };
    later().catch((reason: PerdureError) => {
      error = reason;
    });
  });
  const stay = step("stay", () => eventually(() => error, PATIENCE_MS).then(() => {}));
  const keeping = workflow("keeping", async () => {
    await keep();
    held.open();
    await stay();
  });
  const b = await coldBench(t, { workflows: [keeping] });
  const run = await b.perdure.start(keeping);
  await run.result();
  t.equal(error?.code, "PERDURE_STATE");
  t.match(error?.message, /step "keep" published nothing to stream "words" of run ".*": the step's try has ended/);
  t.same(await all(run, words), []);
});

test("names and options of values and streams are checked where they are declared", async (t) => {
  const code = async (call: () => unknown): Promise<unknown> => (await rejection((async () => call())())).message;
  t.match(await code(() => value("")), "value name");
  t.match(await code(() => stream("x".repeat(256))), "stream name");
  t.match(await code(() => value({ nam: "x" } as never)), /unknown option "nam" of value/);
  t.match(await code(() => stream({ name: "x", schema: 1 } as never)), /unknown option "schema" of stream "x"/);
  t.equal(value({ name: "x" }).name, "x");
});

test("a fork has what was published before its step, and publishes the rest anew", async (t) => {
  const say = step("say", async (word: string) => {
    await words.write(`${word} from a step`);
  });
  const pick = step("pick", async () => {});
  const talking = workflow("talking", async () => {
    await mood.set("begun");
    await words.write("one");
    await say("two");
    await pick();
    await words.write("three");
    await value("late").set(true);
  });
  const b = await coldBench(t, { workflows: [talking] });
  const run = await b.perdure.start(talking);
  await run.result();
  const fork = await run.fork({ from: "pick" });
  await fork.result();
  t.same(await all(fork, words), ["one", "two from a step", "three"]);
  t.equal(await fork.get(mood), "begun");
  t.equal(await fork.get(value("late")), true);
  t.same(await all(run, words), ["one", "two from a step", "three"], "the old run's own are as they were");
});
