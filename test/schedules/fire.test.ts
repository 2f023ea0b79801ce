/** Schedules fire: each slot once, whoever is there, with its run or not at all. */
import { type Test, test } from "tap";
import { currentRun, type Perdure, type PerdureOptions, schedule, workflow } from "../../lib/index.ts";
import { crew } from "../support/crew.ts";
import { type Bench, bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate } from "../support/gate.ts";
import { pass, setClock } from "./clock.ts";

const tell = workflow("tell", async (text: string) => `${text} ${currentRun().scheduledFor?.toISOString()}`);

const slots = async ({ sql }: Pick<Bench, "sql">, name: string): Promise<string[]> =>
  (
    await sql(
      "select to_char(slot_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as at from :SCHEMA.run where schedule = $1 order by slot_at",
      [name],
    )
  ).map(({ at }) => at);

/** An engine on a schema whose clock was set before any schedule was made. */
async function at(t: Test, instant: string, options: PerdureOptions = {}): Promise<Bench> {
  const it = await bench(t, { workflows: [tell], ...options });
  await setClock(it.sql, instant);
  return it;
}

const started = (it: Bench, name: string, count: number): Promise<unknown> =>
  eventually(async () => (await slots(it, name)).length >= count, 20_000);

test("one run for each slot, whichever of three engines is there, and its body knows the slot", async (t) => {
  const it = await bench(t, { workflows: [tell] });
  const others = [await it.another(), await it.another()];
  await it.perdure.schedules.put(schedule("tick", { every: "1s", overlap: "allow" }, tell, "tick"));
  await started(it, "tick", 2);
  // The leader is one of the three.
  const [{ worker }] = await it.sql("select worker from :SCHEMA.leader");
  const names = await it.sql("select id from :SCHEMA.worker order by started_at");
  const engines = [it.perdure, ...others];
  const leader = engines[names.findIndex(({ id }) => id === worker)]!;
  await leader.shutdown();
  const left = engines.filter((engine) => engine !== leader);
  await started(it, "tick", 5);
  await left[0]!.schedules.delete("tick");
  const runs = await it.sql(
    "select id, extract(epoch from slot_at - lag(slot_at) over (order by slot_at))::float8 as gap from :SCHEMA.run where schedule = 'tick' order by slot_at",
  );
  t.same(
    runs.slice(1).map(({ gap }) => gap),
    runs.slice(1).map(() => 1),
    "no slot twice, none left out",
  );
  const slot = runs[0].id.slice("tick@".length);
  t.equal(await left[0]!.get(runs[0].id).result({ timeout: "10s" }), `tick ${slot}`);
});

test("a slot fires once when three processes race for it and the one that leads is killed", async (t) => {
  const c = await crew(t);
  const client = await bench(t, { schema: c.schema, worker: false });
  const members = await Promise.all([c.member({ lease: "5s" }), c.member({ lease: "5s" }), c.member({ lease: "5s" })]);
  const names = Array.from({ length: 20 }, (_, n) => `race-${n}`);
  const traffic = workflow("traffic", async () => {});
  for (const name of names)
    await client.perdure.schedules.put(schedule(name, { every: "1s", overlap: "allow" }, traffic));
  const count = async (): Promise<number> =>
    (await c.sql("select count(*)::int as n from :SCHEMA.run where schedule is not null"))[0].n;
  await eventually(async () => (await count()) > 30, 20_000);
  const [{ pid }] = await c.sql(
    "select split_part(w.name, ':', 2)::int as pid from :SCHEMA.leader l join :SCHEMA.worker w on w.id = l.worker",
  );
  const leader = members.find((member) => member.pid === pid) ?? members[0]!;
  await leader.end("SIGKILL");
  const before = await count();
  await eventually(async () => (await count()) > before + 60, 20_000);
  for (const name of names) await client.perdure.schedules.delete(name);
  const twice = await c.sql(
    "select schedule, slot_at from :SCHEMA.run where schedule is not null group by 1, 2 having count(*) > 1",
  );
  t.same(twice, []);
  // Where somebody was late, the slots left out are told of.
  const holes = await c.sql(`select r.schedule, r.slot_at from (
      select schedule, slot_at, lag(slot_at) over (partition by schedule order by slot_at) as before from :SCHEMA.run where schedule is not null
    ) r where r.slot_at - r.before > interval '1 second'
      and not exists (select from :SCHEMA.schedule_history h where h.schedule = r.schedule and h.what = 'missed' and h.from_slot < r.slot_at and h.until_slot > r.before)`);
  t.same(holes, []);
});

