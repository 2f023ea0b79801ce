/** Deploys while runs are in flight: what is safe, what blocks a run and what it says then, and how the run goes on. */
import { test } from "tap";
import { sleep, step, type Workflow, workflow } from "../../lib/index.ts";
import { type Bench, coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { atGate, DEADLINE_MS, free, gate, reached } from "../support/replay.ts";

const ran: string[] = [];
const made = (name: string) =>
  step(name, async (input = "") => {
    ran.push(`${name}${input}`);
    return `${name}${input}`;
  });
const [a, b, c] = [made("a"), made("b"), made("c")] as const;

type Body = () => Promise<unknown>;
const code = (body: Body, replay: "strict" | "flexible" = "strict") => workflow({ name: "w", replay }, body);

/** Runs a body to the gate, then shuts its engine down. `deploy` brings another body, and the event. */
async function inFlight(t: Parameters<typeof coldBench>[0], before: Body) {
  ran.length = 0;
  const world = await coldBench(t, { workflows: [code(before)] });
  const { id } = await world.perdure.start(code(before));
  await eventually(() => ran.length > 0, DEADLINE_MS);
  await atGate(world.perdure.get(id));
  await world.perdure.shutdown();
  let live = world.perdure;
  const deploy = async (w: Workflow<[], unknown>) => {
    await live.shutdown();
    live = await world.another({ workflows: [w] });
    return live.get(id);
  };
  const open = async (): Promise<void> => live.send(id, gate, null);
  return { world, id, deploy, open };
}

const slots = async ({ sql }: Bench): Promise<string[]> =>
  (await sql("select slot from :SCHEMA.checkpoint where kind = 'step' order by no")).map((row) => row.slot);

test("calls may change places while a run is in flight", async (t) => {
  const { deploy, open } = await inFlight(t, async () => [await a(), await b(), await gate.wait()]);
  const run = await deploy(code(async () => [await b(), await a(), (await gate.wait()) !== null]));
  await open();
  t.strictSame(await run.result(), ["b", "a", true]);
  t.strictSame(ran, ["a", "b"], "nothing ran again");
});

test("a call may be appended while a run is in flight, and runs once", async (t) => {
  const { deploy, open } = await inFlight(t, async () => [await a(), await gate.wait()]);
  const run = await deploy(
    code(async () => {
      await a();
      await gate.wait();
      return [await c(), await c("!")];
    }),
  );
  await open();
  t.strictSame(await run.result(), ["c", "c!"]);
  t.strictSame(ran, ["a", "c", "c!"]);
});

test("a call may be removed when nothing new is left to do, and its record stays readable", async (t) => {
  const { world, deploy, open } = await inFlight(t, async () => {
    await a();
    await b();
    await gate.wait();
  });
  const run = await deploy(
    code(async () => {
      const seen = await b();
      await gate.wait();
      return seen;
    }),
  );
  await open();
  // The event that it waits for came before the claim: what is recorded of "a" is not asked for, and neither is anything new.
  await reached(run, "completed", "blocked");
  t.equal((await run.status()).state, "completed");
  t.equal(await run.result(), "b");
  t.strictSame(
    (await world.sql("select name from :SCHEMA.steps where kind = 'step' order by name")).map((s) => s.name),
    ["a", "b"],
  );
});

test("a call put before what is recorded runs nothing and blocks the run, naming both; a fixed deploy goes on", async (t) => {
  const { world, id, deploy, open } = await inFlight(t, async () => {
    await a();
    await b("1");
    await gate.wait();
  });
  const broken = await deploy(
    code(async () => {
      await a();
      await c();
      await b("1");
      await gate.wait();
    }),
  );
  await open();
  await reached(broken, "blocked");
  t.strictSame(ran, ["a", "b1"], "the new call did not run");
  const { reason } = await broken.status();
  t.match(reason, /^diverged: the code asked for "step:c\/[^"]+#0", which is new, while "step:b\/[^"]+#0" is recorded/);
  t.match(reason, /Nothing new was begun/);
  t.notMatch(reason, /other arguments/);
  t.notMatch(reason, /step:a/, "what was asked for is not blamed");
  t.equal((await slots(world)).length, 2);

  const fixed = await deploy(
    code(async () => {
      await a();
      await b("1");
      await gate.wait();
      return c();
    }),
  );
  await free(world, id);
  t.equal(await fixed.result(), "c");
  t.strictSame(ran, ["a", "b1", "c"]);
});

test("changed arguments block the run, and the reason says which call is near", async (t) => {
  const { deploy, open } = await inFlight(t, async () => [await a("old"), await gate.wait()]);
  const run = await deploy(code(async () => [await a("new"), await gate.wait()]));
  await open();
  await reached(run, "blocked");
  const { reason } = await run.status();
  const named = reason!.match(/"step:a\/[^"]+#0"/g)!;
  t.equal(new Set(named).size, 2, "both hashes are named");
  t.match(reason, /is near/);
  t.match(reason, /step "a" was asked for with other arguments: do they come from a clock/);
  t.strictSame(ran, ["aold"]);
});

test("a renamed call blocks the run, and the reason names both", async (t) => {
  const { deploy, open } = await inFlight(t, async () => [await made("reserve")(), await gate.wait()]);
  const run = await deploy(code(async () => [await made("reserved")(), await gate.wait()]));
  await open();
  await reached(run, "blocked");
  t.match((await run.status()).reason, /"step:reserved\/.*"step:reserve\/.*is near "step:reserved\//s);
  t.strictSame(ran, ["reserve"]);
});

test("flexible replay runs what is new and keeps what is recorded", async (t) => {
  const { world, deploy, open } = await inFlight(t, async () => [await a("old"), await b(), await gate.wait()]);
  const run = await deploy(
    code(async () => {
      const seen = [await a("new"), await c(), await b()];
      await gate.wait();
      return seen;
    }, "flexible"),
  );
  await open();
  t.strictSame(await run.result(), ["anew", "c", "b"]);
  t.strictSame(ran, ["aold", "b", "anew", "c"]);
  t.equal((await slots(world)).length, 4, "the record that nobody asked for stays");
});

test("what flexible replay ran is replayed like all else", async (t) => {
  const { deploy, open } = await inFlight(t, async () => [await b(), await gate.wait()]);
  let passes = 0;
  const body = async () => {
    passes += 1;
    const seen = [await c(), await b()];
    await gate.wait();
    await gate.wait();
    return seen;
  };
  const first = await deploy(code(body, "flexible"));
  await open();
  await eventually(async () => ran.includes("c") && (await first.status()).state === "suspended", DEADLINE_MS);
  const second = await deploy(code(body));
  await open();
  t.strictSame(await second.result(), ["c", "b"], "in strict mode as well: nothing is new any more");
  t.strictSame(ran, ["b", "c"]);
  t.ok(passes >= 2);
});

test("a divergence in one branch stops what is new in every other", async (t) => {
  const { deploy, open } = await inFlight(t, async () => {
    await Promise.all([a(), b()]);
    await gate.wait();
  });
  const run = await deploy(
    code(async () => {
      await Promise.all([a(), c(), sleep("1ms"), c("!")]);
      await gate.wait();
    }),
  );
  await open();
  await reached(run, "blocked");
  t.strictSame(ran, ["a", "b"]);
  const { reason } = await run.status();
  t.match(reason, /"step:c\/.*"sleep:#0".*"step:c\//s);
});

test("an await of the body's own before a recorded call is no divergence", async (t) => {
  const body = async () => {
    const before = new Promise((resolve) => setTimeout(resolve, 10));
    return Promise.all([before.then(() => a()), gate.wait().then(() => b())]);
  };
  const { deploy, open } = await inFlight(t, body);
  const run = await deploy(code(body));
  await open();
  t.strictSame(await run.result(), ["a", "b"]);
  t.strictSame(ran, ["a", "b"]);
});

test("after a retry of the workflow, what its new attempt recorded is guarded as before", async (t) => {
  ran.length = 0;
  let failed = false;
  const fail = step("fail", async () => {
    if (failed) return;
    failed = true;
    throw new Error("once");
  });
  const retry = { type: "fixed", maxAttempts: 2, delay: 0 } as const;
  const before = workflow({ name: "w", retry }, async () => {
    await a();
    await fail();
    await b();
    await gate.wait();
  });
  const after = workflow({ name: "w", retry }, async () => {
    await a();
    await fail();
    await c();
    await gate.wait();
  });
  const world = await coldBench(t, { workflows: [before] });
  const { id } = await world.perdure.start(before);
  await atGate(world.perdure.get(id));
  await world.perdure.shutdown();
  const next = await world.another({ workflows: [after] });
  await next.send(id, gate, null);
  const run = next.get(id);
  await reached(run, "blocked", "completed");
  t.match(await run.status(), { state: "blocked", attempt: 2, reason: /asked for "step:c\/.*while "step:b\//s });
  t.strictSame(ran, ["a", "b"]);
});
