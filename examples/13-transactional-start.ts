/**
 * A shop takes orders over HTTP. The handler inserts the order and starts its workflow in one transaction: there is no order without its
 * workflow and no workflow without its order, whatever fails in between. The worker hears of the run when the transaction commits.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Perdure, step, workflow } from "perdure";
import pg from "pg";
import { fresh } from "./fresh.ts";

const charge = step("charge", async (_order: string, cents: number) => `charged ${cents}`);

const processOrder = workflow("process-order", async (order: string, cents: number) => {
  return `${order}: ${await charge(order, cents)}`;
});

await fresh("example_13");
// The application's own pool, which the engine uses as well. Needs DATABASE_URL.
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const perdure = new Perdure({ database: pool, schema: "example_13", workflows: [processOrder] });
await perdure.launch();
await pool.query("create table example_13.orders (id text primary key, cents integer not null check (cents > 0))");

async function takeOrder(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { order, cents } = JSON.parse(await read(request)) as { order: string; cents: number };
  const client = await pool.connect();
  try {
    await client.query("begin");
    await perdure.using(client).start(processOrder.with({ id: order }), order, cents);
    await client.query("insert into example_13.orders values ($1, $2)", [order, cents]);
    await client.query("commit");
    response.writeHead(202).end(order);
  } catch (error) {
    await client.query("rollback");
    response.writeHead(422).end((error as Error).message);
  } finally {
    client.release();
  }
}

async function read(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const chunk of request) body += chunk;
  return body;
}

const server = createServer((request, response) => void takeOrder(request, response));
await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const post = async (order: string, cents: number): Promise<string> => {
  const answer = await fetch(url, { method: "POST", body: JSON.stringify({ order, cents }) });
  return `${answer.status} ${await answer.text()}`;
};

console.log(await post("order-1", 4200));
console.log(await perdure.get("order-1").result());
// The table refuses this order, so its workflow, which had been started before, does not exist either.
console.log(await post("order-2", -1));
console.log(
  await perdure
    .get("order-2")
    .status()
    .catch((error) => error.code),
);
server.close();
await perdure.shutdown();
await pool.end();

// Output:
// 202 order-1
// order-1: charged 4200
// 422 new row for relation "orders" violates check constraint "orders_cents_check"
// PERDURE_NOT_FOUND
