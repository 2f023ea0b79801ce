/** A user's schema, so that what does not fit it is this layer's error, wherever the core asks it. */
import { checkSchema } from "../core/schema.ts";
import type { Schema, SchemaResult } from "../core/types.ts";
import { SchemaValidationError } from "./errors.ts";

/** The schema with SchemaValidationError in place of issues; `what` begins its text. */
export function strict<T>(schema: Schema<T>, what: string): Schema<T> {
  checkSchema(schema, `schema of ${what}`);
  const accept = (result: SchemaResult<T>): SchemaResult<T> => {
    if (result.issues) throw new SchemaValidationError(what, result.issues);
    return result;
  };
  const validate = (value: unknown): SchemaResult<T> | Promise<SchemaResult<T>> => {
    const result = schema["~standard"].validate(value);
    // Any promise will do, also one of another realm or library.
    return "then" in result ? result.then(accept) : accept(result);
  };
  return { "~standard": { version: 1, vendor: "perdure/aiki", validate } };
}

/** The checks of a definition's input and output, as options of the core. */
export function checks(
  schema: { readonly input?: Schema<any> | undefined; readonly output?: Schema<any> | undefined } | undefined,
  what: string,
): { readonly input?: Schema; readonly output?: Schema } {
  return {
    ...(schema?.input === undefined ? {} : { input: strict(schema.input, `input of ${what}`) }),
    ...(schema?.output === undefined ? {} : { output: strict(schema.output, `output of ${what}`) }),
  };
}
