/** Finding runs, a page at a time. */
import { createHash } from "node:crypto";
import { PerdureError } from "../core/errors.ts";
import { checkInteger, checkKeys, shorten } from "../core/options.ts";
import type { RunFilter, RunStatus } from "../core/types.ts";
import type { Store } from "../db/store.ts";
import { explain } from "./explain.ts";
import { checkFilter, FILTER_KEYS, type NameOf, type Wanted } from "./filter.ts";

/** Which runs to list, and which page of them. */
export interface ListOptions extends RunFilter {
  /** Runs in a page: 1 to 500. Default 50. */
  limit?: number | undefined;
  /** The `next` of the page before, with the same filter. */
  after?: string | null | undefined;
}

/** A page of runs, newest first. */
export interface RunPage {
  /** The runs of this page, newest first. */
  readonly runs: RunStatus[];
  /** What the next page is asked for with; null: this was the last. */
  readonly next: string | null;
}

export interface ListParts {
  readonly store: Pick<Store, "list">;
  readonly schema: string;
  readonly nameOf: NameOf;
}

const WHERE = "list()";
const LIMIT = 50;
/** The most in a page. */
export const MOST = 500;

export async function list(options: ListOptions, { store, schema, nameOf }: ListParts): Promise<RunPage> {
  const given = checkKeys(options, [...FILTER_KEYS, "limit", "after"], WHERE);
  const limit = given.limit === undefined ? LIMIT : checkInteger(given.limit, `limit of ${WHERE}`, 1, MOST);
  const wanted = checkFilter(given, WHERE, nameOf);
  const seal = (key: string): string => sealOf(schema, wanted, key);
  const before = given.after == null ? null : keyOf(given.after, seal);
  // One more than is shown tells whether there is another page.
  const rows = await explain("listing runs", () => store.list({ ...wanted, before, limit: limit + 1 }));
  const runs = rows.slice(0, limit).map(({ status }) => status);
  const last = rows[limit - 1];
  return { runs, next: rows.length > limit ? cursorOf(last!.key, seal) : null };
}

/** What binds a cursor to its schema and filter. */
function sealOf(schema: string, wanted: Wanted, key: string): string {
  const text = JSON.stringify(["perdure.list.1", schema, wanted, key]);
  return createHash("sha256").update(text).digest("base64url").slice(0, 22);
}

function cursorOf(key: string, seal: (key: string) => string): string {
  return Buffer.from(`${key}.${seal(key)}`).toString("base64url");
}

function keyOf(cursor: unknown, seal: (key: string) => string): string {
  const text = typeof cursor === "string" ? Buffer.from(cursor, "base64url").toString("latin1") : "";
  const [, key] = /^([1-9][0-9]{0,18})\.[\w-]{22}$/.exec(text) ?? [];
  if (key !== undefined && cursorOf(key, seal) === cursor) return key;
  throw new PerdureError(
    "PERDURE_OPTION",
    `after of ${WHERE} is not the \`next\` of a page with this filter: ${shorten(cursor)}. Pass \`next\` on as it is, with the same filter, or leave it out to begin with the newest`,
  );
}
