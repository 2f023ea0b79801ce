/** The views for people: what is in them is what happened. */
import { test } from "tap";
import { event, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { PATIENCE_MS, reaches } from "../support/gate.ts";

const paid = event<number>("paid");
let tries = 0;
const ship = step({ name: "ship", retry: { type: "fixed", maxAttempts: 2, delay: 0 } }, async () => {
  tries += 1;
  if (tries === 1) throw new Error("no van");
});
const order = workflow("order", async () => {
  await ship();
  return (await paid.wait()).data;
});

test("timeline tells what happened to a run, in the order in which it did", async (t) => {
  const b = await bench(t, { workflows: [order] });
  const run = await b.perdure.start(order.with({ id: "o" }));
  await reaches(run, "suspended");
  const open = await b.sql("select what, name from :SCHEMA.timeline where run_id = 'o' and kind = 'event'");
  t.same(open, [{ what: "began", name: "event:paid" }]);
  await run.send(paid, 5);
  await run.result({ timeout: PATIENCE_MS });
  const rows = await b.sql("select what, kind, name from :SCHEMA.timeline where run_id = 'o' order by no");
  const told = rows.map(({ what, kind, name }) => [what, kind, name].filter(Boolean).join(" "));
  t.same(told.slice(0, 2), ["created", "started"]);
  t.equal(told.at(-1), "completed");
  for (const line of ["try failed step ship", "completed step ship", "sent event paid", "completed event paid"]) {
    t.ok(told.includes(line), `${line}: ${told.join(", ")}`);
  }
  t.ok(told.indexOf("try failed step ship") < told.indexOf("completed step ship"));
});

test("queues counts the unfinished runs of each queue, and the workers that serve it", async (t) => {
  const slow = workflow({ name: "slow", queue: "night" }, async () => void (await paid.wait()));
  const b = await bench(t, { workflows: [order, slow] });
  const [waits, later, still] = await Promise.all([
    b.perdure.start(slow),
    b.perdure.start(slow.with({ delay: "1h" })),
    b.perdure.start(slow.with({ delay: "1h" })),
  ]);
  await reaches(waits, "suspended");
  await still.pause();
  t.match(await b.sql("select * from :SCHEMA.queues"), [
    { queue: "night", ready: "0", delayed: "1", running: "0", suspended: "1", paused: "1", blocked: "0", workers: "1" },
  ]);
  await Promise.all([waits, later, still].map((run) => run.cancel()));
  t.same(await b.sql("select * from :SCHEMA.queues"), []);
});
