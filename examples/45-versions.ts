/**
 * The rules for refunds change, and refunds in flight keep the rules they began under. Both versions are registered side by side: a run
 * stays on its version for life, a start by name takes the newest. Once no run of the old one is left, its code can go.
 */
import { event, Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const decided = event<"yes" | "no">("decided");
const payOut = step("pay-out", async (cents: number) => `paid out ${cents}`);

const refundV1 = workflow({ name: "refund", version: "1" }, async (cents: number) => {
  const { data } = await decided.wait();
  return data === "yes" ? payOut(cents) : "refused";
});
// Small sums need no decision any more.
const refundV2 = workflow({ name: "refund", version: "2" }, async (cents: number) => {
  if (cents <= 1000) return payOut(cents);
  const { data } = await decided.wait();
  return data === "yes" ? payOut(cents) : "refused";
});

await fresh("example_45");
const old = new Perdure({ schema: "example_45", workflows: [refundV1] });
await old.launch();
await old.start(refundV1.with({ id: "refund-1" }), 500);
await old.shutdown();

// The deploy: both versions.
const perdure = new Perdure({ schema: "example_45", workflows: [refundV1, refundV2] });
await perdure.launch();
const second = await perdure.start("refund", 500);
console.log(`version ${(await second.status()).version}: ${await second.result()}`);

const unfinished = () => perdure.list({ workflow: "refund", version: "1", state: ["pending", "running", "suspended"] });
console.log(`runs that need version 1: ${(await unfinished()).runs.map(({ id }) => id)}`);
await perdure.send("refund-1", decided, "yes");
console.log(`version 1: ${await perdure.get("refund-1").result()}`);
console.log(`runs that need version 1: ${(await unfinished()).runs.length}`);
await perdure.shutdown();

// Output:
// version 2: paid out 500
// runs that need version 1: refund-1
// version 1: paid out 500
// runs that need version 1: 0
