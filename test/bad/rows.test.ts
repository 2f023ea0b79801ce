/** Rows of the table of bad inputs that no other file holds: each is refused in words, stores nothing, and the good call right after works. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import {
  event,
  Perdure,
  type PerdureError,
  type ScheduleSpec,
  schedule,
  sleepUntil,
  step,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import { sql as at, startCluster } from "../support/cluster.ts";
import { type Bench, bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { freshDatabase, inDatabase } from "../support/postgres.ts";
import { refusal } from "../support/refusal.ts";

const DEADLINE_MS = 60_000;
const PATIENCE = { timeout: "60s" } as const;
const NAME_RULE =
  "it must be 1 to 255 bytes of UTF-8 text without control characters, lone surrogates or blanks at its ends";
const TIME_RULE =
  'write milliseconds, a string such as "250ms", "30m" or "1h30m", or an object such as { minutes: 30 }';

type Refusal = ReturnType<typeof refusal>;

const said = (code: string, message: string): Refusal => ({ name: "PerdureError", code, message });

async function rejection(call: () => unknown): Promise<Refusal> {
  try {
    await call();
    return undefined;
  } catch (error) {
    return refusal(() => {
      throw error;
    });
  }
}

const noop = async (): Promise<void> => {};
const echo = workflow("echo", async (given: unknown) => given);

/** How many rows there are of anything that is stored of a run. */
async function stored({ sql }: Bench): Promise<number> {
  const [{ n }] = await sql(
    "select ((select count(*) from :SCHEMA.run) + (select count(*) from :SCHEMA.input) + (select count(*) from :SCHEMA.mail))::integer as n",
  );
  return n;
}

// ---- 1, 3, 8: names and ids

test("names of blanks or of another type are refused; what nobody sees in one is shown by its code", async (t) => {
  const refused = (what: string, why: string): Refusal => said("PERDURE_NAME", `${what} ${why}; ${NAME_RULE}`);
  t.strictSame(
    refusal(() => workflow("  ", noop)),
    refused("workflow name", '"  " (2 bytes) is only blanks'),
  );
  t.strictSame(
    refusal(() => workflow("order\n", noop)),
    refused("workflow name", '"order\\n" (6 bytes) contains a control character'),
  );
  t.strictSame(
    refusal(() => step(" reserve", noop)),
    refused("step name", '" reserve" (8 bytes) begins or ends with a blank'),
  );
  // It turns the text around where it is shown.
  const turned = workflow("pay\u202eorder", noop);
  const world = await bench(t, { workflows: [echo] });
  t.strictSame(
    await rejection(() => world.perdure.start(turned)),
    said(
      "PERDURE_UNKNOWN_WORKFLOW",
      'workflow "pay\\u202eorder" is not registered in this engine; add it to `workflows` of new Perdure()',
    ),
  );
  const noString = (id: unknown, shown: string): void => {
    const expected = said("PERDURE_NAME", `run id must be a string, not ${shown}; ${NAME_RULE}`);
    t.strictSame(
      refusal(() => echo.with({ id: id as string })),
      expected,
    );
    t.strictSame(
      refusal(() => world.perdure.get(id as string)),
      expected,
    );
  };
  noString(5, "5");
  noString(null, "null");
  noString({ id: "a" }, "{ id: 'a' }");
  t.strictSame(
    await rejection(() => world.perdure.start("x".repeat(1_000_000))),
    said(
      "PERDURE_UNKNOWN_WORKFLOW",
      `workflow "${"x".repeat(60)}"… is not registered in this engine; add it to \`workflows\` of new Perdure()`,
    ),
  );
  t.equal(await stored(world), 0);
  t.equal(await (await world.perdure.start(echo.with({ id: "good" }), 1)).result(PATIENCE), 1);
});

// ---- 29: errors

