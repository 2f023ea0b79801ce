/**
 * No process of this shop lives for long. One endpoint takes orders; another, behind a secret, works off what is due and returns, in time for
 * the host's limit. Whatever calls it, a timer of the host or plain cron, learns from the answer when to call again at the latest.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { Perdure, sleep, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const remind = step("remind", async (order: string) => console.log(`${order}: reminded`));
const followUp = workflow("follow-up", async (order: string) => {
  await remind(order);
  await sleep("30ms");
  await remind(order);
});

const perdure = new Perdure({ schema: "example_18", workflows: [followUp], worker: false });
const SECRET = "correct horse battery staple";

/** A fetch handler, as serverless hosts and frameworks take it. */
async function handle(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (pathname === "/orders") {
    const { id } = await perdure.start(followUp, await request.text());
    return Response.json({ id }, { status: 202 });
  }
  if (!isSecret(request.headers.get("authorization"))) return new Response("no", { status: 401 });
  const { runs, next } = await perdure.drain({ max: 100, deadline: "8s" });
  return Response.json({ runs, waits: next !== null });
}

function isSecret(given: string | null): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given ?? ""), digest(`Bearer ${SECRET}`));
}

await fresh("example_18");
await perdure.launch();
const call = (path: string, authorization: string, body = "") =>
  handle(new Request(`https://shop.example${path}`, { method: "POST", body, headers: { authorization } }));

console.log((await call("/orders", "", "order-1")).status);
console.log((await call("/drain", "Bearer guess")).status);

// The host's timer: until nothing waits any more.
for (let waits = true; waits; ) {
  const answer = await call("/drain", `Bearer ${SECRET}`);
  ({ waits } = (await answer.json()) as { waits: boolean });
  if (waits) await new Promise((resolve) => setTimeout(resolve, 40));
}
await perdure.shutdown();

// Output:
// 202
// 401
// order-1: reminded
// order-1: reminded
