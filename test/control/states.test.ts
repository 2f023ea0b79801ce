/** Every command in each of the eight states: carried out, or refused with the state and what is allowed, and then nothing is changed. */
import { test } from "tap";
import { event, type RunState, sleep, step, workflow } from "../../lib/index.ts";
import { type Bench, bench, coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const go = event<string>("go");
const STATES: readonly RunState[] = [
  "pending",
  "running",
  "suspended",
  "paused",
  "blocked",
  "completed",
  "failed",
  "cancelled",
];
const VERBS = ["cancel", "pause", "resume", "wake", "retry"] as const;
type Verb = (typeof VERBS)[number];

/** The states in which a command is carried out, and the one that the run is in right after. */
const ALLOWED: Readonly<Record<Verb, Partial<Record<RunState, RunState>>>> = {
  cancel: {
    pending: "cancelled",
    running: "cancelled",
    suspended: "cancelled",
    paused: "cancelled",
    blocked: "cancelled",
    cancelled: "cancelled",
  },
  pause: { pending: "paused", running: "running", suspended: "paused", paused: "paused" },
  resume: { paused: "pending" },
  wake: {},
  retry: { blocked: "pending", failed: "pending" },
};

const REFUSED: Readonly<Record<Verb, RegExp>> = {
  cancel: /cannot be cancelled; only a run that has not finished can/,
  pause: /cannot be paused; only a pending, running or suspended run can/,
  resume: /cannot be resumed; only a paused run can/,
  wake: /not asleep; only a sleep can be ended by wake\(\)/,
  retry: /cannot be retried; only a failed or blocked run can/,
};

/** All that is stored of a run. */
async function stored({ sql }: Bench, id: string): Promise<unknown> {
  const parts = ["input", "checkpoint", "wait", "mail", "outcome", "round", "delivery"].map(
    (table) =>
      `(select json_agg(x) from (select * from :SCHEMA.${table} x where x.run = r.key order by x::text) x) as ${table}`,
  );
  return (await sql(`select r.*, ${parts.join(", ")} from :SCHEMA.run r where r.id = $1`, [id]))[0];
}

test("each command in each of the eight states is carried out, or refused by name with nothing changed", async (t) => {
  const hold = gate();
  const held = step("held", async () => void (await hold.opened));
  let deployed = "old";
  const called = step("called", async (_code: string) => {});
  const flow = workflow("flow", async (state: RunState) => {
    if (state === "running") await held();
    if (state === "blocked") await called(deployed);
    if (state === "blocked") await go.wait();
    if (state === "failed") throw new Error("no luck");
    if (state !== "completed") await go.wait();
  });
  const b = await coldBench(t, { workflows: [flow] });
  t.teardown(() => hold.open());
  // Nothing is claimed here: what a command makes of a run stays to be seen.
  const client = await b.another({ worker: false });
  let still: number = VERBS.length;
  const into = async (state: RunState, id: string): Promise<void> => {
    const run = await b.perdure.start(flow.with({ id, ...(state === "pending" && { delay: "1h" }) }), state);
    if (state === "blocked") {
      await reaches(run, "suspended");
      still -= 1;
      await eventually(() => still === 0, PATIENCE_MS);
      deployed = "new";
      await run.send(go, "on");
    }
    if (state === "paused") await run.pause();
    if (state === "cancelled") await run.cancel();
    await reaches(run, state);
  };
  const ids = VERBS.flatMap((verb) => STATES.map((state) => ({ verb, state, id: `${verb} ${state}` })));
  const blocking = ids.filter(({ state }) => state === "blocked");
  await Promise.all(blocking.map(({ id }) => into("blocked", id)));
  await Promise.all(ids.filter(({ state }) => state !== "blocked").map(({ state, id }) => into(state, id)));
  deployed = "old";
  for (const { verb, state, id } of ids) {
    const allowed = ALLOWED[verb][state];
    const before = await stored(b, id);
    const run = client.get(id);
    if (allowed === undefined) {
      const { code, message } = await rejection(run[verb]());
      t.equal(code, "PERDURE_STATE", id);
      t.ok(message.startsWith(`run "${id}" is ${state}`), message);
      t.match(message, REFUSED[verb]);
      t.same(await stored(b, id), before, `${id}: nothing is changed`);
    } else {
      await run[verb]();
      if (allowed === state) t.equal((await run.status()).state, allowed, id);
      else if (allowed !== "pending") t.equal((await run.status()).state, allowed, id);
      else await reaches(run, verb === "retry" && state === "failed" ? "failed" : "suspended");
    }
  }
});

test("wake ends a sleep in each state in which one can be under way, and no other", async (t) => {
  const flow = workflow("flow", async () => (await sleep("1h")).woken);
  const b = await bench(t, { workflows: [flow] });
  const run = await b.perdure.start(flow);
  await reaches(run, "suspended");
  await run.pause();
  t.match(await rejection(run.wake()), { code: "PERDURE_STATE", message: /is paused and not asleep/ });
  await run.resume();
  await reaches(run, "suspended");
  await run.wake();
  t.equal(await run.result({ timeout: PATIENCE_MS }), true);
});
