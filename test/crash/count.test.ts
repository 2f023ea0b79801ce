/** What a crash costs: no try of a retry budget, and no more than five processes where a step kills every one. */
import { type Test, test } from "tap";
import { type Crew, crew } from "../support/crew.ts";
import { eventually } from "../support/eventually.ts";

/** Keeps so many members at work, whatever dies. Returns how many have died. */
function keep(t: Test, team: Crew, width: number): () => number {
  let stopped = false;
  let deaths = 0;
  const enlist = async (): Promise<void> => {
    const member = await team.recruit();
    member.process.once("exit", () => {
      if (stopped) return;
      deaths += 1;
      void enlist();
    });
    // What it finds to do may kill it before its launch is over.
    await member.call("launch").catch(() => {});
  };
  t.teardown(() => {
    stopped = true;
  });
  for (let n = 0; n < width; n += 1) void enlist();
  return () => deaths;
}

test("a crash in a step does not use up its retries", async (t) => {
  const team = await crew(t);
  let owner = await team.member();
  // Two tries in all: two crashes, one failure, and one success.
  await owner.call("start", "budget", "b", "b", 2, 1);
  for (const crash of [1, 2]) {
    const next = await team.member();
    await team.entered("b", "tried", crash);
    await owner.end("SIGKILL");
    owner = next;
  }
  t.equal(await owner.call("result", "b"), 2, "the second try is the one after the failure");
  t.equal((await team.journal("b")).length, 4);
  t.same(await team.sql("select name, attempts, outcome from :SCHEMA.steps"), [
    { name: "tried", attempts: 2, outcome: "completed" },
  ]);
});

test('onCrash: "fail": a step in which the process died is not run again', async (t) => {
  const team = await crew(t);
  const [owner, other] = [await team.member(), await team.member()];
  await owner.call("start", "fragile", "f", "f");
  await team.entered("f", "once");
  t.same(
    await team.sql("select name, finished_at from :SCHEMA.try"),
    [{ name: "once", finished_at: null }],
    "its start is on record while it runs",
  );
  await owner.end("SIGKILL");
  await team.reaches("f", "completed");
  t.equal(await other.call("result", "f"), "PERDURE_STEP_LOST", "the body is told");
  t.equal((await team.journal("f")).length, 1);
});

test("a step that kills its process is quarantined after five, and no other run comes to harm", async (t) => {
  const team = await crew(t);
  const deaths = keep(t, team, 2);
  await eventually(async () => (await team.sql("select from :SCHEMA.worker")).length === 2, 20_000);
  const starter = await team.member({ worker: false });
  await starter.call("start", "slow", "quick", "quick", 50);
  // In flight beside the poison the whole time, with no checkpoint of its own.
  for (const run of ["long-1", "long-2", "long-3"]) await starter.call("start", "slow", run, run, 6000);
  await starter.call("start", "poison", "p", "p");
  const { reason, crashes } = await team.reaches("p", "blocked", 60_000);
  t.equal(crashes, 5);
  t.match(reason, /quarantined: its process died 5 times .*, each time in step "deadly"; .*retry the run/);
  t.equal((await team.journal("p")).filter(({ step }) => step === "deadly").length, 5, "five claims ran it");
  t.equal(deaths(), 5, "five processes died of it");
  t.equal(
    (await team.journal("p")).filter(({ step }) => step === "create").length,
    1,
    "what was recorded before did not run again",
  );
  for (const run of ["quick", "long-1", "long-2", "long-3"]) {
    await team.reaches(run, "completed", 60_000);
    t.match(await team.state(run), { state: "completed", reason: null }, `${run} is done`);
  }
  t.equal(deaths(), 5, "and nobody else died");
});

test("progress between crashes begins the count anew", async (t) => {
  const team = await crew(t);
  const deaths = keep(t, team, 1);
  const starter = await team.member({ worker: false });
  await starter.call("start", "stumbling", "s", "s", 7);
  await team.reaches("s", "completed", 60_000);
  t.equal(deaths(), 7, "seven crashes, each in another step");
  t.match(await team.state("s"), { crashes: 0, reason: null });
});
