/** The columns of a batch, as Postgres writes arrays. Pure. */
import type { WriteShape } from "./writes.ts";

/** What JSON writes in letters, which Postgres would read as such. */
const IN_LETTERS = /\\[bfnrtu]/;

/**
 * One column of the rows, as Postgres writes an array: the driver's own way is several times slower, as it treats every element alike. Empty
 * where there is nothing but null: the functions take what an array lacks for null. One element where that stands for all of them.
 */
export function arrayOf(
  items: readonly { readonly row: unknown }[],
  column: string,
  alike?: WriteShape["alike"],
): string {
  if (alike?.has(column)) {
    const first = (items[0]!.row as Record<string, unknown>)[column];
    if (items.every(({ row }) => (row as Record<string, unknown>)[column] === first)) return `{${literal(first)}}`;
  }
  let nulls = 0;
  const values = items.map(({ row }) => {
    const given = (row as Record<string, unknown>)[column] ?? null;
    const value = typeof given === "function" ? given() : given;
    if (value === null) nulls += 1;
    return value;
  });
  if (nulls === values.length) return "{}";
  // Instants repeat, and `join` remembers how it wrote a number.
  if (nulls === 0 && typeof values[0] === "number") return `{${values.join(",")}}`;
  // JSON quotes as Postgres does, many at once.
  const json = JSON.stringify(values);
  return `{${IN_LETTERS.test(json) ? values.map(literal).join(",") : json.slice(1, -1)}}`;
}

const literal = (value: unknown): string =>
  typeof value === "string" ? `"${value.replace(/["\\]/g, "\\$&")}"` : String(value);
