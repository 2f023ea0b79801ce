/**
 * This shop calls the webhooks of its customers. Each delivery is a run of its own: signed, tried again for days when the other side is down, given
 * up at once when it says that it is gone, and then the customer's endpoint is switched off. One slow customer holds up nobody. The id of a delivery
 * is made of the customer and the event, so an event that is published twice is delivered once.
 */
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { currentStep, NonRetryableError, Perdure, start, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

interface Customer {
  readonly name: string;
  readonly url: string;
}

// The customers: one is down at first, one has left.
const seen = new Map<string, number>();
const server = createServer((request, response) => {
  const count = (seen.get(request.url!) ?? 0) + 1;
  seen.set(request.url!, count);
  const status = request.url === "/gone" ? 410 : request.url === "/shaky" && count < 3 ? 503 : 204;
  response.writeHead(status).end();
});
await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

const post = step(
  // In life: a base of a minute, an hour at most, and some 70 tries make three days.
  { name: "post", retry: { type: "jittered", maxAttempts: 70, baseDelay: "10ms", maxDelay: "50ms" }, timeout: "10s" },
  async (url: string, body: string) => {
    const { signal, idempotencyKey, attempt } = currentStep();
    const signature = createHmac("sha256", "the customer's secret").update(body).digest("hex");
    const headers = { "x-signature": signature, "x-delivery": idempotencyKey, connection: "close" };
    const { status } = await fetch(url, { method: "POST", body, headers, signal });
    if (status === 410) throw new NonRetryableError("410 Gone");
    if (status >= 300) throw new Error(`${status}`);
    return attempt;
  },
);
const switchOff = step("switch-off", async (customer: string) => console.log(`${customer} is switched off`));

const deliver = workflow("deliver", async (customer: Customer, body: string) => {
  try {
    return `${customer.name}: try ${await post(customer.url, body)}`;
  } catch (error) {
    await switchOff(customer.name);
    return `${customer.name}: given up, ${(error as Error).message}`;
  }
});
const publish = workflow("publish", async (event: string, customers: Customer[]) => {
  for (const customer of customers) {
    await start(deliver.with({ id: `${event}/${customer.name}`, detached: true }), customer, JSON.stringify({ event }));
  }
});

await fresh("example_56");
const perdure = new Perdure({ schema: "example_56", workflows: [publish, deliver] });
await perdure.launch();
const customers = ["well", "shaky", "gone"].map((name) => ({ name, url: `${base}/${name}` }));
for (const _ of ["once", "twice"]) await (await perdure.start(publish, "order-7 shipped", customers)).result();
for (const { name } of customers) console.log(await perdure.get(deliver, `order-7 shipped/${name}`).result());
console.log(`calls: ${[...seen.values()].join(", ")}`);
await perdure.shutdown();
server.close();

// Output:
// gone is switched off
// well: try 1
// shaky: try 3
// gone: given up, 410 Gone
// calls: 1, 3, 1
