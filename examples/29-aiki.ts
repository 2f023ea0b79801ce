/**
 * The order of example 01, as a program for Aiki has it: its tasks and handlers stay as they are, the import is another, and in place of
 * a server there is the database.
 */
import { client, event, task, worker, workflow } from "perdure/aiki";
import { fresh } from "./fresh.ts";

const say = (what: string) =>
  task({
    name: `${what}-order`,
    async handler(orderId: string) {
      console.log(`${orderId}: ${what}`);
    },
  });
const reserve = say("reserve");
const fulfill = say("fulfill");
const release = say("release");

const processOrderV1 = workflow({ name: "process-order" }).v("1.0.0", {
  async handler(run, input: { orderId: string; patience: number }) {
    await reserve.start(run, input.orderId);
    const payment = await run.events.paymentReceived.wait({ timeout: { milliseconds: input.patience } });
    if (payment.timeout) {
      await release.start(run, input.orderId);
      return "not paid in time";
    }
    await fulfill.start(run, input.orderId);
    return `paid ${payment.data.amount}`;
  },
  events: { paymentReceived: event<{ amount: number }>() },
});

await fresh("example_29");
const aiki = client({ schema: "example_29" });
const workerHandle = await worker({ workflows: [processOrderV1] }).start(aiki);

async function show(orderId: string): Promise<void> {
  const handle = await processOrderV1.getHandleByReferenceId(aiki, orderId);
  const result = await handle.waitForStatus("completed", { timeout: { seconds: 30 } });
  console.log(`${orderId}: ${result.success ? result.state.output : result.cause}`);
}

await processOrderV1.with("reference.id", "order-1").start(aiki, { orderId: "order-1", patience: 30 * 60_000 });
await processOrderV1.events.paymentReceived.sendByReferenceId(aiki, "order-1", { amount: 99 });
await show("order-1");

await processOrderV1.with("reference.id", "order-2").start(aiki, { orderId: "order-2", patience: 10 });
await show("order-2");

await workerHandle.stop();

// Output:
// order-1: reserve
// order-1: fulfill
// order-1: paid 99
// order-2: reserve
// order-2: release
// order-2: not paid in time
