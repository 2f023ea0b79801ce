/**
 * A supplier's API is down for a moment: the step is tried again after a growing delay, and between tries no worker is held. Another
 * failure is final: `NonRetryableError` ends the tries at once, and the workflow catches it by its class, live and on replay alike.
 */
import { currentStep, NonRetryableError, Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

class OutOfStock extends NonRetryableError {}

const retry = { type: "exponential", maxAttempts: 5, baseDelay: "20ms", factor: 2, maxDelay: "1m" } as const;

const askSupplier = step({ name: "ask-supplier", retry, timeout: "10s" }, async (item: string) => {
  const { attempt } = currentStep();
  if (item === "unicorn") throw new OutOfStock("there are no unicorns");
  if (attempt < 3) {
    console.log(`try ${attempt} for the ${item}: the supplier is down`);
    throw new Error("503 Service Unavailable");
  }
  console.log(`try ${attempt} for the ${item}: the supplier answers`);
  return { item, price: 42 };
});

const buy = workflow("buy", async (item: string) => {
  try {
    const offer = await askSupplier(item);
    return `${offer.item} for ${offer.price}`;
  } catch (error) {
    if (error instanceof OutOfStock) return `no ${item}: ${error.message}`;
    throw error;
  }
});

await fresh("example_02");
// `errors` registers the class, so that the error that comes back from the database is still an OutOfStock.
const perdure = new Perdure({ schema: "example_02", workflows: [buy], errors: [OutOfStock] });
await perdure.launch();
console.log(await (await perdure.start(buy, "kettle")).result());
console.log(await (await perdure.start(buy, "unicorn")).result());
await perdure.shutdown();

// Output:
// try 1 for the kettle: the supplier is down
// try 2 for the kettle: the supplier is down
// try 3 for the kettle: the supplier answers
// kettle for 42
// no unicorn: there are no unicorns
