/**
 * The programs of examples/frameworks, each with its real framework: driven over HTTP, told to stop in the middle of a step, and followed by a
 * second process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import pg from "pg";
import { type Test, test } from "tap";
import { eventually } from "./support/eventually.ts";
import { type Gate, gate } from "./support/gate.ts";
import { freshDatabase } from "./support/postgres.ts";
import { compile, ROOT } from "./support/readme.ts";

const PROGRAMS = `${ROOT}dist/examples/frameworks/`;
const PATIENCE_MS = 20_000;

/** Stands for what a step talks to: it answers when the gate is opened. */
interface Warehouse {
  readonly url: string;
  readonly asked: string[];
  readonly door: Gate;
}

async function openWarehouse(t: Test): Promise<Warehouse> {
  const asked: string[] = [];
  const door = gate();
  const server = createServer((request, response) => {
    asked.push(request.url!.slice(1));
    void door.opened.then(() => response.end("a parcel"));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, door };
}

interface Answer {
  readonly status: number;
  readonly body: any;
}

/** A program at work. */
class Served {
  readonly #process: ChildProcess;
  readonly ended: Promise<unknown[]>;
  printed = "";

  constructor(t: Test, program: string, env: NodeJS.ProcessEnv) {
    this.#process = spawn(process.execPath, [`${PROGRAMS}${program}`], {
      env: { ...process.env, PORT: "0", ...env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#process.stdout!.on("data", (chunk) => {
      this.printed += chunk;
    });
    this.ended = once(this.#process, "exit");
    t.teardown(() => this.#process.kill("SIGKILL"));
  }

  url(): Promise<string> {
    return eventually(() => /listening on (http:\S+)/.exec(this.printed)?.[1], PATIENCE_MS);
  }

  stop(): void {
    this.#process.kill("SIGTERM");
  }

  async call(method: string, path: string, body?: unknown): Promise<Answer> {
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    const response = await fetch(`${await this.url()}${path}`, {
      method,
      ...(text === undefined ? {} : { body: text, headers: { "content-type": "application/json" } }),
    });
    return { status: response.status, body: await response.json() };
  }

  async is(id: string, state: string): Promise<void> {
    await eventually(async () => (await this.call("GET", `/orders/${id}`)).body.state === state, PATIENCE_MS);
  }

  async refusesConnections(): Promise<void> {
    const url = await this.url();
    const refused = (error: Error): boolean => (error.cause as { code?: string }).code === "ECONNREFUSED";
    await eventually(() => fetch(url, { headers: { connection: "close" } }).then(() => false, refused), PATIENCE_MS);
  }
}

const order = (id: string, item = "a kettle") => ({ id, item });
const payment = (delivery: string) => ({ delivery, cents: 4200 });

/** What each program answers, whatever its framework. */
async function checkAnswers(t: Test, shop: Served): Promise<void> {
  const calls: [string, string, unknown, number, string?][] = [
    ["GET", "/health", undefined, 200],
    ["POST", "/orders", order("order-1"), 202],
    ["POST", "/orders", order("order-1"), 202],
    ["POST", "/orders", order("order-1", "a lamp"), 409, "PERDURE_CONFLICT"],
    ["POST", "/orders", { id: "order-2" }, 400],
    ["POST", "/orders", order("order\n2"), 400, "PERDURE_NAME"],
    ["POST", "/orders", "{", 400],
    ["GET", "/orders/order-2", undefined, 404, "PERDURE_NOT_FOUND"],
    ["POST", "/orders/order-2/payment", payment("d-1"), 404, "PERDURE_NOT_FOUND"],
    ["POST", "/orders/order-1/payment", { delivery: "d-1", cents: "many" }, 400],
  ];
  for (const [method, path, body, status, code] of calls) {
    const answer = await shop.call(method, path, body);
    t.match(
      { status: answer.status, code: answer.body.code },
      { status, code },
      `${method} ${path} ${JSON.stringify(body)}`,
    );
  }
  const large = await shop.call("POST", "/orders", order("x".repeat(1_200_000)));
  t.ok([400, 413].includes(large.status), "too large for the framework, or for a name");
  t.equal((await shop.call("GET", "/nowhere").catch(() => ({ status: 404 }))).status, 404, "no such path");
}

async function checkHandover(t: Test, program: string): Promise<void> {
  const warehouse = await openWarehouse(t);
  const database = await freshDatabase(t);
  const client = new pg.Client({ connectionString: database });
  await client.connect();
  t.teardown(() => client.end());
  const env = { DATABASE_URL: database, WAREHOUSE_URL: warehouse.url };
  const first = new Served(t, program, env);
  await checkAnswers(t, first);
  await first.is("order-1", "suspended");
  for (const _ of ["first", "again"])
    t.equal((await first.call("POST", "/orders/order-1/payment", payment("d-1"))).status, 202);
  await eventually(() => warehouse.asked.length > 0, PATIENCE_MS);

  // A request that is being answered when the signal comes.
  await client.query("begin");
  await client.query("lock table perdure.run in exclusive mode");
  const late = first.call("POST", "/orders", order("order-3"));
  const waits =
    "select from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())";
  await eventually(async () => (await client.query(waits)).rows.length > 0, PATIENCE_MS);
  first.stop();
  await first.refusesConnections();
  await client.query("commit");
  t.equal((await late).status, 202, "a request in flight is answered");

  // A step that is being worked on when the signal comes.
  await eventually(() => first.printed.includes("handing over"), PATIENCE_MS);
  warehouse.door.open();
  t.same(await first.ended, [0, null], "it ends by itself, with code 0");
  t.notMatch(first.printed, "order-1: shipped", "no new step has begun");
  const { rows } = await client.query("select id, state from perdure.runs where id = 'order-1'");
  t.same(rows, [{ id: "order-1", state: "pending" }], "the run is handed over");

  const second = new Served(t, program, env);
  await second.is("order-1", "completed");
  t.match(second.printed, "order-1: shipped");
  t.notMatch(second.printed, /order-1: (reserved|packing)/, "what was recorded does not run again");
  t.same(warehouse.asked, ["order-1"]);
  await second.is("order-3", "suspended");
  t.equal((await second.call("POST", "/orders/order-1/payment", payment("d-1"))).status, 202, "a repeated payment");
  t.match(await second.call("POST", "/orders/order-1/payment", payment("d-2")), {
    status: 409,
    body: { code: "PERDURE_FINISHED" },
  });
  second.stop();
  t.same(await second.ended, [0, null]);
}

const programs = {
  http: "http.js",
  fastify: "fastify.js",
  express: "express.js",
  hono: "hono.js",
  nest: "nest/main.js",
};

// Nest's decorators need settings of their own.
await compile(`${ROOT}examples/frameworks/nest`);

for (const [name, program] of Object.entries(programs)) {
  test(`${name}: SIGTERM in the middle of a step hands the run to the next process`, (t) => checkHandover(t, program));
}
