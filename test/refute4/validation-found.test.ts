/** What a stranger found of validation: each is one promise that did not hold. */
import { runInNewContext } from "node:vm";
import { test } from "tap";
import * as z from "zod";
import { event, type Schema, schedule, step, workflow } from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { rejection } from "../support/gate.ts";
import { atGate, gate } from "../support/replay.ts";

const schemaOf = (validate: (value: unknown) => unknown): Schema<unknown> =>
  ({ "~standard": { version: 1, vendor: "test", validate } }) as Schema<unknown>;

const tell = step("tell", async (n: number) => n);

const ODD: Record<string, readonly [Schema<unknown>, string]> = {
  "a promise of another realm": [
    schemaOf(() => runInNewContext("Promise.resolve({ issues: [{ message: 'no' }] })")),
    "PERDURE_INVALID",
  ],
  "neither a value nor issues": [schemaOf(() => ({})), "PERDURE_OPTION"],
};

for (const [what, [schema, code]] of Object.entries(ODD)) {
  test(`a schema that returns ${what} lets nothing in, and nothing is stored as undefined in its place`, async (t) => {
    const order = workflow({ name: "order", input: schema }, async (input) => ({ input }));
    const told = event({ name: "told", schema });
    const late = workflow("late", async () => gate.wait());
    const { perdure, sql } = await coldBench(t, { workflows: [order, late] });
    t.equal((await rejection(perdure.start(order, 1))).code, code);
    t.equal((await sql("select count(*)::integer as n from :SCHEMA.run"))[0].n, 0);
    const run = await perdure.start(late);
    t.equal((await rejection(run.send(told, 1))).code, code);
    t.equal((await sql("select count(*)::integer as n from :SCHEMA.mail"))[0].n, 0);
  });
}

test("what a schema throws is told with a code and the name of what it checks, and not as a failure of the database", async (t) => {
  const schema = z.string().transform((): string => {
    throw new Error("lookup failed");
  });
  const order = workflow({ name: "order", input: schema }, async (input) => input);
  const { perdure } = await coldBench(t, { workflows: [order] });
  for (const call of [
    () => perdure.start(order, "x"),
    () => perdure.schedules.put(schedule("nightly", { every: "1h" }, order, "x")),
  ]) {
    const { code, message } = await rejection(call());
    t.equal(code, "PERDURE_OPTION", message);
    t.match(message, /input of workflow "order".*lookup failed/);
  }
});

test("a schema that is taken away does not block the runs that SQL started under it", async (t) => {
  const order = workflow({ name: "order", input: z.number() }, async (input) => {
    await gate.wait();
    return tell(input);
  });
  const b = await coldBench(t, { workflows: [order] });
  await b.sql(`select :SCHEMA.start_run('order', '[1]', 'r')`);
  await atGate(b.perdure.get("r"));
  await b.perdure.shutdown();
  const without = workflow("order", async (input: number) => {
    await gate.wait();
    return tell(input);
  });
  const after = await b.another({ workflows: [without] });
  await after.send("r", gate, null);
  const over = ["blocked", "completed"];
  await eventually(async () => over.includes((await after.get("r").status()).state), 20_000);
  const { state, reason } = await after.get("r").status();
  t.equal(state, "completed", reason ?? "");
});
