/** Encryption as a database sees it: nothing of the data is readable, nothing can be moved, keys rotate, and what cannot be read is blocked and not lost. */
import { test } from "tap";
import { compression, type EncryptionOptions, encryption } from "../../lib/codec/index.ts";
import {
  event,
  Perdure,
  type PerdureOptions,
  type RunHandle,
  race,
  schedule,
  start,
  step,
  stream,
  transaction,
  value,
  workflow,
} from "../../lib/index.ts";
import { type Bench, coldBench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { reaches, rejection } from "../support/gate.ts";
import { atGate, gate } from "../support/replay.ts";

const key1 = Buffer.alloc(32, 1);
const key2 = Buffer.alloc(32, 2);
const hashKey = Buffer.alloc(32, 9);
const KEYS: EncryptionOptions = { keys: { one: key1 }, current: "one", hashKey };
const codec = encryption(KEYS);
const SECRET = "s3cr3t-4711";
const patient = { timeout: "60s" } as const;

const news = event<{ secret: string }>("news");
const mood = value<string>("mood");
const tokens = stream<string>("tokens");

const tell = step("tell", async (what: string) => ({ echoed: what }));
const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async (what: string) =>
  Promise.reject(Object.assign(new Error(`no ${what}`), { what })),
);
const write = transaction(
  "write",
  async (tx, what: string) => (await tx.query("select $1::text as what", [what])).rows[0],
);
const child = workflow("child", async (what: string) => ({ child: what }));
const broken = workflow("broken", async (what: string) => Promise.reject(new Error(`broken ${what}`)));

let failing = true;
/** Leaves a value in every column that can hold one. */
const all = workflow({ name: "all", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async (what: string) => {
  await tell(what);
  await flaky(what).catch(() => {});
  await write(what);
  await mood.set(what);
  await tokens.write(what);
  await child(what);
  await child
    .with({ id: "taken" })(what)
    .catch(() => {});
  await broken(what).catch(() => {});
  const handle = await start(child, what);
  const { winner } = await race({ told: news, ended: handle });
  await gate.wait();
  if (failing) throw new Error(`attempt of ${what}`);
  return { winner, what };
});

const WORKFLOWS = [all, child, broken];

async function items(source: AsyncIterable<unknown>): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const item of source) found.push(item);
  return found;
}

/** Every column of the schema that holds JSON or text, as text. */
async function columns(b: Bench): Promise<{ table: string; column: string; type: string }[]> {
  return b.sql(
    `select table_name as "table", column_name as "column", data_type as type from information_schema.columns c
     join information_schema.tables t using (table_schema, table_name)
     where table_schema = $1 and table_type = 'BASE TABLE' and data_type in ('json', 'text', 'ARRAY')`,
    [b.schema],
  );
}

