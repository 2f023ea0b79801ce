/** Readers of values and streams see what is published, in order and once, from any process and through any outage, and end with the run. */
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { type Test, test } from "tap";
import { channelOf } from "../../lib/db/notifier.ts";
import { event, Perdure, type PerdureOptions, type RunHandle, step, stream, value, workflow } from "../../lib/index.ts";
import { crew } from "../support/crew.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";
import { server } from "../support/postgres.ts";
import { FaultyProxy } from "../support/proxy.ts";
import { traffic } from "../support/traffic.ts";

const words = stream<string>("words");
const numbers = stream<number>("numbers");
const mood = value<string>("mood");
const say = event<string>("say");
const stop = event("stop");

/** Publishes what it is told, and is suspended between. */
const parrot = workflow("parrot", async () => {
  for (let heard = await say.wait(); heard.data !== "stop"; heard = await say.wait()) {
    await words.write(heard.data);
    await mood.set(heard.data);
  }
});
const fill = step("fill", async (count: number, size: number) => {
  for (let n = 0; n < count; n += 1) await (size ? words.write("x".repeat(size)) : numbers.write(n));
});
const filler = workflow("filler", async (count: number, size: number) => fill(count, size));

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

test("a value is undefined until it is set, and the latest after that: while the run is suspended, and when it has ended", async (t) => {
  const { perdure } = await bench(t, { workflows: [parrot] });
  const run = await perdure.start(parrot);
  t.equal(await run.get(mood), undefined);
  for (const word of ["one", "two"]) {
    await run.send(say, word);
    await eventually(async () => (await run.get(mood)) === word, PATIENCE_MS);
  }
  await reaches(run, "suspended");
  t.equal(await run.get(mood), "two");
  await run.send(say, "stop");
  await run.result();
  t.equal(await run.get(mood), "two");
  t.same(await all(run.watch(mood)), ["two"], "a watcher that comes late sees the last one, and ends");
  t.same(await all(run.watch(value("other"))), []);
});

test("a watcher sees the current value, then the newest, and ends with the run; who is slow misses what is in between", async (t) => {
  const { perdure, another } = await bench(t, { workflows: [parrot] });
  const run = await perdure.start(parrot);
  const elsewhere = (await another({ workflows: [], worker: false })).get(run.id);
  const quick: string[] = [];
  const watching = (async () => {
    for await (const word of elsewhere.watch(mood)) quick.push(word);
  })();
  const slow = elsewhere.watch(mood)[Symbol.asyncIterator]();
  const first = slow.next();
  await run.send(say, "one");
  t.equal((await first).value, "one");
  await eventually(() => quick.includes("one"), PATIENCE_MS);
  for (const word of ["two", "three", "four"]) {
    await run.send(say, word);
    await eventually(() => quick.at(-1) === word, PATIENCE_MS);
  }
  t.equal((await slow.next()).value, "four");
  await run.send(say, "stop");
  await watching;
  t.same(quick, ["one", "two", "three", "four"]);
  t.equal((await slow.next()).done, true);
});

test("a stream is read from any place: as it grows, after its end, and in two places at once", async (t) => {
  const { perdure } = await bench(t, { workflows: [parrot] });
  const run = await perdure.start(parrot);
  const live = [all(run.read(words)), all(run.read(words, { from: 2 })), all(run.read(words, { from: 9 }))];
  const said = ["a", "b", "c", "d"];
  for (const word of said) await run.send(say, word);
  await eventually(async () => (await run.get(mood)) === "d", PATIENCE_MS);
  const reading = run.read(words, { from: 1 });
  const early: string[] = [];
  for await (const word of reading) {
    early.push(word);
    if (early.length === 2) break;
  }
  t.same(early, ["b", "c"]);
  await run.send(say, "stop");
  t.same(await Promise.all(live), [said, ["c", "d"], []]);
  t.same(await all(run.read(words, { from: 3 })), ["d"]);
  t.same(await all(reading), ["b", "c", "d"], "each iteration begins anew");
  t.same(await all(run.read(words, { from: 4 })), []);
  t.same(await all(run.read(stream("other"))), []);
});

