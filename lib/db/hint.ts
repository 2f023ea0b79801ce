/** The statement that hints others: of work, ends and what is published only if somebody else wants to hear of them. */
import type { QueryConfig } from "pg";
import { channelOf } from "./notifier.ts";
import { TYPES } from "./reading.ts";
import { quoteSchema } from "./schema-name.ts";

const TEXT = `select pg_notify($2, h.letters) from (
  select concat(case when w.hungry and $3 like '%w%' then 'w' end, case when w.watching and $3 like '%d%' then 'd' end,
    case when w.reading and $3 like '%v%' then 'v' end, translate($3, 'wdv', '')) as letters
  from :SCHEMA.wanted($1) w
) h where h.letters <> ''`;

/** Sent after the commit of what it tells of: who says only then that he wants to hear of it looks by himself after that, and finds it. */
export function hint(
  schema: string,
  worker: string,
  letters: string,
): QueryConfig & { name: string; types: typeof TYPES } {
  const channel = channelOf(schema);
  const text = TEXT.replaceAll(":SCHEMA", quoteSchema(schema));
  return { name: `${channel}:hint`, text, values: [worker, channel, letters], types: TYPES };
}
