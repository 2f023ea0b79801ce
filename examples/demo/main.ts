/** `npm run demo`: an order survives two kill -9, one inside a step and one while it waits for its payment. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Perdure } from "perdure";
import pg from "pg";
import { startPostgres } from "../../lib/db/embedded.ts";
import { processOrder } from "./order.ts";
import { paint, print, say, table } from "./screen.ts";

const SCHEMA = "perdure_demo";
const ORDER = "order-42";

interface Worker {
  readonly name: string;
  readonly process: ChildProcess;
}

/** Step → the workers that began it. */
const begun = new Map<string, string[]>();
const killed = new Set<string>();
let watcher: () => void = () => {};
const watch = (resolve: () => void): void => {
  watcher = resolve;
};

/** Resolves once a step has begun so often. */
async function untilBegun(name: string, times: number): Promise<void> {
  while ((begun.get(name)?.length ?? 0) < times) await new Promise<void>((resolve) => watch(resolve));
}

async function hire(name: string, url: string): Promise<Worker> {
  const path = fileURLToPath(new URL("./worker.js", import.meta.url));
  const process = fork(path, { env: { ...globalThis.process.env, DATABASE_URL: url } });
  process.on("message", ({ what, name: step }: { what: string; name: string }) => {
    if (what === "ready") return;
    if (what === "begins") begun.set(step, [...(begun.get(step) ?? []), name]);
    say(name, what === "begins" ? `${step} …` : `${step} ${paint("green", "done")}`);
    watcher();
  });
  await once(process, "message");
  say(name, paint("dim", `process ${process.pid} is at work`));
  return { name, process };
}

async function kill({ name, process }: Worker, where: string): Promise<number> {
  const at = performance.now();
  killed.add(name);
  process.kill("SIGKILL");
  await once(process, "exit");
  say("you", `${paint("red", `kill -9 ${process.pid}`)}   ${where}: ${name} is gone`, "red");
  return at;
}

function since(at: number): string {
  return paint("yellow", `${Math.round(performance.now() - at)} ms after the kill`);
}

async function show(url: string, db: pg.Pool): Promise<void> {
  const [a, b] = [await hire("worker A", url), await hire("worker B", url)];
  const perdure = new Perdure({ database: url, schema: SCHEMA, worker: false });
  await perdure.launch();

  say("you", `start ${ORDER}`, "magenta");
  a.process.send(ORDER);
  await untilBegun("reserve-inventory", 1);
  await pause(250);
  let gone = await kill(a, "inside reserve-inventory");
  await untilBegun("reserve-inventory", 2);
  say("", `${paint("yellow", "↑")} another process went on ${since(gone)}`);

  const run = perdure.get(processOrder, ORDER);
  while ((await run.status()).state !== "suspended") await pause(20);
  say("order", "waits up to 30 minutes for its payment: a row in Postgres, no process holds it", "blue");
  const c = await hire("worker C", url);
  gone = await kill(b, "while the order waits");

  const pay = `select ${SCHEMA}.send_event('${ORDER}', 'payment-received', '{"amount": 99}')`;
  say("psql", `${pay};`, "magenta");
  await db.query(pay);
  await untilBegun("fulfill-order", 1);
  say("", `${paint("yellow", "↑")} another process went on ${since(gone)}`);
  const result = await run.result();
  say("result", paint("green", JSON.stringify(result)), "green");
  print();
  await report(db);
  await perdure.shutdown();
  c.process.kill("SIGTERM");
  await once(c.process, "exit");
}

/** Which steps ran how often, and why none ran without need. */
async function report(db: pg.Pool): Promise<void> {
  const { rows } = await db.query(`select name, kind from ${SCHEMA}.steps where run_id = $1 order by finished_at`, [
    ORDER,
  ]);
  const lines = rows.map(({ name, kind }) => {
    const times = begun.get(name) ?? [];
    if (kind === "event") return [name, "–", "an event", "received once; no process was needed to wait"];
    const again =
      times.length > 1
        ? `ran again: ${times[0]} was killed inside it`
        : killed.has(times[0]!)
          ? "did NOT run again: its result was recorded"
          : "ran once";
    return [name, String(times.length), times.join(", then "), again];
  });
  table([["step", "ran", "in", "after the kills"], ...lines]);
}

const embedded = process.env.DATABASE_URL ? undefined : await startPostgres({ durable: false });
const url = embedded?.url ?? process.env.DATABASE_URL!;
const db = new pg.Pool({ connectionString: url, max: 1 });
try {
  await db.query(`drop schema if exists ${SCHEMA} cascade`);
  const { rows } = await db.query("show server_version");
  say(
    "postgres",
    `PostgreSQL ${rows[0].server_version}, ${embedded ? "started for this demo" : "yours, from DATABASE_URL"}`,
    "blue",
  );
  await show(url, db);
} finally {
  await db.query(`drop schema if exists ${SCHEMA} cascade`);
  await db.end();
  await embedded?.stop();
}
