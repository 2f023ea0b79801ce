/** Every error a user meets is one of ours: a class, a stable code, and a text that ends in what to do; whatever happens to the database. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import {
  ERROR_CODES,
  type ErrorClass,
  event,
  NonRetryableError,
  Perdure,
  PerdureError,
  RunCancelledError,
  RunConflictError,
  RunFailedError,
  RunFinishedError,
  sleep,
  step,
  TimeoutError,
  workflow,
} from "../lib/index.ts";
import { sql as at, startCluster } from "./support/cluster.ts";
import { bench, collector } from "./support/engine.ts";
import { eventually } from "./support/eventually.ts";
import { freshDatabase, inDatabase } from "./support/postgres.ts";

const DEADLINE_MS = 10_000;
const LIB = fileURLToPath(new URL("../../lib/", import.meta.url));

test("every code is used in lib, and every code that is used is listed", (t) => {
  const files = readdirSync(LIB, { recursive: true }) as string[];
  const used = new Set<string>();
  for (const file of files.filter((name) => name.endsWith(".ts"))) {
    for (const [code] of readFileSync(join(LIB, file), "utf8").matchAll(/(?<=")PERDURE_\w+(?=")/g)) used.add(code!);
  }
  t.same([...used].sort(), Object.keys(ERROR_CODES).sort());
  for (const meaning of Object.values(ERROR_CODES)) t.match(meaning, /^[A-Z].*\.$/);
  t.end();
});

test("an error is told by its class, its name and its code", (t) => {
  const cases: [PerdureError, ErrorClass, keyof typeof ERROR_CODES][] = [
    [new PerdureError("PERDURE_OPTION", "m"), PerdureError, "PERDURE_OPTION"],
    [new NonRetryableError("m"), NonRetryableError, "PERDURE_NON_RETRYABLE"],
    [new RunFailedError("id", "m"), RunFailedError, "PERDURE_FAILED"],
    [new RunCancelledError("id", "why"), RunCancelledError, "PERDURE_CANCELLED"],
    [new RunConflictError("id", "m"), RunConflictError, "PERDURE_CONFLICT"],
    [new RunFinishedError("id", "m"), RunFinishedError, "PERDURE_FINISHED"],
    [new TimeoutError("m"), TimeoutError, "PERDURE_TIMEOUT"],
  ];
  for (const [error, type, code] of cases) {
    t.equal(error.name, type.name);
    t.equal(error.code, code);
    t.ok(error instanceof type && error instanceof PerdureError && error instanceof Error, type.name);
    t.match(String(error.stack), new RegExp(`^${type.name}: `));
    t.same(
      cases.filter(([, other]) => other !== PerdureError && error instanceof other).length,
      type === PerdureError ? 0 : 1,
    );
  }
  const cause = new Error("inner");
  t.equal(new RunFailedError("id", "m", { cause }).cause, cause);
  t.equal(new NonRetryableError("m", { cause }).cause, cause);
  t.same((cases[2]![0] as RunFailedError).runId, "id");
  t.end();
});

test("waiting for a result ends in time, by a signal, and at a cancellation, each in its own words", async (t) => {
  const w = workflow("w", async () => void (await sleep("1h")));
  const { perdure } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w.with({ id: "a" }));
  await t.rejects(run.result({ timeout: 20 }), {
    name: "TimeoutError",
    code: "PERDURE_TIMEOUT",
    message:
      'run "a" had not finished after 20 ms; it stays as it is, so wait again, or without a timeout. status() says what it waits for, or why it is blocked',
  });
  const reason = new Error("the user went away");
  const aborter = new AbortController();
  const given = run.result({ signal: aborter.signal });
  aborter.abort(reason);
  t.equal(await given.catch((error) => error), reason);
  const long = run.result({ timeout: { days: 30 } });
  t.equal(await Promise.race([long, new Promise((resolve) => setTimeout(resolve, 100, "waits"))]), "waits");
  const ended = t.rejects(long, {
    name: "RunCancelledError",
    code: "PERDURE_CANCELLED",
    message: 'run "a" was cancelled: changed my mind',
  });
  await run.cancel("changed my mind");
  await ended;
  await t.rejects(perdure.start(workflow("w", async (_n: number) => {}).with({ id: "a" }), 1), {
    name: "RunConflictError",
    code: "PERDURE_CONFLICT",
    message:
      'cannot start workflow "w": run "a" is taken and was started with other input (it is cancelled). Choose another id, or say onConflict: "return_existing"',
  });
});

// ---- whatever happens to the database

const paid = event<number>("paid");
const slow = step("slow", async () => {});
const w = workflow("w", async () => {
  await slow();
  await paid.wait();
});

/** Every operation's error, or "ok"; none may take longer than the deadline. */
async function everything(perdure: Perdure, id: string): Promise<Record<string, string>> {
  const handle = perdure.get(id);
  const calls: Record<string, () => Promise<unknown>> = {
    start: () => perdure.start(w),
    send: () => perdure.send(id, paid, 1),
    sendMany: () => perdure.send([id], paid, 1),
    status: () => handle.status(),
    result: () => handle.result({ timeout: "20s" }),
    handleSend: () => handle.send(paid, 1),
    wake: () => handle.wake(),
    cancel: () => handle.cancel(),
  };
  const told = Object.entries(calls).map(async ([name, call]): Promise<[string, string]> => {
    let timer: NodeJS.Timeout | undefined;
    const hangs = new Promise<string>((resolve) => {
      timer = setTimeout(resolve, 60_000, "hangs");
    });
    const outcome = call().then(() => "ok", tell);
    return [name, await Promise.race([outcome, hangs]).finally(() => clearTimeout(timer))];
  });
  return Object.fromEntries(await Promise.all(told));
}

