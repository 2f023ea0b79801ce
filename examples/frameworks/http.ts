/**
 * No framework: `node:http` and a table of routes. On SIGTERM the server stops listening and answers what it has begun to answer, while the
 * engine hands over its runs.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { answerTo, health, makePerdure, Order, Payment, paid, processOrder, show, stop } from "./shop.ts";

const perdure = makePerdure();

interface Answer {
  readonly status: number;
  readonly body: object;
}
type Route = (id: string, request: IncomingMessage) => Promise<Answer>;

const routes: [method: string, path: RegExp, route: Route][] = [
  ["POST", /^\/orders$/, takeOrder],
  ["GET", /^\/orders\/([^/]+)$/, async (id) => ({ status: 200, body: await show(perdure, id) })],
  ["POST", /^\/orders\/([^/]+)\/payment$/, takePayment],
  ["GET", /^\/health$/, tellHealth],
];

async function takeOrder(_id: string, request: IncomingMessage): Promise<Answer> {
  const order = Order.parse(await json(request));
  // Durable when it resolves. The same order again is the run that there is; another order of that id is a 409.
  const run = await perdure.start(processOrder.with({ id: order.id }), order);
  return { status: 202, body: { id: run.id } };
}

async function takePayment(id: string, request: IncomingMessage): Promise<Answer> {
  const payment = Payment.parse(await json(request));
  await perdure.send(id, paid, payment, { reference: payment.delivery });
  return { status: 202, body: { ok: true } };
}

async function tellHealth(): Promise<Answer> {
  const body = await health(perdure);
  return { status: body.ok ? 200 : 503, body };
}

async function json(request: IncomingMessage): Promise<unknown> {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) text += chunk;
  return JSON.parse(text);
}

async function answer(request: IncomingMessage): Promise<Answer> {
  const { pathname } = new URL(request.url ?? "/", "http://shop");
  for (const [method, path, route] of routes) {
    const found = request.method === method && path.exec(pathname);
    if (found) return route(decodeURIComponent(found[1] ?? ""), request);
  }
  return { status: 404, body: { message: `there is no ${request.method} ${pathname}` } };
}

async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { status, body } = await answer(request).catch(answerTo);
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

const server = createServer((request, response) => void respond(request, response));

await perdure.launch();
server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});

for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void stop(server, perdure));
