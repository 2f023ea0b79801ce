/**
 * The rows that runs write, written by bare `pg`: the same tables, the same fence, no library. Singly: one commit for the start, for
 * each checkpoint and for the finish. In batches: two fixed statements over arrays, the checkpoint and the finish in one.
 */
import type pg from "pg";
import { uuidv7 } from "../../lib/db/start-row.ts";

const WORKER = "1";
const ARGS = '{"json":[1]}';
const HASH = "0123456789abcdef";
const VALUE = '{"json":2}';

const RUN = "id, workflow, version, queue, priority, state, epoch, worker, created_at, started_at";
const BORN = `'bare', '1', 'default', 0, 'running', 1, ${WORKER}, now(), now()`;
const PENDING = "id, workflow, version, queue, priority, state, ready_at, created_at";
const READY = "'bare', '1', 'default', 0, 'pending', now(), now()";
const PLACED =
  "insert into $S.ready (workflow, version, queue, priority, ready_at, run, crashes) select 'bare', '1', 'default', 0, now(), key, 0";
const NOTED = `insert into $S.taken (worker, runs) select ${WORKER}, array_agg(key)`;
const CHECKPOINT = "run, slot, attempt, no, kind, name, outcome, value, tries, epoch, started_at, at";

/**
 * The settings of a connection for it. A plan made while a table is empty scans it for as long as it is cached, and one that sorts what is claimable
 * locks all of it: Perdure's functions are kept from both, and so is this.
 */
export const PLANNED = "-c enable_seqscan=off -c enable_bitmapscan=off -c jit=off";

export class Bare {
  readonly #schema: string;

  constructor(schema: string) {
    this.#schema = schema;
  }

  #named(name: string, text: string, values: unknown[]): { name: string; text: string; values: unknown[] } {
    return { name, text: text.replaceAll("$S.", `${this.#schema}.`), values };
  }

  /** One run of so many steps, a commit for every write. */
  async single(client: pg.Client, steps: number): Promise<void> {
    const start = `with made as (insert into $S.run (${RUN}) values ($1, ${BORN}) returning key),
      noted as (${NOTED} from made)
      insert into $S.input (run, args, hash) select key, $2::json, $3 from made returning run`;
    const key = (await client.query(this.#named("start", start, [uuidv7(), ARGS, HASH]))).rows[0].run;
    const record = `with own as (select key from $S.run where key = $1 and epoch = 1 and state = 'running' for no key update)
      insert into $S.checkpoint (${CHECKPOINT}) select key, $2, 1, $3, 'step', 'one', 'completed', $4, 1, 1, now(), now() from own`;
    for (let no = 1; no <= steps; no += 1) {
      await client.query(this.#named("record", record, [key, slot(no), no, VALUE]));
    }
    const finish = `with own as (update $S.run set state = 'completed', worker = null, finished_at = now()
        where key = $1 and epoch = 1 and state = 'running' returning key)
      insert into $S.outcome (run, value) select key, $2::json from own`;
    await client.query(this.#named("finish", finish, [key, VALUE]));
  }

  /** So many runs side by side: one commit for all starts, one for the nth step of all. The last step and the finish are one. */
  async batch(client: pg.Client, runs: number, steps: number): Promise<void> {
    const start = `with given as (select * from unnest($1::text[], $2::text[], $3::text[]) as g(id, args, hash)),
      made as (insert into $S.run (${RUN}) select id, ${BORN} from given returning key, id),
      stored as (insert into $S.input (run, args, hash) select key, args::json, hash from made join given using (id)),
      noted as (${NOTED} from made)
      select key from made`;
    const ids = Array.from({ length: runs }, uuidv7);
    const given = [ids, ids.map(() => ARGS), ids.map(() => HASH)];
    const { rows } = await client.query(this.#named("start_batch", start, given));
    const keys = rows.map((row) => row.key);
    for (let no = 1; no < steps; no += 1) await this.recordBatch(client, keys, no);
    await this.finishBatch(client, keys, steps);
  }

  /** So many runs that wait for a worker, in one commit. */
  async insertBatch(client: pg.Client, runs: number): Promise<void> {
    const text = `with given as (select * from unnest($1::text[], $2::text[], $3::text[]) as g(id, args, hash)),
      made as (insert into $S.run (${PENDING}) select id, ${READY} from given returning key, id),
      placed as (${PLACED} from made)
      insert into $S.input (run, args, hash) select key, args::json, hash from made join given using (id)`;
    const ids = Array.from({ length: runs }, uuidv7);
    await client.query(this.#named("insert_batch", text, [ids, ids.map(() => ARGS), ids.map(() => HASH)]));
  }

  /** The nth checkpoint of each. */
  async recordBatch(client: pg.Client, keys: readonly string[], no: number): Promise<void> {
    await client.query(this.#named("record_batch", `${FENCED} ${PUT} select count(*) from put`, rowsOf(keys, no)));
  }

  /** The last checkpoint and the finish, in one statement. */
  async finishBatch(client: pg.Client, keys: readonly string[], no: number): Promise<void> {
    const text = `${FENCED} ${PUT},
      done as (update $S.run r set state = 'completed', worker = null, finished_at = now() from own where r.key = own.run returning r.key)
      insert into $S.outcome (run, value) select key, '${VALUE}'::json from done`;
    await client.query(this.#named("finish_batch", text, rowsOf(keys, no)));
  }

  /** Claims up to so many pending runs of a workflow, with their input. */
  async claimBatch(client: pg.Client, workflow: string, limit: number): Promise<string[]> {
    const text = `with free as materialized (
        select q.ctid as place from $S.ready q
        cross join lateral (select from $S.run r where r.key = q.run and r.ready_at = q.ready_at for no key update skip locked) r
        where q.workflow = $1 and q.version = '1' and q.queue = 'default' order by q.priority, q.ready_at, q.run limit $2),
      gone as (delete from $S.ready q using free where q.ctid = free.place returning q.run),
      mine as (update $S.run r set state = 'running', worker = ${WORKER}, epoch = r.epoch + 1, ready_at = null, started_at = now()
        from gone where r.key = gone.run returning r.key),
      noted as (${NOTED} from mine having count(*) > 0)
      select key, args::text from mine join $S.input on run = key`;
    return (await client.query(this.#named("claim_batch", text, [workflow, limit]))).rows.map((row) => row.key);
  }
}

const FENCED = `with given as materialized (
    select * from unnest($1::bigint[], $2::int[], $3::text[], $4::int[], $5::text[]) as g(run, epoch, slot, no, value)),
  held as materialized (select key, epoch, state from $S.run where key = any($1::bigint[]) order by key for no key update),
  own as (select g.* from given g join held h on h.key = g.run and h.epoch = g.epoch and h.state = 'running')`;

const PUT = `, put as (insert into $S.checkpoint (${CHECKPOINT})
  select run, slot, 1, no, 'step', 'one', 'completed', value::json, 1, epoch, now(), now() from own returning 1)`;

const slot = (no: number): string => `step:one/${HASH}#${no}`;

const rowsOf = (keys: readonly string[], no: number): unknown[] => [
  keys,
  keys.map(() => 1),
  keys.map(() => slot(no)),
  keys.map(() => no),
  keys.map(() => VALUE),
];