function tell(error: unknown): string {
  if (!(error instanceof PerdureError)) return `raw: ${(error as Error).stack}`;
  const hasRemedy = /[;:,.(] ?[a-z`]/.test(error.message);
  // A cancellation is nobody's fault.
  return hasRemedy || error instanceof RunCancelledError ? error.code : `no remedy: ${error.message}`;
}

/** Collects what is rejected and heard by nobody, in any test of this file. */
const unheard: unknown[] = [];
process.on("unhandledRejection", (reason) => void unheard.push(reason));

const OPERATIONS = ["start", "send", "sendMany", "status", "result", "handleSend", "wake", "cancel"];
const each = (code: string): Record<string, string> => Object.fromEntries(OPERATIONS.map((name) => [name, code]));

test("a schema dropped under a running engine: every call says so, and shutdown ends", async (t) => {
  const { perdure, sql } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await eventually(async () => (await run.status()).state === "suspended", DEADLINE_MS);
  const waiting = run.result().catch(tell);
  await sql("drop schema :SCHEMA cascade");
  t.same(await everything(perdure, run.id), each("PERDURE_SCHEMA"));
  t.equal(await waiting, "PERDURE_SCHEMA");
  await perdure.shutdown({ timeout: 1000 });
});

test("rights revoked under a running engine: every call names them, and with them back the runs go on", async (t) => {
  const admin = await freshDatabase(t);
  const role = `r_${Math.random().toString(36).slice(2, 10)}`;
  const run = (text: string): Promise<unknown> => inDatabase(admin, (client) => client.query(text));
  await run(`create role ${role} login`);
  t.teardown(() => run(`drop owned by ${role} cascade; drop role ${role}`));
  const owner = new Perdure({ database: admin, logger: collector() });
  await owner.migrate();
  const grant = `select perdure.grant_to('${role}', 'worker')`;
  await run(grant);
  const url = Object.assign(new URL(admin), { username: role }).href;
  const perdure = new Perdure({ database: url, workflows: [w], logger: collector(), migrate: false });
  await perdure.launch();
  t.teardown(() => perdure.shutdown({ timeout: 1000 }));
  const handle = await perdure.start(w);
  await eventually(async () => (await handle.status()).state === "suspended", DEADLINE_MS);
  await run(`revoke all on all tables in schema perdure from ${role}`);
  t.equal(await perdure.migrate().catch(tell), "PERDURE_PRIVILEGE");
  t.same(await everything(perdure, handle.id), each("PERDURE_PRIVILEGE"));
  await run(grant);
  await handle.send(paid, 1);
  t.equal(await handle.result({ timeout: "20s" }), undefined);
});

test("sessions ended under a running engine: calls go through or say so, and the run goes on", async (t) => {
  const admin = await freshDatabase(t);
  const perdure = new Perdure({ database: admin, workflows: [w], logger: collector() });
  await perdure.launch();
  t.teardown(() => perdure.shutdown({ timeout: 1000 }));
  const victim = await perdure.start(w);
  await eventually(async () => (await victim.status()).state === "suspended", DEADLINE_MS);
  const run = await perdure.start(w);
  await eventually(async () => (await run.status()).state === "suspended", DEADLINE_MS);
  const end =
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
  for (let round = 0; round < 3; round += 1) {
    await inDatabase(admin, (client) => client.query(end));
    const told = await everything(perdure, victim.id);
    const allowed = ["ok", "PERDURE_CONNECTION", "PERDURE_STATE", "PERDURE_FINISHED", "PERDURE_CANCELLED"];
    t.same(
      Object.entries(told).filter(([, code]) => !allowed.includes(code)),
      [],
    );
  }
  await run.send(paid, 1);
  t.equal(await run.result({ timeout: "20s" }), undefined);
});

test("a server that stops: calls say so within their patience, shutdown ends, and the process exits by itself", async (t) => {
  const dying: (() => Promise<void>)[] = [];
  const target = await startCluster({ teardown: (fn) => dying.push(fn) });
  const stop = async (): Promise<void> => {
    for (const fn of dying.splice(0)) await fn();
  };
  t.teardown(stop);
  const url = `postgres://${target.user}@${target.host}:${target.port}/${target.database}`;
  const child = fork(fileURLToPath(new URL("./support/outage.js", import.meta.url)), [url, "child"]);
  t.teardown(() => child.kill("SIGKILL"));
  await once(child, "message");
  const perdure = new Perdure({ database: url, workflows: [w], logger: collector() });
  await perdure.launch();
  const run = await perdure.start(w);
  await eventually(async () => (await run.status()).state === "suspended", DEADLINE_MS);
  t.ok((await at(target, "select 1")).length);
  await stop();
  const migrating = perdure.migrate().catch(tell);
  t.same(await everything(perdure, run.id), each("PERDURE_CONNECTION"));
  t.equal(await migrating, "PERDURE_CONNECTION");
  const since = performance.now();
  await perdure.shutdown({ timeout: 500 });
  t.ok(performance.now() - since < 30_000, "shutdown does not wait for the server to come back");
  const exited = once(child, "exit");
  child.send("shutdown");
  const [{ result }] = await once(child, "message");
  t.equal(result, "PERDURE_STATE");
  t.same(await exited, [0, null]);
});

test("nothing was rejected that nobody heard", (t) => {
  t.same(unheard, []);
  t.end();
});