test("the run and the schedule's next slot are one transaction: what fails in between leaves neither", async (t) => {
  const it = await at(t, "2027-01-01T00:00:00Z");
  // Fails after the run was made, as a process does that dies there: the second time its session is ended.
  await it.sql(`create sequence :SCHEMA.failures`);
  await it.sql(
    `create function :SCHEMA.fail() returns trigger language plpgsql as $$
    begin
      case nextval('":SCHEMA_NAME".failures')
        when 1 then raise exception 'no luck';
        when 2 then perform pg_terminate_backend(pg_backend_pid());
        else null;
      end case;
      return new;
    end $$`.replace('":SCHEMA_NAME"', it.schema),
  );
  await it.sql(
    `create trigger fail before update of next_at on :SCHEMA.schedule for each row when (new.next_at > old.next_at) execute function :SCHEMA.fail()`,
  );
  await it.perdure.schedules.put(schedule("hourly", { cron: "0 * * * *" }, tell, "x"));
  await pass(it.sql, "59 minutes 59 seconds");
  await it.sql("select :SCHEMA.hint('t')");
  const trouble = await eventually(async () => (await it.perdure.schedules.list())[0]!.trouble, 20_000);
  t.match(trouble, /firing schedule "hourly": no luck/);
  t.same(await slots(it, "hourly"), [], "no run without its slot moved on");
  await pass(it.sql, "31 seconds");
  await started(it, "hourly", 1);
  t.same(await slots(it, "hourly"), ["2027-01-01 01:00:00"]);
  const [{ next, failures, trouble: after }] = await it.sql(
    `select next_at::timestamptz at time zone 'UTC' as next, trouble, (select last_value from :SCHEMA.failures) as failures from :SCHEMA.schedules`,
  );
  t.ok(Number(failures) >= 3, "both failures came");
  t.equal(after, null);
  t.ok(next);
});

test("after ten hours in which nobody was there each policy makes up what it says", async (t) => {
  const it = await at(t, "2027-03-01T00:30:00Z");
  for (const catchUp of ["latest", "none", "all"] as const) {
    await it.perdure.schedules.put(schedule(catchUp, { cron: "0 * * * *", catchUp }, tell, catchUp));
    await it.perdure.schedules.put(schedule(`${catchUp}-minutes`, { cron: "* * * * *", catchUp }, tell, catchUp));
  }
  await it.perdure.shutdown();
  await setClock(it.sql, "2027-03-01T10:45:30Z");
  const back = await it.another();
  await eventually(
    async () => (await back.schedules.list()).every(({ nextAt }) => nextAt! > new Date("2027-03-01T10:45:30Z")),
    20_000,
  );
  t.same(await slots(it, "latest"), ["2027-03-01 10:00:00"]);
  t.same(await slots(it, "none"), [], "forty-five minutes late is too late");
  t.same(
    await slots(it, "all"),
    Array.from({ length: 10 }, (_, n) => `2027-03-01 ${String(n + 1).padStart(2, "0")}:00:00`),
  );
  t.same((await slots(it, "latest-minutes"))[0], "2027-03-01 10:45:00");
  t.same((await slots(it, "none-minutes"))[0], "2027-03-01 10:45:00", "thirty seconds late is not");
  const all = await slots(it, "all-minutes");
  t.same(all.slice(0, 100).at(0), "2027-03-01 09:06:00");
  t.same(all.slice(0, 100).at(-1), "2027-03-01 10:45:00", "the last hundred, in order");
  const missed = await it.sql(
    "select schedule, to_char(from_slot at time zone 'UTC', 'HH24:MI') as from, to_char(until_slot at time zone 'UTC', 'HH24:MI') as until from :SCHEMA.schedule_history where what = 'missed' order by schedule",
  );
  t.same(missed, [
    { schedule: "all-minutes", from: "00:31", until: "09:05" },
    { schedule: "latest", from: "01:00", until: "09:00" },
    { schedule: "latest-minutes", from: "00:31", until: "10:44" },
    { schedule: "none", from: "01:00", until: "10:00" },
    { schedule: "none-minutes", from: "00:31", until: "10:44" },
  ]);
});

