/** Side by side: branches of any shape fall on replay as they fell live, and unchanged code never diverges. */
import { inspect } from "node:util";
import pg from "pg";
import { test } from "tap";
import { currentRun, currentStep, event, type RunHandle, sleep, step, transaction, workflow } from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { atGate, DEADLINE_MS, free, gate, latch, loseClaims, reached, settled, unhandled } from "../support/replay.ts";

test("a slow branch beside one that sleeps never diverges while the code is the same", async (t) => {
  const ran: string[] = [];
  const slow = latch();
  const make = (name: string, wait?: Promise<void>) =>
    step(name, async () => {
      ran.push(name);
      await wait;
    });
  const [a, b, c, d] = [make("a", slow.opened), make("b"), make("c"), make("d")];
  const w = workflow("w", async () => {
    await Promise.all([
      (async () => {
        await a!();
        await c!();
        await gate.wait();
      })(),
      (async () => {
        await b!();
        await sleep("1h");
        await d!();
      })(),
    ]);
  });
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await eventually(() => ran.includes("a") && ran.includes("b"), DEADLINE_MS);
  slow.open();
  await reached(run, "suspended");
  await run.send(gate);
  await eventually(async () => (await run.status()).waitingFor === "sleep", DEADLINE_MS);
  await world.advance(3_600_000);
  await run.result();
  t.strictSame(ran.sort(), ["a", "b", "c", "d"]);
});

test("a claim lost while one branch is in flight and the other is far ahead never diverges", async (t) => {
  const ran: string[] = [];
  const stuck = latch();
  const a = step("a", async () => {
    ran.push("a");
    if (ran.filter((name) => name === "a").length === 1) await stuck.opened;
  });
  const quick = step("quick", async (n: number) => void ran.push(`quick ${n}`));
  const c = step("c", async () => void ran.push("c"));
  const w = workflow("w", async () => {
    await Promise.all([
      a().then(() => c()),
      (async () => {
        for (let n = 0; n < 5; n += 1) await quick(n);
        await sleep(1);
        await quick(5);
      })(),
    ]);
  });
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await eventually(() => ran.includes("quick 5"), DEADLINE_MS);
  await eventually(async () => (await world.sql("select from :SCHEMA.checkpoint")).length === 7, DEADLINE_MS);
  await loseClaims(world);
  await run.result();
  stuck.open();
  t.strictSame(ran.sort(), ["a", "a", "c", ...[0, 1, 2, 3, 4, 5].map((n) => `quick ${n}`)]);
});

