/** A worker process of the demo: all that an application needs to work on orders. */
import { Perdure } from "perdure";
import { processOrder } from "./order.ts";

const perdure = new Perdure({
  database: process.env.DATABASE_URL!,
  schema: "perdure_demo",
  workflows: [processOrder],
  shutdownOn: ["SIGTERM"],
});
await perdure.launch();

process.on("message", (orderId: string) => void perdure.start(processOrder.with({ id: orderId }), orderId));
// Whoever watches is gone.
process.on("disconnect", () => process.kill(process.pid, "SIGTERM"));
process.send?.({ what: "ready" });
