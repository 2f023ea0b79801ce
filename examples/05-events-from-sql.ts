/**
 * The payments of this shop arrive in a table that another program fills. A trigger of three lines sends each as an event to the order
 * that waits for it, in the transaction of the insert: rolled back, nothing was sent.
 */
import { event, Perdure, step, transaction, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const paymentReceived = event<{ amount: number }>("payment-received");
const ship = step("ship", async (order: string) => console.log(`${order}: shipped`));

const processOrder = workflow("process-order", async (order: string) => {
  const payment = await paymentReceived.wait({ timeout: "30m" });
  if (!payment) return `${order}: not paid`;
  await ship(order);
  return `${order}: paid ${payment.data.amount}, reference ${payment.reference}`;
});

const SETUP = `
  create table example_05.payment (id text primary key, order_id text not null, amount numeric not null);
  create function example_05.tell() returns trigger language plpgsql as $$
  begin
    perform example_05.send_event(new.order_id, 'payment-received', json_build_object('amount', new.amount), reference => new.id);
    return new;
  end $$;
  create trigger payment_received after insert on example_05.payment for each row execute function example_05.tell()`;

// Stands for the other program, which knows SQL and nothing else.
const sql = transaction("sql", async (tx, text: string, values?: unknown[]) => {
  await tx.query(text, values);
});

await fresh("example_05");
const perdure = new Perdure({ schema: "example_05", workflows: [processOrder] });
await perdure.launch();
await sql(SETUP);

const run = await perdure.start(processOrder.with({ id: "order-7" }), "order-7");
await sql("insert into example_05.payment values ('p-1', 'order-7', 99)");
console.log(await run.result());

// An order that nobody knows: the trigger refuses the payment.
await sql("insert into example_05.payment values ('p-2', 'order-8', 1)").catch((error) => console.log(error.message));
await perdure.shutdown();

// Output:
// order-7: shipped
// order-7: paid 99, reference p-1
// send_event: there is no run "order-8"
