/**
 * Fastify: the engine is a plugin with the server's own life. It launches before the server listens (`onReady`) and shuts down while
 * the last requests are answered (`preClose`). SIGTERM closes the server, and that is all.
 */
import Fastify from "fastify";
import {
  answerTo,
  closeConnections,
  handOver,
  health,
  makePerdure,
  Order,
  Payment,
  paid,
  processOrder,
  show,
} from "./shop.ts";

const perdure = makePerdure();
const app = Fastify();

app.addHook("onReady", () => perdure.launch());
app.addHook("preClose", async () => {
  closeConnections(app.server);
  void handOver(perdure);
});
app.addHook("onClose", () => perdure.shutdown());
app.setErrorHandler((error, _request, reply) => {
  const { status, body } = answerTo(error);
  return reply.status(status).send(body);
});

app.post("/orders", async (request, reply) => {
  const order = Order.parse(request.body);
  // Durable when it resolves. The same order again is the run that there is; another order of that id is a 409.
  const run = await perdure.start(processOrder.with({ id: order.id }), order);
  return reply.status(202).header("location", `/orders/${run.id}`).send({ id: run.id });
});

app.get<{ Params: { id: string } }>("/orders/:id", (request) => show(perdure, request.params.id));

app.post<{ Params: { id: string } }>("/orders/:id/payment", async (request, reply) => {
  const payment = Payment.parse(request.body);
  await perdure.send(request.params.id, paid, payment, { reference: payment.delivery });
  return reply.status(202).send({ ok: true });
});

app.get("/health", async (_request, reply) => {
  const state = await health(perdure);
  return reply.status(state.ok ? 200 : 503).send(state);
});

for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void app.close());
console.log(`listening on ${await app.listen({ port: Number(process.env.PORT ?? 3000), host: "127.0.0.1" })}`);
