/** The first program: an order that waits for its payment. */
import { test } from "tap";
import { event, step, workflow } from "../../lib/index.ts";
import { coldBench } from "../support/engine.ts";

test("an order waits for its payment and goes on when it comes", async (t) => {
  const seen: string[] = [];
  const create = step("create", async (id: string) => void seen.push(`create ${id}`));
  const fulfil = step("fulfil", async (id: string) => void seen.push(`fulfil ${id}`));
  const paid = event<{ amount: number }>("paid");
  const order = workflow("order", async (id: string) => {
    await create(id);
    const payment = await paid.wait({ timeout: "30m" });
    if (payment) await fulfil(id);
    return payment?.data.amount ?? null;
  });
  const { perdure } = await coldBench(t, { workflows: [order] });
  const run = await perdure.start(order.with({ id: "o1" }), "o1");
  await perdure.send("o1", paid, { amount: 99 });
  t.equal(await run.result(), 99);
  t.strictSame(seen, ["create o1", "fulfil o1"]);
});

test("a wait that times out returns null", async (t) => {
  const paid = event<{ amount: number }>("paid");
  const order = workflow("order", async () => paid.wait({ timeout: "30m" }));
  const { perdure, advance, sql } = await coldBench(t, { workflows: [order] });
  const run = await perdure.start(order);
  while ((await run.status()).state !== "suspended") await new Promise((r) => setTimeout(r, 5));
  await advance(30 * 60_000);
  t.equal(await run.result(), null);
  t.same(await sql("select outcome from :SCHEMA.steps"), [{ outcome: "timeout" }]);
});
