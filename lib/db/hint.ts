/** The statement that hints others: of work, ends and what is published only if somebody else wants to hear of them. */
import type { QueryConfig } from "pg";
import { channelOf } from "./notifier.ts";
import { TYPES } from "./reading.ts";
import { quoteSchema } from "./schema-name.ts";
import type { Lanes, StartRow } from "./writes.ts";

export type Lane = Pick<StartRow, "workflow" | "version" | "queue">;

const LIVE = (who: string): string =>
  `${who}.id <> $1 and ${who}.dead_at is null and ${who}.beat_at + ${who}.lease > :SCHEMA.clock()`;

/** What is sent, of the letters that are given. `to`: of several that want work, the one that is to take it. */
const text = (isWork: string, to: string, more: string, from: string): string => `select pg_notify($2, h.letters) from (
  select concat(case when w.hungry > 0 and (${isWork}) then 'w'${to && ` || case when w.hungry > 1 then ${to} else '' end`} end,
    case when w.watching and $3 like '%d%' then 'd' end, case when w.reading and $3 like '%v%' then 'v' end, translate($3, 'wdv', '')${more}) as letters
  from (
    select count(*) filter (where w.hungry) as hungry, bool_or(w.watching) as watching, bool_or(w.reading) as reading
    from :SCHEMA.worker w where ${LIVE("w")}
  ) w${from}
) h where h.letters <> ''`;

/** One that serves such runs and has a free slot, whichever; one that has the run in memory before all others. */
const someone = (workflow: string, version: string, queue: string, warm: string): string => `coalesce((
    select l.worker::text from :SCHEMA.lane l join :SCHEMA.worker o on o.id = l.worker
    where l.workflow = ${workflow} and l.version = ${version} and l.queue = ${queue} and o.hungry and ${LIVE("o")}
    order by ${warm}random() limit 1
  ), '')`;

const HINT = text("$3 like '%w%'", "", "", "");
const HINT_START = text("$3 like '%w%'", someone("$4", "$5", "$6", ""), "", "");

/** Of runs that were sent something: whether one is claimable by others than this process alone, or in work elsewhere. */
const hintSent = (to: string): string =>
  text(
    "$3 like '%w%' or s.woken",
    to,
    ", case when s.working then 'c' end",
    ` cross join lateral (
    select bool_or(r.worker <> $1) as working, bool_or(r.ready_at is not null and (r.warm <> $1 or not exists (
      select from unnest($5::text[], $6::text[], $7::text[]) as lane(workflow, version, queue)
      where lane.workflow = r.workflow and lane.version = r.version and lane.queue = r.queue
    ))) as woken, min(r.workflow) as workflow, min(r.version) as version, min(r.queue) as queue, min(r.warm) as warm
    from :SCHEMA.run r where r.id = any($4::text[])
  ) s`,
  );
const HINT_SENT = hintSent("");
const HINT_SENT_ONE = hintSent(someone("s.workflow", "s.version", "s.queue", "(o.id = s.warm) desc nulls last, "));

/** Of what is hinted at, where that is known: the one run that was started for others; or the runs that were sent something. */
export type About = { readonly lane: Lane } | Sent;

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
  about: About | null = null,
): QueryConfig & { name: string; values: unknown[]; types: typeof TYPES } {
  const channel = channelOf(schema);
  const [kind, text, more] = ofAbout(about);
  const values = [worker, channel, letters, ...more];
  return { name: `${channel}:${kind}`, text: text.replaceAll(":SCHEMA", quoteSchema(schema)), values, types: TYPES };
}

function ofAbout(about: About | null): readonly [kind: string, text: string, values: unknown[]] {
  if (!about) return ["hint", HINT, []];
  if ("lane" in about) {
    const { workflow, version, queue } = about.lane;
    return ["hint_start", HINT_START, [workflow, version, queue]];
  }
  const { ids, lanes } = about;
  const values = [ids, lanes?.workflows ?? [], lanes?.versions ?? [], lanes?.queues ?? []];
  return ids.length === 1 ? ["hint_sent_one", HINT_SENT_ONE, values] : ["hint_sent", HINT_SENT, values];
}
