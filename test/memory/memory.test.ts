/** What a process needs and what it lets go of: a hundred large values at once, and thousands of runs one after the other. */
import { type ForkOptions, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import { freshSchema } from "../support/postgres.ts";
import type { Leaks } from "./leaks.ts";

const programOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const how = (more: ForkOptions): ForkOptions => ({ stdio: ["ignore", "pipe", "inherit", "ipc"], ...more });

/** The figures of the README. */
const HEAP_MIB = 512;
const RSS_MIB = 768;
/** Of 60,000 runs it is an eighth of this: what so few leave is mostly compiled code and caches. */
const BYTES_A_RUN = 1000;
const RUNS = 2000;

test(`a hundred runs at once, each with an argument, a step's result and a result of 1 MiB, need less than ${HEAP_MIB} MiB of heap`, async (t) => {
  const { url, schema } = await freshSchema(t);
  const env = { ...process.env, NODE_OPTIONS: "" };
  const child = fork(
    programOf("large.js"),
    [url, schema],
    how({ execArgv: [`--max-old-space-size=${HEAP_MIB}`], env }),
  );
  const closed = once(child, "close");
  let text = "";
  for await (const chunk of child.stdout!) text += chunk;
  t.equal((await closed)[0], 0, "it did not run out of memory");
  const found = JSON.parse(text) as { runs: number; wrong: number; rssMiB: number };
  t.match(found, { runs: 100, wrong: 0 });
  t.ok(found.rssMiB < RSS_MIB, `${found.rssMiB} MiB in all`);
});

test("runs of every kind leave nothing: no memory, timer, socket, listener, session, transaction, lock or row", async (t) => {
  const { url, schema } = await freshSchema(t);
  const env = { ...process.env, NODE_OPTIONS: "", DATABASE_URL: url, SCHEMA: schema };
  const child = fork(programOf("leaks.js"), [`${RUNS}`], how({ execArgv: ["--expose-gc"], env }));
  const closed = once(child, "close");
  const [found] = (await once(child, "message")) as [Leaks];
  t.equal((await closed)[0], 0, "the process ends by itself");
  const { before, after, end, rows, bytesPerRun } = found;
  t.comment(`${Math.round(bytesPerRun)} bytes a run`);
  t.ok(bytesPerRun < BYTES_A_RUN, `${Math.round(bytesPerRun)} bytes a run`);
  t.same(after.listeners, before.listeners, "listeners of the process");
  for (const kind of new Set([...Object.keys(before.resources), ...Object.keys(after.resources)]))
    t.ok(
      (after.resources[kind] ?? 0) <= (before.resources[kind] ?? 0) + 5,
      `${kind}: ${before.resources[kind]} before, ${after.resources[kind]} after`,
    );
  t.ok(after.sessions <= 13, `${after.sessions} sessions: ten of the pool, the flusher's, the lock's, the listener's`);
  t.ok(after.statements <= 40, `${after.statements} prepared statements in a session`);
  t.match(after, { locks: 1, transactions: 0 }, "its own lock, no open transaction");
  t.same(
    rows,
    { ready: 0, wait: 0, follower: 0, unfinished: 0, worker: 0, lane: 0, taken: 0 },
    "rows of what is unfinished, or of the process",
  );
  // Its end of the channel to this test is a pipe.
  t.match(end, { sessions: 0, locks: 0 });
  t.same(
    Object.keys(end.resources).filter((kind) => /TCP|Timeout|Immediate/.test(kind)),
    [],
    "nothing keeps the process",
  );
});