test("nothing of the data is readable in any column, and everything is read back", async (t) => {
  const b = await coldBench(t, {
    workflows: WORKFLOWS,
    schedules: [schedule("nightly", { cron: "0 3 * * *" }, child, SECRET)],
    codec: [compression({ above: 100 }), codec],
  });
  const { perdure } = b;
  failing = true;
  const run = await perdure.start(all.with({ id: "r" }), SECRET);
  await run.send(news, { secret: SECRET });
  await run.send(gate, null);
  await reaches(run, "failed");
  failing = false;
  await run.retry();
  t.same(await run.result(patient), { winner: "told", what: SECRET });
  await perdure.schedules.trigger("nightly").then((triggered) => triggered.result(patient));
  for (const { table, column } of await columns(b)) {
    const found = await b.sql(
      `select count(*)::integer as n from :SCHEMA."${table}" where strpos("${column}"::text, $1) > 0`,
      [SECRET],
    );
    t.equal(found[0].n, 0, `${table}.${column}`);
  }
  const json = (await columns(b))
    .filter(({ type }) => type === "json")
    .map(({ table, column }) => `${table}.${column}`);
  t.same(
    json.sort(),
    [
      ...[
        "checkpoint.value",
        "definition.options",
        "input.args",
        "input.fork",
        "input.options",
        "item.value",
        "mail.data",
      ],
      ...[
        "outcome.value",
        "round.error",
        "schedule.args",
        "schedule.options",
        "schedule.tags",
        "try.error",
        "value.value",
      ],
    ],
    "all columns that hold JSON: what is new here is encrypted, or holds none of the application's data",
  );
  const history = await run.history();
  t.same(
    history.filter(({ unreadable }) => unreadable),
    [],
  );
  const named = (name: string) => history.find((entry) => entry.name === name);
  t.same(named("tell")?.value, { echoed: SECRET });
  t.match(named("flaky")?.errors[0]?.error, { message: `no ${SECRET}`, what: SECRET });
  t.same(named("write")?.value, { what: SECRET });
  t.match(history.find(({ kind }) => kind === "race")?.value, { winner: "told", value: { data: { secret: SECRET } } });
  t.match(history.find(({ kind }) => kind === "attempt")?.error, { message: `attempt of ${SECRET}` });
  t.equal(await run.get(mood), SECRET);
  t.same(await items(run.read(tokens)), [SECRET]);
  const codecs = await b.sql("select distinct kind from :SCHEMA.codecs where codec = 'encrypt:one' order by kind");
  t.same(
    codecs.map(({ kind }) => kind),
    ["checkpoint", "event", "input", "result", "round", "schedule", "stream", "try", "value"],
  );
});

test("a value that was moved to another run, slot, try or attempt is not read, in any column", async (t) => {
  failing = true;
  const held = workflow("held", async (what: string) => {
    await tell(what);
    await tell(what);
    await gate.wait();
    return what;
  });
  const b = await coldBench(t, {
    workflows: [...WORKFLOWS, held],
    schedules: ["a", "b"].map((name) => schedule(name, { cron: "0 3 * * *" }, child, name)),
    codec,
  });
  const { perdure, sql } = b;
  await sql("drop trigger check_checkpoint on :SCHEMA.checkpoint");
  /** Exchanges a column between the first two rows that fit. */
  const swap = async (table: string, column: string, where = "true"): Promise<void> => {
    const rows = await sql(
      `select ctid::text as at, "${column}"::text as text from :SCHEMA."${table}" where ${where} limit 2`,
    );
    t.equal(rows.length, 2, `${table}.${column} where ${where}`);
    for (const [at, text] of [
      [rows[0].at, rows[1].text],
      [rows[1].at, rows[0].text],
    ]) {
      await sql(`update :SCHEMA."${table}" set "${column}" = $2::json where ctid = $1::tid`, [at, text]);
    }
  };
  const of = (id: string): string => `run = (select key from :SCHEMA.run where id = '${id}')`;
  const either = `(${of("a")} or ${of("b")})`;
  const isDecode = async (reading: Promise<unknown>, what: string): Promise<void> => {
    const { code, message } = await rejection(reading);
    t.equal(code, "PERDURE_DECODE", `${what}: ${message}`);
    t.match(message, /comes from another run or slot/);
  };
  const unreadable = async (run: RunHandle, kind: string): Promise<boolean> =>
    (await run.history()).some((entry) => entry.kind === kind && (entry.unreadable as any)?.code === "PERDURE_DECODE");

  const runs = await Promise.all(["a", "b"].map((id) => perdure.start(all.with({ id }), id)));
  for (const run of runs) {
    await run.send(news, { secret: "x" });
    await run.send(gate, null);
    await reaches(run, "failed");
  }
  const [a] = runs as [RunHandle, RunHandle];
  t.match((await rejection(a.result())).code, "PERDURE_FAILED");
  await swap("outcome", "value", either);
  await isDecode(a.result(), "outcome");
  await swap("round", "error", either);
  t.ok(await unreadable(a, "attempt"), "round");
  await swap("try", "error", either);
  t.ok(await unreadable(a, "step"), "try");
  await swap("try", "error", `${either} and error is not null`);
  await swap("value", "value", either);
  await isDecode(a.get(mood), "value");
  await swap("item", "value", either);
  await isDecode(items(a.read(tokens)), "item");
  for (const kind of ["transaction", "race", "event"]) {
    await swap("checkpoint", "value", `${either} and kind = '${kind}'`);
    t.ok(await unreadable(a, kind), `${kind}, between runs`);
  }

  const waiting = await perdure.start(held.with({ id: "held" }), "held");
  await atGate(waiting);
  await swap("checkpoint", "value", `${of("held")} and kind = 'step'`);
  t.ok(await unreadable(waiting, "step"), "between two slots of a run");
  const late = await Promise.all(["c", "d"].map((id) => perdure.start(held.with({ id, delay: "1h" }), id)));
  await swap("input", "args", `(${of("c")} or ${of("d")})`);
  const early = await Promise.all(["e", "f"].map((id) => perdure.start(held.with({ id, delay: "1h" }), id)));
  await Promise.all(early.map((run) => run.send(gate, null)));
  await swap("mail", "data", `(${of("e")} or ${of("f")})`);
  const twice = await perdure.start(held.with({ id: "g", delay: "1h" }), "g");
  for (let n = 0; n < 2; n += 1) await twice.send(gate, null);
  await swap("mail", "data", of("g"));
  await b.advance(3_600_000);
  for (const run of [...late, ...early, twice]) {
    await reaches(run, "blocked");
    t.match((await run.status()).reason, /^undecodable: .*comes from another run or slot/, run.id);
  }
  await sql("update :SCHEMA.schedule s set args = (select o.args from :SCHEMA.schedule o where o.name <> s.name)");
  await reaches(await perdure.schedules.trigger("a"), "blocked");
});