test("close ends a stream for its readers while the run goes on, and no item does, whatever it is", async (t) => {
  const odd = [null, undefined, "", "__DBOS_STREAM_CLOSED__", { close: true }, "close", { done: true }];
  const things = stream<unknown>("things");
  const talking = workflow("talking", async () => {
    for (const thing of odd) await things.write(thing);
    await stop.wait();
    await things.close();
    await stop.wait();
  });
  const { perdure } = await bench(t, { workflows: [talking] });
  const run = await perdure.start(talking);
  const found: unknown[] = [];
  const reading = (async () => {
    for await (const thing of run.read(things)) found.push(thing);
  })();
  await eventually(() => found.length === odd.length, PATIENCE_MS);
  t.same(found, odd);
  await run.send(stop);
  await reading;
  t.not((await run.status()).state, "completed");
  t.same(await all(run.read(things)), odd);
  await run.send(stop);
  await run.result();
});

test("whatever end a run comes to ends its readers, once they have read everything", async (t) => {
  const held = gate();
  const hold = step("hold", () => held.opened);
  const ending = workflow("ending", async (how: string) => {
    await words.write(how);
    if (how === "failed") throw new Error("as told");
    if (how === "cancelled") await hold();
  });
  const { perdure, another } = await bench(t, { workflows: [ending] });
  const elsewhere = await another({ workflows: [], worker: false });
  for (const how of ["completed", "failed", "cancelled"] as const) {
    const run = await perdure.start(ending.with({ id: how }), how);
    const readers = [all(run.read(words)), all(elsewhere.get(how).read(words)), all(elsewhere.get(how).watch(mood))];
    if (how === "cancelled") {
      await eventually(async () => (await all(firstOf(run))).length, PATIENCE_MS);
      await run.cancel();
    }
    t.same(await Promise.all(readers), [[how], [how], []], how);
    t.same(await all(run.read(words)), [how]);
  }
  held.open();
});

/** The first item of a run's words, and no more. */
async function* firstOf(run: RunHandle<any>): AsyncGenerator<string> {
  for await (const word of run.read(words)) {
    yield word;
    return;
  }
}

test("a run that nobody started has nothing to read, and what is asked wrongly is refused at the call", async (t) => {
  const { perdure } = await bench(t, { workflows: [parrot] });
  const nobody = perdure.get("nobody");
  for (const read of [() => nobody.get(mood), () => all(nobody.watch(mood)), () => all(nobody.read(words))]) {
    t.match(await rejection(read()), { code: "PERDURE_NOT_FOUND", message: 'there is no run "nobody"' });
  }
  const refused = async (call: () => unknown): Promise<unknown> => (await rejection((async () => call())())).message;
  for (const from of [-1, 1.5, "1", Number.NaN, 2 ** 31, null]) {
    t.match(
      await refused(() => nobody.read(words, { from } as never)),
      'from of read() of stream "words" must be a whole number from 0',
    );
  }
  t.match(
    await refused(() => nobody.read(words, { form: 1 } as never)),
    'unknown option "form" of read() of stream "words"; did you mean "from"?',
  );
  t.match(
    await refused(() => nobody.read(mood as never)),
    'read() needs a stream made by stream(), not value "mood"; get() and watch() read a value',
  );
  t.match(
    await refused(() => nobody.watch(words as never)),
    'watch() needs a value made by value(), not stream "words"; read() reads a stream',
  );
  t.match(await refused(() => nobody.get("mood" as never)), 'get() needs a value made by value(), not "mood"');
});

