/** How the answers to our own statements are read: an application may have set parsers of its own, which are those of the whole process. */

const PARSERS: ReadonlyMap<number, (text: string) => unknown> = new Map<number, (text: string) => unknown>([
  [16, (text) => text === "t"], // boolean
  [21, Number], // smallint
  [23, Number], // integer
  [114, JSON.parse], // json
  [701, Number], // double precision
]);

/** Of a query. All else is text, bigint too. An instant is asked for in milliseconds, as its text depends on the session's DateStyle. */
export const TYPES = { getTypeParser: (oid: number) => PARSERS.get(oid) ?? String };

/** An instant, where there is one. */
export const toDate = (ms: number | null): Date | null => (ms === null ? null : new Date(ms));
