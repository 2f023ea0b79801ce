/** Attacks on codecs that found nothing: encryption that refuses plaintext, rows that were meddled with, and what stays readable. */
import { gzipSync } from "node:zlib";
import pg from "pg";
import { test } from "tap";
import { compression, type EncryptionOptions, encryption } from "../../lib/codec/index.ts";
import {
  event,
  patched,
  race,
  runStep,
  schedule,
  sleep,
  start,
  step,
  stream,
  transaction,
  value,
  workflow,
} from "../../lib/index.ts";
import { coldBench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { reaches } from "../support/gate.ts";
import { atGate, gate, unhandled } from "../support/replay.ts";

const KEYS: EncryptionOptions = { keys: { one: Buffer.alloc(32, 1) }, current: "one", hashKey: Buffer.alloc(32, 9) };
const strict = encryption({ ...KEYS, plaintext: "refuse" });
const SECRET = "s3cr3t-4711";
const HOUR_MS = 3_600_000;
const patient = { timeout: "30s" } as const;

const news = event<unknown>("news");
const mood = value<string>("mood");
const tokens = stream<string>("tokens");
const tell = step("tell", async (what: string) => ({ echoed: what }));
const write = transaction("write", async (_tx, what: string) => what);
const echo = workflow("echo", async (what: unknown) => what);
const broken = workflow("broken", async (what: string) => {
  throw new Error(what);
});

test("with plaintext refused, all that Perdure writes by itself is still read, live and on replay; a value that was deleted is not", async (t) => {
  const all = workflow("all", async (what: string) => {
    const seen: unknown[] = [
      await tell(what),
      await write(what),
      await echo(what),
      await runStep("none", async () => {}),
    ];
    seen.push(await broken(what).catch((error) => error.cause.message));
    seen.push(await sleep(1), await news.wait({ timeout: 1 }), await race({ told: news, late: 1 }), patched("change"));
    await mood.set(what);
    await tokens.write(what);
    await tokens.close();
    seen.push(await race({ ended: await start(echo, what) }), await sleep("long", "1h"));
    await gate.wait();
    return seen;
  });
  const nightly = schedule("nightly", { cron: "0 3 * * *" }, echo, "nightly");
  const b = await coldBench(t, { workflows: [all, echo, broken], schedules: [nightly], codec: strict });
  const run = await b.perdure.start(all.with({ id: "r" }), "w");
  await eventually(async () =>
    (await run.history()).some(({ name, outcome }) => name === "long" && outcome !== "completed"),
  );
  await run.wake();
  await atGate(run);
  await b.perdure.shutdown();
  const again = await b.another();
  await again.send("r", gate, null);
  t.same(await again.get("r").result(patient), [
    ...[{ echoed: "w" }, "w", "w", undefined, "w", { woken: false }, null, { winner: "late", value: null }, true],
    ...[{ winner: "ended", value: "w" }, { woken: true }],
  ]);
  t.same(
    (await again.get("r").history()).filter(({ unreadable }) => unreadable),
    [],
  );
  const triggered = await again.schedules.trigger("nightly");
  t.equal(await triggered.result(patient), "nightly");
  await b.sql("update :SCHEMA.outcome set value = null");
  await t.rejects(triggered.result(patient), { code: "PERDURE_DECODE" });
});

test("nothing of the data is in a column, a reason or a hint, whatever goes wrong with it", async (t) => {
  let deployed = false;
  const diverges = workflow("diverges", async (what: string) => {
    if (deployed) await runStep("another", async () => what);
    else await tell(what);
    await gate.wait();
  });
  const wrong = {
    unstorable: workflow("unstorable", async (what: string) => new Map([[what, () => what]])),
    unaddressed: workflow("unaddressed", async (what: string) => tell({ [what]: () => what } as never)),
    large: workflow("large", async (what: string) => ({ [what]: "x".repeat(2_000_000) })),
    floating: workflow("floating", async (what: string) => void tell(what)),
    thrown: workflow({ name: "thrown", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async (what: string) => {
      throw Object.assign(new Error(what), { name: what, code: what });
    }),
  };
  const b = await coldBench(t, { workflows: [diverges, ...Object.values(wrong)], codec: strict, logger: collector() });
  const listener = new pg.Client(b.url);
  await listener.connect();
  const heard: string[] = [];
  listener.on("notification", ({ payload }) => void heard.push(String(payload)));
  const [{ channel }] = await b.sql("select :SCHEMA.channel() as channel");
  await listener.query(`listen "${channel}"`);
  const run = await b.perdure.start(diverges.with({ id: "r" }), SECRET);
  await atGate(run);
  for (const each of Object.values(wrong))
    await reaches(await b.perdure.start(each as typeof diverges, SECRET), "failed");
  await b.perdure.shutdown();
  deployed = true;
  const again = await b.another();
  await again.send("r", gate, null);
  await reaches(again.get("r"), "blocked");
  await listener.end();
  t.ok(heard.length > 0);
  t.notMatch(heard.join(), SECRET);
  const tables = await b.sql(
    "select table_name as name from information_schema.tables where table_schema = $1 and table_type = 'BASE TABLE'",
    [b.schema],
  );
  for (const { name } of tables) {
    const [{ n }] = await b.sql(
      `select count(*)::integer as n from :SCHEMA."${name}" x where strpos(x::text, $1) > 0`,
      [SECRET],
    );
    t.equal(n, 0, name);
  }
});

test("what looks like a codec's writing is data, from SQL and from TypeScript, with codecs and without", async (t) => {
  const fake = { codec: ["encrypt:one"], data: "AAAA" };
  const both = workflow("both", async (what: unknown) => [what, (await news.wait()).data]);
  for (const codec of [[compression({ above: 10 }), encryption(KEYS)], []]) {
    const { perdure, sql } = await coldBench(t, { workflows: [both], codec });
    await sql("select :SCHEMA.start_run('both', $1, 'sql')", [JSON.stringify([fake])]);
    await sql("select :SCHEMA.send_event('sql', 'news', $1)", [JSON.stringify(fake)]);
    t.same(await perdure.get("sql").result(patient), [fake, fake]);
    const run = await perdure.start(both, fake);
    await run.send(news, fake);
    t.same(await run.result(patient), [fake, fake]);
  }
});

test("a row that was meddled with blocks its run in words, the process lives, and the next run is not touched", async (t) => {
  const escaped = unhandled(t);
  const { perdure, sql, advance } = await coldBench(t, {
    workflows: [echo],
    codec: [compression({ above: 0 }), strict],
  });
  const lenient = await coldBench(t, { workflows: [echo], codec: compression({ above: 0 }) });
  const row = (tags: unknown, data: unknown): string => JSON.stringify({ codec: tags, data });
  const packed = (data: Buffer, method = "gzip"): string => row([`compress:${method}`], data.toString("base64"));
  const small = gzipSync('{"json":["x"]}');
  const rows = [
    row([7], "x"),
    row(["compress:gzip"], null),
    row(["__proto__:gzip"], "AAAA"),
    packed(gzipSync(Buffer.alloc(65 * 1024 * 1024))),
    packed(small, "__proto__"),
    packed(small.subarray(0, -9)),
    packed(Buffer.concat([small, Buffer.from("more")])),
    packed(gzipSync('{"json":["x"')),
    packed(gzipSync('{"json":"no array"}')),
    packed(Buffer.alloc(0)),
  ];
  for (const [at, text] of rows.entries()) {
    const run = await lenient.perdure.start(echo.with({ id: `r${at}`, delay: "1h" }), "x");
    await lenient.sql("update :SCHEMA.input set args = $1 where run = (select key from :SCHEMA.run where id = $2)", [
      text,
      run.id,
    ]);
  }
  await lenient.advance(HOUR_MS);
  for (const at of rows.keys()) {
    const run = lenient.perdure.get(`r${at}`);
    await reaches(run, "blocked");
    t.match((await run.status()).reason, /^undecodable: input of run "r\d+": /);
  }
  t.equal(await (await lenient.perdure.start(echo, "fine")).result(patient), "fine");
  // Encrypted: cut short, its tags taken off, its key's name changed.
  const changes = [
    (codec: string[], data: string) => row(codec, data.slice(0, 20)),
    (codec: string[], data: string) => row(codec, data.slice(0, -8)),
    (_: string[], data: string) => row(["encrypt:one"], data),
    (_: string[], data: string) => row(["compress:gzip"], data),
    (codec: string[], data: string) => row([...codec, codec.at(-1)], data),
    (codec: string[], data: string) => row([codec[0], "encrypt:__proto__"], data),
    () => row(["encrypt:one"], ""),
  ];
  for (const [at, change] of changes.entries()) {
    const run = await perdure.start(echo.with({ id: `r${at}`, delay: "1h" }), "x".repeat(200));
    const where = `where run = (select key from :SCHEMA.run where id = '${run.id}')`;
    const [{ args }] = await sql(`select args from :SCHEMA.input ${where}`);
    await sql(`update :SCHEMA.input set args = $1 ${where}`, [change(args.codec, args.data)]);
  }
  await advance(HOUR_MS);
  for (const at of changes.keys()) await reaches(perdure.get(`r${at}`), "blocked");
  t.same(escaped, []);
});
