/**
 * The shop that each program in this folder puts on HTTP, with the framework named by its file: an order is reserved, waits up to 30
 * minutes for its payment, is packed and shipped. `POST /orders` starts it, `GET /orders/:id` shows it, `POST /orders/:id/payment` pays it.
 */
import type { Server } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { currentStep, type ErrorCode, event, Perdure, PerdureError, step, workflow } from "perdure";
import { z } from "zod";

export const Order = z.object({ id: z.string().min(1), item: z.string().min(1) });
/** `delivery` is the payment provider's own id of the call, which it may repeat. */
export const Payment = z.object({ delivery: z.string().min(1), cents: z.number().int().positive() });

const reserve = step("reserve", async (order: string) => console.log(`${order}: reserved`));
// Tells the robots of a warehouse, and waits for them. Without one, packing takes five seconds.
const pack = step("pack", async (order: string) => {
  const { signal } = currentStep();
  const warehouse = process.env.WAREHOUSE_URL;
  console.log(`${order}: packing`);
  if (!warehouse) return pause(5000, "a box", { signal });
  return (await fetch(`${warehouse}/${order}`, { method: "POST", signal })).text();
});
const ship = step("ship", async (order: string) => console.log(`${order}: shipped`));

export const paid = event<z.infer<typeof Payment>>({ name: "paid", schema: Payment });

export const processOrder = workflow({ name: "process-order", input: Order }, async ({ id }: z.infer<typeof Order>) => {
  await reserve(id);
  const payment = await paid.wait({ timeout: { minutes: 30 } });
  if (!payment) return "not paid in time";
  const parcel = await pack(id);
  await ship(id);
  return `${parcel}, paid ${payment.data.cents}`;
});

/** The engine, on DATABASE_URL or an embedded Postgres. It takes no signal itself: the server is to close at the same time. */
export const makePerdure = (): Perdure => new Perdure({ workflows: [processOrder] });

/** To be called as a server begins to close, so that it ends: clients that keep their connections, idle or slow, are not waited for. */
export function closeConnections(server: Server): void {
  const idle = setInterval(() => server.closeIdleConnections(), 100);
  const slow = setTimeout(() => server.closeAllConnections(), 5000);
  server.once("close", () => {
    clearInterval(idle);
    clearTimeout(slow);
  });
}

/** Takes no runs any more. Steps in flight may end, below the time that the host gives, then others get the runs. */
export async function handOver(perdure: Perdure): Promise<void> {
  console.log("no more requests; handing over what is in work");
  await perdure.shutdown({ timeout: "10s" });
}

/** Both at the same time: requests and steps in flight end, and no client holds up the runs. */
export async function stop(server: Server, perdure: Perdure): Promise<void> {
  server.close();
  closeConnections(server);
  await handOver(perdure);
}

/** What a client is told of each order. */
export async function show(perdure: Perdure, id: string): Promise<object> {
  const { state, waitingFor } = await perdure.get(processOrder, id).status();
  return { id, state, waitingFor };
}

/** Whether this process can do its work: the database answers. */
export async function health(perdure: Perdure): Promise<{ ok: boolean }> {
  const ok = await perdure.list({ limit: 1 }).then(
    () => true,
    () => false,
  );
  return { ok };
}

const STATUS: Partial<Record<ErrorCode, number>> = {
  PERDURE_OPTION: 400,
  PERDURE_NAME: 400,
  PERDURE_INVALID: 400,
  PERDURE_NOT_FOUND: 404,
  PERDURE_CONFLICT: 409,
  PERDURE_FINISHED: 409,
  PERDURE_STATE: 503,
  PERDURE_CONNECTION: 503,
  PERDURE_READ_ONLY: 503,
};

interface Answer {
  readonly status: number;
  readonly body: { readonly code?: string; readonly message: string };
}

/** An error as an answer. What went wrong on this side is logged, and not told to the client. */
export function answerTo(error: unknown): Answer {
  if (error instanceof z.ZodError) return { status: 400, body: { message: z.prettifyError(error) } };
  // A body that is no JSON, a path that is not encoded.
  if (error instanceof SyntaxError || error instanceof URIError)
    return { status: 400, body: { message: error.message } };
  if (error instanceof PerdureError) {
    const { code, message } = error;
    const status = STATUS[code] ?? 500;
    if (status < 500) return { status, body: { code, message } };
    console.error(error);
    return { status, body: { code, message: "try again later" } };
  }
  // What a framework refuses by itself, such as a body that is too large.
  const { statusCode = 500, message } = error as { statusCode?: number; message: string };
  if (statusCode < 500) return { status: statusCode, body: { message } };
  console.error(error);
  return { status: 500, body: { message: "internal error" } };
}
