/** What the engines of this process send to the database: each statement of theirs, and each commit. */
import pg from "pg";
import type { Test } from "tap";

export interface Traffic {
  /** The statements sent since the last call, in order. */
  take(): string[];
}

/** Listens until the end of the test. Only what Perdure's own connections send counts. */
export function traffic(t: Test): Traffic {
  let seen: string[] = [];
  const client = pg.Client.prototype as unknown as { query: (...args: unknown[]) => unknown };
  const { query } = client;
  client.query = function counted(this: unknown, ...args: unknown[]) {
    const { connectionParameters } = this as { connectionParameters: { application_name?: string } };
    const [first] = args as [string | { text?: string } | undefined];
    const text = typeof first === "string" ? first : first?.text;
    if (connectionParameters.application_name === "perdure" && text !== undefined) seen.push(text);
    return query.apply(this, args);
  };
  t.teardown(() => {
    client.query = query;
  });
  return {
    take: () => {
      const taken = seen;
      seen = [];
      return taken;
    },
  };
}

/** Transactions: what is between BEGIN and COMMIT, and a statement that is one of its own. */
export const commitsIn = (statements: readonly string[]): number =>
  statements.filter((text) => /^commit\b|^\/\* |where current_setting\('transaction_isolation'\)/i.test(text)).length;
