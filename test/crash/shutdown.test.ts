/** Processes that come and go in good order: what one lays down another takes up, and nothing is left behind. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type Test, test } from "tap";
import { type Crew, crew, type Member } from "../support/crew.ts";
import { eventually } from "../support/eventually.ts";
import { freshSchema } from "../support/postgres.ts";

const LIBRARY = new URL("../../lib/index.js", import.meta.url);

/** How often each step of these runs was entered, and what their transactions did, if not once each. */
async function repeated(team: Crew, prefix: string): Promise<unknown[]> {
  const entered = await team.sql(
    "select run, step, count(*)::int from :SCHEMA.journal where run like $1 || '%' group by run, step having count(*) <> 1",
    [prefix],
  );
  const booked = await team.sql(
    "select run, step, count(*)::int from :SCHEMA.ledger where run like $1 || '%' group by run, step having count(*) <> 1",
    [prefix],
  );
  return [...entered, ...booked];
}

const unfinished = (team: Crew) => team.sql("select id, state, reason from :SCHEMA.run where state <> 'completed'");

/** Neither a session of the member nor a row of its worker is left. */
async function leftNothing(t: Test, team: Crew, member: Member): Promise<void> {
  await eventually(
    async () =>
      (await team.sql("select from pg_stat_activity where application_name = $1", [member.name])).length === 0,
    10_000,
  );
  t.same(
    await team.sql("select from :SCHEMA.worker where split_part(name, ':', 2) = $1", [`${member.pid}`]),
    [],
    "its worker is signed off",
  );
}

test("shutdown lets attempts in flight end, begins nothing more, and hands the rest back at once", async (t) => {
  const team = await crew(t);
  const [old, client] = [await team.member(), await team.member({ worker: false })];
  await old.call("start", "slow", "ends", "ends", 4000);
  await team.entered("ends", "slowly");
  let down = false;
  const leaving = old.call("shutdown").then(() => {
    down = true;
  });
  await client.call("start", "slow", "late", "late", 1);
  t.notOk(down, "it waits for the attempt");
  await leaving;
  t.match(
    await team.state("ends"),
    { state: "pending", worker: null, crashes: 0 },
    "the run is handed back between its steps",
  );
  t.same(await team.sql("select name from :SCHEMA.steps"), [{ name: "slowly" }], "what ended is recorded");
  t.match(await team.state("late"), { state: "pending", epoch: 0 }, "nothing is claimed while it ends");
  const next = await team.member();
  t.equal(await next.call("result", "ends"), old.pid);
  t.equal(await next.call("result", "late"), next.pid);
  t.same(await repeated(team, ""), [], "no step ran twice");
  await t.rejects(old.call("start", "slow", "x", "x", 1), /shut down/);
  await Promise.all([old.call("shutdown"), old.call("shutdown", 1)]);
  t.pass("another shutdown is the same shutdown");
});

test("an attempt that outlives the timeout of shutdown is given up, and another process goes on at once", async (t) => {
  const team = await crew(t);
  const [old, other] = [await team.member(), await team.member()];
  for (const run of ["a", "b", "c"]) await old.call("start", "five", run, run, "pack");
  for (const run of ["a", "b", "c"]) await team.entered(run, "pack");
  await old.call("shutdown", 200);
  const given = Date.now();
  for (const run of ["a", "b", "c"]) t.equal((await team.entered(run, "pack", 2)).pid, other.pid);
  t.ok(Date.now() - given < 2000, "without waiting for a lease or a missing lock");
  for (const run of ["a", "b", "c"]) {
    t.match(await other.call("result", run), { length: 5, 2: "pack 2" });
    t.match(await team.state(run), { crashes: 0, epoch: 2 }, "which is no crash");
  }
});

test("shutdown does not wait for runs that are suspended, or are about to be", async (t) => {
  const team = await crew(t);
  const old = await team.member();
  const starts = Array.from({ length: 60 }, (_, n) => old.call("start", "waiting", `w${n}`, `w${n}`).catch(() => {}));
  // Some are being started, some run, some are giving themselves up.
  await eventually(
    async () => (await team.sql("select from :SCHEMA.run where state = 'suspended'")).length > 5,
    10_000,
  );
  const since = performance.now();
  await old.call("shutdown");
  t.ok(performance.now() - since < 10_000, "it took less than its timeout");
  await Promise.all(starts);
  t.same(await team.sql("select from :SCHEMA.run where state = 'running'"), [], "none is held any more");
  const next = await team.member();
  const ids = (await team.sql("select id from :SCHEMA.run")).map(({ id }) => id);
  await next.call("send", ids, "go", "!");
  for (const id of ids) t.equal(await next.call("result", id), "!");
});

