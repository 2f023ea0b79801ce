/** A process of its own with one engine, for the questions that need another process. Tells its parent what its steps reach. */
import { setTimeout as pause } from "node:timers/promises";
import { Perdure, step, workflow } from "../lib/index.ts";

/** Steps that last until the process is killed, or until another process has taken over and tells the next step. */
const tell = step("tell", async (n: number) => void process.send?.({ step: n, pid: process.pid }));
const hang = step("hang", async (first: string) => {
  process.send?.({ step: 1, pid: process.pid });
  if (first === String(process.pid)) await pause(600_000);
});

/** Hangs in the process whose pid it is given; anywhere else it goes on. */
export const takenOver = workflow("taken-over", async (first: string) => {
  await tell(0);
  await hang(first);
});

if (process.send) {
  const [database, schema] = process.argv.slice(2) as [string, string];
  const perdure = new Perdure({ database, schema, workflows: [takenOver] });
  await perdure.launch();
  process.on("disconnect", () => process.exit());
  process.on("message", (id: string) => void perdure.start(takenOver.with({ id }), String(process.pid)));
  process.send({ ready: true });
}