test("an error that is its own cause, of 10 MB, or that refuses to be read fails its run, and is stored in what one value may take", async (t) => {
  const huge = "x".repeat(10_000_000);
  const thrown: Record<string, () => unknown> = {
    cyclic: () => {
      const error = new Error("cyclic");
      error.cause = error;
      return error;
    },
    huge: () => Object.assign(new RangeError(huge), { code: huge, details: [huge] }),
    hostile: () => Object.defineProperty(new Error("hidden"), "message", { get: () => huge.at(-1)!.at(5)!.trim() }),
    deep: () => {
      let error = new Error("the last");
      for (let level = 0; level < 20_000; level += 1) error = new Error("deep", { cause: error });
      return error;
    },
  };
  const fails = step("fails", async (which: string) => {
    throw thrown[which]!();
  });
  const w = workflow("w", async (which: string) => fails(which));
  const world = await bench(t, { workflows: [w, echo] });
  for (const which of Object.keys(thrown)) {
    const run = await world.perdure.start(w.with({ id: which }), which);
    const error = (await run.result(PATIENCE).catch((caught: unknown) => caught)) as PerdureError;
    t.equal(error.code, "PERDURE_FAILED", which);
    t.ok(error.message.length < 100_000, `${which}: ${error.message.length} characters`);
    const [{ n }] = await world.sql(
      "select max(octet_length(c.value::text))::integer as n from :SCHEMA.checkpoint c join :SCHEMA.run r on r.key = c.run where r.id = $1",
      [which],
    );
    t.ok(n <= 1_048_576, `${which}: ${n} bytes`);
    if (which === "cyclic") t.equal((error.cause as Error).cause, error.cause);
    if (which === "huge") t.ok(error.cause instanceof RangeError && error.cause.message.length === 65_536);
  }
  t.equal(await (await world.perdure.start(echo, 1)).result(PATIENCE), 1);
});

// ---- 34, 41: times

test("an instant that Postgres cannot hold is refused at every door, and no timeout is negative or none", async (t) => {
  const far = new Date("+270000-01-01T00:00:00Z");
  const before = new Date("-000001-01-01T00:00:00Z");
  const world = await bench(t, { workflows: [echo] });
  const { perdure } = world;
  const doors: Record<string, (date: Date) => unknown> = {
    'startAt in with() of workflow "echo"': (startAt) => perdure.start(echo.with({ startAt }), 1),
    "createdAfter in list()": (createdAfter) => perdure.list({ createdAfter }),
    "createdBefore in cancel()": (createdBefore) => perdure.cancel({ createdBefore }),
    "deadline of drain()": (deadline) => perdure.drain({ deadline }),
  };
  for (const [door, call] of Object.entries(doors)) {
    for (const [date, shown] of [
      [far, "+270000-01-01T00:00:00.000Z"],
      [before, "-000001-01-01T00:00:00.000Z"],
      [new Date(Number.NaN), "Invalid Date"],
      ["2026-01-01" as unknown as Date, '"2026-01-01"'],
    ] as const) {
      if (door.startsWith("deadline") && typeof date === "string") continue;
      t.strictSame(
        await rejection(() => call(date)),
        said("PERDURE_OPTION", `${door} must be a valid Date of the years 1 to 9999, not ${shown}`),
      );
    }
  }
  t.equal(await stored(world), 0);
  const news = event("news");
  const waits = workflow("waits", async (which: string): Promise<unknown> => {
    if (which === "far") return sleepUntil(far);
    return news.wait({ timeout: which === "nan" ? Number.NaN : which === "negative" ? -1 : 8.64e15 });
  });
  const other = await world.another({ workflows: [waits] });
  const cause = async (which: string): Promise<unknown> => {
    const run = await other.start(waits, which);
    return ((await run.result(PATIENCE).catch((error: Error) => error.cause)) as Error).message;
  };
  t.equal(await cause("nan"), `timeout of event "news" is NaN, which is not finite; ${TIME_RULE}`);
  t.equal(await cause("negative"), `timeout of event "news" is -1, which is negative; ${TIME_RULE}`);
  t.equal(
    await cause("endless"),
    `timeout of event "news" is 8640000000000000, which is longer than 365000 days; ${TIME_RULE}`,
  );
  t.equal(
    await cause("far"),
    "instant of sleepUntil() must be a valid Date of the years 1 to 9999, not +270000-01-01T00:00:00.000Z",
  );
  t.equal(
    await (await perdure.start(echo.with({ startAt: new Date("9999-12-31") }), 1)).status().then((s) => s.state),
    "pending",
  );
});

// ---- 43 to 47: schedules

