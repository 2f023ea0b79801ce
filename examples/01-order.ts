/**
 * An order waits up to 30 minutes for its payment. While it waits it is a row in Postgres and nothing else: no timer, no worker, no
 * open request. The first order is paid. The second is not, and gets a few milliseconds only, so that you need not wait for half an hour.
 */
import { type Duration, event, Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const createOrder = step("create-order", async (order: string) => console.log(`${order}: created`));
const reserveInventory = step("reserve-inventory", async (order: string) => console.log(`${order}: reserved`));
const fulfillOrder = step("fulfill-order", async (order: string) => console.log(`${order}: fulfilled`));
const releaseInventory = step("release-inventory", async (order: string) => console.log(`${order}: released`));
const paymentReceived = event<{ amount: number }>("payment-received");

const processOrder = workflow("process-order", async (order: string, patience: Duration) => {
  await createOrder(order);
  await reserveInventory(order);
  const payment = await paymentReceived.wait({ timeout: patience });
  if (!payment) {
    await releaseInventory(order);
    return "not paid in time";
  }
  await fulfillOrder(order);
  return `paid ${payment.data.amount}`;
});

await fresh("example_01");
const perdure = new Perdure({ schema: "example_01", workflows: [processOrder] });
await perdure.launch();

const first = await perdure.start(processOrder.with({ id: "order-1" }), "order-1", { minutes: 30 });
await first.send(paymentReceived, { amount: 99 });
console.log(`order-1: ${await first.result()}`);

const second = await perdure.start(processOrder.with({ id: "order-2" }), "order-2", "10ms");
console.log(`order-2: ${await second.result()}`);

await perdure.shutdown();

// Output:
// order-1: created
// order-1: reserved
// order-1: fulfilled
// order-1: paid 99
// order-2: created
// order-2: reserved
// order-2: released
// order-2: not paid in time