test("a key rotates under a suspended run: it goes on, and the old key can go once nothing uses it", async (t) => {
  const order = workflow("order", async (what: string) => {
    const { echoed } = await tell(what);
    await gate.wait();
    return (await tell(`${echoed} again`)).echoed;
  });
  const nightly = schedule("nightly", { cron: "0 3 * * *" }, order, "nightly");
  const b = await coldBench(t, { workflows: [order], schedules: [nightly], codec });
  const run = await b.perdure.start(order.with({ id: "r" }), SECRET);
  await atGate(run);
  await b.perdure.shutdown();
  const both = encryption({ keys: { one: key1, two: key2 }, current: "two", hashKey });
  const second = await b.another({ codec: both });
  const inUse = async (): Promise<string[]> =>
    (await b.sql("select codec, kind from :SCHEMA.codecs where in_use > 0 order by 1, 2")).map(
      ({ codec, kind }) => `${codec} ${kind}`,
    );
  t.same(
    await inUse(),
    ["encrypt:one checkpoint", "encrypt:one input", "encrypt:two schedule"],
    "a launch writes a schedule's arguments anew",
  );
  t.same(
    (await b.sql("select what from :SCHEMA.schedule_history")).map(({ what }) => what),
    ["added"],
    "which is no change of it",
  );
  await second.send("r", gate, null);
  t.equal(await second.get("r").result(patient), `${SECRET} again`);
  t.same(await inUse(), ["encrypt:two schedule"]);
  await second.shutdown();
  const third = await b.another({ codec: encryption({ keys: { two: key2 }, current: "two", hashKey }) });
  t.equal((await rejection(third.get("r").result())).code, undefined, "its result is of the new key");
});

test("a run whose key is missing is blocked, says which, and goes on after a deploy that has it", async (t) => {
  const order = workflow("order", async (what: string) => {
    await gate.wait();
    return what;
  });
  const b = await coldBench(t, { workflows: [order], codec });
  const run = await b.perdure.start(order.with({ id: "r" }), SECRET);
  await atGate(run);
  await b.perdure.shutdown();
  for (const [options, message] of [
    [{}, /codec "encrypt" wrote it, and this engine has none/],
    [
      { codec: encryption({ keys: { two: key2 }, current: "two", hashKey }) },
      /"input" of run "r".*key "one" is not among the keys/,
    ],
  ] as [PerdureOptions, RegExp][]) {
    const without = await b.another({ codec: undefined, ...options });
    if ((await without.get("r").status()).state === "blocked") await without.get("r").retry();
    else await without.send("r", gate, null);
    await reaches(without.get("r"), "blocked");
    await eventually(async () => message.test((await without.get("r").status()).reason ?? ""));
    t.match((await without.get("r").status()).reason, message);
    await without.shutdown();
  }
  const again = await b.another({ codec: encryption({ keys: { one: key1, two: key2 }, current: "two", hashKey }) });
  await again.get("r").retry();
  t.equal(await again.get("r").result(patient), SECRET);
});

