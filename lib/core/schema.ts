/** Validation by Standard Schema, and the words for what it finds. */
import { describe, said } from "./codec-refuse.ts";
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

/** The value as the schema returns it. Throws PERDURE_INVALID with the path of each issue. Async only if the schema is. */
export function validate<T>(schema: Schema<T> | undefined, value: unknown, what: string): unknown | Promise<unknown> {
  if (!schema) return value;
  const accept = (given: unknown): unknown => {
    const result = (given ?? {}) as { readonly issues?: unknown; readonly value?: unknown };
    if (result.issues) throw misfit(what, Array.isArray(result.issues) ? result.issues : [result.issues]);
    if ("value" in result) return result.value;
    throw refused(what, "cannot be checked: its schema returned neither a value nor issues");
  };
  const broken = (cause: unknown): never => {
    if (attempt(() => cause instanceof PerdureError)) throw cause;
    throw refused(what, `cannot be checked: its schema threw: ${said(cause)}`, cause);
  };
  try {
    const result: unknown = schema["~standard"].validate(value);
    return isThenable(result) ? Promise.resolve(result).then(accept).catch(broken) : accept(result);
  } catch (cause) {
    return broken(cause);
  }
}

/** Of another realm too, or a library's own. */
const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as { then?: unknown } | null)?.then === "function";

const misfit = (what: string, issues: readonly unknown[]): PerdureError =>
  Object.assign(new PerdureError("PERDURE_INVALID", `${what} does not fit its schema: ${issuesText(issues)}`), {
    issues,
  });

const refused = (what: string, text: string, cause?: unknown): PerdureError =>
  new PerdureError("PERDURE_OPTION", `${what} ${text}`, { cause });

/** The input of a workflow, as its schema returns it: the schema checks the first argument. */
export async function checkInput(
  { name, input }: Pick<WorkflowDefinition, "name" | "input">,
  args: unknown[],
): Promise<unknown[]> {
  if (!input) return args;
  return [await validate(input, args[0], `input of workflow "${name}"`), ...args.slice(1)];
}

/** So many issues are told of. */
const MOST_ISSUES = 20;

function issuesText(given: readonly unknown[]): string {
  const more = given.length > MOST_ISSUES ? [`and ${given.length - MOST_ISSUES} more`] : [];
  return [...given.slice(0, MOST_ISSUES).map(issueText), ...more].join("; ");
}

function issueText(issue: unknown): string {
  const { path, message } = (issue ?? {}) as Partial<SchemaIssue>;
  const steps = Array.isArray(path) ? path : [];
  const keys = steps.map((p: PropertyKey | { key: PropertyKey }) => (typeof p === "object" && p !== null ? p.key : p));
  const text = typeof message === "string" ? message : message === undefined ? "refused" : describe(message);
  return `${clipped(["$", ...keys].map(String).join("."), 160)}: ${clipped(text, 1000)}`;
}

const clipped = (text: string, length: number): string => (text.length > length ? `${text.slice(0, length)}…` : text);
