/**
 * Orders come in from a web form, from another team's program and from SQL, and not all of them are right. Schemas stand at the doors: what does
 * not fit is refused where it is handed over, with the path, and nothing of it is stored. What does is stored as the schema returned it, so that
 * the workflow sees dates and defaults, and not what a form made of them. What SQL brings in is checked when it is taken up. The types follow from the
 * schemas; zod stands here for any library that speaks Standard Schema.
 */
import { event, Perdure, step, workflow } from "perdure";
import { z } from "zod";
import { fresh } from "./fresh.ts";

const Order = z.object({
  customer: z.string(),
  wanted: z.string().transform((text) => new Date(text)),
  items: z.array(z.object({ sku: z.string(), cents: z.number().int() })).min(1),
  gift: z.boolean().default(false),
});

const paid = event({ name: "paid", schema: z.object({ cents: z.number().positive() }) });

// The answer of another team's service: what is promised of it is checked as well. It counts as a failure of the step, and is tried again.
const retry = { type: "fixed", maxAttempts: 2, delay: "10ms" } as const;
const stock = step(
  { name: "stock", output: z.object({ left: z.number() }), retry },
  async (sku: string): Promise<unknown> => (sku === "hat" ? { left: "none" } : { left: 3 }),
);

const processOrder = workflow({ name: "process-order", input: Order }, async (order) => {
  for (const { sku } of order.items) {
    const problem = await stock(sku).then(
      () => null,
      (error: Error) => error.message,
    );
    if (problem) return `${order.customer} has to wait: ${problem}`;
  }
  const payment = await paid.wait();
  return `${order.customer}: ${payment.data.cents} cents, wanted in ${order.wanted.getUTCFullYear()}${order.gift ? ", a gift" : ""}`;
});

await fresh("example_25");
const perdure = new Perdure({ schema: "example_25", workflows: [processOrder] });
await perdure.launch();
const say = (error: Error): void => console.log(error.message);

const shirt = { sku: "shirt", cents: 1900 };
const asked = { customer: "ada", wanted: "2027-01-02", items: [shirt] };
await perdure.start(processOrder.with({ id: "bad" }), { ...asked, items: [{ ...shirt, cents: 19.5 }] }).catch(say);

const run = await perdure.start(processOrder.with({ id: "order-1" }), asked);
await run.send(paid, { cents: -1 }).catch(say);
await run.send(paid, { cents: 1900 });
console.log(await run.result());

const hat = await perdure.start(processOrder.with({ id: "order-2" }), { ...asked, items: [{ sku: "hat", cents: 5 }] });
console.log(await hat.result());
const { runs } = await perdure.list();
console.log(runs.map(({ id, state }) => `${id} ${state}`).join(", "));
await perdure.shutdown();

// Output:
// input of workflow "process-order" does not fit its schema: $.items.0.cents: Invalid input: expected int, received number
// data of event "paid" does not fit its schema: $.cents: Too small: expected number to be >0
// ada: 1900 cents, wanted in 2027
// ada has to wait: result of step "stock" of run "order-2" does not fit its schema: $.left: Invalid input: expected number, received string
// order-2 completed, order-1 completed
