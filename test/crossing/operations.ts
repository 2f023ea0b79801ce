/** The operations that cross: what clients, workers and the upkeep do to a run, by the statements that the library sends for it. */
import { statement } from "../../lib/db/statement.ts";
import type { WriteKind } from "../../lib/db/writes.ts";
import type { Sql } from "../support/stranger.ts";

/** Who does it, and to what. */
export interface Doer {
  readonly sql: Sql;
  readonly schema: string;
  readonly keys: { readonly p: string; readonly x: string; readonly c: string };
}

export interface Operation {
  /** What came of it, as its caller is told. */
  readonly run: (doer: Doer) => Promise<unknown>;
  /** It passes over what is locked, and is done again and again; what it did this time does not matter. */
  readonly repeated?: true;
}

const LANES = { workflows: ["w"], versions: ["1"], queues: ["q"] };

/** As the flusher does: what a stranger holds is passed over, and then waited for, until somebody says what became of it. */
async function write({ sql, schema }: Doer, kind: WriteKind, row: object, worker = "7"): Promise<any> {
  for (let lockMs: number | null = null; ; lockMs = 0) {
    const context = { schema, worker, lanes: LANES, again: lockMs !== null, lockMs, apart: false, named: true };
    const { text, values } = statement(kind, [{ row }], context);
    const [answer] = await sql(text, values);
    if (answer.verdict !== "busy") return answer.verdict;
  }
}

const START = {
  workflow: "w",
  version: "1",
  queue: "q",
  priority: 0,
  args: '{"json":[1]}',
  hash: "h",
  keep: false,
  detached: false,
  lease: () => false,
};
const STEP = {
  attempt: 1,
  no: 2,
  kind: "step",
  name: "t",
  outcome: "completed",
  value: '{"json":2}',
  tries: 1,
  started: 0,
  at: 0,
};

const fenced =
  (kind: WriteKind, more: object = {}, whose: "x" | "c" = "x") =>
  (doer: Doer): Promise<unknown> =>
    write(doer, kind, { run: doer.keys[whose], epoch: 1, ...more });
const verb =
  (text: string) =>
  async ({ sql }: Doer): Promise<unknown> =>
    (await sql(text)).map(({ verdict }) => verdict).join();
/** A verb of SQL raises an error where others have a verdict. */
const raising =
  (text: string) =>
  async ({ sql }: Doer): Promise<unknown> => {
    try {
      return Object.values((await sql(text))[0] ?? {}).join();
    } catch (error) {
      const { code } = error as { code: string };
      if (/^PD0/.test(code)) return code;
      throw error;
    }
  };
const upkeep = (text: string): Operation => ({
  run: async ({ sql }) => void (await sql(text)),
  repeated: true,
});

