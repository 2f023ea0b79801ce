/**
 * The customers of this shop sign up in a program that knows SQL and nothing else. A trigger of three lines on its table starts a
 * workflow for each row, and one on another table sends an event to it, both in the transaction of the insert.
 */
import { event, Perdure, step, transaction, workflow } from "perdure";
import { fresh } from "./fresh.ts";

interface Customer {
  readonly id: string;
  readonly email: string;
}

const confirmed = event<{ at: string }>("confirmed");
const mail = step("mail", async (to: string, text: string) => console.log(`to ${to}: ${text}`));

const onboard = workflow("onboard", async (customer: Customer) => {
  await mail(customer.email, "please confirm");
  const answer = await confirmed.wait({ timeout: "7d" });
  await mail(customer.email, answer ? "welcome" : "we are sorry to see you go");
  return answer ? `${customer.id}: confirmed at ${answer.data.at}` : `${customer.id}: gone`;
});

const SETUP = `
  create table example_14.customer (id text primary key, email text not null);
  create function example_14.signed_up() returns trigger language plpgsql as $$
  begin
    perform example_14.start_run('onboard', json_build_array(new), id => new.id);
    return new;
  end $$;
  create trigger signed_up after insert on example_14.customer for each row execute function example_14.signed_up();

  create table example_14.confirmation (customer text primary key, at text not null);
  create function example_14.confirm() returns trigger language plpgsql as $$
  begin
    perform example_14.send_event(new.customer, 'confirmed', json_build_object('at', new.at), reference => 'confirmation');
    return new;
  end $$;
  create trigger confirm after insert on example_14.confirmation for each row execute function example_14.confirm()`;

// Stands for the other program.
const sql = transaction("sql", async (tx, text: string) => (await tx.query(text)).rows);

await fresh("example_14");
// The launch tells the database which workflows there are: start_run takes the newest version.
const perdure = new Perdure({ schema: "example_14", workflows: [onboard] });
await perdure.launch();
await sql(SETUP);

await sql("insert into example_14.customer values ('ada', 'ada@example.com')");
await sql("insert into example_14.confirmation values ('ada', 'noon')");
console.log(await perdure.get(onboard, "ada").result());

// A delayed start, and one of a workflow that nobody has launched.
await sql(
  `select example_14.start_run('onboard', '[{"id": "bob", "email": "bob@example.com"}]', id => 'bob', delay => '1 hour')`,
);
console.log((await perdure.get("bob").status()).waitingFor);
await sql("select example_14.start_run('onbaord')").catch((error) => console.log(error.code, error.message));
await perdure.shutdown();

// Output:
// to ada@example.com: please confirm
// to ada@example.com: welcome
// ada: confirmed at noon
// start
// PD001 start_run: no launch has registered workflow "onbaord"
