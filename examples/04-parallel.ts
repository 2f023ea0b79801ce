/**
 * A trip needs a flight, a hotel and an approval, in any order. `Promise.all` runs the steps side by side and waits for the event at the
 * same time. One branch that fails does not disturb what the others recorded.
 */
import { event, Perdure, sleep, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const bookFlight = step("book-flight", async (to: string) => `flight to ${to}`);
const bookHotel = step("book-hotel", async (to: string) => `hotel in ${to}`);
const bookCar = step("book-car", async (_to: string): Promise<string> => {
  throw new Error("no car left");
});
const approved = event<{ by: string }>("approved");

const planTrip = workflow("plan-trip", async (to: string) => {
  const [flight, hotel, approval] = await Promise.all([bookFlight(to), bookHotel(to), approved.wait()]);
  const [car, pause] = await Promise.allSettled([bookCar(to), sleep("5ms")]);
  return [
    flight,
    hotel,
    `approved by ${approval.data.by}`,
    car.status === "rejected" ? `no car: ${car.reason.message}` : car.value,
    `paused: ${pause.status}`,
  ];
});

await fresh("example_04");
const perdure = new Perdure({ schema: "example_04", workflows: [planTrip] });
await perdure.launch();
const run = await perdure.start(planTrip, "Lisbon");
await run.send(approved, { by: "Ada" });
for (const line of await run.result()) console.log(line);
await perdure.shutdown();

// Output:
// flight to Lisbon
// hotel in Lisbon
// approved by Ada
// no car: no car left
// paused: fulfilled
