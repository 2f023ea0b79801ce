/**
 * How much does an idle process ask of the database? Its statements, counted where the driver sends them, and its transactions, as the
 * server counts them in a database of its own: alone, and while another process holds a run.
 */
import pg from "pg";
import { Perdure } from "../lib/index.ts";
import { number, table } from "./support/figures.ts";
import { type Lab, message } from "./support/lab.ts";
import { takenOver } from "./worker-process.ts";

const SECONDS = 15;
/** What the launch itself brings about has passed by then. */
const SETTLE_MS = 4000;

export async function idle(lab: Lab): Promise<void> {
  const schema = await lab.schema();
  const perdure = new Perdure({ database: lab.url, schema, workflows: [takenOver] });
  const counter = countStatements();
  await perdure.launch();
  try {
    const alone = await perSecond(counter);
    const owner = lab.fork("worker-process.js", [schema]);
    await message(owner);
    owner.send("held");
    while ((await message<{ step?: number }>(owner)).step !== 1);
    const beside = await perSecond(counter);
    lab.print(
      table([
        ["", "statements/s", "process CPU, %"],
        ["an idle process, alone", number(alone.statements), number(alone.cpu)],
        ["an idle process, another holds a run", number(beside.statements), number(beside.cpu)],
      ]),
    );
    owner.kill("SIGKILL");
  } finally {
    await perdure.shutdown();
    counter.stop();
  }
}

interface Counter {
  count: number;
  stop(): void;
}

/** Counts every statement that any client of this process sends. */
export function countStatements(): Counter {
  const prototype = pg.Client.prototype as unknown as { query: (...args: unknown[]) => unknown };
  const { query } = prototype;
  const counter = {
    count: 0,
    stop: () => {
      prototype.query = query;
    },
  };
  prototype.query = function counted(this: unknown, ...args: unknown[]) {
    counter.count += 1;
    return query.apply(this, args);
  };
  return counter;
}

export async function perSecond(counter: Counter, seconds = SECONDS): Promise<{ statements: number; cpu: number }> {
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const [count, used] = [counter.count, process.cpuUsage()];
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const { user, system } = process.cpuUsage(used);
  return { statements: (counter.count - count) / seconds, cpu: (user + system) / seconds / 10_000 };
}
