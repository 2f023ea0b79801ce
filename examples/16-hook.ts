/**
 * A hook that runs after a workflow however it ended: completed, failed or cancelled. Code in a `finally` of the workflow itself would not
 * do: nothing runs in a run that is cancelled. So a second, small workflow starts the first as its child, waits for its end, and then tells
 * of it. The hook is durable like every run: when its process dies, another tells.
 */
import { setTimeout as pause } from "node:timers/promises";
import { event, Perdure, RunCancelledError, RunFailedError, type RunHandle, start, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const packed = event("packed");
const charge = step("charge", async (order: string) => {
  if (order === "order-2") throw new Error("card expired");
});
const processOrder = workflow("process-order", async (order: string) => {
  await charge(order);
  await packed.wait();
  return "shipped";
});

const notify = step("notify", async (text: string) => console.log(text));
const hooked = workflow("process-order-and-tell", async (order: string) => {
  const run = await start(processOrder.with({ id: order }), order);
  try {
    await notify(`${order} completed: ${await run.result()}`);
  } catch (error) {
    if (error instanceof RunFailedError) await notify(`${order} failed: ${(error.cause as Error).message}`);
    else if (error instanceof RunCancelledError) await notify(`${order} was cancelled: ${error.reason}`);
    else throw error;
  }
});

/** A hook that waits for its child has started it. */
async function orderIsThere(hook: RunHandle<void>): Promise<void> {
  while ((await hook.status()).waitingFor !== "child") await pause(10);
}

await fresh("example_16");
const perdure = new Perdure({ schema: "example_16", workflows: [hooked, processOrder] });
await perdure.launch();

const first = await perdure.start(hooked, "order-1");
await orderIsThere(first);
await perdure.send("order-1", packed);
await first.result();

await (await perdure.start(hooked, "order-2")).result();

const third = await perdure.start(hooked, "order-3");
await orderIsThere(third);
// The order, not the hook: who cancels a parent means its children too.
await perdure.get("order-3").cancel("the customer called");
await third.result();
await perdure.shutdown();

// Output:
// order-1 completed: shipped
// order-2 failed: card expired
// order-3 was cancelled: the customer called
