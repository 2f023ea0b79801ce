/** The rows of one kind as one statement: a call of a function over arrays, one for each column. */
import type { Group, Item } from "./batch.ts";
import { columnsOf, NEW_RUNS } from "./new-runs.ts";
import { channelOf } from "./notifier.ts";
import { quoteSchema } from "./schema-name.ts";
import { type BatchContext, ENDS, SHAPES, type WriteKind, type WriteShape } from "./writes.ts";

/** The statement that writes a group. */
export function statementOf({ kind, items, steps, isNew }: Group, context: BatchContext & { readonly schema: string }) {
  if (isNew)
    return call(
      context.schema,
      NEW_RUNS,
      columnsOf(items, (column) => arrayOf(items, column, undefined)),
    );
  if (!steps) return statement(kind, items, context);
  const { fn, step, end, alike, rest } = ENDS;
  const arrays = [
    ...step.map((column) => arrayOf(steps, column, alike)),
    ...end.map((column) => arrayOf(items, column, alike)),
  ];
  return call(context.schema, fn, [...arrays, ...rest(context)]);
}

/** The statement that writes rows of one kind. */
export function statement(
  kind: WriteKind,
  items: readonly Pick<Item, "row">[],
  context: BatchContext & { readonly schema: string },
): ReturnType<typeof call> {
  const shape = SHAPES[kind];
  const values = shape.single
    ? shape.single(items[0]!.row as never, context)
    : [...shape.columns.map((column) => arrayOf(items, column, shape.alike)), ...shape.rest(context)];
  return call(context.schema, kind === "start" && context.apart ? "start_runs_apart" : shape.fn, values);
}

/** What JSON writes in letters, which Postgres would read as such. */
const IN_LETTERS = /\\[bfnrtu]/;

/**
 * One column of the rows, as Postgres writes an array: the driver's own way is several times slower, as it treats every element alike. Empty
 * where there is nothing but null: the functions take what an array lacks for null. One element where that stands for all of them.
 */
function arrayOf(items: readonly Pick<Item, "row">[], column: string, alike: WriteShape["alike"]): string {
  let values = items.map(({ row }) => {
    const given = (row as Record<string, unknown>)[column] ?? null;
    return typeof given === "function" ? given() : given;
  });
  const [first] = values;
  if ((first === null || alike?.has(column)) && values.every((value) => value === first)) {
    if (first === null) return "{}";
    values = [first];
  }
  // JSON quotes as Postgres does, many at once.
  const json = JSON.stringify(values);
  return `{${IN_LETTERS.test(json) ? values.map(literal).join(",") : json.slice(1, -1)}}`;
}

const literal = (value: unknown): string =>
  typeof value === "string" ? `"${value.replace(/["\\]/g, "\\$&")}"` : String(value);

/** A call of one of our set-returning functions, prepared once per connection. */
export function call(schema: string, fn: string, values: unknown[]): { name: string; text: string; values: unknown[] } {
  const places = values.map((_, i) => `$${i + 1}`).join(", ");
  return { name: `${channelOf(schema)}:${fn}`, text: `select * from ${quoteSchema(schema)}.${fn}(${places})`, values };
}