test("a schedule whose cron never fires, is of another dialect, or whose zone is none is refused before anything connects", async (t) => {
  const spec = (given: object): unknown => refusal(() => schedule("nightly", given as ScheduleSpec, echo, 1))?.message;
  t.equal(
    spec({ cron: "0 0 31 2 *" }),
    'cron of schedule "nightly" is "0 0 31 2 *", which never fires: its day of month "31" never comes in its month "2"; change one of them',
  );
  for (const dialect of ["@every 5m", "@reboot", "@hourly"]) {
    t.match(spec({ cron: dialect }), `cron of schedule "nightly" is "${dialect}", which`);
  }
  t.match(spec({ cron: null }), /^cron of schedule "nightly" is null, which is no cron expression; write 5 fields/);
  const zone = (timezone: string, help: string): void =>
    void t.equal(
      spec({ cron: "0 0 * * *", timezone }),
      `timezone of schedule "nightly" is "${timezone}", which is no time zone of the IANA database; ${help}`,
    );
  zone("Mars/Olympus", 'write one such as "Europe/Berlin" or "UTC"');
  zone("EST5EDT?", 'write one such as "Europe/Berlin" or "UTC"');
  zone("", 'write one such as "Europe/Berlin" or "UTC"');
  zone("europe/berln", 'did you mean "Europe/Berlin"?');
  const world = await bench(t, { workflows: [echo] });
  await world.perdure.schedules.put(schedule("nightly", { cron: "0 0 29 2 *", timezone: "Europe/Berlin" }, echo, 1));
  t.equal((await world.perdure.schedules.list())[0]!.name, "nightly");
});

// ---- 55: a standby

test("a standby refuses an engine and names itself; the primary beside it takes it", async (t) => {
  const primary = await startCluster(t);
  const standby = await standbyOf(t, primary);
  const url = (port: number): string => `postgres://${primary.user}@${primary.host}:${port}/${primary.database}`;
  const launch = async (port: number): Promise<Perdure> => {
    const perdure = new Perdure({ database: url(port), workflows: [echo], logger: collector() });
    t.teardown(() => perdure.shutdown({ timeout: "5s" }));
    await perdure.launch();
    return perdure;
  };
  t.strictSame(
    await rejection(() => launch(standby)),
    said(
      "PERDURE_READ_ONLY",
      `the server 127.0.0.1:${standby} is a standby: connect to the primary, with a role that may write`,
    ),
  );
  t.same(await at(primary, "select from pg_namespace where nspname = 'perdure'"), []);
  const perdure = await launch(primary.port);
  t.equal(await (await perdure.start(echo, 1)).result(PATIENCE), 1);
});

/** The port of a server that follows this one. */
async function standbyOf(t: Test, primary: { host: string; port: number; user: string }): Promise<number> {
  const as = { uid: 65534, gid: 65534, cwd: "/", stdio: "ignore" as const };
  const bin = "/usr/lib/postgresql/15/bin";
  const dir = await mkdtemp(join(tmpdir(), "perdure-standby-"));
  await chown(dir, as.uid, as.gid);
  const data = join(dir, "data");
  const { host, port, user } = primary;
  const copy = ["-h", host, "-p", `${port}`, "-U", user, "-D", data, "-R", "--no-sync", "-c", "fast"];
  await once(spawn(join(bin, "pg_basebackup"), copy, as), "exit");
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const own = (probe.address() as { port: number }).port;
  probe.close();
  await once(probe, "close");
  const server = spawn(join(bin, "postgres"), ["-D", data, "-k", dir, "-h", "127.0.0.1", "-p", `${own}`, "-F"], as);
  t.teardown(async () => {
    const gone = once(server, "exit");
    server.kill("SIGINT");
    await gone;
    await rm(dir, { recursive: true, force: true });
  });
  await eventually(() => at({ ...primary, port: own }, "select 1"), DEADLINE_MS);
  return own;
}

// ---- 60: no connection left

