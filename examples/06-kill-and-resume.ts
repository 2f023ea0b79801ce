/**
 * A process is killed with -9 in the middle of a step, and another goes on where it stopped: the steps that had finished do not run
 * again, the one that was cut off does. This program starts itself as a child, kills it, and starts it once more.
 */
import { spawn } from "node:child_process";
import { setTimeout as work } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const createOrder = step("create-order", async () => console.log("created the order"));
const charge = step("charge", async () => console.log("charged the card"));
const pack = step("pack", async () => {
  console.log("packing the parcel …");
  await work(1000);
  console.log("packed the parcel");
});
const ship = step("ship", async () => console.log("shipped the parcel"));

const processOrder = workflow("process-order", async () => {
  await createOrder();
  await charge();
  await pack();
  await ship();
  return "order-42 is done";
});

async function main(): Promise<void> {
  const perdure = new Perdure({ schema: "example_06", workflows: [processOrder] });
  await perdure.launch();
  // The same id and the same input: the second process gets the run that the first has started.
  const run = await perdure.start(processOrder.with({ id: "order-42" }));
  console.log(await run.result());
  await perdure.shutdown();
}

/** Runs this program as a child and prints what it says; kills it at the line that holds `killAt`. */
async function watch(name: string, killAt?: string): Promise<void> {
  const proc = spawn(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url), "child"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  for await (const chunk of proc.stdout) {
    const lines = (text + chunk).split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      console.log(`${name}: ${line}`);
      if (killAt && line.includes(killAt)) proc.kill("SIGKILL");
    }
  }
}

if (process.argv[2] === "child") {
  await main();
} else {
  await fresh("example_06");
  await watch("first process", "packing");
  console.log("-- killed with -9");
  await watch("second process");
}

// Output:
// first process: created the order
// first process: charged the card
// first process: packing the parcel …
// -- killed with -9
// second process: packing the parcel …
// second process: packed the parcel
// second process: shipped the parcel
// second process: order-42 is done
