/** Validation by Standard Schema, and the words for what it finds. */
import { PerdureError } from "./errors.ts";
import { attempt } from "./options.ts";
import type { Schema, SchemaIssue, WorkflowDefinition } from "./types.ts";

/** Throws PERDURE_OPTION unless `schema` is one. */
export function checkSchema(schema: unknown, what: string): void {
  if (typeof attempt(() => (schema as Schema | null)?.["~standard"]?.validate) !== "function") {
    throw new PerdureError(
      "PERDURE_OPTION",
      `${what} must be a Standard Schema (zod, valibot, arktype and others make them)`,
    );
  }
}

/** The value as the schema returns it. Throws PERDURE_OPTION with the path of each issue. Async only if the schema is. */
export function validate<T>(schema: Schema<T> | undefined, value: unknown, what: string): unknown | Promise<unknown> {
  if (!schema) return value;
  const result = schema["~standard"].validate(value);
  const accept = (r: Awaited<typeof result>): T => {
    if (r.issues)
      throw new PerdureError(
        "PERDURE_OPTION",
        `${what} does not fit its schema: ${r.issues.map(issueText).join("; ")}`,
      );
    return r.value;
  };
  return result instanceof Promise ? result.then(accept) : accept(result);
}

/** The input of a workflow, as its schema returns it: the schema checks the first argument. */
export async function checkInput(
  { name, input }: Pick<WorkflowDefinition, "name" | "input">,
  args: unknown[],
): Promise<unknown[]> {
  if (!input) return args;
  return [await validate(input, args[0], `input of workflow "${name}"`), ...args.slice(1)];
}

function issueText(issue: SchemaIssue): string {
  const path = (issue.path ?? []).map((p) => (typeof p === "object" ? p.key : p));
  return `${["$", ...path].map(String).join(".")}: ${issue.message}`;
}
