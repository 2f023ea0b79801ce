/**
 * Money moves between two accounts of the application's own tables. The debit and the credit are one transaction step: what they write
 * commits together with the step's checkpoint, or not at all, so a crash can neither lose the transfer nor make it twice.
 */
import { Perdure, step, transaction, workflow } from "perdure";
import { DatabaseError } from "pg";
import { fresh } from "./fresh.ts";

const open = transaction("open", async (tx) => {
  await tx.query("create table example_03.account (name text primary key, cents integer not null check (cents >= 0))");
  await tx.query("insert into example_03.account values ('alice', 1000), ('bob', 0)");
});

const transfer = transaction("transfer", async (tx, from: string, to: string, cents: number) => {
  await tx.query("update example_03.account set cents = cents + $2 where name = $1", [to, cents]);
  await tx.query("update example_03.account set cents = cents - $2 where name = $1", [from, cents]);
});

const balances = transaction("balances", async (tx) => {
  const { rows } = await tx.query("select name, cents from example_03.account order by name");
  return rows.map(({ name, cents }) => `${name} ${cents}`).join(", ");
});

const notify = step("notify", async (text: string) => console.log(text));

const pay = workflow("pay", async (from: string, to: string, cents: number) => {
  try {
    await transfer(from, to, cents);
    await notify(`${from} paid ${cents} to ${to}`);
  } catch (error) {
    // The credit of the failed transfer was rolled back with it.
    if (!(error instanceof DatabaseError)) throw error;
    await notify(`${from} could not pay ${cents}: ${error.constraint}`);
  }
  return balances();
});

await fresh("example_03");
// `errors`: classes that come back from the database as themselves, so that `instanceof` holds on replay too.
const perdure = new Perdure({ schema: "example_03", workflows: [pay], errors: [DatabaseError] });
await perdure.launch();
// Called outside a workflow, a transaction is a plain transaction on the launched engine.
await open();
console.log(await (await perdure.start(pay, "alice", "bob", 300)).result());
console.log(await (await perdure.start(pay, "alice", "bob", 5000)).result());
await perdure.shutdown();

// Output:
// alice paid 300 to bob
// alice 700, bob 300
// alice could not pay 5000: account_cents_check
// alice 700, bob 300
