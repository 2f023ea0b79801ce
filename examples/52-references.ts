/**
 * Three names that make "once" out of "again". A run's `id`: the same order placed twice is one run. A step's `reference`: the same call,
 * known by a name of yours in place of its arguments. An event's `reference`: what is delivered twice is consumed once. For the first two,
 * `onConflict` says what the same name with other content is: an error, or what there is already.
 */
import { event, Perdure, RunConflictError, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const sent: string[] = [];
const mail = step("mail", async (_to: string, text: string) => {
  sent.push(text);
  return `${text} (mail ${sent.length})`;
});
const paid = event<number>("paid");

const order = workflow("order", async (item: string) => {
  // Identical calls are calls: each is done. A reference makes them one, and keeps apart what has equal arguments.
  const twice = [await mail("ada", "hello"), await mail("ada", "hello")];
  const receipt = mail.with({ reference: "receipt" });
  const once = [await receipt("ada", `receipt for the ${item}`), await receipt("ada", `receipt for the ${item}`)];
  // The same reference for other arguments: an error in the code, unless what there is will do.
  const error = await receipt("bob", "another text").catch((refused: unknown) => refused);
  const any = await mail.with({ reference: { id: "receipt", onConflict: "return_existing" } })("bob", "another text");
  const cents = (await paid.wait()).data + (await paid.wait()).data;
  return [...twice, ...once, error instanceof RunConflictError ? "refused" : "", any, `paid ${cents}`];
});

await fresh("example_52");
const perdure = new Perdure({ schema: "example_52", workflows: [order] });
await perdure.launch();

const run = await perdure.start(order.with({ id: "order-7" }), "kettle");
await perdure.start(order.with({ id: "order-7" }), "kettle"); // the same run
await perdure.start(order.with({ id: "order-7" }), "lamp").catch((error) => console.log(error.code));
const same = await perdure.start(order.with({ id: "order-7", onConflict: "return_existing" }), "lamp");
for (const [reference, cents] of [
  ["p-1", 30],
  ["p-1", 30],
  ["p-2", 12],
] as const) {
  await same.send(paid, cents, { reference });
}
for (const line of await run.result()) console.log(line);
console.log(`runs: ${(await perdure.list()).runs.length}, mails: ${sent.length}`);
await perdure.shutdown();

// Output:
// PERDURE_CONFLICT
// hello (mail 1)
// hello (mail 2)
// receipt for the kettle (mail 3)
// receipt for the kettle (mail 3)
// refused
// receipt for the kettle (mail 3)
// paid 42
// runs: 1, mails: 3
