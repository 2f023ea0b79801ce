/** The rule for a schema's name, and its form inside SQL text. */

import { PerdureError } from "../core/errors.ts";

const RULE = "1 to 63 bytes, without quotes, $, backslash or control characters, and not starting with pg_";
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what the rule forbids
const FORBIDDEN = /["'$\\\u0000-\u001f\u007f]|^pg_/;

/** Any name that Postgres takes, except those that could end a quotation inside a function's body. */
export function checkSchemaName(name: string): void {
  const bytes = typeof name === "string" ? Buffer.byteLength(name) : 0;
  if (bytes >= 1 && bytes <= 63 && !FORBIDDEN.test(name)) return;
  const shown = String(name).slice(0, 70);
  throw new PerdureError("PERDURE_NAME", `${JSON.stringify(shown)} cannot be the schema's name: ${RULE}`);
}

export const quoteSchema = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** Puts the schema's name in place of `:SCHEMA` in SQL text. */
export function inSchema(text: string, schema: string): string {
  checkSchemaName(schema);
  return text.replace(/:SCHEMA\b/g, () => quoteSchema(schema));
}