test("a consumer that takes its time has one page in memory, and looks for the next when it asks for it", async (t) => {
  const { perdure } = await bench(t, { workflows: [filler] });
  const run = await perdure.start(filler, 1200, 0);
  await run.result();
  const seen = traffic(t);
  const looks = (): number => seen.take().filter((text) => text.includes("read_published")).length;
  const found: number[] = [];
  const iterator = run.read(numbers)[Symbol.asyncIterator]();
  const take = async (count: number): Promise<void> => {
    for (let n = 0; n < count; n += 1) found.push((await iterator.next()).value as number);
  };
  await take(400);
  t.equal(looks(), 1);
  await take(500);
  t.equal(looks(), 1);
  await take(300);
  t.ok((await iterator.next()).done);
  t.ok(looks() <= 2);
  t.same(
    found,
    Array.from({ length: 1200 }, (_, n) => n),
  );
});

test("items as large as they may be come in pages of a few", async (t) => {
  const { perdure } = await bench(t, { workflows: [filler] });
  const run = await perdure.start(filler, 12, 1_000_000);
  await run.result();
  const both = await Promise.all([all(run.read(words)), all(run.read(words, { from: 4 }))]);
  t.same(
    both.map((items) => items.map((item) => item.length)),
    [Array(12).fill(1_000_000), Array(8).fill(1_000_000)],
  );
});

test("an iterator that is returned while it waits ends at once, and after that nothing is asked for any more", async (t) => {
  const { perdure } = await bench(t, { workflows: [parrot], notify: false });
  const run = await perdure.start(parrot);
  const seen = traffic(t);
  const iterators = [run.read(words), run.watch(mood)].map((items) => items[Symbol.asyncIterator]());
  const waiting = iterators.map((iterator) => Promise.all([iterator.next(), iterator.next()]));
  const looks = (text: string): number => seen.take().filter((statement) => statement.includes(text)).length;
  await eventually(() => looks("read_published") > 0, PATIENCE_MS);
  for (const iterator of iterators) t.same(await iterator.return!(), { done: true, value: undefined });
  for (const both of waiting)
    t.same(
      (await both).map(({ done }) => done),
      [true, true],
    );
  for (const iterator of iterators) t.ok((await iterator.next()).done);
  await run.send(say, "unheard");
  await eventually(async () => (await run.get(mood)) === "unheard", PATIENCE_MS);
  seen.take();
  let polls = 0;
  let reads = 0;
  await eventually(() => {
    for (const text of seen.take()) {
      if (text.includes("peek")) polls += 1;
      if (text.includes("read_published")) reads += 1;
    }
    return polls >= 3;
  }, PATIENCE_MS);
  t.equal(reads, 0, "while the process polls for other things");
});

test("a signal ends a reading with its reason: before it begins, while it waits, and between two items", async (t) => {
  const { perdure } = await bench(t, { workflows: [parrot] });
  const run = await perdure.start(parrot);
  for (const word of ["one", "two"]) await run.send(say, word);
  await eventually(async () => (await run.get(mood)) === "two", PATIENCE_MS);
  const aborter = new AbortController();
  const { signal } = aborter;
  const [between, tail, watch] = [
    run.read(words, { signal }),
    run.read(words, { from: 2, signal }),
    run.watch(mood, { signal }),
  ].map((items) => items[Symbol.asyncIterator]()) as [
    AsyncIterator<string>,
    AsyncIterator<string>,
    AsyncIterator<string>,
  ];
  t.same(await between.next(), { done: false, value: "one" });
  t.same(await watch.next(), { done: false, value: "two" });
  const waiting = [tail, watch].map((iterator) => rejection(iterator.next()));
  aborter.abort(new RangeError("gone"));
  for (const end of [...waiting, rejection(between.next())])
    t.match(await end, { name: "RangeError", message: "gone" });
  for (const iterator of [between, tail, watch])
    t.same(await iterator.next(), { done: true, value: undefined }, "and stays ended");
  t.match(await rejection(all(run.watch(mood, { signal }))), { message: "gone" });
  t.match(await rejection((async () => run.watch(mood, { signal: 5 } as never))()), {
    code: "PERDURE_OPTION",
    message: 'signal of watch() of value "mood" must be an AbortSignal, not 5',
  });
  await run.send(say, "stop");
  t.same(await all(run.read(words, { signal: new AbortController().signal })), ["one", "two"]);
});

