/** patched(): runs in flight keep the branch that they were on, whatever happens between; new ones take the new. */
import { type Test, test } from "tap";
import { currentRun, event, patched, type RunHandle, sleep, step, type Workflow, workflow } from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { rejection } from "../support/gate.ts";
import { atGate, DEADLINE_MS, free, gate, latch, loseClaims, reached } from "../support/replay.ts";

type Body = () => Promise<unknown>;
const code = (body: Body, replay: "strict" | "flexible" = "strict") => workflow({ name: "w", replay }, body);

const ran: string[] = [];
const made = (name: string) =>
  step(name, async () => {
    ran.push(name);
    return name;
  });
const [before, old, fresh, after] = [made("before"), made("old"), made("fresh"), made("after")] as const;

const branch = (change = "new-way") => (patched(change) ? fresh() : old());
const asWas: Body = async () => [await before(), await old(), (await gate.wait()).data, await after()];
const patchedCode: Body = async () => [await before(), await branch(), (await gate.wait()).data, await after()];
const withoutOld: Body = async () => {
  patched("new-way");
  return [await before(), await fresh(), (await gate.wait()).data, await after()];
};
const withoutCall: Body = async () => [await before(), await fresh(), (await gate.wait()).data, await after()];

/** Engines of one schema, one after the other, each with other code. */
async function deploys(t: Test) {
  ran.length = 0;
  const world = await coldBench(t, { workflows: [] });
  let live = world.perdure;
  const deploy = async (w: Workflow<[], unknown>) => {
    await live.shutdown();
    live = await world.another({ workflows: [w] });
    return live;
  };
  const start = async (w: Workflow<[], unknown>): Promise<string> => {
    const { id } = await live.start(w);
    await atGate(live.get(id));
    return id;
  };
  const go = async (id: string): Promise<RunHandle> => {
    await live.send(id, gate, null);
    return live.get(id);
  };
  const patches = (id: string) =>
    world.sql(
      "select c.slot, c.no, c.value #>> '{}' as place from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run where r.id = $1 and c.kind = 'patch'",
      [id],
    );
  return { world, deploy, start, go, patches };
}

for (const replay of ["strict", "flexible"] as const) {
  test(`runs in flight keep the old branch and new ones take the new, with ${replay} replay`, async (t) => {
    const { deploy, start, go, patches } = await deploys(t);
    await deploy(code(asWas, replay));
    const early = await start(code(asWas, replay));
    await deploy(code(patchedCode, replay));
    const late = await start(code(patchedCode, replay));
    t.strictSame(await patches(late), [{ slot: "patch:new-way#0", no: null, place: "1" }]);
    t.strictSame(await (await go(early)).result(), ["before", "old", null, "after"]);
    t.strictSame(await (await go(late)).result(), ["before", "fresh", null, "after"]);
    t.strictSame(await patches(early), [], "an old run has nothing recorded of it");
    t.strictSame(ran, ["before", "old", "before", "fresh", "after", "after"], "nothing ran twice");
  });
}

test("a run that was not yet so far takes the new branch", async (t) => {
  const { deploy, start, go } = await deploys(t);
  await deploy(code(async () => [await gate.wait(), await old()]));
  const id = await start(code(async () => null));
  await deploy(code(async () => [(await gate.wait()).data, await branch()]));
  t.strictSame(await (await go(id)).result(), [null, "fresh"]);
});

test("the old branch is taken away, then the call, and runs that took the new branch go on", async (t) => {
  const { world, deploy, start, go } = await deploys(t);
  await deploy(code(patchedCode));
  const [one, two, three] = [
    await start(code(patchedCode)),
    await start(code(patchedCode)),
    await start(code(patchedCode)),
  ];
  await deploy(code(withoutOld));
  t.strictSame(await (await go(one!)).result(), ["before", "fresh", null, "after"]);
  await deploy(code(withoutCall));
  t.strictSame(await (await go(two!)).result(), ["before", "fresh", null, "after"]);
  await free(world, three!);
  await deploy(code(patchedCode));
  t.strictSame(await (await go(three!)).result(), ["before", "fresh", null, "after"], "and back again");
});

test("a branch that is taken away while runs need it is reported, and put back it goes on", async (t) => {
  const { deploy, start, go, world } = await deploys(t);
  await deploy(code(asWas));
  const early = await start(code(asWas));
  await deploy(code(patchedCode));
  const late = await start(code(patchedCode));
  await deploy(code(withoutOld));
  const without = await go(early);
  await reached(without, "blocked");
  t.match(
    (await without.status()).reason,
    /diverged: the code asked for "step:fresh.*while "step:old.*patched\(\) or a new version/,
  );
  await deploy(code(asWas));
  const back = await go(late);
  await reached(back, "blocked");
  t.match((await back.status()).reason, /asked for "step:old.*while "step:fresh/);
  const whole = await deploy(code(patchedCode));
  await free(world, early);
  await free(world, late);
  t.strictSame(await whole.get(early).result(), ["before", "old", null, "after"]);
  t.strictSame(await whole.get(late).result(), ["before", "fresh", null, "after"]);
});

