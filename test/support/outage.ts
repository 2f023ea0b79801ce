/** A process that launches an engine on argv's database, and on a message shuts it down and must then exit by itself. */
import { Perdure, sleep, step, workflow } from "../../lib/index.ts";

const [database, schema] = process.argv.slice(2) as [string, string];
const slow = step("slow", () => new Promise<void>((resolve) => setTimeout(resolve, 100).unref()));
const busy = workflow("busy", async () => {
  for (;;) {
    await slow();
    await sleep(10);
  }
});
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const perdure = new Perdure({ database, schema, workflows: [busy], logger: quiet });
await perdure.launch();
const run = await perdure.start(busy);
const result = run.result().catch((error: { code?: string }) => error.code);
process.send?.("launched");
process.once("message", () => {
  void perdure.shutdown({ timeout: 500 }).then(async () => {
    process.send?.({ result: await result });
    process.disconnect();
  });
});
