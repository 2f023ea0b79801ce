/** What `npm run matrix` knows: its table, its switches, and clocks that are off. The runs themselves are a command of their own. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test } from "tap";
import { bench } from "./support/engine.ts";
import { ENTRIES, entryOf } from "./support/matrix.ts";
import { SWITCHES } from "./support/without.ts";

test("everything that the suite is to pass under has an entry, and so has each switch", (t) => {
  const asked = [
    "hints",
    "locks",
    "skip",
    "pgbouncer",
    "serializable",
    "statement-timeout",
    "clock-ahead",
    "clock-behind",
  ];
  const versions = ["pg14", "pg15", "pg16", "pg17", "pg18", "node20", "node22", "node24"];
  for (const name of [...asked, ...versions]) t.ok(ENTRIES[name], name);
  for (const [name, what] of Object.entries(SWITCHES)) t.match(ENTRIES[name], { what, without: [name] });
  for (const major of [14, 15, 16, 17, 18]) t.ok(ENTRIES[`pg${major}`]!.postgres!.startsWith(`${major}.`));
  t.equal(ENTRIES["clock-ahead"]!.aheadMs, -ENTRIES["clock-behind"]!.aheadMs!);
  t.end();
});

test("entries go together, and what cannot is refused", (t) => {
  t.match(entryOf("pg14+serializable+skip+told"), {
    postgres: ENTRIES.pg14!.postgres,
    settings: { default_transaction_isolation: "serializable", lock_timeout: "250ms" },
    without: ["skip", "told"],
  });
  t.throws(() => entryOf("pg14+pg15"), /"pg14\+pg15" names postgres more than once/);
  t.throws(() => entryOf("pg13"), /no such entry: "pg13"; there are /);
  t.end();
});

test("the clock that is loaded before a process is off, and its dates are dates", async (t) => {
  const preload = fileURLToPath(new URL("support/clock-ahead.js", import.meta.url));
  const code =
    "const d = new Date(); console.log(JSON.stringify([Date.now(), +d, d instanceof Date, d.constructor === Date, +new Date(5), Date.UTC(1970, 0)]))";
  const env = { ...process.env, PERDURE_TEST_AHEAD_MS: "7200000", NODE_OPTIONS: "" };
  const { stdout } = await promisify(execFile)(process.execPath, ["--import", preload, "-e", code], { env });
  const [now, at, ...rest] = JSON.parse(stdout) as [number, number, boolean, boolean, number, number];
  const ahead = (ms: number): number => Math.round((ms - Date.now()) / 3_600_000);
  t.same([ahead(now), ahead(at)], [2, 2]);
  t.same(rest, [true, true, 5, 0]);
});

test("without a session lock an engine holds none, says so, and leads all the same", async (t) => {
  const { sql } = await bench(t, { sessionLock: false });
  const held = `select from pg_locks where locktype = 'advisory' and ((classid::bigint << 32) | objid::bigint) = any($1::bigint[])`;
  const workers = await sql("select id, locked from :SCHEMA.worker");
  t.match(workers, [{ locked: false }]);
  t.same(await sql(held, [workers.map(({ id }) => id)]), []);
  t.same(await sql("select worker from :SCHEMA.leader"), [{ worker: workers[0].id }]);
});
