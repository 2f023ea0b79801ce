/** What the operations of the matrix meet: a run "x" in some situation, its parent "p" that waits for it, its child "c" in work. */
import type { Sql } from "../support/stranger.ts";

/** Situation → what becomes of x, which is in work by worker 7 and has a step, an open wait for news or its child, and a sleep. */
export const SITUATIONS = {
  running: "",
  pausing: "perform from :SCHEMA.pause_runs(array['x']);",
  suspended: "perform :SCHEMA.scene_suspend(v_x);",
  due: `perform :SCHEMA.scene_suspend(v_x);
    update :SCHEMA.wait set due = now() - interval '1 minute' where run = v_x;
    update :SCHEMA.run set due = now() - interval '1 minute' where key = v_x;`,
  pending: "perform from :SCHEMA.hand_back(7, '{}');",
  paused: "perform :SCHEMA.scene_suspend(v_x); perform from :SCHEMA.pause_runs(array['x']);",
  failed:
    'perform from :SCHEMA.finish_runs(array[v_x], array[1], array[\'failed\'], array[\'{"error":{"name":"Error","message":"no"}}\'], array[\'[]\'], true);',
  blocked: "perform from :SCHEMA.block_runs(array[v_x], array[1], array['diverged'], true);",
  // All that there is has ended long ago, and everybody was told.
  over: `perform from :SCHEMA.finish_runs(array[v_x], array[1], array['completed'], array['{"json":1}'], array[null], true);
    perform from :SCHEMA.finish_runs(array[v_c], array[1], array['completed'], array['{"json":1}'], array[null], true);
    perform from :SCHEMA.cancel_runs(array['p'], null);
    update :SCHEMA.run set created_at = created_at - interval '100 days', finished_at = finished_at - interval '100 days';`,
} as const;
export type Situation = keyof typeof SITUATIONS;

const TABLES =
  "run ready follower input checkpoint delivery try round wait mail outcome value item schedule schedule_trace application worker lane taken";

/** Where a session called "A" can be stopped: before it writes to a table, and before it commits. */
const GATES: readonly (readonly [table: string, verb: string])[] =
  "run ready checkpoint wait try mail outcome taken follower schedule worker round item"
    .split(" ")
    .flatMap((table) => (["insert", "update", "delete"] as const).map((verb) => [table, verb] as const));
export const WRITES: readonly string[] = GATES.map(([table, verb]) => `${verb} ${table}`);
/** Rows that another session may hold. */
export const ROWS = {
  "row p": "select from :SCHEMA.run where id = 'p' for update",
  "row x": "select from :SCHEMA.run where id = 'x' for update",
  "row c": "select from :SCHEMA.run where id = 'c' for update",
  "row of ready": "select from :SCHEMA.ready for update",
  "row of worker 7": "select from :SCHEMA.worker where id = 7 for update",
  "row of the schedule": "select from :SCHEMA.schedule for update",
} as const;
export const COMMIT = "commit";

const start = (id: string, parent: string, worker: number): string => `
  select s.key from :SCHEMA.start_runs(array['${id}'], array['w'], array['1'], array['q'], array[0::smallint], array[null::float8], array[null::float8],
    array[null::float8], array['{"json":[1]}'], array['h'], array[null::text], array[false], array[null::text], array[${parent}::bigint],
    array[case when ${parent}::bigint is not null then 1 end], array[false], array[null::text], array[null::float8], array[true], ${worker},
    array[]::text[], array[]::text[], array[]::text[], true) s`;