test("shutdown ends what is being read, and a reader of an engine that was shut down is refused", async (t) => {
  const { perdure, another } = await bench(t, { workflows: [parrot] });
  const run = await perdure.start(parrot);
  const reader = await another({ workflows: [], worker: false });
  const handle = reader.get(run.id);
  await run.send(say, "a");
  const idle = handle.read(words)[Symbol.asyncIterator]();
  await idle.next();
  const waiting = handle.read(words, { from: 1 })[Symbol.asyncIterator]().next();
  const prepared = handle.watch(mood);
  const rejected = rejection(waiting);
  await eventually(async () => (await handle.get(mood)) === "a", PATIENCE_MS);
  await reader.shutdown();
  t.match(await rejected, {
    code: "PERDURE_STATE",
    message: "this engine was shut down, so it reads nothing any more",
  });
  t.equal((await rejection(idle.next())).code, "PERDURE_STATE");
  t.equal((await rejection(all(prepared))).code, "PERDURE_STATE");
  t.equal((await rejection((async () => handle.read(words))())).code, "PERDURE_STATE");
});

test("others are hinted at what is published while somebody elsewhere reads, and at no other time", async (t) => {
  const { perdure, another, sql, url, schema } = await bench(t, { workflows: [parrot] });
  const run = await perdure.start(parrot);
  const reader = await another({ workflows: [], worker: false });
  const reading = async (): Promise<number> =>
    (await sql("select count(*)::int as n from :SCHEMA.worker where reading"))[0].n;
  const listener = new pg.Client({ connectionString: url });
  await listener.connect();
  t.teardown(() => listener.end());
  const hints: string[] = [];
  listener.on("notification", ({ payload }) => hints.push(payload!));
  await listener.query(`listen ${channelOf(schema)}`);
  const hinted = (): boolean => hints.some((letters) => letters.includes("v"));
  const publish = async (word: string): Promise<void> => {
    await run.send(say, word);
    await eventually(async () => (await reader.get(run.id).get(mood)) === word, PATIENCE_MS);
  };
  await publish("a");
  t.equal(await reading(), 0, "a single look is no reading");
  // What was notified before this is heard before it.
  await sql("select pg_notify(:SCHEMA.channel(), 'n')");
  await eventually(() => hints.at(-1) === "n", PATIENCE_MS);
  t.notOk(hinted());
  const iterator = reader.get(run.id).read(words, { from: 1 })[Symbol.asyncIterator]();
  const first = iterator.next();
  await eventually(async () => (await reading()) === 1, PATIENCE_MS);
  await publish("b");
  t.equal((await first).value, "b");
  await eventually(hinted, PATIENCE_MS);
  await iterator.return!();
  await eventually(async () => (await reading()) === 0, PATIENCE_MS);
});

/** How an engine that reads is connected; what it has read, and how late. */
interface Reader {
  readonly engine: Perdure;
  readonly name: string;
  read(run: string): Promise<{ readonly nos: number[]; readonly late: number[] }>;
  readonly count: () => number;
}

async function reader(t: Test, url: string, schema: string, options: PerdureOptions = {}): Promise<Reader> {
  const at = new URL(url);
  const name = `reader-${schema}`;
  at.searchParams.set("application_name", name);
  const quiet = { debug() {}, info() {}, warn() {}, error() {} };
  const engine = new Perdure({ database: at.href, schema, worker: false, logger: quiet, ...options });
  await engine.launch();
  t.teardown(() => engine.shutdown());
  const nos: number[] = [];
  const late: number[] = [];
  return {
    engine,
    name,
    count: () => nos.length,
    read: async (run) => {
      for await (const [no, written] of engine.get(run).read(stream<[number, number]>("tokens"))) {
        nos.push(no);
        late.push(Date.now() - written);
      }
      return { nos, late };
    },
  };
}

