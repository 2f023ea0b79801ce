/** What a run costs, counted: commits, round trips, and what an idle process sends. */
import { setTimeout as pause } from "node:timers/promises";
import { test } from "tap";
import { event, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches } from "../support/gate.ts";
import { commitsIn, traffic } from "../support/traffic.ts";

const ping = event<number>("ping");
const add = step("add", async (n: number) => n + 1);

/** Statements that belong to runs. Heartbeats and polls, which come by the clock, are left out. */
const ofRuns = (statements: readonly string[]): string[] =>
  statements.filter((text) =>
    /^(begin|commit)|\.((?!look_)\w+_(runs|steps|waits|tries|events|deliveries)|wake_due)\(/.test(text),
  );

const nameOf = (text: string): string => /\.(\w+)\(/.exec(text)?.[1] ?? text.split(" ")[0]!;

test("a one-step run that is started where a slot is free costs two commits, result included", async (t) => {
  const counted = traffic(t);
  const one = workflow("one", async (n: number) => add(n));
  const { perdure } = await bench(t, { workflows: [one] });
  await (await perdure.start(one, 0)).result();
  for (let round = 0; round < 5; round += 1) {
    counted.take();
    t.equal(await (await perdure.start(one, round)).result(), round + 1);
    const sent = ofRuns(counted.take());
    t.equal(commitsIn(sent), 2);
    t.same(
      sent.map(nameOf).filter((name) => name !== "claim_runs"),
      ["start_runs", "end_runs"],
    );
  }
});

test("a step costs one round trip, and the last one takes the finish along", async (t) => {
  const counted = traffic(t);
  const ten = workflow("ten", async () => {
    let n = 0;
    while (n < 10) n = await add(n);
    return n;
  });
  const parallel = workflow("parallel", async () => Promise.all(Array.from({ length: 10 }, (_, n) => add(n))));
  const { perdure } = await bench(t, { workflows: [ten, parallel] });
  await (await perdure.start(ten)).result();
  counted.take();
  await (await perdure.start(ten)).result();
  const sent = ofRuns(counted.take());
  t.equal(commitsIn(sent), 11, "one for the start, one for each step");
  t.equal(sent.filter((text) => /\.(record_steps|end_runs)\(/.test(text)).length, 10);
  await (await perdure.start(parallel)).result();
  t.ok(commitsIn(ofRuns(counted.take())) <= 6, "steps side by side travel together");
});

test("a replay of a thousand records asks nothing beyond its claim", async (t) => {
  const counted = traffic(t);
  const long = workflow("long", async () => {
    const sums = await Promise.all(Array.from({ length: 1000 }, (_, n) => add(n)));
    await ping.wait();
    return sums.length;
  });
  const b = await bench(t, { workflows: [long], worker: { warm: 0 } });
  const run = await b.perdure.start(long);
  await reaches(run, "suspended");
  const [{ n }] = await b.sql("select count(*)::int as n from :SCHEMA.checkpoint");
  t.equal(n, 1000);
  await run.send(ping, 1);
  t.equal(await run.result(), 1000);
  const sent = counted.take();
  const claim = sent.findLastIndex((text) => text.includes(".claim_runs("));
  const after = ofRuns(sent.slice(claim)).filter((text) => !/^(begin|commit)/.test(text));
  t.same(after.map(nameOf), ["claim_runs", "record_steps", "finish_runs"]);
});

test("an event wakes a run in memory for two commits: the sender's, which takes it, and the end's", async (t) => {
  const counted = traffic(t);
  const listen = workflow("listen", async () => (await ping.wait()).data);
  const { perdure } = await bench(t, { workflows: [listen] });
  const run = await perdure.start(listen);
  await reaches(run, "suspended");
  counted.take();
  await run.send(ping, 4);
  t.equal(await run.result(), 4);
  t.equal(commitsIn(ofRuns(counted.take())), 2);
});

test("a process with nothing to do sends at most one statement a second", async (t) => {
  const counted = traffic(t);
  const listen = workflow("listen", async () => (await ping.wait()).data);
  const b = await bench(t, { workflows: [listen] });
  await Promise.all(Array.from({ length: 20 }, async () => reaches(await b.perdure.start(listen), "suspended")));
  await eventually(
    async () => (await b.sql("select from :SCHEMA.run where state = 'suspended'")).length === 20,
    PATIENCE_MS,
  );
  // At its launch a process watches for a while whether others died.
  await eventually(async () => {
    counted.take();
    await pause(1500);
    return !counted.take().some((text) => text.includes("missing_workers"));
  }, PATIENCE_MS);
  await pause(10_000);
  const sent = counted.take();
  t.ok(sent.length <= 10, `${sent.length} in 10 s: ${[...new Set(sent)].join(" | ")}`);
  t.ok(sent.length > 0, "it does look");
});