test("a server without a connection left says so at launch; a running engine waits for one, and no run is failed", async (t) => {
  const admin = await freshDatabase(t);
  const role = `r_${Math.random().toString(36).slice(2, 10)}`;
  const run = (text: string): Promise<unknown> => inDatabase(admin, (client) => client.query(text));
  await run(`create role ${role} login connection limit 0`);
  t.teardown(() => run(`drop owned by ${role} cascade; drop role ${role}`).catch(() => {}));
  await run(`grant create on database ${new URL(admin).pathname.slice(1)} to ${role}`);
  const database = Object.assign(new URL(admin), { username: role }).href;
  const paid = event<number>("paid");
  const order: Workflow<[], number> = workflow("order", async () => (await paid.wait()).data);
  const perdure = new Perdure({ database, workflows: [order], worker: { warm: 0 }, logger: collector() });
  t.teardown(() => perdure.shutdown({ timeout: "5s" }));
  const { host } = new URL(admin);
  t.strictSame(
    await rejection(() => perdure.launch()),
    said(
      "PERDURE_CONNECTION",
      `while connecting to ${host}: too many connections for role "${role}"; the server has no connection left: lower \`max\` of the pools, or raise max_connections`,
    ),
  );
  await run(`alter role ${role} connection limit 20`);
  await perdure.launch();
  const handle = await perdure.start(order.with({ id: "a" }));
  await eventually(async () => (await handle.status()).state === "suspended", DEADLINE_MS);
  await run(`alter role ${role} connection limit 0`);
  await run(`select pg_terminate_backend(pid) from pg_stat_activity where usename = '${role}'`);
  const refused = await rejection(() => handle.status());
  t.equal(refused?.code, "PERDURE_CONNECTION");
  t.match(refused?.message, /^while reading the status of run "a": /);
  await run("select perdure.send_event('a', 'paid', '7')");
  const waiting = handle.result(PATIENCE);
  await run(`alter role ${role} connection limit 20`);
  t.equal(await waiting, 7);
});

// ---- 61: the disk is full

/** The server can add no row to this table, until it is said that it can. */
async function fill({ sql }: Bench, table: string): Promise<() => Promise<void>> {
  await sql(`create function :SCHEMA.full() returns trigger language plpgsql as $$ begin
    raise exception 'could not extend file "base/5/1259": No space left on device' using errcode = 'disk_full'; end $$`);
  await sql(`create trigger is_full before insert on :SCHEMA.${table} execute function :SCHEMA.full()`);
  return async () => void (await sql(`drop trigger is_full on :SCHEMA.${table}; drop function :SCHEMA.full()`));
}

test("while the disk is full a start, a send and an end wait or say so, nothing is failed, and with room they go on", async (t) => {
  const paid = event<number>("paid");
  const waits = workflow("waits", async () => (await paid.wait()).data);
  const world = await bench(t, { workflows: [echo, waits] });
  const { perdure } = world;
  for (const id of ["one", "two"]) {
    const run = await perdure.start(waits.with({ id }));
    await eventually(async () => (await run.status()).state === "suspended", DEADLINE_MS);
  }
  /** Made while there is no room in a table; again, where it was refused in the meantime. */
  const during = async (table: string, call: () => Promise<unknown>): Promise<void> => {
    const free = await fill(world, table);
    const done = call();
    const said = done.then(
      () => "done",
      ({ code, message }: PerdureError) => `${code}: ${message}`,
    );
    const first = await Promise.race([said, new Promise((resolve) => setTimeout(resolve, 500, "waits"))]);
    t.match(
      first,
      /^waits$|^PERDURE_DATABASE: while .*No space left on device; the server is out of disk space: free some$/,
    );
    const states = await world.sql(
      "select distinct state from :SCHEMA.run where state not in ('completed', 'running')",
    );
    t.same(
      states.filter(({ state }) => state !== "suspended" && state !== "pending"),
      [],
    );
    await free();
    await done.catch(call);
  };
  await during("run", () => perdure.start(echo.with({ id: "a" }), 1));
  t.equal(await perdure.get("a").result(PATIENCE), 1);
  await during("mail", () => perdure.send("one", paid, 5, { reference: "once", ignoreFinished: true }));
  t.equal(await perdure.get("one").result(PATIENCE), 5);
  await during("outcome", async () => {
    await perdure.send("two", paid, 7, { reference: "once", ignoreFinished: true });
    await perdure.get("two").result(PATIENCE);
  });
  t.equal(await perdure.get("two").result(PATIENCE), 7);
});

// ---- 63: pages