const range = (count: number): number[] => Array.from({ length: count }, (_, n) => n);
const median = (all: readonly number[]): number => [...all].sort((a, b) => a - b)[all.length >> 1]!;

test("a reader in another process sees each item as it is written, also after its LISTEN connection was killed", async (t) => {
  const team = await crew(t);
  const writer = await team.member();
  const { read, count, name, engine } = await reader(t, team.url, team.schema);
  await writer.call("start", "talker", "talk", "talk", 1, 60, 40);
  const reading = read("talk");
  const seen: number[] = [];
  const watching = (async () => {
    for await (const no of engine.get("talk").watch(value<number>("progress"))) seen.push(no);
  })();
  await eventually(() => count() >= 5, PATIENCE_MS);
  const text =
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and query ilike '%listen %'";
  t.ok((await team.sql(text, [name])).length > 0);
  const { nos, late } = await reading;
  t.same(nos, range(60));
  t.ok(median(late) < 500, `${median(late)} ms in the middle: by hints, not by the poll`);
  await watching;
  t.equal(seen.at(-1), -1);
  t.same(
    seen.slice(0, -1),
    [...seen.slice(0, -1)].sort((a, b) => a - b),
    "only ever newer",
  );
});

test("with no notifications at all a reader in another process sees everything by polling", async (t) => {
  const team = await crew(t);
  const writer = await team.member({ notify: false });
  const { read } = await reader(t, team.url, team.schema, { notify: false });
  await writer.call("start", "talker", "talk", "talk", 1, 30, 20);
  const { nos, late } = await read("talk");
  t.same(nos, range(30));
  t.ok(median(late) < 2000, `${median(late)} ms`);
});

test("a reader whose connections are cut, refused and deaf misses nothing and sees nothing twice", async (t) => {
  const team = await crew(t);
  const { hostname, port } = new URL(await server());
  const proxy = await FaultyProxy.open({ host: hostname, port: Number(port) });
  t.teardown(() => proxy.close());
  const writer = await team.member();
  const flaky = new URL(team.url);
  flaky.port = String(proxy.port);
  const { read, count } = await reader(t, flaky.href, team.schema);
  await writer.call("start", "talker", "talk", "talk", 1, 200, 20);
  const reading = read("talk");
  await eventually(() => count() > 5, PATIENCE_MS);
  for (let cut = 0; cut < 3; cut += 1) {
    const before = count();
    proxy.cut();
    await eventually(() => count() > before, PATIENCE_MS);
  }
  proxy.mode = "refuse";
  proxy.cut();
  await pause(300);
  proxy.mode = "pass";
  proxy.muted = true;
  const before = count();
  await eventually(() => count() > before, PATIENCE_MS);
  t.same((await reading).nos, range(200));
});

test("when the writer's process is killed another writes on: readers see the step's items again, and end with the run", async (t) => {
  const team = await crew(t);
  const [first, second] = [await team.member(), await team.member({ worker: false })];
  const { read, count } = await reader(t, team.url, team.schema);
  await first.call("start", "talker", "talk", "talk", 2, 20, 100);
  const reading = read("talk");
  await eventually(() => count() > 25, PATIENCE_MS);
  await first.end("SIGKILL");
  const seen = count();
  t.ok(seen < 40);
  const third = await team.member();
  const { nos } = await reading;
  t.same(nos.slice(0, 20), range(20), "the recorded step did not write again");
  t.same(nos.slice(-20), range(40).slice(20), "the one that was cut off did, from its beginning");
  t.same(nos.filter((no) => no < 20).length, 20);
  t.ok(nos.length > 40);
  t.ok(second.alive && third.alive);
  const rows = await team.sql("select pos from :SCHEMA.item order by pos");
  t.same(
    rows.map(({ pos }) => pos),
    range(nos.length),
    "places without gaps",
  );
});
