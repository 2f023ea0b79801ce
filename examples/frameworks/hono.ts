/**
 * Hono on Node. The application is a fetch handler, so the same routes run on serverless hosts too: there with `worker: false` and `drain()`,
 * as in ../18-serverless.ts. Here the process works on runs itself, and hands them over on SIGTERM.
 */
import type { Server } from "node:http";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { answerTo, health, makePerdure, Order, Payment, paid, processOrder, show, stop } from "./shop.ts";

const perdure = makePerdure();
const app = new Hono();

app.onError((error, c) => {
  // What Hono itself refuses, such as a body that is no JSON, has a status already.
  if (error instanceof HTTPException) return c.json({ message: error.message }, error.status);
  const { status, body } = answerTo(error);
  return c.json(body, status as ContentfulStatusCode);
});

app.post("/orders", async (c) => {
  const order = Order.parse(await c.req.json());
  // Durable when it resolves. The same order again is the run that there is; another order of that id is a 409.
  const run = await perdure.start(processOrder.with({ id: order.id }), order);
  return c.json({ id: run.id }, 202, { location: `/orders/${run.id}` });
});

app.get("/orders/:id", async (c) => c.json(await show(perdure, c.req.param("id"))));

app.post("/orders/:id/payment", async (c) => {
  const payment = Payment.parse(await c.req.json());
  await perdure.send(c.req.param("id"), paid, payment, { reference: payment.delivery });
  return c.json({ ok: true }, 202);
});

app.get("/health", async (c) => {
  const state = await health(perdure);
  return c.json(state, state.ok ? 200 : 503);
});

await perdure.launch();
const server = serve(
  { fetch: app.fetch, port: Number(process.env.PORT ?? 3000), hostname: "127.0.0.1" },
  ({ port }) => {
    console.log(`listening on http://127.0.0.1:${port}`);
  },
);

for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void stop(server as Server, perdure));