test("a rolling restart under load strands nothing and repeats nothing", async (t) => {
  const team = await crew(t);
  const client = await team.member({ worker: false });
  let old = await team.member();
  const ids: string[] = [];
  let going = true;
  const starting = (async () => {
    for (let n = 0; going; n += 1) {
      ids.push(await client.call("start", "five", `r${n}`, `r${n}`, ""));
    }
  })();
  for (let round = 1; round <= 4; round += 1) {
    const before = ids.length;
    const fresh = await team.member();
    await eventually(() => ids.length > before + 20, 20_000);
    const gone = once(old.process, "exit");
    await old.call("leave");
    await gone;
    await leftNothing(t, team, old);
    old = fresh;
  }
  going = false;
  await starting;
  await eventually(async () => (await unfinished(team)).length === 0, 30_000);
  t.comment(`${ids.length} runs`);
  t.same(await repeated(team, "r"), []);
  t.equal((await team.sql("select count(*)::int from :SCHEMA.ledger"))[0].count, 2 * ids.length);
});

test("two processes, 200 runs: each is executed by one of them at a time, and both have work", async (t) => {
  const team = await crew(t);
  const [one, two, client] = [await team.member(), await team.member(), await team.member({ worker: false })];
  await Promise.all(Array.from({ length: 200 }, (_, n) => client.call("start", "five", `r${n}`, `r${n}`, "")));
  await eventually(async () => (await unfinished(team)).length === 0, 30_000);
  t.same(await repeated(team, "r"), []);
  t.same(await team.sql("select from :SCHEMA.run where epoch <> 1"), [], "claimed once each");
  const pids = (await team.sql("select distinct pid from :SCHEMA.journal")).map(({ pid }) => pid);
  t.same(new Set(pids), new Set([one.pid, two.pid]));
});

test("SIGTERM with shutdownOn hands back, and the process ends by that signal", async (t) => {
  const team = await crew(t);
  const old = await team.member({ shutdownOn: ["SIGTERM"] });
  await old.call("start", "slow", "s", "s", 800);
  await team.entered("s", "slowly");
  const gone = once(old.process, "exit");
  old.process.kill("SIGTERM");
  t.same(await gone, [null, "SIGTERM"]);
  t.match(await team.state("s"), { state: "pending", crashes: 0 });
  t.same(await team.sql("select name from :SCHEMA.steps"), [{ name: "slowly" }], "the attempt in flight ended first");
  await leftNothing(t, team, old);
});

/** A program with two engines that waits for a run at its top level, and reads what it publishes. */
const WAITS = (listens: string) => `
  import { Perdure, sleep, value, workflow } from "${LIBRARY}";
  const [nap, mood] = [workflow("nap", () => sleep("1h")), value("mood")];
  const { DATABASE_URL: database, SCHEMA: schema } = process.env;
  const make = () => new Perdure({ database, schema, workflows: [nap], shutdownOn: ["SIGINT"] });
  const [one, two] = [make(), make()];
  await Promise.all([one.launch(), two.launch()]);
  const run = await one.start(nap);
  while ((await run.status()).waitingFor !== "sleep") await new Promise((done) => setTimeout(done, 10));
  console.log("waits");
  ${listens}
  const watching = (async () => { for await (const _ of run.watch(mood)); })();
  await Promise.all([run.result(), two.get(run.id).result(), watching]);`;

interface Waiter {
  readonly stdout: string;
  readonly stderr: string;
  readonly ended: unknown[];
}

async function interrupted(t: Test, listens: string): Promise<Waiter> {
  const { url, schema } = await freshSchema(t);
  const program = spawn(process.execPath, ["--input-type=module", "-e", WAITS(listens)], {
    env: { ...process.env, NODE_OPTIONS: "", DATABASE_URL: url, SCHEMA: schema },
  });
  t.teardown(() => program.kill("SIGKILL"));
  const printed = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    program[name].setEncoding("utf8").on("data", (text: string) => {
      printed[name] += text;
    });
  const closed = once(program, "close");
  await eventually(() => printed.stdout.includes("waits") || program.exitCode !== null, 20_000);
  program.kill("SIGINT");
  return { ended: await closed, ...printed };
}

