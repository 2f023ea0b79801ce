/** What statements of one row have in common: see swift.ts. */
import type { QueryConfig } from "pg";
import { channelOf } from "./notifier.ts";
import { TYPES } from "./reading.ts";
import { quoteSchema } from "./schema-name.ts";
import type { BatchContext, Lanes } from "./writes.ts";

export type Context = BatchContext & { readonly schema: string };

/** Whether this session and its transactions are as such a statement needs them; otherwise it does nothing. */
export const IS_SOUND = `current_setting('transaction_isolation') = 'read committed' and current_setting('transaction_read_only') = 'off'
  and current_setting('enable_seqscan') = 'off'`;

/** What it stands for: whoever looks at what is executed finds it by that. */
export const insteadOf = (fn: string): string => `/* :SCHEMA.${fn}() of one row */ `;

/** Whether a worker ($n) may have a run that nobody has claimed: it has a slot for it, and nothing claimable stands before it in what it serves ($n + 1 to $n + 3). */
export const isNext = (
  n: number,
): string => `$${n}::bigint is not null and case when coalesce(current_setting('perdure.claimed_until', true), '') = ''
    then not exists (
      select from unnest($${n + 1}::text[], $${n + 2}::text[], $${n + 3}::text[]) as lane(workflow, version, queue)
      cross join lateral (
        select from :SCHEMA.ready q where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue limit 1
      ) one
    )
    else (select not :SCHEMA.claimable($${n + 1}, $${n + 2}, $${n + 3}, u.priority, u.ready_at) from :SCHEMA.claimed_until($${n}) u)
  end`;

/** As note_taken does, of the row of `noted`. */
export const tidied = (n: number): string =>
  `(select :SCHEMA.tidy_taken($${n}, n.no - 64)::text from noted n where n.no % 16 = 0) as tidied`;

const texts = new Map<string, string>();

export function prepared(name: string, text: string, values: unknown[], { schema }: Context): QueryConfig {
  const full = `${channelOf(schema)}:${name}:swift`;
  let known = texts.get(full);
  if (known === undefined) {
    known = text.replaceAll(":SCHEMA", quoteSchema(schema));
    texts.set(full, known);
  }
  return { name: full, text: known, values, types: TYPES } as QueryConfig;
}

export const NO_LANES: readonly string[] = ["{}", "{}", "{}"];
const written = new WeakMap<Lanes, string[]>();

/** What a worker serves, as Postgres writes arrays. */
export function lanesOf(lanes: Lanes): readonly string[] {
  let texts = written.get(lanes);
  if (!texts) {
    const quoted = (text: string): string => `"${text.replace(/["\\]/g, "\\$&")}"`;
    texts = [lanes.workflows, lanes.versions, lanes.queues].map((column) => `{${column.map(quoted).join(",")}}`);
    written.set(lanes, texts);
  }
  return texts;
}
