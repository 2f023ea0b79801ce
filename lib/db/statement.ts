/** The rows of one kind as one statement: a call of a function over arrays, one for each column. */
import type { Item } from "./batch.ts";
import { arrayOf } from "./columns.ts";
import type { Group } from "./groups.ts";
import { columnsOf, NEW_RUNS } from "./new-runs.ts";
import { channelOf } from "./notifier.ts";
import { quoteSchema } from "./schema-name.ts";
import { type BatchContext, ENDS, SHAPES, type WriteKind } from "./writes.ts";

/** The statement that writes a group. */
export function statementOf(group: Group, context: BatchContext & { readonly schema: string }) {
  const statement = ofGroup(group, context);
  return context.named ? statement : { ...statement, name: undefined };
}

function ofGroup({ kind, items, steps, isNew }: Group, context: BatchContext & { readonly schema: string }) {
  if (isNew)
    return call(
      context.schema,
      NEW_RUNS,
      columnsOf(items, (column) => arrayOf(items, column)),
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

/** A call of one of our set-returning functions, prepared once per connection. */
export function call(schema: string, fn: string, values: unknown[]): { name: string; text: string; values: unknown[] } {
  const places = values.map((_, i) => `$${i + 1}`).join(", ");
  return { name: `${channelOf(schema)}:${fn}`, text: `select * from ${quoteSchema(schema)}.${fn}(${places})`, values };
}
