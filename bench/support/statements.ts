/** Counts the statements of this process, where the driver sends them. */
import pg from "pg";

/** What the launch itself brings about has passed by then. */
const SETTLE_MS = 4000;

export interface Counter {
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

export async function perSecond(counter: Counter, seconds: number): Promise<{ statements: number; cpu: number }> {
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const [count, used] = [counter.count, process.cpuUsage()];
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const { user, system } = process.cpuUsage(used);
  return { statements: (counter.count - count) / seconds, cpu: (user + system) / seconds / 10_000 };
}