test("an event wait and a step stand side by side", async (t) => {
  let ran = 0;
  const paid = event<number>("paid");
  const work = step("work", async () => ++ran);
  const w = workflow("w", async () => {
    const [mail, n] = await Promise.all([paid.wait(), work()]);
    return [mail.data, n];
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const late = await perdure.start(w);
  await atGate(late);
  await late.send(paid, 5);
  t.strictSame(await late.result(), [5, 1]);
  const early = await perdure.start(w);
  await early.send(paid, 6);
  t.strictSame(await early.result(), [6, 2]);
  t.equal(ran, 2);
});

test("identical parallel calls keep their own results over a hundred runs", async (t) => {
  const passes = new Map<string, number[][]>();
  let next = 0;
  const pick = step("pick", async (_: string) => {
    next += 1;
    const mine = next;
    // The first called is not the first to end.
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
    return mine;
  });
  const w = workflow("w", async () => {
    const seen = await Promise.all([pick("same"), pick("same"), pick("same"), pick("same")]);
    const { id } = currentRun();
    passes.set(id, [...(passes.get(id) ?? []), seen]);
    await gate.wait();
    return seen;
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const runs = await Promise.all(Array.from({ length: 100 }, () => perdure.start(w)));
  await Promise.all(runs.map((run) => atGate(run)));
  for (const run of runs) await run.send(gate);
  const results = await Promise.all(runs.map((run) => run.result()));
  t.equal(next, 400, "none ran twice");
  t.equal(new Set(results.flat()).size, 400, "each call has an outcome of its own");
  runs.forEach((run, at) => {
    const seen = passes.get(run.id)!;
    if (seen.length !== 2) t.fail(`${seen.length} passes`);
    if (JSON.stringify(seen) !== JSON.stringify([results[at], results[at]])) t.fail(JSON.stringify(seen));
  });
});

test("twenty steps under allSettled give the same outcomes on replay", async (t) => {
  let ran = 0;
  const passes: unknown[][] = [];
  const try_ = step("try", async (n: number) => {
    ran += 1;
    if (n % 3 === 0) throw new RangeError(`no ${n}`);
    return { n, id: Math.random() };
  });
  const w = workflow("w", async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, (_, n) => try_(n)));
    passes.push(outcomes.map((o) => (o.status === "fulfilled" ? o.value : String(o.reason))));
    await gate.wait();
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await run.send(gate);
  await run.result();
  t.equal(ran, 20);
  t.equal(passes.length, 2);
  t.strictSame(passes[1], passes[0]);
});

test("an outcome is handed over only when the code that the one before woke has run as far as it can", async (t) => {
  const first = step("first", async () => "first");
  const second = step("second", async () => "second");
  const passes: string[][] = [];
  const w = workflow("w", async () => {
    const seen: string[] = [];
    passes.push(seen);
    // Far more turns of the microtask queue than a race needs to settle.
    const deep = async (): Promise<string> => {
      const value = await first();
      for (let n = 0; n < 50; n += 1) await Promise.resolve();
      seen.push("first is through");
      return value;
    };
    const other = async (): Promise<string> => {
      const value = await second();
      seen.push("second is through");
      return value;
    };
    seen.push(await Promise.race([deep(), other()]));
    await gate.wait();
  });
  const { perdure, sql } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await run.send(gate);
  await run.result();
  const [order] = await sql("select array_agg(name order by no) as names from :SCHEMA.checkpoint where kind = 'step'");
  const recorded = order.names as string[];
  t.equal(passes.length, 2);
  for (const seen of passes) {
    t.strictSame(
      seen.filter((line) => line.includes("through")),
      recorded.map((name) => `${name} is through`),
    );
    t.equal(
      seen.find((line) => !line.includes("through")),
      recorded[0],
      "the race goes to the one recorded first",
    );
  }
});

/** A small generator of its own, so that a seed names a program for good. */
function randomOf(seed: number): (below: number) => number {
  let state = (seed * 2654435761) >>> 0;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 0x9e3779b9) >>> 0;
    return ((state ^ (state >>> 13)) >>> 0) % below;
  };
}

test("whatever a body makes of race, all, any and allSettled falls on replay as it fell live, over many seeds", async (t) => {
  const SEEDS = 120;
  const passes = new Map<number, string[][]>();
  const ran = new Map<string, number>();
  const jitter = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, Math.random() * 12));
  let serial = 0;
  /** An outcome that no other call has, however alike the calls are. */
  const outcome = (seed: number, name: string): string => {
    const key = `${seed} ${name} ${currentStep().idempotencyKey}`;
    ran.set(key, (ran.get(key) ?? 0) + 1);
    serial += 1;
    return `${name}/${serial}`;
  };
  const work = step("work", async (seed: number, name: string) => {
    const own = outcome(seed, name);
    await jitter();
    return own;
  });
  const fail = step("fail", async (seed: number, name: string): Promise<string> => {
    const own = outcome(seed, name);
    await jitter();
    throw new Error(own);
  });
  const flaky = step(
    { name: "flaky", retry: { type: "fixed", maxAttempts: 2, delay: 3 } },
    async (seed: number, name: string) => {
      await jitter();
      if (currentStep().attempt === 1) throw new Error("flaky");
      return outcome(seed, name);
    },
  );
  const commit = transaction("commit", async (tx, seed: number, name: string) => {
    await tx.query("select 1");
    return outcome(seed, name);
  });

  const w = workflow("w", async (seed: number) => {
    const next = randomOf(seed + 1);
    const trace: string[] = [];
    passes.set(seed, [...(passes.get(seed) ?? []), trace]);
    const see = <T>(what: string, value: T): T => {
      trace.push(`${what}=${JSON.stringify(value)}`);
      return value;
    };
    const leaf = async (path: string): Promise<unknown> => {
      // Few names, so that many calls are identical and only their ordinals differ.
      const name = `n${next(3)}`;
      const kind = next(12);
      if (kind < 5) return see(path, await work(seed, name));
      if (kind < 7) return see(path, await commit(seed, name));
      if (kind < 8) return see(path, await flaky(seed, name));
      if (kind < 9) return see(path, (await sleep(next(15))).woken);
      if (kind < 10) return see(path, await event("never").wait({ timeout: next(15) }));
      return fail(seed, name).catch((error: Error) => {
        see(path, error.message);
        if (next(2) === 0) throw error;
        return "caught";
      });
    };
    const grow = async (path: string, depth: number): Promise<unknown> => {
      if (depth === 0) return leaf(path);
      const branches = (): Promise<unknown>[] =>
        Array.from({ length: 2 + next(2) }, (_, n) => grow(`${path}.${n}`, depth - 1));
      const kind = next(5);
      if (kind === 0) {
        const seen: unknown[] = [];
        for (let n = 0; n < 2; n += 1) seen.push(await grow(`${path}.${n}`, depth - 1).catch((e: Error) => e.message));
        return see(`${path} in turn`, seen);
      }
      if (kind === 1) return see(`${path} all`, await Promise.all(branches()));
      if (kind === 2) return see(`${path} race`, await Promise.race(branches()));
      if (kind === 3) return see(`${path} any`, await Promise.any(branches()));
      const outcomes = await Promise.allSettled(branches());
      return see(
        `${path} settled`,
        outcomes.map((o) => (o.status === "fulfilled" ? o.value : String(o.reason.message))),
      );
    };
    for (let n = 0; n < 3; n += 1) {
      await grow(`${n}`, 2).catch((error: Error) => see(`${n} threw`, error.message));
    }
    trace.push("at the gate");
    await gate.wait();
    trace.push("through");
  });

  const { perdure, another } = await coldBench(t, { workflows: [w] });
  const runs: RunHandle<void>[] = [];
  for (let seed = 0; seed < SEEDS; seed += 1) runs.push(await perdure.start(w.with({ id: `seed-${seed}` }), seed));
  await Promise.all(runs.map((run) => eventually(async () => arrived(run), 60_000)));
  async function arrived(run: RunHandle<void>): Promise<boolean> {
    const { state, waitingFor } = await run.status();
    if (["blocked", "failed"].includes(state)) throw new Error(JSON.stringify(await run.status()));
    const seen = passes.get(Number(run.id.slice(5)));
    return state === "suspended" && waitingFor !== "retry" && Boolean(seen?.at(-1)?.includes("at the gate"));
  }
  await perdure.shutdown();
  const next = await another({ workflows: [w] });
  for (const run of runs) await next.send(run.id, gate, null);
  let wrong = 0;
  for (const [seed, run] of runs.entries()) {
    const ended = await settled(next.get(run.id).result({ timeout: "30s" }));
    if ((ended as { error?: unknown }).error)
      t.fail(`seed ${seed}: ${JSON.stringify(await next.get(run.id).status())}`);
    const seen = passes.get(seed)!;
    const whole = seen.at(-1)!.join("\n");
    for (const trace of seen) {
      if (whole.startsWith(trace.join("\n"))) continue;
      wrong += 1;
      if (wrong <= 3) t.fail(`seed ${seed} fell otherwise`, { live: trace, replay: seen.at(-1)! });
    }
  }
  t.equal(wrong, 0);
  t.ok(
    [...passes.values()].every((seen) => seen.length >= 2),
    "every run was replayed",
  );
  t.strictSame(
    [...ran].filter(([, times]) => times > 1),
    [],
    "nothing that was recorded ran again",
  );
});