test("a page of no run or of too many is refused with the bounds", async (t) => {
  const { perdure } = await bench(t, { workflows: [echo], worker: false });
  for (const limit of [0, -1, 1e9, 1.5, Number.NaN, "5"]) {
    t.strictSame(
      await rejection(() => perdure.list({ limit: limit as number })),
      said(
        "PERDURE_OPTION",
        `limit of list() must be a whole number from 1 to 500, not ${typeof limit === "string" ? '"5"' : limit}`,
      ),
    );
  }
  const long = `a${" ".repeat(1_000_000)}`;
  const refused = said(
    "PERDURE_NAME",
    `idPrefix in list() "a${" ".repeat(59)}"… (1000001 bytes) is too long; ${NAME_RULE}`,
  );
  t.strictSame(await rejection(() => perdure.list({ idPrefix: long })), refused);
  t.same((await perdure.list({ idPrefix: "a " })).runs, []);
});

// ---- 66: the SQL verbs

test("what SQL verbs refuse is shown shortened, is of the right type, and leaves no row", async (t) => {
  const world = await bench(t, { workflows: [echo] });
  const refused = async (call: string): Promise<{ code: string; message: string }> => {
    try {
      await world.sql(`select :SCHEMA.${call}`);
      return { code: "", message: "" };
    } catch (error) {
      return error as { code: string; message: string };
    }
  };
  const long = `repeat('x', 1000000)`;
  for (const verb of [
    "send_event(LONG, 'paid')",
    "cancel_run(LONG)",
    "pause_run(LONG)",
    "resume_run(LONG)",
    "wake_run(LONG)",
  ]) {
    const { code, message } = await refused(verb.replace("LONG", long));
    t.equal(code, "PD005");
    t.equal(message, `${verb.split("(")[0]}: run_id "${"x".repeat(60)}" has 1000000 bytes; it must have 1 to 255`);
  }
  const choice = await refused(`start_run('echo', on_conflict => ${long})`);
  t.equal(
    choice.message,
    `start_run: on_conflict cannot be "${"x".repeat(60)}"; it must be "error" or "return_existing"`,
  );
  for (const wrong of [
    "start_run(5)",
    "start_run('echo', 5)",
    "send_event('a', 'b', 'c', 5)",
    "start_run('echo', '[]'::jsonb)",
  ]) {
    t.equal((await refused(wrong)).code, "42883", `${wrong}: Postgres itself knows no such function`);
  }
  t.equal((await refused("start_run('echo', priority => 99999999999)")).code, "42883");
  t.equal((await refused("start_run('echo', delay => 'soon')")).code, "22007", "no interval: Postgres itself says so");
  t.equal((await refused("start_run('echo', json_build_array(repeat('x', 100000000)))")).code, "PD005");
  t.equal(await stored(world), 0);
  const [{ id }] = await world.sql("select :SCHEMA.start_run('echo', json_build_array(1)) as id");
  t.equal(await world.perdure.get(id).result(PATIENCE), 1);
});

// ---- 67: huge batches

test("more rows than one statement of Postgres takes parameters are sent, cancelled and started in one call", async (t) => {
  const MANY = 66_000;
  const paid = event<number>("paid");
  const world = await bench(t, { workflows: [echo], worker: false });
  const ids = Array.from({ length: MANY }, (_, n) => `r-${n}`);
  await world.sql(
    "select :SCHEMA.start_run('echo', '[1]', id => 'r-' || n, delay => '1 day') from generate_series(0, 9) n",
  );
  const { sent, failed } = await world.perdure.send(ids, paid, 1);
  t.same(sent, ids.slice(0, 10));
  t.equal(failed.length, MANY - 10);
  t.equal(failed.at(-1)!.error.code, "PERDURE_NOT_FOUND");
  const cancelled = await world.perdure.cancel(ids, { reason: "too many" });
  t.same([cancelled.done.length, cancelled.failed.length], [10, MANY - 10]);
  t.equal((await world.sql("select count(*)::integer as n from :SCHEMA.mail"))[0].n, 10);
  const bounded = await Promise.all(
    [{ tags: ids }, { tags: Array.from({ length: 51 }, () => "a") }].map((options) =>
      rejection(() => world.perdure.start(echo.with(options), 1)),
    ),
  );
  t.strictSame(bounded, [
    said("PERDURE_OPTION", 'tags in with() of workflow "echo" are 66000; at most 50 are kept'),
    said("PERDURE_OPTION", 'tags in with() of workflow "echo" are 51; at most 50 are kept'),
  ]);
  t.equal(await (await (await world.another({ worker: {} })).start(echo, 1)).result(PATIENCE), 1);
});
