/**
 * A shop has a service class with its own dependencies, one instance for each of its warehouses. Its methods become durable where they
 * stand. The process ends in the middle of an order; another one, with instances of its own, goes on with it.
 */
import { currentStep, durable, event, named, Perdure, step, transaction, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const picked = event<{ by: string }>("picked");

/** What the class is given. */
interface Carrier {
  readonly name: string;
}

class Warehouse {
  readonly #carrier: Carrier;

  constructor(carrier: Carrier) {
    this.#carrier = carrier;
  }

  @transaction()
  async reserve(item: string): Promise<string> {
    const { rows } = await currentStep().tx!.query("select upper($1) as item", [item]);
    return rows[0].item;
  }

  @step({ retry: { type: "fixed", maxAttempts: 3, delay: "10ms" } })
  async book(item: string): Promise<string> {
    if (currentStep().attempt === 1) throw new Error(`${this.#carrier.name} is busy`);
    return `${item} with ${this.#carrier.name}`;
  }

  @workflow()
  async ship(item: string): Promise<string> {
    const reserved = await this.reserve(item);
    const { data } = await picked.wait();
    return `${await this.book(reserved)}, picked by ${data.by}`;
  }
}

/** A cold store packs before it books: `super.book` is a part of its own step. */
class ColdStore extends Warehouse {
  @step({ retry: { type: "fixed", maxAttempts: 3, delay: "10ms" } })
  override async book(item: string): Promise<string> {
    return super.book(`${item} on ice`);
  }
}

/** What each process makes for itself. */
function open(carrier: string) {
  const [lima, cold] = [named("lima", new Warehouse({ name: carrier })), new ColdStore({ name: carrier })];
  return { lima, cold, perdure: new Perdure({ schema: "example_19", workflows: [lima, cold] }) };
}

await fresh("example_19");
const monday = open("Monday Express");
await monday.perdure.launch();
await monday.perdure.start(durable(monday.lima.ship).with({ id: "order-1" }), "kettle");
await monday.perdure.start(durable(monday.cold.ship).with({ id: "order-2" }), "ice cream");
await monday.perdure.shutdown();

const tuesday = open("Tuesday Express");
await tuesday.perdure.launch();
await tuesday.perdure.send(["order-1", "order-2"], picked, { by: "Ada" });
for (const [method, id] of [
  [tuesday.lima.ship, "order-1"],
  [tuesday.cold.ship, "order-2"],
] as const) {
  const run = tuesday.perdure.get(durable(method), id);
  console.log(`${(await run.status()).workflow}: ${await run.result()}`);
}
await tuesday.perdure.shutdown();

// Output:
// lima.ship: KETTLE with Tuesday Express, picked by Ada
// ColdStore.ship: ICE CREAM on ice with Tuesday Express, picked by Ada