test("a program that waits for a run at its top level ends by the signal, and prints no error", async (t) => {
  t.match(await interrupted(t, ""), { ended: [null, "SIGINT"], stdout: "waits\n", stderr: "" });
});

test("a program that listens to the signal too, and goes on, is told that its waits are over", async (t) => {
  const listens = `
  process.on("SIGINT", () => console.log("heard"));
  await run.result().catch(({ code }) => console.log(code));
  process.exit();`;
  const { ended, stdout } = await interrupted(t, listens);
  t.same(ended, [0, null]);
  // Once from outside, and once from the engines.
  t.equal(stdout, "waits\nheard\nheard\nPERDURE_STATE\n");
});

test("starting and stopping twenty times leaves no connection, no timer and no listener", async (t) => {
  const team = await crew(t);
  const member = await team.member();
  await member.call("storm", 20);
  const during = await team.sql("select from pg_stat_activity where application_name = $1", [member.name]);
  t.ok(during.length <= 10, `only its own engine's connections: ${during.length}`);
  const gone = once(member.process, "exit");
  await member.call("leave");
  t.same(await gone, [0, null], "nothing keeps the process");
  await leftNothing(t, team, member);
  t.same(await team.sql("select from :SCHEMA.worker"), []);
});

test("ten processes that launch at once on an empty schema all start, and do work", async (t) => {
  const team = await crew(t);
  const schema = `${team.schema}_new`;
  t.teardown(() => team.sql(`drop schema if exists ${schema} cascade`));
  const members = await Promise.all(Array.from({ length: 10 }, () => team.recruit({ schema })));
  await Promise.all(members.map((member) => member.call("launch")));
  await Promise.all(
    members.map(async (member, n) => {
      await member.call("start", "traffic", `run-${n}`);
      await member.call("result", `run-${n}`);
    }),
  );
  const done = await team.sql(`select from ${schema}.run where state = 'completed'`);
  t.equal(done.length, 10);
  await Promise.all(members.map((member) => member.call("shutdown")));
});

test("a run of a version or workflow that nobody serves is left as it is, until somebody does", async (t) => {
  const team = await crew(t);
  const client = await team.member({ worker: false });
  await client.call("start", "versioned", "v1", "v1");
  await client.call("start", "slow", "other", "other", 1);
  const second = await team.member({ version: "2", workflows: ["versioned"] });
  await second.call("start", "versioned", "v2", "v2");
  t.equal(await second.call("result", "v2"), "version 2");
  for (const run of ["v1", "other"])
    t.match(await team.state(run), { state: "pending", epoch: 0, worker: null }, `${run} is untouched`);
  const first = await team.member();
  t.equal(await first.call("result", "v1"), "version 1");
  t.equal(await first.call("result", "other"), first.pid);
});

test("the same id started in two processes at once is one run, and both handles give its result", async (t) => {
  const team = await crew(t);
  const [one, two] = [await team.member(), await team.member()];
  const ids = Array.from({ length: 20 }, (_, n) => `same-${n}`);
  await Promise.all(ids.flatMap((id) => [one, two].map((member) => member.call("start", "five", id, id, ""))));
  for (const id of ids) {
    const [first, second] = await Promise.all([one.call("result", id), two.call("result", id)]);
    t.same(first, second);
  }
  t.same(await repeated(team, ""), [], "one body was executed");
});

test("upkeep by several at once takes no run from a live worker", async (t) => {
  const team = await crew(t);
  const [owner] = [await team.member(), await team.member()];
  await owner!.call("start", "slow", "kept", "kept", 1500);
  await team.entered("kept", "slowly");
  const [worker] = await team.sql(
    "select id, extract(epoch from beat_at)::float8 * 1000 as beat from :SCHEMA.worker where split_part(name, ':', 2) = $1",
    [`${owner!.pid}`],
  );
  const sweeps = Array.from({ length: 50 }, () => team.sql("select :SCHEMA.sweep() as taken"));
  t.same(
    (await Promise.all(sweeps)).filter(([row]) => row.taken > 0),
    [],
    "no sweep takes it back",
  );
  // Who saw its lock missing, and was slow to say so: it has beaten since.
  const late = await team.sql("select :SCHEMA.take_back(array[$1::bigint], array[$2::float8], false) as taken", [
    worker.id,
    worker.beat - 1,
  ]);
  t.same(late, [{ taken: 0 }], "nor does an older suspicion");
  t.equal(await owner!.call("result", "kept"), owner!.pid);
  t.match(await team.state("kept"), { epoch: 1, crashes: 0 });
});
