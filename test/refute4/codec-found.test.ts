/** What a stranger found of codecs: each is one promise that did not hold. */
import { gzipSync } from "node:zlib";
import { test } from "tap";
import { type Codec, compression, type EncryptionOptions, encryption } from "../../lib/codec/index.ts";
import { event, type RunHandle, runStep, schedule, step, transaction, workflow } from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { rejection } from "../support/gate.ts";
import { atGate, gate } from "../support/replay.ts";

const KEYS: EncryptionOptions = {
  keys: { one: Buffer.alloc(32, 1) },
  current: "one",
  hashKey: Buffer.alloc(32, 9),
};
const strict = encryption({ ...KEYS, plaintext: "refuse" });
const _patient = { timeout: "20s" } as const;
const HOUR_MS = 3_600_000;

const tell = step("tell", async (what: string) => what);
const echo = workflow("echo", async (what: string) => what);
const _keyOf = (id: string): string => `(select key from :SCHEMA.run where id = '${id}')`;

/** The state of a run that has come to rest: it went on, or it did not. */
async function rests(run: RunHandle): Promise<string> {
  const over = ["blocked", "failed", "completed"];
  await eventually(async () => over.includes((await run.status()).state), 20_000);
  return (await run.status()).state;
}

test("an event is not read under the name of another", async (t) => {
  const pay = event<{ amount: number }>("pay");
  const note = event<{ amount: number }>("pay/note");
  const order = workflow("order", async () => {
    await gate.wait();
    return (await pay.wait()).data;
  });
  const { perdure, sql } = await coldBench(t, { workflows: [order], codec: strict });
  const run = await perdure.start(order);
  await atGate(run);
  await run.send(note, { amount: 1_000_000 });
  await sql("update :SCHEMA.mail set name = 'pay', token = 'note/' || token where name = 'pay/note'");
  await run.send(gate, null);
  t.equal(await rests(run), "blocked");
});

test("the second of two deploys rolls: a run that it began goes on in a process of the first, and an equal start is known there", async (t) => {
  const order = workflow("order", async (what: string) => {
    const first = await tell(what);
    await gate.wait();
    return [first, await tell(what)];
  });
  const b = await coldBench(t, { workflows: [order], codec: encryption(KEYS) });
  await atGate(await b.perdure.start(order.with({ id: "r" }), "w"));
  await b.perdure.shutdown();
  const first = await b.another({ codec: encryption({ ...KEYS, current: null }) });
  t.equal((await first.start(order.with({ id: "r" }), "w").catch((error) => error)).id, "r");
  await first.send("r", gate, null);
  t.equal(await rests(first.get("r")), "completed", (await first.get("r").status()).reason ?? "");
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
  const { perdure, sql } = await coldBench(t, { workflows: [order, pay], codec });
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
    const { perdure, sql } = await coldBench(t, { workflows: [echo], codec });
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
  const { perdure } = await coldBench(t, { workflows: [echo], codec });
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
  const { perdure, sql, advance } = await coldBench(t, { workflows: [echo], codec: compression() });
  const late = await perdure.start(echo.with({ delay: "1h" }), "x");
  const data = gzipSync(`{"json":["",${JSON.stringify("x".repeat(32 * 1024 * 1024))}]}`).toString("base64");
  await sql("update :SCHEMA.input set args = $1", [JSON.stringify({ codec: ["compress:gzip"], data })]);
  await advance(HOUR_MS);
  t.equal(await rests(late), "blocked", `${data.length} characters became 32 MiB`);
});
