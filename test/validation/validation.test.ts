/** Validation with real schemas: what is refused stores nothing, what is accepted is stored as the schema returned it, once. */
import { test } from "tap";
import * as v from "valibot";
import { z } from "zod";
import { event, RunFailedError, race, runStep, schedule, start, step, workflow } from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";
import { reaches, rejection } from "../support/gate.ts";
import { atGate, gate } from "../support/replay.ts";

const patient = { timeout: "60s" } as const;

/** Counts how often it transforms: a value comes through once. */
let parsed = 0;
const counted = (text: string): number => {
  parsed += 1;
  return text.length;
};
const later = async (): Promise<boolean> => new Promise((resolve) => setImmediate(resolve, true));

const SCHEMAS = {
  zod: z.object({ items: z.array(z.object({ price: z.number() })), note: z.string().transform(counted) }),
  "zod, async": z.object({
    items: z.array(z.object({ price: z.number() })),
    note: z.string().refine(later).transform(counted),
  }),
  valibot: v.object({
    items: v.array(v.object({ price: v.number() })),
    note: v.pipe(v.string(), v.transform(counted)),
  }),
  "valibot, async": v.objectAsync({
    items: v.array(v.object({ price: v.number() })),
    note: v.pipeAsync(v.string(), v.checkAsync(later), v.transform(counted)),
  }),
};
const GOOD = { items: [{ price: 1 }], note: "four" };
const BAD = { items: [{ price: "1" }], note: "four" };
const PATH = /does not fit its schema: \$\.items\.0\.price: /;

for (const [name, schema] of Object.entries(SCHEMAS)) {
  test(`${name}: a refused start stores nothing, from outside, from a body and in a schedule; an accepted one what the schema returned`, async (t) => {
    const order = workflow({ name: "order", input: schema }, async (input) => {
      await gate.wait();
      return input.note + 1;
    });
    const parent = workflow("parent", async (input: typeof GOOD) => {
      const refused = await order(input).catch((error) => error.message);
      const again = await start(order.with({ id: "child" }), input).catch((error) => error.message);
      return [refused, again];
    });
    const { perdure, sql } = await coldBench(t, { workflows: [order, parent] });
    const count = async () =>
      (await sql("select count(*)::integer as n from :SCHEMA.run where workflow = 'order'"))[0].n;
    const refused = await rejection(perdure.start(order.with({ id: "bad" }), BAD as never));
    t.equal(refused.code, "PERDURE_INVALID");
    t.ok(refused.error.issues.length > 0, "what the schema found comes along");
    t.match(refused.message, /^input of workflow "order" does not fit/);
    t.match(refused.message, PATH);
    const results = (await (await perdure.start(parent, BAD as never)).result(patient)) as string[];
    for (const message of results) t.match(message, PATH);
    const nightly = schedule("nightly", { cron: "0 3 * * *" }, order, BAD as never);
    t.match((await rejection(perdure.schedules.put(nightly))).message, PATH);
    t.same(await perdure.schedules.list(), []);
    t.equal(await count(), 0);
    parsed = 0;
    const run = await perdure.start(order.with({ id: "good" }), GOOD);
    t.match(
      (await sql("select args from :SCHEMA.input i join :SCHEMA.run r on r.key = i.run where r.id = 'good'"))[0].args,
      {
        json: [{ note: 4 }],
      },
    );
    await atGate(run);
    await perdure.send("good", gate, null);
    t.equal(await run.result(patient), 5);
    t.equal(parsed, 1, "once, whatever is replayed");
    t.equal(
      (await perdure.start(order.with({ id: "good" }), { ...GOOD, note: "FOUR" })).id,
      "good",
      "equal once parsed",
    );
    t.equal(
      (await rejection(perdure.start(order.with({ id: "good" }), { ...GOOD, note: "other" }))).code,
      "PERDURE_CONFLICT",
    );
  });

  test(`${name}: a refused event stores nothing, however it is sent; an accepted one what the schema returned`, async (t) => {
    const told = event({ name: "told", schema });
    const order = workflow("order", async () => (await told.wait()).data.note);
    const messenger = workflow("messenger", async (id: string) =>
      runStep("send", () => perdure.send(id, told, BAD as never)).catch((error) => error.message),
    );
    const { perdure, sql } = await coldBench(t, { workflows: [order, messenger] });
    const runs = await Promise.all(["a", "b"].map((id) => perdure.start(order.with({ id }))));
    const ways = [
      () => perdure.send("a", told, BAD as never),
      () => perdure.send(["a", "b"], told, BAD as never),
      () => runs[0]!.send(told, BAD as never),
    ];
    for (const way of ways) {
      const refused = await rejection(way());
      t.equal(refused.code, "PERDURE_INVALID");
      t.match(refused.message, PATH);
    }
    t.match(await (await perdure.start(messenger, "a")).result(patient), PATH);
    t.equal((await sql("select count(*)::integer as n from :SCHEMA.mail"))[0].n, 0);
    parsed = 0;
    await perdure.send(["a", "b"], told, GOOD as never);
    t.same(await Promise.all(runs.map((run) => run.result(patient))), [4, 4]);
    t.equal(parsed, 1, "once for all that it is sent to");
  });

  test(`${name}: a run that SQL starts, and an event that SQL sends, are checked when they are taken up, once`, async (t) => {
    const told = event({ name: "told", schema });
    const order = workflow({ name: "order", input: schema }, async (input) => {
      await gate.wait();
      const note = await told.wait().then(
        ({ data }) => data.note,
        (error) => error.message as string,
      );
      const raced = await race({ told }).then(
        ({ value }) => value.data.note,
        (error) => error.message as string,
      );
      await gate.wait();
      return [input.note, note, raced];
    });
    const b = await coldBench(t, { workflows: [order] });
    const { perdure, sql } = b;
    const send = (id: string, data: object) =>
      sql("select :SCHEMA.send_event($1, 'told', $2)", [id, JSON.stringify(data)]);
    await sql("select :SCHEMA.start_run('order', $1, 'bad')", [JSON.stringify([BAD])]);
    const failed = await rejection(perdure.get("bad").result(patient));
    t.ok(failed.error instanceof RunFailedError);
    t.equal(failed.error.cause.code, "PERDURE_INVALID");
    t.match(failed.message, PATH);
    parsed = 0;
    await sql("select :SCHEMA.start_run('order', $1, 'good')", [JSON.stringify([GOOD])]);
    await sql("select :SCHEMA.start_run('order', $1, 'good')", [JSON.stringify([GOOD])]);
    await reaches(perdure.get("good"), "suspended");
    for (const data of [GOOD, GOOD]) await send("good", data);
    await perdure.send("good", gate, null);
    await atGate(perdure.get("good"));
    await perdure.send("good", gate, null);
    t.same(await perdure.get("good").result(patient), [4, 4, 4]);
    t.equal(parsed, 3, "each once, whatever is replayed");
    await sql("select :SCHEMA.start_run('order', $1, 'refuses')", [JSON.stringify([GOOD])]);
    const refuses = perdure.get("refuses");
    for (const data of [BAD, BAD]) await send("refuses", data);
    await perdure.send("refuses", gate, null);
    await atGate(refuses);
    const errors = (await refuses.history())
      .filter(({ outcome }) => outcome === "failed")
      .map(({ kind, error }) => [kind, (error as Error).message]);
    t.match(errors, [
      ["event", /^data of event "told" of run "refuses", sent from SQL, does not fit/],
      ["race", PATH],
    ]);
    await perdure.send("refuses", gate, null);
    const [, note, raced] = (await refuses.result(patient)) as string[];
    t.match(note, PATH);
    t.match(raced, PATH);
  });

  test(`${name}: a refused step output fails the step with the path and is tried again; a refused input is not`, async (t) => {
    let tries = 0;
    const retry = { type: "fixed", maxAttempts: 3, delay: 1 } as const;
    const make = step({ name: "make", output: schema, retry }, async (failures: number) => {
      tries += 1;
      return (tries <= failures ? BAD : GOOD) as typeof GOOD;
    });
    const take = step({ name: "take", input: schema, retry }, async (input) => {
      tries += 1;
      return input.note;
    });
    const flow = workflow("flow", async (failures: number) => (await make(failures)).note);
    const hand = workflow("hand", async (input: typeof GOOD) => take(input));
    const { perdure, sql } = await coldBench(t, { workflows: [flow, hand] });
    parsed = 0;
    t.equal(await (await perdure.start(flow, 2)).result(patient), 4);
    t.same([tries, parsed >= 1], [3, true]);
    tries = 0;
    const run = await perdure.start(flow, 5);
    const failed = await rejection(run.result(patient));
    t.match(
      failed.error.cause.message,
      /^result of step "make" of run .* does not fit its schema: \$\.items\.0\.price: /,
    );
    t.equal(failed.error.cause.code, "PERDURE_INVALID");
    t.equal(tries, 3);
    t.equal((await run.history())[0]!.attempts, 3);
    tries = 0;
    t.equal(await (await perdure.start(hand, GOOD)).result(patient), 4);
    const refused = await rejection((await perdure.start(hand, BAD as never)).result(patient));
    t.match(
      refused.error.cause.message,
      /^input of step "take" of run .* does not fit its schema: \$\.items\.0\.price: /,
    );
    t.equal(tries, 1, "the function never sees it");
    t.equal((await sql("select max(tries) as n from :SCHEMA.checkpoint where name = 'take'"))[0].n, 1);
  });
}