test("an answer stays what it was: asked again, in branches side by side, after a lost claim and in the next attempt", async (t) => {
  const answers: string[] = [];
  const [entered, stuck] = [latch(), latch()];
  let tries = 0;
  let failures = 0;
  const slow = step("slow", async () => {
    tries += 1;
    entered.open();
    if (tries === 1) await stuck.opened;
    return "slow";
  });
  const fails = step("fails", async () => {
    failures += 1;
    if (failures === 1) throw new Error("once");
    return "mended";
  });
  const w = workflow({ name: "w", retry: { type: "fixed", maxAttempts: 2, delay: 0 } }, async () => {
    const ask = (where: string): boolean => {
      const answer = patched("x");
      answers.push(`${currentRun().attempt} ${where} ${answer}`);
      return answer;
    };
    const one = async () => [await before(), ask("one") && patched("y")];
    const two = async () => [await after(), ask("two"), patched("y")];
    const [left, right] = await Promise.all([one(), two()]);
    return [left, right, await slow(), ask("end"), await fails()];
  });
  const world = await coldBench(t, { workflows: [w] });
  t.teardown(() => stuck.open());
  const run = await world.perdure.start(w);
  await entered.opened;
  await loseClaims(world);
  t.strictSame(await run.result(), [["before", true], ["after", true, true], "slow", true, "mended"]);
  t.ok(answers.length >= 8, "it was replayed, and tried again");
  t.ok(answers.some((line) => line.startsWith("2 ")));
  t.strictSame(
    answers.filter((line) => !line.endsWith("true")),
    [],
  );
  const rows = await world.sql("select slot, attempt from :SCHEMA.checkpoint where kind = 'patch' order by slot");
  t.strictSame(rows, [
    { slot: "patch:x#0", attempt: 1 },
    { slot: "patch:y#0", attempt: 1 },
  ]);
});

test("an old run in branches side by side says no in each, also where one is further on than the other", async (t) => {
  const { deploy, start, go } = await deploys(t);
  const twice = (ask: (name: string) => unknown): Body => {
    const one = async () => [await before(), await ask("p"), await old()];
    const two = async () => [await after(), await ask("q"), await gate.wait()];
    return () => Promise.all([one(), two()]);
  };
  await deploy(code(twice(() => null)));
  const id = await start(code(twice(() => null)));
  const asked: string[] = [];
  await deploy(
    code(
      twice((name) => {
        const answer = patched(name);
        asked.push(`${name} ${answer}`);
        return answer ? fresh() : null;
      }),
    ),
  );
  await (await go(id)).result();
  t.strictSame([...new Set(asked)].sort(), ["p false", "q false"], "old() is recorded behind both");
  t.notOk(ran.includes("fresh"));
});

test("what follows from an answer begins after it is committed, also where the run had been given up", async (t) => {
  const reading = latch();
  const never = event("never");
  const w = workflow("w", async () => {
    // An await of the body's own: meanwhile the run waits for an event, and is given up.
    const own = async () => {
      await reading.opened;
      return [patched("late"), await fresh()];
    };
    return Promise.race([own(), never.wait()]);
  });
  ran.length = 0;
  const { perdure, sql } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await eventually(async () => (await run.status()).state === "suspended", DEADLINE_MS);
  reading.open();
  t.strictSame(await run.result(), [true, "fresh"]);
  t.strictSame(
    (await sql("select slot from :SCHEMA.checkpoint order by no nulls first")).map(({ slot }) => slot.split("/")[0]),
    ["patch:late#0", "step:fresh"],
  );
});

test("an answer alone is recorded too, while nothing else is left to do", async (t) => {
  const reading = latch();
  const w = workflow("w", async () => {
    void reading.opened.then(() => patched("alone"));
    await gate.wait();
    return patched("alone");
  });
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await atGate(run);
  reading.open();
  await eventually(
    async () => (await world.sql("select from :SCHEMA.checkpoint where kind = 'patch'")).length === 1,
    DEADLINE_MS,
  );
  await atGate(run);
  await run.send(gate, null);
  t.equal(await run.result(), true);
});

test("patched() outside a workflow, in a step, or with no name is refused", async (t) => {
  const inStep = step("in-step", async () => patched("x"));
  const w = workflow("w", async () => inStep().catch((error) => error.message));
  const bad = workflow("bad", async () => patched(" "));
  const { perdure } = await coldBench(t, { workflows: [w, bad] });
  t.throws(() => patched("x"), { code: "PERDURE_CONTEXT", message: /^patched\(\) works only inside a workflow/ });
  t.match(await (await perdure.start(w)).result(), /^patched\(\) cannot be used inside step "in-step" of run/);
  const refused = await rejection((await perdure.start(bad)).result());
  t.match(refused.error.cause, { code: "PERDURE_NAME", message: /name of a change " " / });
});

test("names of changes that look alike are told apart, and a thousand of them cost no replay", async (t) => {
  const w = workflow("w", async () => {
    const first = [patched("a#0"), patched("a"), patched("a%230")];
    for (let at = 0; at < 1000; at += 1) patched(`many-${at}`);
    await sleep(1);
    await gate.wait();
    return [...first, patched("many-7")];
  });
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await atGate(run);
  await world.perdure.shutdown();
  const next = await world.another();
  await next.send(run.id, gate, null);
  t.strictSame(await next.get(run.id).result(), [true, true, true, true]);
  t.equal(
    (await world.sql("select count(distinct slot)::int as n from :SCHEMA.checkpoint where kind = 'patch'"))[0].n,
    1003,
  );
});