test("the loser of a race is told to stop and is dropped", async (t) => {
  const rejections = unhandled(t);
  const done = latch();
  let reason: unknown;
  const slow = step("slow", async () => {
    const { signal } = currentStep();
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    reason = signal.reason;
    done.open();
    throw new Error("stopped");
  });
  const quick = step("quick", async () => "quick");
  const w = workflow("w", async () => Promise.race([slow(), quick()]));
  const { perdure, sql } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  t.equal(await run.result(), "quick");
  await done.opened;
  t.match(reason, { code: "PERDURE_STATE", message: new RegExp(run.id) });
  t.strictSame(await sql("select name from :SCHEMA.checkpoint"), [{ name: "quick" }]);
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.strictSame(rejections, []);
});

test("a call counts as awaited in whatever way it is, and one that is only looked at does not", async (t) => {
  const rejections = unhandled(t);
  const one = step("one", async () => 1);
  const fail = step("fail", async () => {
    throw new Error("seen");
  });
  const ways: Record<string, () => unknown> = {
    await: async () => await one(),
    return: () => one(),
    chained: () => one().then((n) => n),
    finally: () => one().finally(() => {}),
    catch: () => fail().catch(() => 1),
    all: async () => (await Promise.all([one()]))[0],
    settled: async () => (await Promise.allSettled([fail()])).length,
    any: () => Promise.any([fail(), one()]),
    resolve: async () => await Promise.resolve(one()),
    nested: async () => await (async () => one())(),
    late: async () => {
      const calls = [one(), fail()];
      await sleep(1);
      return (await Promise.allSettled(calls)).length - 1;
    },
  };
  const awaits = workflow("awaits", async (way: string) => ways[way]!());
  const looks = workflow("looks", async () => {
    const call = fail();
    t.ok(call instanceof Promise && inspect(call).includes("pending"));
    await sleep(1);
  });
  const { perdure } = await coldBench(t, { workflows: [awaits, looks] });
  for (const way of Object.keys(ways)) t.equal(await (await perdure.start(awaits, way)).result(), 1, way);
  const looked = await settled((await perdure.start(looks)).result());
  t.match(looked, { error: { cause: { code: "PERDURE_FLOATING", message: /step "fail"/ } } });
  t.strictSame(rejections, []);
});