test("a slot that comes while a run is unfinished is skipped, allowed, or cancels it", async (t) => {
  const { opened, open } = gate();
  const slow = workflow("slow", async () => opened);
  const logger = collector();
  const it = await at(t, "2027-01-01T00:30:00Z", { workflows: [slow], logger });
  for (const overlap of ["skip", "allow", "cancel_previous"] as const) {
    await it.perdure.schedules.put(schedule(overlap, { cron: "0 * * * *", overlap }, slow));
  }
  const all = async (): Promise<string[]> =>
    (
      await it.sql(
        "select schedule || ' ' || extract(hour from slot_at at time zone 'UTC') || ' ' || state as line from :SCHEMA.run order by slot_at, schedule",
      )
    ).map(({ line }) => line);
  const next = async (hour: number): Promise<void> => {
    await pass(it.sql, "1 hour");
    await eventually(
      async () => (await it.perdure.schedules.list()).every(({ nextAt }) => nextAt!.getUTCHours() === hour + 1),
      20_000,
    );
  };
  await next(1);
  await eventually(async () => (await all()).every((line) => line.endsWith("running")));
  await next(2);
  await next(3);
  await eventually(async () => !(await all()).some((line) => line.endsWith("pending")));
  t.same(await all(), [
    "allow 1 running",
    "cancel_previous 1 cancelled",
    "skip 1 running",
    "allow 2 running",
    "cancel_previous 2 cancelled",
    "allow 3 running",
    "cancel_previous 3 running",
  ]);
  t.match(
    (
      await it.sql("select reason from :SCHEMA.run where schedule = 'cancel_previous' and state = 'cancelled' limit 1")
    )[0].reason,
    /the next slot of schedule "cancel_previous" came/,
  );
  const [skipped] = await it.sql(
    "select what, extract(hour from from_slot at time zone 'UTC')::int as from, extract(hour from until_slot at time zone 'UTC')::int as until, run_id from :SCHEMA.schedule_history where what = 'skipped'",
  );
  t.same(skipped, { what: "skipped", from: 2, until: 3, run_id: "skip@2027-01-01T01:00:00.000Z" });
  t.equal(
    logger.lines.filter((line) => /schedule "skip" leaves out its slots while run "skip@.*" is running/.test(line))
      .length,
    1,
    "said once",
  );
  open();
  await eventually(async () => !(await all()).some((line) => line.endsWith("running")));
  await next(4);
  t.ok(
    (await all()).some((line) => line.startsWith("skip 4")),
    "it goes on once the run has ended",
  );
});

test("a run id that somebody else has taken counts as fired, with a warning", async (t) => {
  const logger = collector();
  const it = await at(t, "2027-01-01T00:30:00Z", { logger });
  await it.perdure.start(tell.with({ id: "mine@2027-01-01T01:00:00.000Z" }), "by hand");
  await it.perdure.schedules.put(schedule("mine", { cron: "0 * * * *" }, tell, "x"));
  await pass(it.sql, "1 hour");
  const [status] = await eventually(async () => {
    const found = await it.perdure.schedules.list();
    return found[0]!.lastSlot && found;
  }, 20_000);
  t.equal(status!.lastRunId, "mine@2027-01-01T01:00:00.000Z");
  t.same(await slots(it, "mine"), []);
  t.ok(logger.lines.some((line) => /schedule "mine" found its run id taken/.test(line)));
  await pass(it.sql, "1 hour");
  await started(it, "mine", 1);
});

test("a schedule that cannot be fired does not stop the others, and says why", async (t) => {
  const logger = collector();
  const it = await at(t, "2027-01-01T00:30:00Z", { logger });
  for (const name of ["a-broken", "b-sound", "c-held"])
    await it.perdure.schedules.put(schedule(name, { cron: "0 * * * *" }, tell, name));
  await it.sql("update :SCHEMA.schedule set timezone = 'No/Where' where name = 'a-broken'");
  const { Client } = (await import("pg")).default;
  const stranger = new Client({ connectionString: it.url });
  await stranger.connect();
  await stranger.query(`begin; select from "${it.schema}".schedule where name = 'c-held' for update`);
  await pass(it.sql, "1 hour");
  await started(it, "b-sound", 1);
  const status = async (name: string) => (await it.perdure.schedules.list({ prefix: name }))[0]!;
  await eventually(async () => /No\/Where.*no time zone/.test((await status("a-broken")).trouble ?? ""));
  t.same(await slots(it, "c-held"), [], "nobody waits for a stranger's transaction");
  await stranger.query("rollback");
  await stranger.end();
  await started(it, "c-held", 1);
  await it.sql("update :SCHEMA.schedule set timezone = 'UTC' where name = 'a-broken'");
  await pass(it.sql, "31 seconds");
  await started(it, "a-broken", 1);
  t.equal((await status("a-broken")).trouble, null);
});