/** Makes what the scenes need, once in a schema. */
export const STAGE = `
  create function :SCHEMA.scene_suspend(p_x bigint) returns void language sql as $$
    select from :SCHEMA.suspend_runs(array[p_x], array[1], array[0], array['["w#0","z#0"]'], array[1], 7, true)
  $$;
  create function :SCHEMA.scene(p_situation text) returns table (p bigint, x bigint, c bigint) language plpgsql as $$
  declare v_p bigint; v_x bigint; v_c bigint;
  begin
    ${TABLES.split(" ")
      .map((table) => `delete from :SCHEMA.${table};`)
      .join(" ")}
    perform :SCHEMA.enter_worker(w, 'w' || w, 60000, array['w'], array['1'], array['q'], '') from unnest(array[7, 8, 9]) w;
    insert into :SCHEMA.schedule (name, cron, timezone, anchor_at, workflow, version, queue, priority, args, hash, overlap, catch_up, next_at, due_at, created_at, updated_at)
      values ('sch', '0 0 * * *', 'UTC', now(), 'w', '1', 'q', 0, '{"json":[1]}', 'h', 'cancel_previous', 'latest',
        '2026-01-01Z', '2026-01-01Z', now(), now());
    v_p := (${start("p", "null", 9)});
    v_x := (${start("x", "v_p", 7)});
    update :SCHEMA.run set schedule = 'sch' where key = v_x;
    perform from :SCHEMA.begin_waits(array[v_p], array[1], array['x#0'], array[1], array['child'], array['["child:x"]'], array[null::float8], array[null::float8], array[0], true);
    perform from :SCHEMA.suspend_runs(array[v_p], array[1], array[0], array['["x#0"]'], array[null::integer], 9, true);
    perform from :SCHEMA.record_steps(array[v_x], array[1], array['s#0'], array[1], array[1], array['step'], array['s'], array['completed'],
      array['{"json":1}'], array[null::text], array[1], array[0::float8], array[0::float8], array[null::bigint], true, false);
    v_c := (${start("c", "v_x", 8)});
    perform from :SCHEMA.begin_waits(array[v_x, v_x], array[1, 1], array['w#0', 'z#0'], array[1, 1], array['race', 'sleep'],
      array['["event:news","child:c"]', '["sleep:"]'], array[null, 3600000::float8], array[null::float8, null], array[0, 0], true);
    case p_situation ${Object.entries(SITUATIONS)
      .map(([name, text]) => `when '${name}' then ${text || "null;"}`)
      .join("\n")}
    end case;
    return query select v_p, v_x, v_c;
  end $$;
  create table :SCHEMA.reached (gate text);
  create function :SCHEMA.stop_a() returns trigger language plpgsql as $$
  begin
    if current_setting('application_name') = 'P' then insert into :SCHEMA.reached values (tg_argv[0]); end if;
    if current_setting('application_name') = 'A' then
      perform pg_advisory_xact_lock_shared(hashtext(:SCHEMA.channel()), hashtext(tg_argv[0]));
    end if;
    if tg_when = 'AFTER' then return null; end if;
    return case tg_op when 'DELETE' then old else new end;
  end $$;
  ${GATES.map(
    ([table, verb]) =>
      `create trigger stop_${verb} before ${verb} on :SCHEMA.${table} for each row execute function :SCHEMA.stop_a('${verb} ${table}');`,
  ).join("\n")}
  ${["run", "ready", "worker", "schedule", "mail", "checkpoint", "wait", "try", "item"]
    .map(
      (table) =>
        `create constraint trigger stop_commit after insert or update or delete on :SCHEMA.${table} deferrable initially deferred for each row execute function :SCHEMA.stop_a('${COMMIT}');`,
    )
    .join("\n")}`;

const runOf = (column: string): string => `(select r.id from :SCHEMA.run r where r.key = ${column})`;

/** Who has a follower must say so; who says so and has none is asked in vain. */
const FOLLOWED = "r.followed or not exists (select from :SCHEMA.follower f where f.run = r.key)";

/** All that is left, without instants and keys. */
const DUMP = `select json_build_object(
  'run', (select json_agg(json_build_array(r.id, r.workflow, r.state, r.epoch, r.worker, r.attempt, r.crashes, r.mail, r.pausing, r.topics, r.reason, ${FOLLOWED}, r.untold,
    r.ready_at is not null, r.due is not null, r.finished_at is not null, r.started_at is not null, ${runOf("r.parent")}, r.warm, r.flexible, r.schedule) order by r.id) from :SCHEMA.run r),
  'ready', (select json_agg(${runOf("q.run")} order by 1) from (select q.run from :SCHEMA.ready q order by ${runOf("q.run")}) q),
  'held', (select json_agg(r.id order by r.id) from :SCHEMA.run r where r.worker is not null
    and not exists (select from :SCHEMA.taken t where t.worker = r.worker and r.key = any(t.runs))),
  'wait', (select json_agg(json_build_array(${runOf("w.run")}, w.slot, w.kind, w.woken, w.due is not null) order by ${runOf("w.run")}, w.slot) from :SCHEMA.wait w),
  'mail', (select json_agg(json_build_array(${runOf("m.run")}, m.name, m.data, m.reference, m.slot) order by ${runOf("m.run")}, m.reference) from :SCHEMA.mail m),
  'checkpoint', (select json_agg(json_build_array(${runOf("c.run")}, c.slot, c.attempt, c.no, c.outcome, c.value, c.epoch) order by ${runOf("c.run")}, c.slot, c.attempt) from :SCHEMA.checkpoint c),
  'outcome', (select json_agg(json_build_array(${runOf("o.run")}, o.value) order by ${runOf("o.run")}) from :SCHEMA.outcome o),
  'round', (select json_agg(json_build_array(${runOf("o.run")}, o.attempt) order by ${runOf("o.run")}) from :SCHEMA.round o),
  'try', (select json_agg(json_build_array(${runOf("o.run")}, o.slot, o.try) order by ${runOf("o.run")}, o.slot) from :SCHEMA.try o),
  'input', (select json_agg(${runOf("i.run")} order by ${runOf("i.run")}) from :SCHEMA.input i),
  'follower', (select json_agg(json_build_array(${runOf("f.run")}, ${runOf("f.follower")}) order by 1) from :SCHEMA.follower f),
  'item', (select json_agg(json_build_array(${runOf("i.run")}, i.stream, i.pos, i.value) order by ${runOf("i.run")}, i.pos) from :SCHEMA.item i),
  'worker', (select json_agg(json_build_array(w.id, w.dead_at is not null) order by w.id) from :SCHEMA.worker w),
  'schedule', (select json_agg(json_build_array(s.name, s.next_at, s.paused_at is not null, s.last_run is not null) order by s.name) from :SCHEMA.schedule s)
)::text as dump`;

/** Where all that happened has led to. */
export async function dump(sql: Sql): Promise<string> {
  const [row] = await sql(DUMP);
  // Ids that are drawn.
  return row.dump.replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{22}/g, "drawn");
}
