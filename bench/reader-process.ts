/** Another process that reads what a run publishes, the time of its writing, and tells how late each arrives, in ms. */
import { Perdure, stream, value } from "../lib/index.ts";

const [database, schema, run] = process.argv.slice(2) as [string, string, string];
const perdure = new Perdure({ database, schema, worker: false });
await perdure.launch();
const handle = perdure.get(run);

async function lateness(written: AsyncIterable<number>): Promise<number[]> {
  const late: number[] = [];
  for await (const at of written) {
    late.push(performance.timeOrigin + performance.now() - at);
    process.send?.({ reading: true });
  }
  return late;
}

const [items, values] = await Promise.all([
  lateness(handle.read(stream<number>("ticks"))),
  lateness(handle.watch(value<number>("tick"))),
]);
process.send?.({ items, values });
process.on("disconnect", () => process.exit());