test("runs that began before the codec was there go on, and their starts are still known", async (t) => {
  const order = workflow("order", async (what: string) => {
    const first = await tell(what);
    const made = await child(what);
    const handle = await start(child.with({ id: `child of ${what}` }), what);
    await gate.wait();
    const { secret } = (await news.wait()).data;
    return [first, made, await handle.result(), (await tell(what)).echoed, (await tell(secret)).echoed];
  });
  const b = await coldBench(t, { workflows: [order, child] });
  const run = await b.perdure.start(order.with({ id: "r" }), "old");
  await atGate(run);
  await b.perdure.shutdown();
  const first = await b.another({ codec: encryption({ ...KEYS, current: null }) });
  const after = await b.another({ codec });
  t.equal((await after.start(order.with({ id: "r" }), "old")).id, "r", "an equal start");
  t.equal((await rejection(after.start(order.with({ id: "r" }), "other"))).code, "PERDURE_CONFLICT");
  await b.sql("select :SCHEMA.send_event('r', 'news', '{\"secret\": \"from SQL\"}')");
  await first.shutdown();
  await after.send("r", gate, null);
  t.same(await after.get("r").result(patient), [
    { echoed: "old" },
    { child: "old" },
    { child: "old" },
    "old",
    "from SQL",
  ]);
  const [{ n }] = await b.sql("select count(*)::integer as n from :SCHEMA.run where workflow = 'child'");
  t.equal(n, 2, "no child was started again");
});

test("a process of the first of two deploys goes on with what one of the second began, and knows its starts", async (t) => {
  const order = workflow("order", async (what: string) => {
    const first = await tell(what);
    await gate.wait();
    return [first, await tell(what), await child(what)];
  });
  const b = await coldBench(t, { workflows: [order, child], codec });
  const run = await b.perdure.start(order.with({ id: "r" }), "new");
  await atGate(run);
  await b.perdure.shutdown();
  const first = await b.another({ codec: encryption({ ...KEYS, current: null }) });
  t.equal((await first.start(order.with({ id: "r" }), "new")).id, "r", "an equal start");
  t.equal((await rejection(first.start(order.with({ id: "r" }), "other"))).code, "PERDURE_CONFLICT");
  await first.send("r", gate, null);
  t.same(await first.get("r").result(patient), [{ echoed: "new" }, { echoed: "new" }, { child: "new" }]);
});

test("a fork reads what its ancestors wrote, a fork of a fork and of a scheduled run too", async (t) => {
  let tries = 0;
  const count = step("count", async (what: string) => `${what} ${++tries}`);
  const order = workflow("order", async (what: string) => {
    const before = await tell(what);
    await mood.set(what);
    await tokens.write(what);
    return [before.echoed, await count(what), await child(what), await count("last")];
  });
  const b = await coldBench(t, {
    workflows: [order, child],
    schedules: [schedule("nightly", { cron: "0 3 * * *" }, order, "scheduled")],
    codec,
  });
  const run = await b.perdure.start(order.with({ id: "a" }), "x");
  t.same(await run.result(patient), ["x", "x 1", { child: "x" }, "last 2"]);
  const fork = await run.fork({ from: "count", id: "b" });
  t.same(await fork.result(patient), ["x", "x 3", { child: "x" }, "last 4"]);
  const last = (await fork.history()).filter(({ name }) => name === "count").at(-1)!.slot;
  const second = await fork.fork({ from: last, id: "c" });
  t.same(await second.result(patient), ["x", "x 3", { child: "x" }, "last 5"]);
  const whole = await second.fork({ from: "tell", id: "d" });
  t.same(await whole.result(patient), ["x", "x 6", { child: "x" }, "last 7"]);
  for (const each of [fork, second, whole]) {
    t.same(
      (await each.history()).filter(({ unreadable }) => unreadable),
      [],
    );
    t.equal(await each.get(mood), "x");
    t.same(await items(each.read(tokens)), ["x"]);
  }
  const triggered = await b.perdure.schedules.trigger("nightly");
  await triggered.result(patient);
  t.same(((await (await triggered.fork({ from: "tell" })).result(patient)) as unknown[])[0], "scheduled");
});

