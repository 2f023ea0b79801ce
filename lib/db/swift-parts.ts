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

const isNothingIn = (n: number): string => `not exists (
      select from unnest($${n}::text[], $${n + 1}::text[], $${n + 2}::text[]) as lane(workflow, version, queue)
      cross join lateral (
        select from :SCHEMA.ready q where q.workflow = lane.workflow and q.version = lane.version and q.queue = lane.queue limit 1
      ) one
    )`;
/** A claim looks from the first place on. */
export const ANYWHERE = "coalesce(current_setting('perdure.claimed_until', true), '') = ''";

/** Whether nothing is claimable in what a worker serves ($n to $n + 2). False also where that would take long to tell. */
export const isFirst = (n: number): string => `${ANYWHERE} and ${isNothingIn(n)}`;

/** The same of a worker ($n) that may be null, with what it serves behind; and where it takes long, from the place where its last claim ended. */
export const isNext = (
  n: number,
): string => `$${n}::bigint is not null and case when ${ANYWHERE} then ${isNothingIn(n + 1)}
    else (select not :SCHEMA.claimable($${n + 1}, $${n + 2}, $${n + 3}, u.priority, u.ready_at) from :SCHEMA.claimed_until($${n}) u)
  end`;

/** What is new for a run that is in memory, as load_warm says it. `more`: mail that this very statement writes. */
export const NEWS = (run: string, hasMail: string, more: string): string => `
  select
    case when ${hasMail} then (
      select json_agg(json_build_array(m.seq::text, m.name, m.data::text, m.reference, :SCHEMA.to_ms(m.sent_at), m.token) order by m.seq) from (
        select * from (
          select o.seq, o.name, o.data, o.reference, o.sent_at, o.token from :SCHEMA.mail o where o.run = ${run} and o.slot is null ${more}
        ) u order by u.seq limit 1000
      ) m
    ) end as unread,
    case when w.ends then :SCHEMA.ended(${run}) end as ended,
    json_build_array(w.due, :SCHEMA.to_ms(w.next) - :SCHEMA.to_ms(:SCHEMA.clock())) as news
  from (
    select json_agg(json_build_array(w.slot, json_build_object('at', :SCHEMA.to_ms(w.due), 'woken', w.woken))) filter (where w.due <= :SCHEMA.clock()) as due,
      min(w.due) filter (where w.due > :SCHEMA.clock()) as next, bool_or(w.kind in ('child', 'race')) as ends
    from :SCHEMA.wait w where w.run = ${run}
  ) w`;

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