test("a slot that the clocks skip fires at the change, and one that comes twice the first time", async (t) => {
  const it = await at(t, "2027-03-14T06:59:58Z");
  const timezone = "America/New_York";
  await it.perdure.schedules.put(schedule("spring", { cron: "30 2 * * *", timezone }, tell, "x"));
  await started(it, "spring", 1);
  t.same(await slots(it, "spring"), ["2027-03-14 07:00:00"]);
  await setClock(it.sql, "2027-11-07T05:29:58Z");
  await it.perdure.schedules.put(schedule("autumn", { cron: "30 1 * * *", timezone, catchUp: "all" }, tell, "x"));
  await started(it, "autumn", 1);
  await setClock(it.sql, "2027-11-08T06:30:30Z");
  await started(it, "autumn", 2);
  t.same(await slots(it, "autumn"), ["2027-11-07 05:30:00", "2027-11-08 06:30:00"]);
});

test("a name that leaves no room for its slots gets a run id of its own", async (t) => {
  const it = await at(t, "2027-01-01T00:30:00Z");
  const [one, other] = [`${"ä".repeat(127)}1`, `${"ä".repeat(127)}2`];
  for (const name of [one, other]) await it.perdure.schedules.put(schedule(name, { cron: "0 * * * *" }, tell, "x"));
  await pass(it.sql, "1 hour");
  await started(it, one, 1);
  await started(it, other, 1);
  const ids = (await it.sql("select id, octet_length(id) as size from :SCHEMA.run")) as { id: string; size: number }[];
  t.equal(new Set(ids.map(({ id }) => id)).size, 2);
  for (const { id, size } of ids) {
    t.ok(size <= 255, `${size} bytes`);
    t.match(id, /^ä+~[0-9a-f]{32}@2027-01-01T01:00:00\.000Z$/);
  }
});

test("ten thousand tenants' schedules that are due in one minute fire, each once, for its slot", async (t) => {
  const it = await at(t, "2027-01-01T06:30:00Z", { workflows: [], worker: false });
  const many = Array.from({ length: 10_000 }, (_, n) =>
    schedule(
      `tenant-${String(n).padStart(5, "0")}`,
      { cron: "0 7 * * *", timezone: ["UTC", "Africa/Abidjan", "Europe/London"][n % 3]! },
      tell,
      `t${n}`,
    ),
  );
  const declaring: Perdure = await it.another({ schedules: many, application: "tenants" });
  t.equal((await declaring.schedules.list({ prefix: "tenant-", limit: 1000 })).length, 1000);
  await setClock(it.sql, "2027-01-01T06:59:50Z");
  await eventually(async () => (await it.sql("select count(*)::int as n from :SCHEMA.run"))[0].n === 10_000, 30_000);
  const made = "select count(distinct schedule)::int as of, array_agg(distinct slot_at) as slots from :SCHEMA.run";
  t.same(await it.sql(made), [{ of: 10_000, slots: [new Date("2027-01-01T07:00:00Z")] }]);
});

test("a drain fires what is due, and one that somebody holds does not keep it", async (t) => {
  const it = await bench(t, { workflows: [tell], worker: false });
  await setClock(it.sql, "2027-01-01T00:30:00Z");
  await it.perdure.schedules.put(schedule("s", { cron: "0 * * * *" }, tell, "drained"));
  t.same((await it.perdure.drain()).runs, 0);
  await it.sql("update :SCHEMA.schedule set timezone = 'No/Where' where name = 's'");
  await pass(it.sql, "1 hour");
  t.same((await it.perdure.drain({ deadline: "10s" })).runs, 0, "one that cannot be fired is put off");
  await it.sql("update :SCHEMA.schedule set timezone = 'UTC' where name = 's'");
  await pass(it.sql, "31 seconds");
  const { runs, next } = await it.perdure.drain({ deadline: "10s" });
  t.equal(runs, 1);
  t.ok(next && next > new Date(), "the next slot is its next timer");
  t.same(await it.sql("select state from :SCHEMA.run"), [{ state: "completed" }]);
});
