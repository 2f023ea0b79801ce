/** Releases side by side on one schema, under load: the last one's processes on the next one's schema, and what each says to a schema that is not for it. */
import { setTimeout as pause } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { type Test, test } from "tap";
import { Perdure, type PerdureOptions } from "../../lib/index.ts";
import { type Crew, crew, type Member } from "../support/crew.ts";
import { collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { rejection } from "../support/gate.ts";
import { cutOut, release } from "../support/release.ts";
import { stranger } from "../support/stranger.ts";

/** What a statement of ours may wait for a lock, whatever a migration waits for. */
const STALL_MS = 2000;

const view = cutOut("09-views.sql", "create view :SCHEMA.runs as", "from :SCHEMA.run r;")
  .replace("create view", "create or replace view")
  .replace(" as tags\n", " as tags, r.note\n");
const peek = cutOut("08-worker.sql", "create function :SCHEMA.peek(", "$perdure$;");
const replaced = [
  cutOut("06-event.sql", "create function :SCHEMA.send_events(", "$perdure$;"),
  cutOut("07-finish.sql", "create function :SCHEMA.finish_runs(", "$perdure$;"),
].map((text) => text.replace("create function", "create or replace function"));

/** The next release: a column of the hottest table, an index, a view, functions that are replaced, and one that is new and in use. */
const NEXT = {
  "000002-note.sql": "-- Works with: 000001-initial.sql\nalter table :SCHEMA.run add column note text;",
  "000003-index.sql":
    "--! no-transaction\n-- Works with: 000001-initial.sql\ncreate index concurrently if not exists checkpoint_kind on :SCHEMA.checkpoint (kind);",
  "000004-view.sql": `-- Works with: 000001-initial.sql\n${view}`,
  "000005-functions.sql": `-- Works with: 000001-initial.sql\n${[...replaced, peek.replace(".peek(", ".peek_2(")].join("\n")}`,
};
const CODE = { "lib/db/store.js": ['"peek"', '"peek_2"'] } as const;
/** And the one after it, which takes away what only the first one calls. */
const AFTER = {
  ...NEXT,
  "000006-contract.sql":
    "-- Works with: 000005-functions.sql\ndrop function :SCHEMA.peek(bigint, text[], text[], text[]);",
};

/** Everything that is not a migration's own, and waits for a lock of one: who and how long, looked at all the time until it is stopped. */
function stalls(t: Test, url: string): { longest: number; seen: Set<string>; stop(): Promise<void> } {
  const found = { longest: 0, seen: new Set<string>(), stop: async () => {} };
  let stopped = false;
  const waiting = `select pid, mode, extract(epoch from clock_timestamp() - waitstart)::float8 * 1000 as ms, waitstart::text as since
    from pg_locks where not granted and waitstart is not null and relation is not null
    and database = (select oid from pg_database where datname = current_database())`;
  const looking = (async () => {
    const look = await stranger(t, { url, schema: "" });
    while (!stopped) {
      for (const row of await look(waiting)) {
        if (row.mode === "AccessExclusiveLock") found.seen.add(row.since);
        else found.longest = Math.max(found.longest, row.ms);
      }
      await pause(20);
    }
  })();
  found.stop = () => {
    stopped = true;
    return looking;
  };
  return found;
}

/** Sends and reads as other programs do, over SQL and with the last release's library, until it is stopped. What fails is kept. */
function outsiders(
  t: Test,
  team: Crew,
  perdure: Perdure,
): { sent: string[]; reads: number; errors: string[]; stop(): Promise<void> } {
  const state = { sent: [] as string[], reads: 0, errors: [] as string[], stop: async () => {} };
  let stopped = false;
  const lane = async (once: (n: number) => Promise<void>): Promise<void> => {
    for (let n = 0; !stopped; n += 1) {
      await once(n).catch((error: unknown) => state.errors.push(String(error)));
      await pause(30);
    }
  };
  const run = async () => {
    const sender = await stranger(t, team);
    const reader = await stranger(t, team);
    await Promise.all([
      lane(async (n) => {
        const id = `sent-${n}`;
        await sender("select :SCHEMA.start_run('waiting', $1::json, id => $2)", [JSON.stringify([id]), id]);
        state.sent.push(id);
        await sender("select :SCHEMA.send_event($1, 'go', $2::json)", [id, JSON.stringify(id)]);
      }),
      lane(async () => {
        await reader("select * from :SCHEMA.runs order by created_at desc limit 20");
        await reader("select * from :SCHEMA.steps limit 20");
        await reader("select * from :SCHEMA.workers");
        state.reads += 1;
      }),
      lane(async () => {
        const { runs } = await perdure.list({ limit: 10 });
        if (runs[0]) await perdure.get(runs[0].id).history();
        state.reads += 1;
      }),
    ]);
  };
  const running = run();
  state.stop = () => {
    stopped = true;
    return running;
  };
  return state;
}

const client = async (t: Test, { url, schema }: Crew, options: PerdureOptions = {}): Promise<Perdure> => {
  const perdure = new Perdure({ database: url, schema, worker: false, logger: collector(), ...options });
  t.teardown(() => perdure.shutdown());
  await perdure.launch();
  return perdure;
};

/** Has a process run something, and says which process did. */
async function worksAlone(team: Crew, member: Member, id: string): Promise<void> {
  await member.call("start", "slow", id, id, 1);
  await member.call("result", id);
  if ((await team.journal(id)).length === 0) throw new Error(`${id} did not run`);
}

const complaints = async (member: Member): Promise<string[]> =>
  ((await member.call("log")) as string[]).filter((line) => !/^perdure: (migrating|applied)/.test(line));

test("a release migrates under the last one's workers, senders and readers, behind strangers' open transactions: nothing fails, and nobody waits for two seconds", async (t) => {
  const team = await crew(t);
  const next = release(t, { migrations: NEXT, code: CODE });
  const old = [await team.member(), await team.member()];
  const dashboard = await client(t, team);
  const seen = stalls(t, team.url);
  const others = outsiders(t, team, dashboard);
  await Promise.all(old.map((member) => member.call("load", 4)));
  // One has started a run and keeps its transaction open, the other reads.
  const [starter, reader] = [await stranger(t, team), await stranger(t, team)];
  await starter("begin");
  await starter("select :SCHEMA.start_run('five', '[\"strange\", \"\"]', id => 'strange')");
  await reader("begin isolation level repeatable read");
  await reader("select count(*) from :SCHEMA.checkpoint");
  const fresh = await team.recruit({ release: next });
  const launching = fresh.call("launch");
  const done = async () =>
    (await team.sql("select count(*)::int as n from :SCHEMA.run where state = 'completed'"))[0].n;
  await eventually(() => seen.seen.size >= 2, 60_000);
  t.equal(
    await done().then((n) => eventually(async () => (await done()) > n, 30_000)),
    true,
    "runs go on between the tries",
  );
  await starter("commit");
  const building =
    "select from pg_locks l join pg_stat_activity a using (pid) where not l.granted and l.locktype = 'virtualxid' and a.query like '%checkpoint_kind%'";
  await eventually(async () => (await team.sql(building)).length === 1, 60_000);
  const before = await done();
  await eventually(async () => (await done()) > before + 20, 60_000);
  t.pass("while an index waits for the reader's end, all others go on");
  await reader("commit");
  await launching;
  t.same(
    (await team.sql("select name from :SCHEMA.migrations order by name")).map(({ name }) => name),
    ["000001-initial.sql", ...Object.keys(NEXT)],
  );
  t.same(await team.sql("select indisvalid from pg_index where indexrelid = ':SCHEMA.checkpoint_kind'::regclass"), [
    { indisvalid: true },
  ]);
  // Side by side: the last release's processes, one that starts only now, a dashboard, and the next release's.
  const late = await team.member();
  const lateDashboard = await client(t, team, { migrate: false });
  await fresh.call("load", 4);
  for (const [n, member] of [...old, late, fresh].entries()) await worksAlone(team, member, `beside-${n}`);
  const { Perdure: Next } = (await import(pathToFileURL(`${next}/dist/lib/index.js`).href)) as {
    Perdure: typeof Perdure;
  };
  const nextDashboard = new Next({ database: team.url, schema: team.schema, worker: false, logger: collector() });
  t.teardown(() => nextDashboard.shutdown());
  await nextDashboard.launch();
  for (const reading of [lateDashboard, nextDashboard])
    t.match((await reading.list({ workflow: "five" })).runs, [{ id: "strange" }]);
  await pause(500);
  await Promise.all([...old, fresh].map((member) => member.call("unload")));
  await Promise.all([others.stop(), seen.stop()]);
  t.same(others.errors, [], "no sender and no reader failed");
  t.ok(others.sent.length > 20 && others.reads > 20, `${others.sent.length} sent, ${others.reads} read`);
  await eventually(
    async () => (await team.sql("select from :SCHEMA.run where finished_at is null")).length === 0,
    60_000,
  );
  t.same(
    await team.sql("select state, count(*)::int as n from :SCHEMA.run where state <> 'completed' group by state"),
    [],
    "nothing was lost",
  );
  t.same(await team.sql("select id from :SCHEMA.run where id = 'strange' and state = 'completed'"), [
    { id: "strange" },
  ]);
  const results = await Promise.all(others.sent.map((id) => dashboard.get(id).result()));
  t.same(results, others.sent, "every event was taken once, by its run");
  for (const member of [...old, late, fresh]) t.same(await complaints(member), [], "no process had trouble");
  t.comment(
    `longest wait of ours for a lock: ${Math.round(seen.longest)} ms, behind ${seen.seen.size} tries of the migration`,
  );
  t.ok(seen.longest > 0 && seen.longest < STALL_MS, "waits behind the migration were seen, none of two seconds");
});

test("a release that takes away what the last one calls waits until that is gone, and then refuses it", async (t) => {
  const team = await crew(t);
  const [next, after] = [release(t, { migrations: NEXT, code: CODE }), release(t, { migrations: AFTER, code: CODE })];
  const old = await team.member({ lease: "2s" });
  const early = await team.recruit({ release: next, migrate: false });
  const refusedEarly = await rejection(early.call("launch"));
  t.match(
    refusedEarly.message,
    /schema "\w+" has migration 000001-initial\.sql and needs 000005-functions\.sql: call migrate\(\) of an engine, or launch with `migrate` on/,
    "a newer engine on an older schema says what to do",
  );
  const tooSoon = await rejection((await team.recruit({ release: after })).call("launch"));
  t.match(
    tooSoon.message,
    /is not migrated: 000006-contract\.sql works with no process that does not know 000005-functions\.sql, and of these are at work: \S+:\d+ \(000001-initial\.sql\); stop them, or deploy the release before this one everywhere/,
  );
  t.ok(tooSoon.message.includes(`:${old.pid} (`), "which process is in the way");
  await worksAlone(team, old, "still");
  // What came before it is applied, and does the old process no harm. Frozen, it is not at work any more.
  old.process.kill("SIGSTOP");
  const dead = "select from :SCHEMA.worker where dead_at is null and beat_at + lease > clock_timestamp()";
  await eventually(async () => (await team.sql(dead)).length === 0, 30_000);
  const newest = await team.member({ release: after, lease: "2s" });
  await worksAlone(team, newest, "newest");
  const refused = await rejection((await team.recruit()).call("launch"));
  t.match(
    refused.message,
    /has migration 000006-contract\.sql \(sha1:\w+\), which works with no process that does not know 000005-functions\.sql, but this version of Perdure knows none but those up to 000001-initial\.sql: upgrade the perdure package/,
  );
  old.process.kill("SIGCONT");
  const log = await eventually(
    async () => ((await old.call("log")) as string[]).find((line) => /takes no more/.test(line)),
    30_000,
  );
  t.match(
    log,
    /migration 000006-contract\.sql was applied, which works with no process that does not know 000005-functions\.sql; .*upgrade the perdure package/,
  );
  await newest.call("start", "slow", "whose", "whose", 1);
  t.equal(await newest.call("result", "whose"), newest.pid);
});
