/** The run whose process is killed: it hangs in its second step, until another process has it. */
import { setTimeout as pause } from "node:timers/promises";
import { step, workflow } from "../../lib/index.ts";

// Tells the parent process what is reached.
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
