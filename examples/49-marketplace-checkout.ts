/**
 * A cart with goods of several sellers. The page shows where to pay as soon as the run publishes it; when the money is there, every seller packs
 * their part, side by side, as a child run. When one of them cannot, what the others have packed is put back and the money is returned: all in
 * the reverse order of what was done. The bank knows each charge and refund by an idempotency key, so a crash never moves money twice.
 */
import { currentStep, event, Perdure, RunFailedError, start, step, value, workflow } from "perdure";
import { fresh } from "./fresh.ts";

type Cart = readonly { readonly seller: string; readonly item: string; readonly cents: number }[];
const page = value<string>("page");
const paid = event<{ charge: string }>("paid");

const keys = new Set<string>(); // The bank's.
const refund = step(
  { name: "refund", retry: { type: "exponential", maxAttempts: 10, baseDelay: "1s" } },
  async (charge: string, cents: number) => {
    keys.add(currentStep().idempotencyKey);
    console.log(`bank: refunded ${cents} of ${charge}`);
  },
);
const reserve = step("reserve", async (item: string) => {
  if (item === "unicorn") throw new Error("there is no unicorn");
});
const putBack = step("put-back", async (seller: string, item: string) =>
  console.log(`${seller}: put back the ${item}`),
);

const pack = workflow("pack", async (item: string) => {
  await reserve(item);
  return `parcel with the ${item}`;
});

const checkout = workflow("checkout", async (cart: Cart) => {
  const cents = cart.reduce((sum, part) => sum + part.cents, 0);
  await page.set(`https://bank.example/pay/${cents}`);
  const payment = await paid.wait({ timeout: { minutes: 30 } });
  if (!payment) return ["not paid"];

  const parts = await Promise.all(cart.map(async (part) => ({ ...part, run: await start(pack, part.item) })));
  const ends = await Promise.allSettled(parts.map(({ run }) => run.result()));
  const failed = ends.find((end) => end.status === "rejected");
  if (!failed) return ends.map((end) => (end.status === "fulfilled" ? end.value : ""));

  for (const [i, { seller, item }] of [...parts.entries()].reverse()) {
    if (ends[i]!.status === "fulfilled") await putBack(seller, item);
  }
  await refund(payment.data.charge, cents);
  if (!(failed.reason instanceof RunFailedError)) throw failed.reason;
  return [`cancelled: ${(failed.reason.cause as Error).message}`];
});

await fresh("example_49");
const perdure = new Perdure({ schema: "example_49", workflows: [checkout, pack] });
await perdure.launch();

const kettle = { seller: "Ada", item: "kettle", cents: 4200 };
const lamp = { seller: "Bob", item: "lamp", cents: 2500 };
const unicorn = { seller: "Eve", item: "unicorn", cents: 99900 };
for (const [no, cart] of [
  [kettle, lamp],
  [kettle, lamp, unicorn],
].entries()) {
  const run = await perdure.start(checkout.with({ id: `cart-${no}` }), cart);
  for await (const url of run.watch(page)) {
    console.log(`the page sends the buyer to ${url}`);
    break;
  }
  await run.send(paid, { charge: `charge-${no}` }, { reference: `charge-${no}` });
  console.log((await run.result()).join(", "));
}
console.log(`refunds that the bank has seen: ${keys.size}`);
await perdure.shutdown();

// Output:
// the page sends the buyer to https://bank.example/pay/6700
// parcel with the kettle, parcel with the lamp
// the page sends the buyer to https://bank.example/pay/106600
// Bob: put back the lamp
// Ada: put back the kettle
// bank: refunded 106600 of charge-1
// cancelled: there is no unicorn
// refunds that the bank has seen: 1
