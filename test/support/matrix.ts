/** What `npm run matrix` runs the suite under: names, and what each means. Pure. */
import { SWITCHES, type Switch } from "./without.ts";

export interface Entry {
  readonly what: string;
  /** PostgreSQL of this version; left out: the one that `npm test` starts, or DATABASE_URL. */
  readonly postgres?: string;
  /** Settings of the server, for every session that does not say otherwise. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Engines connect through PgBouncer in transaction mode. */
  readonly pooled?: true;
  /** The version of Node that runs the tests, and all processes that they start. */
  readonly node?: string;
  /** How much the clocks of these processes are ahead of the server's. */
  readonly aheadMs?: number;
  /** What engines are without. */
  readonly without?: readonly Switch[];
}

const HOUR_MS = 3_600_000;

const SURROUNDINGS = {
  serializable: {
    what: "default_transaction_isolation = serializable",
    settings: { default_transaction_isolation: "serializable" },
  },
  "statement-timeout": { what: "statement_timeout = 200ms", settings: { statement_timeout: "200ms" } },
  pgbouncer: { what: "through PgBouncer in transaction mode", pooled: true },
  pg14: { what: "PostgreSQL 14", postgres: "14.23.0-beta.17" },
  pg15: { what: "PostgreSQL 15", postgres: "15.18.0-beta.17" },
  pg16: { what: "PostgreSQL 16", postgres: "16.14.0-beta.17" },
  pg17: { what: "PostgreSQL 17", postgres: "17.10.0-beta.17" },
  pg18: { what: "PostgreSQL 18", postgres: "18.4.0-beta.17" },
  "clock-ahead": { what: "clocks of processes two hours ahead of the database's", aheadMs: 2 * HOUR_MS },
  "clock-behind": { what: "clocks of processes two hours behind the database's", aheadMs: -2 * HOUR_MS },
  node20: { what: "Node 20", node: "20" },
  node22: { what: "Node 22", node: "22" },
  node24: { what: "Node 24", node: "24" },
} as const satisfies Record<string, Entry>;

const LEFT_OUT = Object.fromEntries(
  Object.entries(SWITCHES).map(([name, what]) => [name, { what, without: [name as Switch] }]),
);

/** Name → what it is. */
export const ENTRIES: Readonly<Record<string, Entry>> = { ...SURROUNDINGS, ...LEFT_OUT };

/** The entries of several names in one, such as `pg14+serializable`. */
export function entryOf(name: string): Entry {
  const entries = name.split("+").map((part) => {
    if (!Object.hasOwn(ENTRIES, part))
      throw new Error(`no such entry: "${part}"; there are ${Object.keys(ENTRIES).join(", ")}`);
    return ENTRIES[part]!;
  });
  const twice = (["postgres", "node", "aheadMs"] as const).find(
    (key) => entries.filter((entry) => entry[key] !== undefined).length > 1,
  );
  if (twice) throw new Error(`"${name}" names ${twice} more than once`);
  const settings = Object.assign({}, ...entries.map((entry) => entry.settings));
  return {
    ...Object.assign({}, ...entries),
    what: entries.map(({ what }) => what).join("; "),
    ...(Object.keys(settings).length > 0 && { settings }),
    without: entries.flatMap((entry) => entry.without ?? []),
  };
}
