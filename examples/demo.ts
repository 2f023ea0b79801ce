/**
 * `npm run demo`: an order whose process is killed with -9 twice, once inside a step and once while it waits for its payment.
 * Another process goes on each time; the payment is sent by SQL. Needs no set-up: without DATABASE_URL it starts a Postgres of its own.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { styleText } from "node:util";
import { currentStep, event, Perdure, type RunHandle, step, workflow } from "perdure";
import pg from "pg";
import { startPostgres } from "../lib/db/embedded.ts";

const SCHEMA = "perdure_demo";
const STEPS = ["create-order", "reserve-inventory", "fulfill-order"] as const;

/** What a worker tells the demo: a step begins in it. */
interface Begun {
  readonly step: string;
}

const work = (ms: number) => async (_orderId: string) => {
  process.send!({ step: currentStep().name } satisfies Begun);
  await pause(ms);
};
const createOrder = step("create-order", work(50));
const reserveInventory = step("reserve-inventory", work(1000));
const fulfillOrder = step("fulfill-order", work(50));
const releaseInventory = step("release-inventory", work(50));
const paymentReceived = event<{ amount: number }>("payment-received");

const processOrder = workflow("process-order", async (orderId: string) => {
  await createOrder(orderId);
  await reserveInventory(orderId);
  const payment = await paymentReceived.wait({ timeout: { minutes: 30 } });
  if (payment) await fulfillOrder(orderId);
  else await releaseInventory(orderId);
  return payment ? `paid ${payment.data.amount}` : "not paid in time";
});

/** A worker process: works until it is killed, or told to stop. */
async function workUntilKilled(): Promise<void> {
  const perdure = new Perdure({ schema: SCHEMA, workflows: [processOrder], shutdownOn: ["SIGTERM"] });
  await perdure.launch();
  process.send!("ready");
}

async function demo(): Promise<void> {
  const server = process.env.DATABASE_URL ? undefined : await startPostgres({ durable: true });
  process.env.DATABASE_URL ||= server!.url;
  const db = new pg.Client({ connectionString: process.env.DATABASE_URL });
  await db.connect();
  try {
    await db.query(`drop schema if exists ${SCHEMA} cascade`);
    say(`A real PostgreSQL ${server ? "was started" : "was given"}; nothing else runs.`);
    await tell(db);
    await db.query(`drop schema ${SCHEMA} cascade`);
  } finally {
    await db.end();
    await server?.stop();
  }
}

/** The story. */
async function tell(db: pg.Client): Promise<void> {
  const shop = new Perdure({ schema: SCHEMA, worker: false });
  await shop.launch();
  const crew = new Crew();
  await crew.hire();
  const run = await shop.start(processOrder.with({ id: "order-42" }), "order-42");
  say(`The shop starts ${bold("order-42")}.`);

  await crew.begun("reserve-inventory", 1);
  await crew.hire();
  await pause(300);
  const killed = await crew.kill("inside the step reserve-inventory");
  await crew.begun("reserve-inventory", 2);
  say(`${took(killed)} later the other process runs that step again, and only that one.`);

  await until(run, "suspended");
  say(
    `The order waits for its payment, up to 30 minutes. Nothing is held for it: no process, no connection, no timer.`,
  );
  await crew.kill("while the order waits");
  await crew.hire();

  const sql = `select ${SCHEMA}.send_event('order-42', 'payment-received', '{"amount": 99}')`;
  say(`The payment comes by SQL:\n      ${styled("cyan", sql)}`);
  await db.query(sql);
  say(`${bold(`Result: ${await run.result()}`)}`);
  summary(crew.count);
  await crew.dismiss();
  await shop.shutdown();
}

/** The worker processes, by the order in which they were started. */
class Crew {
  readonly count = new Map<string, number>();
  readonly #members: { readonly no: number; readonly child: ChildProcess }[] = [];
  #hired = 0;

  async hire(): Promise<void> {
    const no = ++this.#hired;
    const child = fork(process.argv[1]!, { execArgv: [] });
    child.on("message", (message) => {
      if (message !== "ready") this.#note(no, (message as Begun).step);
    });
    this.#members.push({ no, child });
    await once(child, "message");
    say(`Process ${no} is at work.`);
  }

  #note(no: number, name: string): void {
    this.count.set(name, (this.count.get(name) ?? 0) + 1);
    console.log(`      process ${no} runs ${bold(name)}`);
  }

  /** Resolves when a step has begun for the n-th time. */
  async begun(name: string, times: number): Promise<void> {
    while ((this.count.get(name) ?? 0) < times) await pause(5);
  }

  /** Kills the oldest process. Returns when that was. */
  async kill(where: string): Promise<number> {
    const { no, child } = this.#members.shift()!;
    child.kill("SIGKILL");
    const at = performance.now();
    say(styled("red", `kill -9: process ${no} dies ${where}.`));
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    return at;
  }

  async dismiss(): Promise<void> {
    for (const { child } of this.#members.splice(0)) {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
  }
}

async function until(run: RunHandle, state: string): Promise<void> {
  while ((await run.status()).state !== state) await pause(10);
}

function summary(count: ReadonlyMap<string, number>): void {
  console.log("\n  step                 ran");
  for (const name of STEPS) {
    const times = count.get(name) ?? 0;
    const note =
      times === 1
        ? styled("green", "once: it did not run again")
        : styled("yellow", `${times} times: it was cut short once`);
    console.log(`  ${name.padEnd(20)} ${note}`);
  }
  console.log("");
}

function say(text: string): void {
  console.log(`\n  ${text}`);
}

function took(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

function styled(style: "red" | "green" | "yellow" | "cyan" | "bold", text: string): string {
  return process.stdout.isTTY ? styleText(style, text) : text;
}

function bold(text: string): string {
  return styled("bold", text);
}

if (process.send) await workUntilKilled();
else await demo();