test("a step that nobody awaited when the body returns is an error that names it", async (t) => {
  const rejections = unhandled(t);
  const quick = step("quick", async () => {});
  const fail = step("fail", async () => {
    throw new Error("unseen");
  });
  const forgets = workflow("forgets", async () => {
    void quick();
    void sleep("1h");
    return "lost?";
  });
  const ended = workflow("ended", async () => {
    void fail();
    await sleep(20);
    return "lost?";
  });
  const throws = workflow("throws", async () => {
    void quick();
    throw new TypeError("the body's own");
  });
  const handsOn = workflow("handsOn", () => quick());
  const later = workflow("later", async () => {
    const promise = quick();
    await sleep(5);
    await promise;
  });
  const { perdure } = await coldBench(t, { workflows: [forgets, ended, throws, handsOn, later] });
  const outcome = async (w: typeof forgets) => settled((await perdure.start(w)).result());
  t.match(await outcome(forgets), {
    error: { cause: { code: "PERDURE_FLOATING", message: /step "quick", sleep ""/ } },
  });
  t.match(await outcome(ended), { error: { cause: { code: "PERDURE_FLOATING", message: /step "fail"/ } } });
  t.match(await outcome(throws), { error: { cause: { name: "TypeError", message: "the body's own" } } });
  await (await perdure.start(handsOn)).result();
  await (await perdure.start(later)).result();
  t.strictSame(rejections, []);
});

