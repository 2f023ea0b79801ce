/**
 * Express 5, which hands the errors of async handlers to the error handler by itself. On SIGTERM the server stops listening and
 * answers what it has begun to answer, while the engine hands over its runs.
 */
import type { AddressInfo } from "node:net";
import express, { type NextFunction, type Request, type Response } from "express";
import { answerTo, health, makePerdure, Order, Payment, paid, processOrder, show, stop } from "./shop.ts";

const perdure = makePerdure();
const app = express();
app.use(express.json());

app.post("/orders", async (request, response) => {
  const order = Order.parse(request.body);
  // Durable when it resolves. The same order again is the run that there is; another order of that id is a 409.
  const run = await perdure.start(processOrder.with({ id: order.id }), order);
  response.status(202).location(`/orders/${run.id}`).json({ id: run.id });
});

app.get("/orders/:id", async (request, response) => {
  response.json(await show(perdure, request.params.id));
});

app.post("/orders/:id/payment", async (request, response) => {
  const payment = Payment.parse(request.body);
  await perdure.send(request.params.id, paid, payment, { reference: payment.delivery });
  response.status(202).json({ ok: true });
});

app.get("/health", async (_request, response) => {
  const state = await health(perdure);
  response.status(state.ok ? 200 : 503).json(state);
});

// Express knows an error handler by its four parameters.
app.use((error: unknown, _request: Request, response: Response, _next: NextFunction) => {
  const { status, body } = answerTo(error);
  response.status(status).json(body);
});

await perdure.launch();
const server = app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});

for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void stop(server, perdure));
