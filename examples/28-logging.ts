/**
 * Whose line is it? A hundred orders run at once, and each of their lines names its order, its workflow and the step that wrote it, though
 * none of the code passes a logger on. The order waits for its payment, and is run again from the first line when that comes: what was
 * written before is not written again. `context` hands every execution what is not recorded, here the exchange rates of the day.
 */
import { currentRun, currentStep, event, Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

interface App {
  readonly rates: ReadonlyMap<string, number>;
}

const paid = event<string>("paid");

const charge = step(
  { name: "charge", retry: { type: "fixed", maxAttempts: 2, delay: 10 } },
  async (currency: string) => {
    const { log, context } = currentRun<App>();
    log.info("asking the bank");
    if (currentStep().attempt === 1) throw new Error("the bank is busy");
    return 300 * context.rates.get(currency)!;
  },
);

const processOrder = workflow("process-order", async (currency: string) => {
  const { log } = currentRun();
  log.info("ordered");
  const { data: by } = await paid.wait();
  log.info({ by }, "paid");
  try {
    return await charge(currency);
  } finally {
    log.info("done");
  }
});

// Any console-shaped logger; with pino, winston or bunyan the lines have fields in place of the prefix.
const print = (message: string, ...details: unknown[]) => console.log(message, ...details);
const logger = { debug: print, info: print, warn: print, error: print };

await fresh("example_28");
const context = async (): Promise<App> => ({ rates: new Map([["EUR", 2]]) });
const perdure = new Perdure({ schema: "example_28", workflows: [processOrder], logger, context });
await perdure.launch();

const run = await perdure.start(processOrder.with({ id: "order-42" }), "EUR");
while ((await run.status()).state !== "suspended") await new Promise((resolve) => setTimeout(resolve, 5));
await run.send(paid, "card");
console.log(await run.result());
await perdure.shutdown();

// Output:
// [order-42 process-order/1] ordered
// [order-42 process-order/1] paid { by: 'card' }
// [order-42 process-order/1 charge#1] asking the bank
// [order-42 process-order/1 charge#2] asking the bank
// [order-42 process-order/1] done
// 600