test("a schema that is added while runs of SQL's are under way does not touch them; defaults are drawn once", async (t) => {
  const schema = z.object({ id: z.string().default(() => globalThis.crypto.randomUUID()) });
  const before = workflow("order", async (input: { id?: string }) => {
    await gate.wait();
    return input.id ?? "none";
  });
  const after = workflow({ name: "order", input: schema }, async (input) => {
    await gate.wait();
    return input.id;
  });
  const b = await coldBench(t, { workflows: [before] });
  await b.sql("select :SCHEMA.start_run('order', '[{}]', 'old')");
  await atGate(b.perdure.get("old"));
  await b.perdure.shutdown();
  const second = await b.another({ workflows: [after] });
  await b.sql("select :SCHEMA.start_run('order', '[{}]', 'new')");
  await atGate(second.get("new"));
  const [entry] = await second.get("new").history();
  for (const id of ["old", "new"]) await second.send(id, gate, null);
  t.equal(await second.get("old").result(patient), undefined);
  t.equal(await second.get("new").result(patient), (entry!.value as { id: string }).id);
});

test("a workflow's output is checked, and what the schema returns is the result", async (t) => {
  const output = z.object({ total: z.number() });
  const flow = workflow({ name: "flow", output }, async (total: unknown) => ({ total, more: 1 }) as never);
  const { perdure } = await coldBench(t, { workflows: [flow] });
  t.same(await (await perdure.start(flow, 1)).result(patient), { total: 1 });
  const { error } = await rejection((await perdure.start(flow, "1")).result(patient));
  t.match(error.cause, { code: "PERDURE_INVALID", message: /^result of run .* does not fit its schema: \$\.total: / });
});