export const OPERATIONS: Readonly<Record<string, Operation>> = {
  "start, same id": { run: (doer) => write(doer, "start", { ...START, id: "x" }) },
  "start, same id, other input": {
    run: (doer) => write(doer, "start", { ...START, id: "x", args: '{"json":[2]}', hash: "other" }),
  },
  "start, new id": { run: (doer) => write(doer, "start", { ...START, id: "n" }) },
  start_run: { run: raising("select :SCHEMA.start_run('w', '[1]', id => 'x', version => '1', queue => 'q')") },
  "start a child": { run: (doer) => write(doer, "start", { ...START, id: "k", run: doer.keys.x, epoch: 1 }) },
  "start a child that is there": {
    run: (doer) => write(doer, "start", { ...START, id: "p", hash: "h", run: doer.keys.c, epoch: 1 }, "8"),
  },
  send: { run: (doer) => write(doer, "send", { id: "x", name: "news", data: "1", reference: "one", token: null }) },
  send_event: { run: raising("select :SCHEMA.send_event('x', 'news', '1', 'one')") },
  cancel: { run: verb("select * from :SCHEMA.cancel_runs(array['x'], 'enough')") },
  "cancel the parent": { run: verb("select * from :SCHEMA.cancel_runs(array['p'], 'enough')") },
  cancel_run: { run: raising("select :SCHEMA.cancel_run('x')") },
  pause: { run: verb("select * from :SCHEMA.pause_runs(array['x'])") },
  resume: { run: verb("select * from :SCHEMA.resume_runs(array['x'])") },
  wake: { run: verb("select * from :SCHEMA.wake_runs(array['x'])") },
  retry: { run: verb("select * from :SCHEMA.retry_runs(array['x'], false)") },
  fork: { run: verb("select verdict from :SCHEMA.fork_run('x', 's', 'f', null)") },
  record: { run: fenced("record", { ...STEP, slot: "t#0" }) },
  "record a wait": { run: fenced("record", { ...STEP, slot: "z#0", kind: "sleep", name: "sleep" }) },
  try: { run: fenced("try", { slot: "t#0", attempt: 1, try: 1, name: "t", started: 0, at: null, error: null }) },
  wait: {
    run: fenced("wait", {
      slot: "v#0",
      attempt: 1,
      kind: "child",
      topics: '["child:c"]',
      length: null,
      until: null,
      tries: 0,
    }),
  },
  publish: {
    run: fenced("publish", {
      slot: null,
      attempt: 1,
      no: null,
      kind: "stream",
      name: "items",
      value: "1",
      seq: 1,
      at: 0,
    }),
  },
  suspend: { run: fenced("suspend", { mail: 0, slots: '["w#0","z#0"]', warm: 1 }) },
  reclaim: { run: fenced("reclaim") },
  finish: { run: fenced("finish", { state: "completed", value: '{"json":3}', reopened: null }) },
  fail: {
    run: fenced("finish", { state: "failed", value: '{"error":{"name":"Error","message":"no"}}', reopened: "[]" }),
  },
  "finish the child": { run: fenced("finish", { state: "completed", value: '{"json":3}', reopened: null }, "c") },
  "next attempt": {
    run: fenced("retry", { attempt: 1, error: '{"error":{"name":"Error","message":"no"}}', reopened: "[]", delay: 0 }),
  },
  block: { run: fenced("block", { reason: "diverged" }) },
  postpone: { run: fenced("postpone", { reason: "no context", delay: 1000 }) },
  rest: { run: fenced("rest") },
  // Each looks from the first place on, however long the one before has taken.
  claim: upkeep(
    "select set_config('perdure.claimed_until', '', false); select key from :SCHEMA.claim_runs(8, array['w'], array['1'], array['q'], 10, 0)",
  ),
  "wake what is due": upkeep("select * from :SCHEMA.wake_due(100)"),
  "hand back": upkeep("select * from :SCHEMA.hand_back(7, '{}')"),
  "take back": upkeep(
    "select :SCHEMA.take_back(array[7], array[(select :SCHEMA.to_ms(beat_at) from :SCHEMA.worker where id = 7)], false)",
  ),
  sweep: upkeep("select :SCHEMA.sweep()"),
  "tell of ends": upkeep("select * from :SCHEMA.tell_untold(100)"),
  expire: upkeep("select * from :SCHEMA.expire_runs(86400000, 0, 1000)"),
  beat: { run: async ({ sql }) => (await sql("select alive from :SCHEMA.beat(7)"))[0]?.alive },
  leave: { run: async ({ sql }) => void (await sql("select :SCHEMA.leave_worker(7)")) },
  fire: upkeep(`select * from :SCHEMA.fire_schedules(array['sch'], array[:SCHEMA.to_ms('2026-01-01Z')], array[:SCHEMA.to_ms('2036-01-01Z')],
    array['[[1767225600000,"sch@1"]]'], array[null::float8], true)`),
  "pause the schedule": { run: raising("select :SCHEMA.pause_schedule('sch')") },
  "trigger the schedule": { run: raising("select :SCHEMA.trigger_schedule('sch', 'triggered')") },
  "delete the schedule": { run: raising("select :SCHEMA.delete_schedule('sch')") },
};
