/** What a stranger found of codecs: each is one promise that did not hold. */
import { gzipSync } from "node:zlib";
import { test } from "tap";
import { type Codec, compress, type EncryptOptions, encrypt } from "../../lib/codec/index.ts";
import { event, type RunHandle, runStep, schedule, step, transaction, value, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { rejection } from "../support/gate.ts";
import { atGate, gate } from "../support/replay.ts";

const KEYS: EncryptOptions = {
  keys: { one: Buffer.alloc(32, 1) },
  current: "one",
  hashKey: Buffer.alloc(32, 9),
};
const strict = encrypt({ ...KEYS, plaintext: "refuse" });
const patient = { timeout: "20s" } as const;
const HOUR_MS = 3_600_000;

const tell = step("tell", async (what: string) => what);
const echo = workflow("echo", async (what: string) => what);
const keyOf = (id: string): string => `(select key from :SCHEMA.run where id = '${id}')`;

/** The state of a run that has come to rest: it went on, or it did not. */
async function rests(run: RunHandle): Promise<string> {
  const over = ["blocked", "failed", "completed"];
  await eventually(async () => over.includes((await run.status()).state), 20_000);
  return (await run.status()).state;
}

test("who writes to the tables cannot make one run read what was encrypted for another by saying that it is its fork", async (t) => {
  const mood = value<string>("mood");
  const order = workflow("order", async (what: string) => {
    await mood.set(what);
    return what;
  });
  const { perdure, sql, advance } = await bench(t, { workflows: [order], codec: strict });
  await (await perdure.start(order.with({ id: "victim" }), "the victim's")).result(patient);
  await (await perdure.start(order.with({ id: "reader" }), "mine")).result(patient);
  const late = await perdure.start(order.with({ id: "late", delay: "1h" }), "mine");
  await sql(
    `update :SCHEMA.value set value = (select value from :SCHEMA.value where run = ${keyOf("victim")}) where run = ${keyOf("reader")}`,
  );
  await sql(
    `update :SCHEMA.input set args = (select args from :SCHEMA.input where run = ${keyOf("victim")}) where run = ${keyOf("late")}`,
  );
  await sql(`update :SCHEMA.input set fork = '[0, [["victim", 1000000]], null]' where run <> ${keyOf("victim")}`);
  t.equal((await rejection(perdure.get("reader").get(mood))).code, "PERDURE_DECODE", "a value");
  await advance(HOUR_MS);
  t.equal(await rests(late), "blocked", "the input");
});

test("who writes to the tables cannot make a run read the arguments of a schedule that did not start it", async (t) => {
  const nightly = schedule("nightly", { cron: "0 3 * * *" }, echo, "the schedule's");
  const { perdure, sql, advance } = await bench(t, { workflows: [echo], schedules: [nightly], codec: strict });
  const late = await perdure.start(echo.with({ id: "late", delay: "1h" }), "mine");
  await sql(`update :SCHEMA.input set args = (select args from :SCHEMA.schedule) where run = ${keyOf("late")}`);
  await sql("update :SCHEMA.run set schedule = 'nightly' where id = 'late'");
  await advance(HOUR_MS);
  t.equal(await rests(late), "blocked");
});

test("an event is not read under the name of another", async (t) => {
  const pay = event<{ amount: number }>("pay");
  const note = event<{ amount: number }>("pay/note");
  const order = workflow("order", async () => {
    await gate.wait();
    return (await pay.wait()).data;
  });
  const { perdure, sql } = await bench(t, { workflows: [order], codec: strict });
  const run = await perdure.start(order);
  await atGate(run);
  await run.send(note, { amount: 1_000_000 });
  await sql("update :SCHEMA.mail set name = 'pay', token = 'note/' || token where name = 'pay/note'");
  await run.send(gate, null);
  t.equal(await rests(run), "blocked");
});

test("a recorded failure is not read as a result where only its outcome was changed", async (t) => {
  const charge = step("charge", async (): Promise<string> => {
    throw new Error("declined");
  });
  const order = workflow("order", async () => {
    const said = await charge().then(
      () => "paid",
      () => "declined",
    );
    await gate.wait();
    return said;
  });
  const b = await bench(t, { workflows: [order], codec: strict });
  const run = await b.perdure.start(order.with({ id: "r" }));
  await atGate(run);
  await b.perdure.shutdown();
  await b.sql("drop trigger check_checkpoint on :SCHEMA.checkpoint");
  await b.sql("update :SCHEMA.checkpoint set outcome = 'completed' where kind = 'step'");
  const again = await b.another();
  await again.send("r", gate, null);
  t.equal(await rests(again.get("r")), "blocked");
});

test("the second of two deploys rolls: a run that it began goes on in a process of the first, and an equal start is known there", async (t) => {
  const order = workflow("order", async (what: string) => {
    const first = await tell(what);
    await gate.wait();
    return [first, await tell(what)];
  });
  const b = await bench(t, { workflows: [order], codec: encrypt(KEYS) });
  await atGate(await b.perdure.start(order.with({ id: "r" }), "w"));
  await b.perdure.shutdown();
  const first = await b.another({ codec: encrypt({ ...KEYS, current: null }) });
  t.equal((await first.start(order.with({ id: "r" }), "w").catch((error) => error)).id, "r");
  await first.send("r", gate, null);
  t.equal(await rests(first.get("r")), "completed", (await first.get("r").status()).reason ?? "");
});

test("an equal start from TypeScript is the run that SQL started also where values are encrypted", async (t) => {
  const { perdure, sql } = await bench(t, { workflows: [echo], codec: encrypt(KEYS) });
  await sql(`select :SCHEMA.start_run('echo', '["w"]', 'r')`);
  t.equal((await perdure.start(echo.with({ id: "r" }), "w").catch((error) => error)).id, "r");
});

test("a codec that throws while its own value is read back blocks the run: nothing runs twice, and no branch is taken that a replay does not take", async (t) => {
  let throws = 0;
  let tries = 0;
  const codec: Codec = {
    name: "flaky",
    encode: (data) => ({ data }),
    decode: ({ data }, { slot }) => {
      if (!/^(step|transaction):/.test(slot) || throws === 0) return data;
      throws -= 1;
      throw new Error("no keys yet");
    },
  };
  const write = transaction("write", async () => "written");
  const charge = step({ name: "charge", retry: { type: "fixed", maxAttempts: 3, delay: 1 } }, async () => ++tries);
  const undone: string[] = [];
  const order = workflow("order", async () => {
    throws = undone.length > 0 ? 0 : 1;
    await write().catch(() => runStep("undo", async () => void undone.push("undone")));
  });
  const pay = workflow("pay", async () => {
    throws = tries > 0 ? 0 : 1;
    return charge();
  });
  const { perdure, sql } = await bench(t, { workflows: [order, pay], codec });
  const run = await perdure.start(order);
  await rests(run);
  t.match(await sql("select outcome from :SCHEMA.checkpoint where kind = 'transaction'"), [{ outcome: "completed" }]);
  t.same(undone, [], "the body was told that what is committed has failed");
  await rests(await perdure.start(pay));
  t.equal(tries, 1, "the function ran again though it had a result");
});

const bytes = { decode: ({ data }: { data: Uint8Array }): Uint8Array => data };
const odd: Record<string, object> = {
  "a promise": { encode: async (data: Uint8Array) => ({ data }) },
  "no bytes": { encode: () => ({ data: "text" }) },
  "no data": { encode: () => ({}) },
  nothing: { encode: () => undefined },
  "a note with NUL": { encode: (data: Uint8Array) => ({ data, note: "a\0b" }) },
  "a note of half a character": { encode: (data: Uint8Array) => ({ data, note: "\ud800" }) },
  "a note that is too long": { encode: (data: Uint8Array) => ({ data, note: "x".repeat(256) }) },
};

test("what a codec returns is checked: a value is refused in words, and never stored readable because its codec forgot to return", async (t) => {
  for (const [what, functions] of Object.entries(odd)) {
    const codec = { name: "odd", ...bytes, ...functions } as unknown as Codec;
    const { perdure, sql } = await bench(t, { workflows: [echo], codec });
    const { code, message } = await rejection(perdure.start(echo, "s3cr3t"));
    t.equal(code, "PERDURE_SERIALIZE", `${what}: ${message}`);
    t.match(message, /codec "odd"/, what);
    await t.resolves(sql("select * from :SCHEMA.codecs"), `the view reads after ${what}`);
  }
});

test("a hash() that throws refuses the start with a code, and names the codec", async (t) => {
  const hash = (): string => {
    throw new Error("the key service is away");
  };
  const codec: Codec = { name: "kms", encode: () => null, ...bytes, hash };
  const { perdure } = await bench(t, { workflows: [echo], codec });
  for (const call of [
    () => perdure.start(echo, "x"),
    () => perdure.schedules.put(schedule("s", { every: "1h" }, echo, "x")),
  ]) {
    const { code, message } = await rejection(call());
    t.equal(code, "PERDURE_SERIALIZE", message);
    t.match(message, /codec "kms"/);
  }
});

test("a row that unpacks to more than any value may have is not read", async (t) => {
  const { perdure, sql, advance } = await bench(t, { workflows: [echo], codec: compress() });
  const late = await perdure.start(echo.with({ delay: "1h" }), "x");
  const data = gzipSync(`{"json":["",${JSON.stringify("x".repeat(32 * 1024 * 1024))}]}`).toString("base64");
  await sql("update :SCHEMA.input set args = $1", [JSON.stringify({ codec: ["compress:gzip"], data })]);
  await advance(HOUR_MS);
  t.equal(await rests(late), "blocked", `${data.length} characters became 32 MiB`);
});