test("plaintext is refused where the codec says so: from SQL, and from before", async (t) => {
  const order = workflow("order", async (what: string) => {
    const { data } = await news.wait();
    return [what, data.secret];
  });
  const b = await coldBench(t, { workflows: [order], codec });
  await b.sql(`select :SCHEMA.start_run('order', '["sql"]', 'lenient')`);
  await b.sql(`select :SCHEMA.send_event('lenient', 'news', '{"secret": "sql"}')`);
  t.same(await b.perdure.get("lenient").result(patient), ["sql", "sql"]);
  await b.perdure.shutdown();
  const strict = await b.another({ codec: encryption({ ...KEYS, plaintext: "refuse" }) });
  await b.sql(`select :SCHEMA.start_run('order', '["sql"]', 'started')`);
  await reaches(strict.get("started"), "blocked");
  t.match(
    (await strict.get("started").status()).reason,
    /codec "encrypt" did not write it, and its `plaintext` is "refuse"/,
  );
  const run = await strict.start(order.with({ id: "sent" }), "ts");
  await b.sql(`select :SCHEMA.send_event('sent', 'news', '{"secret": "sql"}')`);
  await reaches(run, "blocked");
  const fine = await strict.start(order, "ts");
  await fine.send(news, { secret: "ts" });
  t.same(await fine.result(patient), ["ts", "ts"]);
});

test("in the caller's transaction, to many runs at once, and from a body values are bound to each run", async (t) => {
  const order = workflow("order", async (what: string) => [what, (await news.wait()).data.secret]);
  const b = await coldBench(t, { workflows: [order], codec });
  const ids = ["a", "b", "c"];
  const { default: pg } = await import("pg");
  const client = new pg.Client(b.url);
  await client.connect();
  await client.query("begin");
  const using = b.perdure.using(client);
  for (const id of ids) await using.start(order.with({ id }), id);
  await using.send("c", news, { secret: "in a transaction" });
  await client.query("commit");
  await client.end();
  t.same((await b.perdure.send(["a", "b"], news, { secret: "to many" })).sent, ["a", "b"]);
  for (const id of ["a", "b"]) t.same(await b.perdure.get(id).result(patient), [id, "to many"]);
  t.same(await b.perdure.get("c").result(patient), ["c", "in a transaction"]);
  const [{ n }] = await b.sql(
    "select count(*)::integer as n from :SCHEMA.mail where data::text not like '%encrypt:one%'",
  );
  t.equal(n, 0);
});

test("a codec that cannot encode a step's result blocks the run, and the process lives", async (t) => {
  let away = false;
  const kms = {
    name: "kms",
    encode: (data: Uint8Array) => {
      if (away) throw new Error("the key service is away");
      return { data };
    },
    decode: ({ data }: { data: Uint8Array }) => data,
  };
  const order = workflow("order", async () => (await tell("x")).echoed);
  const leave = workflow("leave", async () => {
    away = true;
    return order();
  });
  const b = await coldBench(t, { workflows: [order, leave], codec: kms, logger: collector() });
  const run = await b.perdure.start(order);
  t.equal(await run.result(patient), "x");
  const blocked = await b.perdure.start(leave);
  await reaches(blocked, "blocked");
  t.match((await blocked.status()).reason, /codec "kms" could not encode it: the key service is away/);
  t.match(await rejection(b.perdure.start(order)), { code: "PERDURE_SERIALIZE" });
  away = false;
  t.equal(await (await b.perdure.start(order)).result(patient), "x");
  t.ok(b.perdure instanceof Perdure);
});
