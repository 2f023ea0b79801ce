/**
 * What do children cost? From the return of a child to the next line of its suspended parent, beside a single-row commit: both in one
 * engine, or each in an engine that knows nothing of the other. Then fan-outs: a parent that starts so many children, and joins them.
 */
import { event, type Perdure, start, workflow } from "../lib/index.ts";
import { percentiles, spread, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";

const ITERATIONS = 200;
const WIDTHS = [100, 1000];
const ROUNDS = 7;

/** When each child returned, and who is told when its parent goes on. */
const returned = new Map<string, number>();
const reached = new Map<string, (at: number) => void>();

const go = event("go");
const child = workflow("child", async (mark: string) => {
  await go.wait();
  returned.set(mark, performance.now());
});
const parent = workflow("parent", async (mark: string) => {
  await child.with({ id: `child of ${mark}` })(mark);
  reached.get(mark)?.(performance.now());
});

const double = workflow("double", async (n: number) => n * 2);
const calls = workflow("calls", async (width: number) => {
  await Promise.all(Array.from({ length: width }, (_, at) => double(at)));
});
const starts = workflow("starts", async (width: number) => {
  const children = await Promise.all(Array.from({ length: width }, (_, at) => start(double, at)));
  await Promise.all(children.map((one) => one.result()));
});

export async function children(lab: Lab): Promise<void> {
  await goingOn(lab);
  await fanOut(lab);
}

async function goingOn(lab: Lab): Promise<void> {
  const client = await lab.client();
  const [shared, split] = [await lab.schema(), await lab.schema()];
  await client.query(`create table ${shared}.single (n bigint generated always as identity primary key, t text)`);
  const insert = { name: "single", text: `insert into ${shared}.single (t) values ($1)`, values: ["x"] };
  const both = await lab.engine(shared, { workflows: [parent, child] });
  const parents = await lab.engine(split, { workflows: [parent] });
  await lab.engine(split, { workflows: [child] });
  const times: Record<string, number[]> = { commit: [], here: [], elsewhere: [] };
  for (let at = -20; at < ITERATIONS; at += 1) {
    const begun = performance.now();
    await client.query(insert);
    const commit = performance.now() - begun;
    const here = await joined(both, `here ${at}`);
    const elsewhere = await joined(parents, `elsewhere ${at}`);
    if (at >= 0) for (const [name, ms] of Object.entries({ commit, here, elsewhere })) times[name]!.push(ms);
  }
  lab.print(
    table([
      ["ms: p50 / p95 / p99", ""],
      ["single-row commit", percentiles(times.commit!)],
      ["child returns → parent goes on, one engine", percentiles(times.here!)],
      ["child returns → parent goes on, another engine", percentiles(times.elsewhere!)],
    ]),
  );
}

/** From the return of a child to its parent's next line, which both waited. */
async function joined(perdure: Perdure, mark: string): Promise<number> {
  const at = new Promise<number>((resolve) => reached.set(mark, resolve));
  const run = await perdure.start(parent, mark);
  const below = perdure.get(`child of ${mark}`);
  for (const one of [run, below]) while (!(await isSuspended(one))) await new Promise((done) => setTimeout(done, 1));
  await below.send(go, null);
  const ms = (await at) - returned.get(mark)!;
  await run.result();
  return ms;
}

const isSuspended = (run: { status(): Promise<{ state: string }> }): Promise<boolean> =>
  run.status().then(
    ({ state }) => state === "suspended",
    () => false, // not started yet
  );

async function fanOut(lab: Lab): Promise<void> {
  const perdure = await lab.engine(await lab.schema(), { workflows: [calls, starts, double] });
  const rows: string[][] = [["ms in all: median (spread)", ""]];
  const shapes = { "called, and joined by Promise.all": calls, "started, then joined": starts };
  const times = new Map<string, number[]>();
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const width of WIDTHS) {
      for (const [name, shape] of Object.entries(shapes)) {
        const begun = performance.now();
        await (await perdure.start(shape, width)).result();
        const key = `${width} children, ${name}`;
        if (round >= 0) times.set(key, [...(times.get(key) ?? []), performance.now() - begun]);
      }
    }
  }
  lab.print(table([...rows, ...[...times].map(([name, values]) => [name, spread(values)])]));
}
