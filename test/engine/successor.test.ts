/** Long runs: the warning, and how they go on as new runs. The README says the same under "Long histories". */
import { test } from "tap";
import { event, type Perdure, runStep, start, step, stream, value, workflow } from "../../lib/index.ts";
import { bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS } from "../support/gate.ts";
import { server } from "../support/postgres.ts";
import { crashEverywhere } from "../support/testing.ts";

test("a run is warned of once when it has ten thousand outcomes, and the warning says how to go on", async (t) => {
  const items = stream<number>("items");
  const go = event("go");
  const w = workflow("w", async (many: number) => {
    for (let n = 1; n < many; n += 1) await items.write(n);
    await go.wait();
    await items.write(0);
  });
  const logger = collector();
  const { perdure } = await bench(t, { workflows: [w], logger });
  const run = await perdure.start(w.with({ id: "long" }), 10_000);
  const short = await perdure.start(w, 9_000);
  for (const one of [run, short]) {
    await one.send(go);
    await one.result();
  }
  const warned = logger.lines.filter((line) => line.includes("recorded outcomes"));
  t.equal(warned.length, 1);
  t.match(
    warned[0],
    /run "long" of workflow "w" has 10000 recorded outcomes.*start its successor and return.*"Long histories"/,
  );
});

test("a run that starts its successor and returns has one, wherever it crashes", async (t) => {
  const measure = step("measure", async (n: number) => n * n);
  const make = () => {
    const monitor = workflow("monitor", async (from: number, sum: number): Promise<string> => {
      for (let n = from; n < from + 2; n += 1) sum += await measure(n);
      if (from > 0) return `${sum}`;
      return (await start(monitor.with({ detached: true }), from + 2, sum)).id;
    });
    return monitor;
  };
  const ends = new Set<unknown>();
  const drive = async (perdure: Perdure, run: { result(): Promise<unknown> }): Promise<void> => {
    const id = (await run.result()) as string;
    ends.add(await perdure.get(id).result());
    t.equal((await perdure.list({ workflow: "monitor" })).runs.length, 2);
  };
  const options = { database: await server(), logger: collector(), args: [0, 0], drive };
  const report = await crashEverywhere(make as any, options as any);
  t.match(report.end, { state: "completed" });
  t.ok(report.points.length > 5);
  t.strictSame([...ends], ["14"]);
});

const added = event<number>("added");
const successor = value<string>("successor");
let engine: Perdure;

/** As in the README, with parts of `most` events: what is carried along tells what has been counted. */
const counter = workflow("counter", async (most: number, sum: number, seen: string[]): Promise<number> => {
  const enough = seen.length + most;
  while (seen.length < enough) {
    const { data, reference } = await added.wait();
    if (seen.includes(reference!)) continue;
    seen.push(reference!);
    if (data < 0) return sum;
    sum += data;
  }
  const { id } = await start(counter.with({ detached: true }), most, sum, seen);
  await successor.set(id);
  for (let late = await added.wait({ timeout: 0 }); late; late = await added.wait({ timeout: 0 })) {
    const { data, reference } = late;
    if (!seen.includes(reference!)) await runStep("hand over", () => add(id, data, reference!));
  }
  return sum;
});

async function add(to: string, data: number, reference: string): Promise<string> {
  for (let next: string | undefined = to; next; next = await engine.get(to).get(successor)) {
    to = next;
    await engine.send(to, added, data, { reference, ignoreFinished: true });
  }
  return to;
}

test("a mailbox goes over to the successor, and no event is lost or taken twice, with many senders at once", async (t) => {
  const { perdure } = await bench(t, { workflows: [counter] });
  engine = perdure;
  const first = (await perdure.start(counter, 7, 0, [])).id;
  const sender = async (lane: number): Promise<string> => {
    let at = first;
    for (let n = 0; n < 12; n += 1) at = await add(at, 1, `${lane}-${n}`);
    return at;
  };
  const ats = await Promise.all(Array.from({ length: 8 }, (_, lane) => sender(lane)));
  // What is still being handed over would be overtaken by the end.
  const open = async (): Promise<string[]> =>
    (await perdure.list({ workflow: "counter", state: ["pending", "running", "suspended"] })).runs.map(
      ({ state }) => state,
    );
  await eventually(async () => (await open()).join() === "suspended", PATIENCE_MS);
  const last = await add(ats[0]!, -1, "the end");
  t.equal(await perdure.get(last).result(), 96);
  const { runs } = await perdure.list({ workflow: "counter", limit: 100 });
  t.ok(runs.length > 10, `${runs.length} runs`);
});
