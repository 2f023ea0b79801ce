/** The statement that hints others: of work, ends and what is published only if somebody else wants to hear of them. */
import type { QueryConfig } from "pg";
import { channelOf } from "./notifier.ts";
import { TYPES } from "./reading.ts";
import { quoteSchema } from "./schema-name.ts";
import type { Lanes } from "./writes.ts";

/** What is sent, of the letters that are given. */
const text = (isWork: string, more: string, from: string): string => `select pg_notify($2, h.letters) from (
  select concat(case when w.hungry and (${isWork}) then 'w' end, case when w.watching and $3 like '%d%' then 'd' end,
    case when w.reading and $3 like '%v%' then 'v' end, translate($3, 'wdv', '')${more}) as letters
  from :SCHEMA.wanted($1) w${from}
) h where h.letters <> ''`;

const HINT = text("$3 like '%w%'", "", "");

/** Of runs that were sent something: whether one is claimable by others than this process alone, or in work elsewhere. */
const HINT_SENT = text(
  "$3 like '%w%' or s.woken",
  ", case when s.working then 'c' end",
  ` cross join lateral (
    select bool_or(r.worker <> $1) as working, bool_or(r.ready_at is not null and (r.warm <> $1 or not exists (
      select from unnest($5::text[], $6::text[], $7::text[]) as lane(workflow, version, queue)
      where lane.workflow = r.workflow and lane.version = r.version and lane.queue = r.queue
    ))) as woken
    from :SCHEMA.run r where r.id = any($4::text[])
  ) s`,
);

/** What was sent to runs, and what this process serves, if it has a free slot. */
export interface Sent {
  readonly ids: readonly string[];
  readonly lanes: Lanes | null;
}

/** Sent after the commit of what it tells of: who says only then that he wants to hear of it looks by himself after that, and finds it. */
export function hint(
  schema: string,
  worker: string,
  letters: string,
  sent: Sent | null = null,
): QueryConfig & { name: string; types: typeof TYPES } {
  const channel = channelOf(schema);
  const { workflows, versions, queues } = sent?.lanes ?? { workflows: [], versions: [], queues: [] };
  const values = [worker, channel, letters, ...(sent ? [sent.ids, workflows, versions, queues] : [])];
  const name = `${channel}:${sent ? "hint_sent" : "hint"}`;
  return { name, text: (sent ? HINT_SENT : HINT).replaceAll(":SCHEMA", quoteSchema(schema)), values, types: TYPES };
}