test("an await of the body's own keeps the claim while nothing durable is outstanding", async (t) => {
  const own = latch();
  let begun = 0;
  const a = step("a", async () => "a");
  const w = workflow("w", async () => {
    begun += 1;
    await own.opened;
    return a();
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await eventually(() => begun === 1, DEADLINE_MS);
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.equal((await run.status()).state, "running");
  own.open();
  t.equal(await run.result(), "a");
  t.equal(begun, 1);
});

test("a durable call from a body that was suspended meanwhile goes on, and timers beside it still ring", async (t) => {
  const own = latch();
  const inside = latch();
  const ran: string[] = [];
  let begun = 0;
  const a = step("a", async () => {
    ran.push("a");
    await inside.opened;
  });
  const b = step("b", async () => void ran.push("b"));
  const w = workflow("w", async () => {
    begun += 1;
    await Promise.all([
      sleep("1h").then(() => b()),
      (async () => {
        await own.opened;
        await a();
      })(),
    ]);
  });
  const { perdure, advance } = await coldBench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await reached(run, "suspended");
  own.open();
  await eventually(() => ran.includes("a"), DEADLINE_MS);
  t.equal((await run.status()).state, "running");
  await advance(3_600_000);
  await eventually(() => ran.includes("b"), DEADLINE_MS);
  inside.open();
  await run.result();
  t.strictSame(ran, ["a", "b"]);
  t.equal(begun, 1, "it went on in the same pass");
});

test("a recorded call that the body makes while its run is being given up is answered", async (t) => {
  const passes: { before: ReturnType<typeof latch>; own: ReturnType<typeof latch>; seen: string[] }[] = [];
  const a = step("a", async () => "a");
  const w = workflow("w", async () => {
    const pass = { before: latch(), own: latch(), seen: [] as string[] };
    if (passes.push(pass) !== 2) {
      pass.before.open();
      pass.own.open();
    }
    await pass.before.opened;
    await Promise.all([gate.wait(), pass.own.opened.then(() => a()).then((value) => pass.seen.push(value))]);
  });
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await atGate(run);
  await free(world, run.id);
  await eventually(() => passes.length === 2, DEADLINE_MS);
  const [, second] = passes;
  const stranger = new pg.Client({ connectionString: world.url });
  await stranger.connect();
  await stranger.query("begin");
  await stranger.query(`select from "${world.schema}".run for update`);
  second!.before.open();
  const waits = `select from pg_stat_activity where wait_event_type = 'Lock' and query like '%"${world.schema}".suspend_runs%'`;
  await eventually(async () => (await world.sql(waits)).length === 1, DEADLINE_MS);
  second!.own.open();
  await new Promise((resolve) => setTimeout(resolve, 20));
  await stranger.query("commit");
  await stranger.end();
  await eventually(() => second!.seen.length === 1, DEADLINE_MS);
  await run.send(gate);
  await run.result();
  t.strictSame(
    passes.map((pass) => pass.seen),
    [["a"], ["a"], ["a"]],
  );
});

test("a call from a pass that is over never runs and never settles", async (t) => {
  const own = latch();
  const ran: string[] = [];
  const a = step("a", async () => void ran.push("a"));
  const settledCalls: string[] = [];
  const bodies: string[] = [];
  const w = workflow("w", async () => {
    const first = bodies.push("body") === 1;
    if (!first) return "of the second claim";
    await own.opened;
    await a().finally(() => settledCalls.push("step"));
    return "of the first claim";
  });
  const world = await coldBench(t, { workflows: [w] });
  const run = await world.perdure.start(w);
  await eventually(() => bodies.length === 1, DEADLINE_MS);
  await loseClaims(world);
  t.equal(await run.result(), "of the second claim");
  own.open();
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.strictSame([ran, settledCalls], [[], []]);
});

test("a body that returns or throws by an await of its own while its run is suspended ends the run", async (t) => {
  const w = workflow("w", async (ends: "returns" | "throws") => {
    void sleep("1h").then(() => {});
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (ends === "throws") throw new RangeError("by itself");
    return "by itself";
  });
  const { perdure } = await coldBench(t, { workflows: [w] });
  t.equal(await (await perdure.start(w, "returns")).result(), "by itself");
  t.match(await settled((await perdure.start(w, "throws")).result()), { error: { cause: { name: "RangeError" } } });
});

test("a step may wait for what another engine in the same process does", async (t) => {
  const inner = workflow("inner", async (n: number) => {
    await sleep(1);
    return n + 1;
  });
  const world = await coldBench(t, { workflows: [inner] });
  const call = step("call", async (n: number) => (await world.perdure.start(inner, n)).result());
  const outer = workflow("outer", async () => Promise.all([call(1), call(2)]));
  const other = await world.another({ workflows: [outer] });
  t.strictSame(await (await other.start(outer)).result(), [2, 3]);
});
