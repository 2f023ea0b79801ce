/** Which hints follow a commit: those that somebody wants to hear. On a real server. */
import { type Test, test } from "tap";
import { connectClient } from "../../lib/db/connect.ts";
import { type About, hint } from "../../lib/db/hint.ts";
import { channelOf } from "../../lib/db/notifier.ts";
import { bench } from "../support/engine.ts";

const OWN = "7";

async function hinting(t: Test) {
  const { url, schema, sql } = await bench(t, { worker: false });
  // Nobody but those of the test wants anything.
  await sql("update :SCHEMA.worker set hungry = false, watching = false, reading = false");
  const [client, listener] = await Promise.all([1, 2].map(() => connectClient({ connectionString: url })));
  t.teardown(() => Promise.all([client!.end(), listener!.end()]));
  await listener!.query(`listen ${channelOf(schema)}`);
  let heard = "";
  listener!.on("notification", ({ payload }) => {
    heard += payload;
  });
  /** What is heard of a hint. */
  const payloadOf = async (letters: string, about: About | null = null): Promise<string> => {
    heard = "";
    const { rows } = await client!.query(hint(schema, OWN, letters, about));
    await listener!.query("select 1"); // a notification comes before the answer to what is asked after it
    t.equal(rows.length > 0, heard !== "", "who sends it learns whether it was sent");
    return heard;
  };
  const heardOf = async (letters: string, about: About | null = null): Promise<string> =>
    [...(await payloadOf(letters, about))].sort().join("");
  const enter = (id: number, wants: string): Promise<any[]> =>
    sql(
      `insert into :SCHEMA.worker (id, name, started_at, beat_at, lease, hungry, watching, reading, knows)
       values ($1, 'w', now(), now(), '30s', $2, $3, $4, '')`,
      [id, wants.includes("w"), wants.includes("d"), wants.includes("v")],
    );
  return { sql, payloadOf, heardOf, enter };
}

test("a hint is sent for what somebody else wants to hear, and of the rest always", async (t) => {
  const { heardOf, enter } = await hinting(t);
  t.equal(await heardOf("wdv"), "");
  t.equal(await heardOf("wdvb"), "b");
  await enter(7, "wdv");
  t.equal(await heardOf("wdv"), "", "one's own wish is none");
  await enter(8, "d");
  t.equal(await heardOf("wdv"), "d");
  await enter(9, "wv");
  t.equal(await heardOf("wdv"), "dvw");
  t.equal(await heardOf("v"), "v");
});

test("of a run that was sent an event, others hear if it is theirs to claim, or in work with them", async (t) => {
  const { sql, heardOf, enter } = await hinting(t);
  await enter(8, "w");
  const lanes = { workflows: ["w"], versions: ["1"], queues: ["default"] };
  const run = (id: string, state: string, more: { worker?: number; warm?: number; ready?: boolean } = {}) =>
    sql(
      `with made as (
         insert into :SCHEMA.run (id, workflow, version, queue, priority, state, topics, worker, warm, ready_at, created_at)
         values ($1, 'w', '1', 'default', 0, $2, case when $2 = 'suspended' then '{}'::text[] end, $3, $4, case when $5 then now() end, now())
         returning *
       ), noted as (insert into :SCHEMA.taken (worker, runs) select worker, array[key] from made where worker is not null)
       insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
       select workflow, version, queue, priority, ready_at, key, 0 from made where ready_at is not null`,
      [id, state, more.worker ?? null, more.warm ?? null, more.ready ?? false],
    );
  await run("waiting", "suspended");
  await run("woken", "pending", { ready: true });
  await run("own", "pending", { ready: true, warm: 7 });
  await run("theirs", "pending", { ready: true, warm: 8 });
  await run("here", "running", { worker: 7 });
  await run("there", "running", { worker: 8 });
  const of = (ids: string[], takes: boolean): Promise<string> => heardOf("", { ids, lanes: takes ? lanes : null });
  t.equal(await of(["waiting", "here", "nobody"], false), "");
  t.equal(await of(["waiting", "woken", "own", "here"], true), "", "this process claims them");
  t.equal(await of(["woken"], false), "w", "this process takes none");
  t.equal(await of(["theirs"], true), "w", "another has it in memory");
  t.equal(await of(["there"], true), "c");
  t.equal(await of(["there", "theirs", "waiting"], true), "cw");
  await sql("update :SCHEMA.worker set hungry = false");
  t.equal(await of(["there", "theirs"], true), "c", "nobody has a slot");
});

test("a hint at one run names one of the processes that could take it, and the one that has it in memory before others", async (t) => {
  const { sql, payloadOf, enter } = await hinting(t);
  const lane = { workflow: "w", version: "1", queue: "default" };
  const serve = (id: number): Promise<any[]> =>
    sql("insert into :SCHEMA.lane (workflow, version, queue, worker) values ('w', '1', 'default', $1)", [id]);
  await enter(8, "w");
  await serve(8);
  t.equal(await payloadOf("w", { lane }), "w", "of one alone nobody need be named");
  await enter(9, "w");
  await enter(10, "w");
  t.equal(await payloadOf("w", { lane }), "w8", "the others do not serve it");
  t.equal(await payloadOf("w", { lane: { ...lane, version: "2" } }), "w", "nobody does, by what they say");
  await serve(9);
  const named = new Set<string>();
  for (let n = 0; n < 50; n += 1) named.add(await payloadOf("w", { lane }));
  t.strictSame([...named].sort(), ["w8", "w9"], "each in its turn");
  await sql(`with made as (
      insert into :SCHEMA.run (id, workflow, version, queue, priority, state, warm, ready_at, created_at)
      values ('r', 'w', '1', 'default', 0, 'pending', 9, now(), now()) returning *
    ) insert into :SCHEMA.ready (workflow, version, queue, priority, ready_at, run, crashes)
    select workflow, version, queue, priority, ready_at, key, 0 from made`);
  const sent = { ids: ["r"], lanes: null };
  for (let n = 0; n < 10; n += 1) t.equal(await payloadOf("", sent), "w9");
  await sql("update :SCHEMA.worker set hungry = false where id = 9");
  t.equal(await payloadOf("", sent), "w8", "it has no slot");
  t.equal(await payloadOf("", { ids: ["r", "s"], lanes: null }), "w", "of several runs all may take some");
});
