/**
 * A video service converts files and has no webhook: it has to be asked again and again. Each look is a step, each pause a sleep that holds no
 * process. The looks are identical calls, and each is done anew (`repeat: "again"`, the default). With `repeat: "cached"` a second identical call
 * gives the first outcome: right for look-ups that never change, and endless in a loop like this one.
 */
import { Perdure, race, sleep, start, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

let looks = 0;
const submit = step("submit", async (file: string) => `job of ${file}`);
const look = step("look", async (_job: string) => {
  looks += 1;
  return looks < 4 ? "converting" : "done";
});

const poll = workflow("poll", async (job: string) => {
  let pause = 10;
  for (let n = 1; ; n++) {
    if ((await look(job)) === "done") return n;
    await sleep(pause);
    pause = Math.min(pause * 2, 60_000);
  }
});

const convert = workflow("convert", async (file: string) => {
  const job = await submit(file);
  const polling = await start(poll, job);
  const { winner, value } = await race({ done: polling, late: { hours: 2 } });
  if (winner === "done") return `${file} is converted, seen at look ${value}`;
  await polling.cancel("too late");
  return `${file} took too long`;
});

const rate = step("rate", async (currency: string) => {
  looks += 1;
  return `${currency} at look ${looks}`;
});
const price = workflow({ name: "price", repeat: "cached" }, async () => [
  await rate("EUR"),
  await rate("EUR"),
  await rate("USD"),
]);

await fresh("example_54");
const perdure = new Perdure({ schema: "example_54", workflows: [convert, poll, price] });
await perdure.launch();
console.log(await (await perdure.start(convert, "cat.mov")).result());
looks = 0;
console.log(await (await perdure.start(price)).result());
await perdure.shutdown();

// Output:
// cat.mov is converted, seen at look 4
// [ 'EUR at look 1', 'EUR at look 1', 'USD at look 2' ]
