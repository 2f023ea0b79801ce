/** What a race came to stays when the workflow is tried again, also where another child is in it. */
import { test } from "tap";
import { event, race, start, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { gate } from "../support/gate.ts";

const patient = { timeout: "20s" } as const;
const paid = event<number>("paid");

test("an event that a race took is not waited for again when the workflow is retried because the child in it failed", async (t) => {
  const decided = gate();
  let tries = 0;
  const ship = step("ship", async (_order: string) => {
    tries += 1;
    await decided.opened;
    if (tries === 1) throw new Error("no truck");
    return "shipped";
  });
  const parcel = workflow("parcel", (order: string) => ship(order));
  const order = workflow({ name: "order", retry: { type: "fixed", maxAttempts: 2, delay: 1 } }, async (id: string) => {
    const shipped = await start(parcel, id);
    const first = await race({ paid, shipped, late: "10s" });
    decided.open();
    return [first.winner, await shipped.result()];
  });
  const { perdure } = await bench(t, { workflows: [order, parcel] });
  const run = await perdure.start(order, "o-1");
  await run.send(paid, 42);
  t.same(await run.result(patient), ["paid", "shipped"]);
});
