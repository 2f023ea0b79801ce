/**
 * The suite without what only makes an engine faster: `PERDURE_TEST_WITHOUT=lease,hints` leaves these out of every engine of a test. A test
 * that is about one of them is skipped then.
 */
import pg from "pg";
import { SEAM } from "../../lib/core/seam.ts";
import type { PerdureOptions } from "../../lib/index.ts";
import type { Shortcut } from "../../lib/seam.ts";

/** Name → what there is without it. */
export const SWITCHES = {
  lease: "every run is claimed, none is leased at birth",
  batch: "every write is a commit of its own: no checkpoint rides with another, with a finish or with a claim",
  gather: "a write is sent at once, without the turn in which others gather",
  ride: "a parent is claimed after the end of its child, not with it",
  told: "ends and publications are looked up in the database, also by the process that wrote them",
  pipeline: "a batch is as many round trips as it has statements",
  follow: "a batch leaves once the answers of the one before it are told, and no starts leave beside it",
  swift: "one row alone is written by the functions that write many",
  behind: "a hint is sent once the answer of its batch is known, in a packet of its own",
  warm: "no suspended run stays in memory: whatever goes on is replayed",
  hints: "no NOTIFY: everybody polls",
  prepared: "no named prepared statements",
  owner: "engines log in as a role that was granted to work, and owns nothing",
} as const;
export type Switch = keyof typeof SWITCHES;

const off = new Set((process.env.PERDURE_TEST_WITHOUT ?? "").split(",").filter((name) => name !== ""));
for (const name of off) {
  if (!Object.hasOwn(SWITCHES, name))
    throw new Error(`PERDURE_TEST_WITHOUT: no switch "${name}"; there are ${Object.keys(SWITCHES)}`);
}

/** Whether engines log in as the schema's owner. */
export const isOwner = (): boolean => !off.has("owner");

/** For the options of a test that is about one of these: why it is skipped, if it is left out. */
export const needs = (...names: readonly Switch[]): { skip: string | false } => {
  const missing = names.filter((name) => off.has(name));
  return { skip: missing.length > 0 && `without ${missing.join(", ")}` };
};

/** Where PgBouncer stands in front of the server, host and port: `npm run matrix -- pgbouncer`. */
const POOLER = process.env.PERDURE_TEST_POOLER;
const SERVER = process.env.DATABASE_URL;

/** An engine that would connect to the server itself goes through the pooler, as a user would have it: with a direct connection beside. */
function pooled(options: PerdureOptions): PerdureOptions {
  const { database } = options;
  if (!POOLER || !SERVER || typeof database !== "string" || new URL(database).host !== new URL(SERVER).host)
    return options;
  return { listenUrl: database, ...options, database: Object.assign(new URL(database), { host: POOLER }).href };
}

/** Options of an engine without what is left out, where the surroundings are those that are asked for. */
export function without(given: PerdureOptions): PerdureOptions {
  const options = pooled(given);
  if (off.size === 0) return options;
  const seam = {
    without: new Set([...off].filter((name) => name !== "owner")) as ReadonlySet<string> as ReadonlySet<Shortcut>,
  };
  const { worker } = options;
  const cold = off.has("warm") && worker !== false ? { worker: { ...worker, warm: 0 } } : {};
  const made = { ...(off.has("hints") ? { notify: false } : {}), [SEAM]: seam, ...options, ...cold };
  return made as PerdureOptions;
}

if (off.has("prepared")) {
  const prototype = pg.Client.prototype as unknown as { query: (statement: any, ...rest: unknown[]) => unknown };
  const { query } = prototype;
  prototype.query = function unnamed(statement, ...rest) {
    return query.call(this, statement?.name ? { ...statement, name: undefined } : statement, ...rest);
  };
}
