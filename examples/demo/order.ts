/** The order of the demo: ordinary functions. `tell` shows what a step does, `work` is the time it takes. */
import { setTimeout as work } from "node:timers/promises";
import { event, step, workflow } from "perdure";

/** Sent to the terminal that watches. */
export const tell = (what: "begins" | "ends", name: string): void => void process.send?.({ what, name });

const slowly = (name: string) =>
  step(name, async (_orderId: string) => {
    tell("begins", name);
    await work(600);
    tell("ends", name);
  });

export const createOrder = slowly("create-order");
export const reserveInventory = slowly("reserve-inventory");
export const fulfillOrder = slowly("fulfill-order");
export const releaseInventory = slowly("release-inventory");
export const paymentReceived = event<{ amount: number }>("payment-received");

export const processOrder = workflow("process-order", async (orderId: string) => {
  await createOrder(orderId);
  await reserveInventory(orderId);
  const payment = await paymentReceived.wait({ timeout: { minutes: 30 } });
  if (payment) await fulfillOrder(orderId);
  else await releaseInventory(orderId);
  return payment ? `${orderId} is on its way, ${payment.data.amount} paid` : `${orderId} was given up`;
});
