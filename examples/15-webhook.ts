/**
 * A payment provider calls a webhook, and calls it again when it does not hear an answer in time. The handler turns each call into an
 * event for the order, with the provider's delivery id as `reference`: what is delivered twice is consumed once.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { event, Perdure, PerdureError, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const SECRET = "shared with the provider";
const paid = event<{ cents: number }>("paid");

const collect = workflow("collect", async (_order: string, cents: number) => {
  let open = cents;
  const deliveries: string[] = [];
  while (open > 0) {
    const { data, reference } = await paid.wait();
    deliveries.push(`${reference}: ${data.cents}`);
    open -= data.cents;
  }
  return deliveries.join(", ");
});

await fresh("example_15");
const perdure = new Perdure({ schema: "example_15", workflows: [collect] });
await perdure.launch();

async function webhook(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = "";
  for await (const chunk of request) body += chunk;
  if (!isSigned(body, String(request.headers["x-signature"]))) return void response.writeHead(401).end();
  const { delivery, order, cents } = JSON.parse(body) as { delivery: string; order: string; cents: number };
  try {
    // Durable when it resolves: only then the provider is told that it need not call again.
    await perdure.send(order, paid, { cents }, { reference: delivery, ignoreFinished: true });
    response.writeHead(200).end();
  } catch (error) {
    // An order that nobody knows will not be known later; anything else may pass, so the provider is to call again.
    const isUnknown = error instanceof PerdureError && error.code === "PERDURE_NOT_FOUND";
    response.writeHead(isUnknown ? 404 : 503).end();
  }
}

const sign = (body: string): Buffer => createHmac("sha256", SECRET).update(body).digest();

function isSigned(body: string, signature: string): boolean {
  const given = Buffer.from(signature, "hex");
  return given.length === 32 && timingSafeEqual(given, sign(body));
}

const server = createServer((request, response) => void webhook(request, response));
await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

// The provider.
const deliver = async (delivery: string, order: string, cents: number, key = SECRET): Promise<number> => {
  const body = JSON.stringify({ delivery, order, cents });
  const signature = createHmac("sha256", key).update(body).digest("hex");
  return (await fetch(url, { method: "POST", body, headers: { "x-signature": signature } })).status;
};

const run = await perdure.start(collect.with({ id: "order-42" }), "order-42", 100);
console.log(await deliver("d-1", "order-42", 60));
console.log(await deliver("d-1", "order-42", 60)); // the same again: accepted, and dropped
console.log(await deliver("d-2", "order-42", 40));
console.log(await run.result());
console.log(await deliver("d-2", "order-42", 40)); // late: the run has finished
console.log(await deliver("d-3", "order-43", 1)); // an order that nobody knows
console.log(await deliver("d-4", "order-42", 1, "a guess"));
server.close();
await perdure.shutdown();

// Output:
// 200
// 200
// 200
// d-1: 60, d-2: 40
// 200
// 404
// 401
