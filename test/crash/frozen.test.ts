/** A process that is frozen, or whose body blocks, stands in nobody's way: neither vacuum's nor, past its lease, that of its runs. */
import pg from "pg";
import { type Test, test } from "tap";
import { channelOf } from "../../lib/db/notifier.ts";
import { startCluster } from "../support/cluster.ts";
import { type Crew, crew, type Member } from "../support/crew.ts";
import { eventually } from "../support/eventually.ts";

/** The listener's session is ended after 15 s in which nothing that was sent to it is read. */
const PATIENCE_MS = 60_000;

/** A server of its own: what holds vacuum back is then the crew's. */
async function crewAlone(t: Test): Promise<Crew> {
  const { host, port, user, database } = await startCluster(t);
  const url = `postgres://${user}@${host}:${port}/${database}`;
  const pool = new pg.Pool({ connectionString: url, max: 5 });
  pool.on("error", () => {});
  t.teardown(() => pool.end());
  return crew(t, { url, schema: "perdure", pool });
}

/** What the sessions of a process hold back. */
const held = (team: Crew, { name }: Member): Promise<{ xmin: string | null; since: Date | null }[]> =>
  team.sql(
    "select backend_xmin as xmin, xact_start as since from pg_stat_activity where application_name = $1 and (backend_xmin is not null or xact_start is not null)",
    [name],
  );

/** How many bytes a vacuum leaves of rows that nobody can see any more. */
async function dead(team: Crew): Promise<number> {
  await team.sql("create table if not exists public.litter (n int) with (autovacuum_enabled = off)");
  await team.sql("insert into public.litter select generate_series(1, 1000)");
  await team.sql("delete from public.litter");
  await team.sql("vacuum public.litter");
  return (await team.sql("select pg_relation_size('public.litter')::int as n"))[0].n;
}

test("a frozen process does not hold vacuum back, neither idle nor while its listener is flooded", async (t) => {
  const team = await crewAlone(t);
  const [frozen, awake] = [await team.member(), await team.member()];
  await awake.call("load", 4);
  await eventually(async () => (await held(team, frozen)).length === 0, PATIENCE_MS);
  frozen.process.kill("SIGSTOP");
  // Hints go on for seconds: the listener's session gets rid of them.
  const done = async () =>
    (await team.sql("select count(*)::int as n from :SCHEMA.run where state = 'completed'"))[0].n;
  const before = await done();
  await eventually(async () => (await done()) > before + 20, PATIENCE_MS);
  t.same(await held(team, frozen), [], "no transaction is open, no snapshot held");
  t.equal(
    await eventually(async () => (await dead(team)) === 0, PATIENCE_MS),
    true,
    "vacuum removes what was deleted since",
  );
  // More than its socket takes.
  const stuck = async () => (await held(team, frozen)).length > 0;
  await team.sql("select pg_notify($1, repeat('y', 7900) || n) from generate_series(1, 3000) n", [
    channelOf(team.schema),
  ]);
  t.ok(await eventually(stuck, 10_000), "its listener cannot get rid of them, and does hold vacuum back,");
  await eventually(async () => !(await stuck()), PATIENCE_MS);
  t.equal(await eventually(async () => (await dead(team)) === 0, PATIENCE_MS), true, "but not for longer than 15 s");
  frozen.process.kill("SIGCONT");
  await awake.call("unload");
  await frozen.call("start", "slow", "thawed", "thawed", 1);
  await team.reaches("thawed", "completed", PATIENCE_MS);
  t.pass("thawed, it listens again");
});

test("with the default lease, a body that blocks for 20 s keeps its run", async (t) => {
  const team = await crewAlone(t);
  const [owner, other] = [await team.member(), await team.member()];
  await owner.call("start", "blocking", "long", "long", 20_000);
  t.equal(await other.call("result", "long"), owner.pid, "it went on where it was");
  const [before, after, ...more] = await team.journal("long");
  t.match(
    [before, after],
    [
      { step: "create", pid: owner.pid },
      { step: "blocked", pid: owner.pid },
    ],
  );
  t.ok(after!.at - before!.at >= 19_900, "20 s later");
  t.same(more, [], "each step once");
  t.match(await team.state("long"), { epoch: 1, crashes: 0 });
});

test("a body that blocks past its lease loses its run to another process, and what it writes then is refused", async (t) => {
  const team = await crew(t);
  const [owner, other] = [await team.member({ lease: "2s" }), await team.member({ lease: "2s" })];
  await owner.call("start", "blocking", "long", "long", 8000);
  await team.entered("long", "create", 1);
  const result = await other.call("result", "long");
  t.equal(result, other.pid, "another went on with it");
  await eventually(
    async () => (await owner.call("log")).some((line: string) => line.includes("was taken for dead")),
    PATIENCE_MS,
  );
  const [{ epoch }] = await team.sql("select epoch from :SCHEMA.run where id = 'long'");
  t.same(
    await team.sql(
      "select distinct c.epoch = $1 as last from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run where r.id = 'long' and c.name = 'blocked'",
      [epoch],
    ),
    [{ last: true }],
    "the checkpoint behind the block is the last claim's",
  );
});
