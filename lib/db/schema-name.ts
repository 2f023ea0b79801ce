/** The schema's name inside SQL text. */
import { checkSchemaName } from "../core/options.ts";

export const quoteSchema = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** Puts the schema's name in place of `:SCHEMA` in SQL text. */
export function inSchema(text: string, schema: string): string {
  checkSchemaName(schema);
  return text.replace(/:SCHEMA\b/g, () => quoteSchema(schema));
}
