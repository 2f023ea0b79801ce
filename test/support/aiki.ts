/** A client of the Aiki layer in a schema of its own, closed and dropped after the test. */
import type { Test } from "tap";
import { type Client, type ClientOptions, client } from "../../lib/aiki/index.ts";
import { bench, collector } from "./engine.ts";
import { eventually } from "./eventually.ts";
import { PATIENCE_MS } from "./gate.ts";

export interface Ground {
  readonly url: string;
  readonly schema: string;
  /** What the clients' loggers were told. */
  readonly lines: string[];
  /** Closed after the test, with its workers. */
  client<Context = null>(options?: ClientOptions<Context>): Client<Context>;
  sql(text: string, values?: unknown[]): Promise<any[]>;
  /** Lets so many milliseconds pass for all timers. */
  advance(ms: number): Promise<void>;
}

export async function ground(t: Test): Promise<Ground> {
  const { url, schema, sql, advance } = await bench(t, { worker: false });
  const logger = collector();
  const made = <Context>(options: ClientOptions<Context> = {}): Client<Context> => {
    const one = client({ database: url, schema, logger, ...options });
    t.teardown(() => one.close());
    return one;
  };
  return { url, schema, sql, advance, client: made, lines: logger.lines };
}

/** A day in milliseconds. */
export const DAY = 86_400_000;

/** Resolves when the run has this status. */
export async function comesTo(
  handle: { getState(): Promise<{ readonly status: string }> },
  status: string,
): Promise<void> {
  await eventually(async () => (await handle.getState()).status === status, PATIENCE_MS);
}

/** What a completed run returned; throws with the state of one that ended otherwise. */
export async function outputOf<O>(handle: {
  waitForStatus(
    status: "completed",
    options: { timeout: { seconds: number } },
  ): Promise<{ success: true; state: { output: O } } | { success: false; cause: string; state?: unknown }>;
}): Promise<O> {
  const result = await handle.waitForStatus("completed", { timeout: { seconds: 60 } });
  if (result.success) return result.state.output;
  throw new Error(`the run did not complete: ${JSON.stringify(result)}`, { cause: result });
}
