/** Processes that have suspended runs in memory, killed and frozen: what they keep is never more than a copy. */
import { test } from "tap";
import { type Crew, crew, type Member } from "../support/crew.ts";
import { eventually } from "../support/eventually.ts";

const PATIENCE_MS = 30_000;

/** The process that has a suspended run in memory, once it has been suspended after so many turns. */
async function keeper(team: Crew, run: string, turns: number): Promise<number> {
  const text = `select split_part(w.name, ':', 2)::int as pid from :SCHEMA.run r join :SCHEMA.worker w on w.id = r.warm
    where r.id = $1 and r.state = 'suspended' and (select count(*) from :SCHEMA.checkpoint c where c.run = r.key and c.kind = 'event') = $2`;
  return eventually(async () => (await team.sql(text, [run, turns]))[0]?.pid, PATIENCE_MS);
}

const names = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`);

test("a process that is killed with a run in memory leaves it to the others, with all that was recorded", async (t) => {
  const team = await crew(t);
  const outside = await team.member({ worker: false });
  let members: Member[] = [await team.member(), await team.member()];
  await outside.call("start", "turns", "chased", "chased", 8);
  for (let n = 0; n < 8; n += 1) {
    const pid = await keeper(team, "chased", n);
    if (n % 2 === 0) {
      const killed = members.find((member) => member.pid === pid)!;
      await killed.end("SIGKILL");
      members = [...members.filter((member) => member !== killed), await team.member()];
    }
    await outside.call("send", ["chased"], "go", `${n}`);
  }
  t.same(await outside.call("result", "chased"), names(8));
  const journal = await team.journal("chased");
  t.same(
    journal.map(({ step }) => step),
    names(8).map((n) => `tally ${n}`),
    "nothing was in flight when they died, so no step ran twice",
  );
  t.ok(new Set(journal.map(({ pid }) => pid)).size > 2, "several processes had it");
});

test("a frozen process does not hold up the run that it has in memory, and thawed it writes nothing with its copy", async (t) => {
  const team = await crew(t);
  const [owner, other] = [await team.member(), await team.member()];
  await owner.call("start", "turns", "frozen", "frozen", 4);
  const first = await keeper(team, "frozen", 0);
  const [frozen, awake] = first === owner.pid ? [owner, other] : [other, owner];
  frozen.process.kill("SIGSTOP");
  // It holds its lock, says that it is hungry, and its lease is not over.
  await awake.call("send", ["frozen"], "go", "0");
  t.equal(await keeper(team, "frozen", 1), awake.pid, "the other has taken it");
  await awake.call("send", ["frozen"], "go", "1");
  t.equal(await keeper(team, "frozen", 2), awake.pid);
  frozen.process.kill("SIGCONT");
  await frozen.call("send", ["frozen"], "go", "2");
  await keeper(team, "frozen", 3);
  await frozen.call("send", ["frozen"], "go", "3");
  t.same(await frozen.call("result", "frozen"), names(4));
  t.same(
    (await team.journal("frozen")).map(({ step }) => step),
    names(4).map((n) => `tally ${n}`),
  );
  const [{ wrong }] = await team.sql(
    "select count(*)::int as wrong from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run where r.id = 'frozen' and c.epoch not between 1 and r.epoch",
  );
  t.equal(wrong, 0);
});

test("runs that wait again and again come through while their processes are killed at any moment", async (t) => {
  const team = await crew(t);
  const outside = await team.member({ worker: false });
  let members: Member[] = [await team.member(), await team.member(), await team.member()];
  const runs = names(6).map((n) => `storm-${n}`);
  for (const run of runs) await outside.call("start", "turns", run, run, 25);
  const sending = (async () => {
    for (let n = 0; n < 25; n += 1) {
      await outside.call("send", runs, "go", `${n}`);
      if (n % 3 === 0) await Promise.all(runs.map((run) => team.entered(run, `tally ${n}`)));
    }
  })();
  for (let kill = 0; kill < 4; kill += 1) {
    await eventually(async () => (await team.journal(runs[kill]!)).length > 3 + 5 * kill, PATIENCE_MS);
    const [killed, ...rest] = members;
    await killed!.end("SIGKILL");
    members = [...rest, await team.member()];
  }
  await sending;
  for (const run of runs) t.same(await outside.call("result", run), names(25), run);
});
