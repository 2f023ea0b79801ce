/** A process that was taken for dead and comes back: frozen, blocked, or beaten to it. Nothing that it writes counts. */
import { setTimeout as pause } from "node:timers/promises";
import { type Test, test } from "tap";
import { type Crew, crew, type Member } from "../support/crew.ts";
import { eventually } from "../support/eventually.ts";
import { freshSchema } from "../support/postgres.ts";

/** Leases this short find a frozen process within seconds. */
const LEASE = "2s";

async function pair(t: Test): Promise<{ team: Crew; owner: Member; other: Member }> {
  const team = await crew(t);
  const [owner, other] = [await team.member({ lease: LEASE }), await team.member({ lease: LEASE })];
  return { team, owner, other };
}

/** The claims that wrote the checkpoints of a run. */
const checkpoints = async (team: Crew, run: string): Promise<number[]> =>
  (
    await team.sql("select c.epoch from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run where r.id = $1", [
      run,
    ])
  ).map(({ epoch }) => epoch);

test("a process frozen beyond its lease finds its runs taken over, and all that it writes then is refused", async (t) => {
  const { team, owner, other } = await pair(t);
  // A plain step, a transaction, and a step that ends after the thaw by itself.
  for (const step of ["create", "charge"]) await owner.call("start", "five", step, step, step);
  await owner.call("start", "slow", "late", "late", 3000);
  for (const [run, step] of [
    ["create", "create"],
    ["charge", "charge"],
    ["late", "slowly"],
  ] as const)
    await team.entered(run, step);
  const frozen = performance.now();
  owner.process.kill("SIGSTOP");
  await team.entered("create", "create", 2);
  t.ok(performance.now() - frozen < 10_000, "another takes over once the lease is over");
  // The frozen process still holds the transaction open: its row is not visible, and not in anybody's way.
  const results = await Promise.all(["create", "charge"].map((run) => other.call("result", run)));
  t.match(results[0][0], "create 2");
  t.match(results[1][1], "charge 2");
  // Thawed while the second execution of the third is under way: the first one ends its step before.
  await team.entered("late", "slowly", 2);
  owner.process.kill("SIGCONT");
  t.equal(await other.call("result", "late"), other.pid, "the outcome is the second execution's");
  // The thawed process takes new work: it lives on, without its old claims.
  await owner.call("start", "slow", "new", "new", 1);
  t.equal(await owner.call("result", "new"), owner.pid);
  const taken = async () => (await owner.call("log")).some((line: string) => line.includes("was taken for dead"));
  await eventually(taken, 10_000);
  t.same(await checkpoints(team, "late"), [2, 2], "no checkpoint is the first claim's");
  t.same(
    (await team.journal("create")).map(({ pid }) => pid === owner.pid),
    [true, false, false, false, false, false],
    "it began nothing more",
  );
  t.same(
    await team.sql("select step from :SCHEMA.ledger where run = 'charge' order by step"),
    [{ step: "bill" }, { step: "charge" }],
    "each transaction took effect once",
  );
});

test("a frozen leader is replaced, and timers ring on", async (t) => {
  const { team, owner, other } = await pair(t);
  const leader = async (): Promise<number> =>
    (
      await team.sql(
        "select split_part(w.name, ':', 2)::int as pid from :SCHEMA.leader l join :SCHEMA.worker w on w.id = l.worker where l.until > clock_timestamp()",
      )
    )[0]?.pid;
  const first = await eventually(leader, 10_000);
  const [frozen, awake] = first === owner.pid ? [owner, other] : [other, owner];
  frozen.process.kill("SIGSTOP");
  await eventually(async () => (await leader()) === awake.pid, 10_000);
  t.equal(await leader(), awake.pid, "the other leads within the time of a lease, not of 15 s");
  frozen.process.kill("SIGCONT");
});

test("a process blocked for less than its lease keeps its runs; for longer, it loses them and its writes are refused", async (t) => {
  const { team, owner, other } = await pair(t);
  await owner.call("start", "slow", "short", "short", 500);
  await team.entered("short", "slowly");
  await owner.call("block", 1000);
  t.equal(await owner.call("result", "short"), owner.pid, "the step goes on where it was");
  t.equal((await team.journal("short")).filter(({ step }) => step === "slowly").length, 1, "once");
  // Its step has ended when the process comes to, and the second execution's has not: both outcomes reach the database.
  await owner.call("start", "slow", "long", "long", 4500);
  await team.entered("long", "slowly");
  await Promise.all([owner.call("block", 6000), team.entered("long", "slowly", 2)]);
  t.equal(await other.call("result", "long"), other.pid, "another went on with it");
  t.same(
    (await team.journal("long")).map(({ pid }) => pid),
    [owner.pid, other.pid, other.pid],
    "and the blocked one only began it",
  );
  t.same(await checkpoints(team, "long"), [2, 2], "no checkpoint is the first claim's");
  const [row] = await team.sql("select crashes, epoch from :SCHEMA.run where id = 'long'");
  t.match(row, { crashes: 0, epoch: 2 });
});

test("two executions that finish one step in the same millisecond leave one outcome", async (t) => {
  const { url, schema, pool } = await freshSchema(t);
  const team = await crew(t, { url, schema, pool });
  const worker = await team.member({ workflows: ["five"] });
  await worker.call("start", "five", "twice", "twice", "create");
  await team.entered("twice", "create");
  const [run] = await team.sql("select key, epoch, worker from :SCHEMA.run where id = 'twice'");
  // The claim of the first execution is taken over by a second one, which nobody runs: it is the test that writes for both.
  await team.sql("update :SCHEMA.run set epoch = epoch + 1 where key = $1", [run.key]);
  const record = (epoch: number, value: string) =>
    pool.query(
      `select verdict from "${schema}".record_steps(array[$1::bigint], array[$2::int], array['step:test#0'], array[1], array[1], array['step'], array['test'],
        array['completed'], array[$3], array[null::text], array[1], array[0::float8], array[0::float8], array[null::bigint], true)`,
      [run.key, epoch, JSON.stringify(value)],
    );
  const latch = await pool.connect();
  await latch.query("begin");
  await latch.query(`select from "${schema}".run where key = $1 for update`, [run.key]);
  const both = Promise.all([record(run.epoch, "the first's"), record(run.epoch + 1, "the second's")]);
  await eventually(
    async () =>
      (
        await team.sql("select from pg_stat_activity where wait_event_type = 'Lock' and query like $1", [
          `%"${schema}".record_steps%`,
        ])
      ).length === 2,
    10_000,
  );
  await latch.query("commit");
  latch.release();
  const [first, second] = await both;
  t.equal(first.rows[0].verdict, "stale", "the claim that is over is refused");
  t.equal(second.rows[0].verdict, "ok");
  t.same(await team.sql("select value from :SCHEMA.checkpoint where slot = 'step:test#0'"), [
    { value: "the second's" },
  ]);
  const again = await record(run.epoch + 1, "another try's");
  t.equal(again.rows[0].verdict, "ok", "the claim's own repetition is no error");
  t.same(
    await team.sql("select value from :SCHEMA.checkpoint where slot = 'step:test#0'"),
    [{ value: "the second's" }],
    "and changes nothing",
  );
  // Nothing else happens: the process whose claim is over notices, and writes nothing.
  await pause(200);
  t.equal((await team.sql("select from :SCHEMA.checkpoint")).length, 1);
});
