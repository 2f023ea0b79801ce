/** The topics that talks about durable execution come back to, with processes that are killed between any two lines of them. */
import { once } from "node:events";
import { type Test, test } from "tap";
import { type Crew, crew } from "../support/crew.ts";
import { eventually } from "../support/eventually.ts";

const APPROVERS = ["ada", "bob", "cyd", "dan"];
const WEEK = "interval '7 days'";

/** The run waits for the answer of the nth approver, from 1. */
async function asked({ sql }: Crew, run: string, nth: number): Promise<{ left: number }> {
  return eventually(async () => {
    const [row] = await sql(
      `select r.state, extract(epoch from r.due - :SCHEMA.clock())::float8 as left,
         (select count(*)::int from :SCHEMA.checkpoint c where c.run = r.key and c.kind = 'step') as steps
       from :SCHEMA.run r where r.id = $1`,
      [run],
    );
    return row?.state === "suspended" && row.steps === nth && row;
  }, 20_000);
}

test("several approvers have seven days each: the process is killed between any two, and nobody is asked twice", async (t) => {
  const made = await crew(t);
  const run = "access-1";
  let member = await made.member();
  await member.call("start", "approvals", run, run, APPROVERS);
  for (const [n, approver] of APPROVERS.slice(0, 3).entries()) {
    await asked(made, run, n + 1);
    await member.end("SIGKILL");
    // Two days go by with no process at all.
    await made.sql(`update :SCHEMA.run set due = due - ${WEEK} * 2 / 7`);
    await made.sql(`update :SCHEMA.wait set due = due - ${WEEK} * 2 / 7, started_at = started_at - ${WEEK} * 2 / 7`);
    member = await made.member();
    const { left } = await asked(made, run, n + 1);
    t.ok(left < 5 * 86_400 && left > 5 * 86_400 - 600, `${approver} has five days left, and not seven again`);
    await member.call("send", [run], "answer", "yes");
  }
  await asked(made, run, 4);
  await made.sql(`update :SCHEMA.run set due = due - ${WEEK}`);
  await made.sql(`update :SCHEMA.wait set due = due - ${WEEK}, started_at = started_at - ${WEEK}`);
  t.same(await member.call("result", run), ["ada: yes", "bob: yes", "cyd: yes", "dan: nothing"]);
  t.same(
    (await made.journal(run)).map(({ step }) => step),
    APPROVERS.map((approver) => `ask ${approver}`),
  );
});

/** In the order in which they come. */
const STEPS = ["grant", "enrol", "refuse", "dismiss", "revoke", "tell"];

/**
 * A run of the workflow for each place: its process dies there, and the next process brings it to its end before it dies in the next
 * run. One process at a time, so that a run comes to its place in the one that is to die.
 */
async function dying(
  made: Crew,
  workflow: string,
  places: readonly string[],
  check: (place: string, result: unknown) => Promise<void>,
): Promise<void> {
  const options = { workflows: ["saga", "family", "kid"] };
  const members = await Promise.all([...places, "last"].map(() => made.recruit(options)));
  await members[0]!.call("launch");
  for (const [n, place] of places.entries()) {
    const [victim, next] = [members[n]!, members[n + 1]!];
    const died = once(victim.process, "exit");
    await victim.call("start", workflow, place, place, { pid: victim.pid, place }).catch(() => {});
    await died;
    await next.call("launch");
    await check(place, await next.call("result", place));
  }
}

async function sagas(t: Test, where: "in" | "after"): Promise<void> {
  const made = await crew(t);
  const places = STEPS.map((step) => `${where} ${step}`);
  await dying(made, "saga", places, async (run, result) => {
    const step = run.slice(where.length + 1);
    t.equal(result, "refused", `killed ${run}: the saga is rolled back`);
    const times = new Map<string, number>();
    for (const { step: entered } of await made.journal(run)) times.set(entered, (times.get(entered) ?? 0) + 1);
    for (const [name, usual] of STEPS.map((name) => [name, name === "refuse" ? 3 : 1] as const)) {
      const more = times.get(name)! - usual;
      // The body runs ahead of the commit of a step's outcome: killed there, the step may run again.
      if (name === step) t.ok(where === "in" ? more === 1 : more <= 1, `killed ${run}: ${name} ran ${more} times more`);
      else t.equal(more, 0, `killed ${run}: ${name} did not run again`);
    }
    const rows = await made.sql("select step, count(*)::int as n from :SCHEMA.ledger where run = $1 group by step", [
      run,
    ]);
    const took = (name: string) => rows.filter(({ step: what }) => what === name || what.startsWith(`${name} for `));
    for (const name of ["grant", "revoke"]) t.match(took(name), [{ n: 1 }], `killed ${run}: ${name} took effect once`);
    for (const name of ["enrol", "dismiss"])
      t.equal(took(name).length, 1, `killed ${run}: ${name} was asked for by one key`);
  });
}

test("a saga whose process is killed inside any of its steps is rolled back, each compensation taking effect once", async (t) => {
  await sagas(t, "in");
});

test("a saga whose process is killed right after any of its steps is rolled back, each compensation taking effect once", async (t) => {
  await sagas(t, "after");
});

const PLACES = [
  "after the start of ann",
  "in ann",
  "at the end of ann",
  "in ben",
  "at the end of ben",
  "after ben",
  "at the end of cleo",
  "after the race",
  "after ann",
];

test("a process is killed around and inside the start, the work and the end of children: each call has one child", async (t) => {
  const made = await crew(t);
  await dying(made, "family", PLACES, async (place, result) => {
    t.same(result, ["ann", "ben", "cleo", "cleo"], `killed ${place}: the result`);
    const children = await made.sql("select state from :SCHEMA.runs where parent_id = $1", [place]);
    t.same(children, Array(3).fill({ state: "completed" }), `killed ${place}: three children`);
    const played = (await made.journal(place)).map(({ step }) => step).sort();
    t.same([...new Set(played)], ["play ann", "play ben", "play cleo"], `killed ${place}: all played`);
    t.ok(played.length <= 5, `killed ${place}: only what was in work again`);
  });
});
