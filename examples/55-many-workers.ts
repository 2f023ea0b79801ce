/**
 * More work than one process can do: start another with the same code. They share what is there, each run is worked on by one of them at a time,
 * and nobody has to say which. Where a run needs a certain machine, its queue says so: only a worker that serves the queue "gpu" takes renderings.
 * The three workers here are three engines in one process; three processes would be no different.
 */
import { currentRun, Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

interface Machine {
  readonly name: string;
}
const machine = (): string => currentRun<Machine>().context.name;

// Each of two parcels waits until both are on a table: with one run at a time for each worker, that takes two workers.
let tables = 0;
let bothAreThere!: () => void;
const both = new Promise<void>((resolve) => {
  bothAreThere = resolve;
});
const layOut = step("lay-out", async () => {
  tables += 1;
  if (tables === 2) bothAreThere();
  await both;
  return machine();
});
const pack = workflow("pack", async () => layOut());
const draw = step("draw", async (_scene: string) => machine());
const render = workflow({ name: "render", queue: "gpu" }, async (scene: string) => draw(scene));

await fresh("example_55");
const start = async (name: string, queues: string[], concurrency: number): Promise<Perdure> => {
  const context = (): Machine => ({ name });
  const engine = new Perdure({
    schema: "example_55",
    workflows: [pack, render],
    worker: { queues, concurrency },
    context,
  });
  await engine.launch();
  return engine;
};
const website = new Perdure({ schema: "example_55", worker: false });
await website.launch();
const workers = [
  await start("north", ["default"], 1),
  await start("south", ["default"], 1),
  await start("cellar", ["gpu"], 4),
];

const parcels = await Promise.all([website.start(pack), website.start(pack)]);
const packers = await Promise.all(parcels.map((run) => run.result()));
console.log(`packed by ${packers.sort().join(" and ")}`);

const scenes = ["dawn", "noon", "dusk"];
const runs = await Promise.all(scenes.map((scene) => website.start(render, scene)));
console.log(`rendered by ${[...new Set(await Promise.all(runs.map((run) => run.result())))]}`);
await Promise.all([...workers, website].map((engine) => engine.shutdown()));

// Output:
// packed by north and south
// rendered by cellar
