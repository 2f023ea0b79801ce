/**
 * A payment gateway takes the money, and then the connection drops before its answer arrives. Nobody can tell this from a charge that
 * never happened, so the step is tried again, as it would be after a crash. What keeps the customer from paying twice is the idempotency
 * key: the same across all tries of one call, so the gateway recognises the second request and answers with the first charge.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { currentStep, Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

// The gateway: charges once per key, and loses the answer to the first request.
const charges = new Map<string, { receipt: string; cents: number }>();
const gateway = createServer((request, response) => {
  const key = String(request.headers["idempotency-key"]);
  const known = charges.get(key);
  const cents = Number(new URL(request.url!, "http://gateway").searchParams.get("cents"));
  const charge = known ?? { receipt: `receipt-${charges.size + 1}`, cents };
  charges.set(key, charge);
  console.log(known ? "gateway: this key was charged before" : `gateway: charged ${cents}, and the connection drops`);
  if (known) response.end(JSON.stringify(charge));
  else request.socket.destroy();
});
await new Promise<void>((listening) => gateway.listen(0, "127.0.0.1", listening));
const url = `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`;

const retry = { type: "jittered", maxAttempts: 10, baseDelay: "20ms", maxDelay: "1m" } as const;

const charge = step({ name: "charge", retry, timeout: "30s" }, async (order: string, cents: number) => {
  const { idempotencyKey, attempt, signal } = currentStep();
  console.log(`try ${attempt} to charge ${order}`);
  const headers = { "idempotency-key": idempotencyKey };
  const response = await fetch(`${url}/charges?cents=${cents}`, { method: "POST", headers, signal });
  return ((await response.json()) as { receipt: string }).receipt;
});

const checkout = workflow("checkout", async (order: string, cents: number) => charge(order, cents));

await fresh("example_17");
const perdure = new Perdure({ schema: "example_17", workflows: [checkout] });
await perdure.launch();
const run = await perdure.start(checkout, "order-42", 9900);
console.log(await run.result());
console.log(`charges on the card: ${charges.size}`);
await perdure.shutdown();
gateway.close();

// Output:
// try 1 to charge order-42
// gateway: charged 9900, and the connection drops
// try 2 to charge order-42
// gateway: this key was charged before
// receipt-1
// charges on the card: 1
