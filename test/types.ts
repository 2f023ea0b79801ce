/**
 * The public types, held by the compiler: `npm run check` fails when one of them changes. Nothing here runs.
 * `// @ts-expect-error` marks what must be refused.
 */

import {
  type ChildHandle,
  type ControlledMany,
  currentRun,
  type currentStep,
  type Duration,
  durable,
  event,
  type FailedTry,
  type HistoryEntry,
  named,
  type now,
  Perdure,
  type patched,
  type Received,
  type Retry,
  type RunHandle,
  type RunInfo,
  type RunPage,
  race,
  type random,
  runStep,
  type Schedule,
  type ScheduleStatus,
  type SentMany,
  type Slept,
  type Startable,
  type StepInfo,
  type Stream,
  schedule,
  sleep,
  sleepUntil,
  start,
  step,
  stream,
  type TransactionClient,
  transaction,
  type uuid,
  type Value,
  value,
  type Workflow,
  workflow,
} from "perdure";
import type pg from "pg";
import * as v from "valibot";
import { z } from "zod";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_equal: Equal<A, B>): void => {};

// ---- the program a reader sees first

const createOrder = step("create-order", async (orderId: string) => void orderId);
const reserveInventory = step(
  { name: "reserve-inventory", retry: { type: "exponential", maxAttempts: 5, baseDelay: "1s" } },
  async (orderId: string) => void orderId,
);
const fulfillOrder = step("fulfill-order", async (orderId: string) => void orderId);
const releaseInventory = step("release-inventory", async (orderId: string) => void orderId);
const paymentReceived = event<{ amount: number }>("payment-received");

const processOrder = workflow("process-order", async (orderId: string) => {
  await createOrder(orderId);
  await reserveInventory(orderId);
  const payment = await paymentReceived.wait({ timeout: { minutes: 30 } });
  if (payment) await fulfillOrder(orderId);
  else await releaseInventory(orderId);
});

export async function main(): Promise<void> {
  const perdure = new Perdure({ database: process.env.DATABASE_URL, workflows: [processOrder] });
  await perdure.launch();
  const run = await perdure.start(processOrder.with({ id: "order-42" }), "order-42");
  await perdure.send("order-42", paymentReceived, { amount: 99 });
  await run.result();
  await perdure.shutdown();
}

// ---- steps keep their function's own type

const asyncStep = step("a", async (id: string, count?: number) => ({ id, count }));
same<Parameters<typeof asyncStep>, [id: string, count?: number | undefined]>(true);
same<ReturnType<typeof asyncStep>, Promise<{ id: string; count: number | undefined }>>(true);

const syncStep = step("s", (id: string) => id.length);
same<Parameters<typeof syncStep>, [id: string]>(true);
same<ReturnType<typeof syncStep>, Promise<number>>(true);

const maybeStep = step("m", (id: string): number | Promise<number> => (id ? 1 : Promise.resolve(2)));
same<Awaited<ReturnType<typeof maybeStep>>, number>(true);
void maybeStep("x").then((value) => value.toFixed());

const genericStep = step("g", async <T>(value: T): Promise<T[]> => [value]);
export const ofNumbers: Promise<number[]> = genericStep(1);
export const ofStrings: Promise<string[]> = genericStep("x");
// @ts-expect-error a generic keeps its argument's type
export const ofOthers: Promise<number[]> = genericStep("x");

const restStep = step("r", async (first: number, ...more: string[]) => more.length + first);
same<Parameters<typeof restStep>, [first: number, ...more: string[]]>(true);

// @ts-expect-error an argument of another type
void asyncStep(1);
// @ts-expect-error an argument is missing
void asyncStep();
// @ts-expect-error one argument too many
void syncStep("x", "y");
// @ts-expect-error a step needs a function
step("no");
// @ts-expect-error options without a name
step({ retry: { type: "never" } }, async () => {});
// @ts-expect-error an unknown option
step({ name: "x", retires: 3 }, async () => {});
// @ts-expect-error onCrash is retry or fail
step({ name: "x", onCrash: "ignore" }, async () => {});

void asyncStep
  .with({ retry: { type: "never" }, timeout: "1m", reference: "parcel-1" })("x")
  .then(({ id }) => id);
void asyncStep.with({ reference: { id: "parcel-1", onConflict: "return_existing" } })("x", 2);
same<ReturnType<typeof asyncStep.with>, typeof asyncStep>(true);
export const genericCopy: Promise<boolean[]> = genericStep.with({ timeout: 5 })(true);
// @ts-expect-error a step has no id, its calls have references
asyncStep.with({ id: "x" });
// @ts-expect-error onConflict needs a reference
asyncStep.with({ onConflict: "error" });
// @ts-expect-error a name is not changed by a copy
asyncStep.with({ name: "b" });

same<ReturnType<typeof runStep<number>>, Promise<number>>(true);
void runStep("sum", () => 1).then((n) => n.toFixed());
void runStep("sum", async () => "x").then((s) => s.trim());
// @ts-expect-error an anonymous step takes no arguments
void runStep("sum", (n: number) => n);

// ---- transactions are called without tx

const debit = transaction("debit", async (tx, account: string, cents: number) => {
  const { rows, rowCount } = await tx.query("select $1", [account, cents]);
  return { rows, rowCount };
});
same<Parameters<typeof debit>, [account: string, cents: number]>(true);
same<Awaited<ReturnType<typeof debit>>["rowCount"], number | null>(true);
const byPool = transaction(
  "by-pool",
  async (tx: pg.PoolClient, id: string) => (await tx.query<{ n: number }>("select 1 n")).rows[0]!.n + id.length,
);
same<Parameters<typeof byPool>, [id: string]>(true);
same<ReturnType<typeof byPool>, Promise<number>>(true);
const byClient = transaction({ name: "by-client", timeout: "5s" }, async (tx: pg.ClientBase) => void tx.on);
same<Parameters<typeof byClient>, []>(true);
const syncTransaction = transaction("sync", (_tx: TransactionClient, n: number) => n);
same<ReturnType<typeof syncTransaction>, Promise<number>>(true);
void debit.with({ timeout: "1s" })("a", 1);
// @ts-expect-error tx is not the caller's
void byPool(null, "x");
// @ts-expect-error an argument is missing
void debit("a");

// ---- workflows: any number of arguments, the function's result

const twoArguments = workflow("two", async (a: string, b?: number) => ({ a, b }));
same<typeof twoArguments, Workflow<[a: string, b?: number], { a: string; b: number | undefined }>>(true);
const syncWorkflow = workflow(
  { name: "sync", version: "2", retry: { type: "fixed", maxAttempts: 3, delay: 5 } },
  (n: number) => n > 1,
);
same<typeof syncWorkflow, Workflow<[n: number], boolean>>(true);
const nothing = workflow("nothing", async () => {});
same<typeof nothing, Workflow<[], void>>(true);
same<ReturnType<typeof twoArguments>, Promise<{ a: string; b: number | undefined }>>(true);
void twoArguments("x", 1);
// @ts-expect-error an argument of another type
void twoArguments(1);
// @ts-expect-error an unknown option
workflow({ name: "x", retires: 3 }, async () => {});
// @ts-expect-error replay is strict or flexible
workflow({ name: "x", replay: "loose" }, async () => {});

same<ReturnType<typeof queued>, Startable<[orderId: string], void>>(true);
const queued = () =>
  processOrder.with({ id: "a", onConflict: "return_existing", queue: "q", priority: -5, retry: { type: "never" } });
export const copies: Workflow<[orderId: string], void>[] = [
  processOrder,
  processOrder.with({ queue: "q", timeout: "1h" }),
];
new Perdure({ workflows: [processOrder, twoArguments, syncWorkflow.with({ priority: 1 })] });
// @ts-expect-error a copy with an id names one particular run
new Perdure({ workflows: [processOrder.with({ id: "order-42" })] });
// @ts-expect-error a copy with a delay names one particular run
new Perdure({ workflows: [processOrder.with({ delay: "1h" })] });
// @ts-expect-error a copy with an instant names one particular run
new Perdure({ workflows: [processOrder.with({ startAt: new Date() })] });
// @ts-expect-error a copy of such a copy names it still
new Perdure({ workflows: [processOrder.with({ id: "order-42" }).with({ queue: "q" })] });
// @ts-expect-error a step is no workflow
new Perdure({ workflows: [createOrder] });
// @ts-expect-error an unknown option
processOrder.with({ prio: 1 });
// @ts-expect-error a Date, not a text
processOrder.with({ startAt: "2030-01-01" });

// ---- decorated methods keep their types

export class Checkout<T> {
  #orders: T[] = [];
  @step({ retry: { type: "fixed", maxAttempts: 3, delay: "1s" } })
  async reserve(orderId: string, count?: number): Promise<{ orderId: string; count: number | undefined }> {
    return { orderId, count };
  }
  @transaction()
  protected async book(order: T): Promise<void> {
    this.#orders.push(order);
  }
  @step()
  async generic<U>(value: U): Promise<U[]> {
    return [value];
  }
  @workflow({ version: "2" })
  async process(orderId: string, order: T): Promise<number> {
    await this.book(order);
    return (await this.reserve(orderId)).orderId.length;
  }
  @step()
  private async hidden(): Promise<void> {
    await this.hidden();
  }
  // @ts-expect-error a step returns a promise
  @step()
  sync(): number {
    return 1;
  }
  // @ts-expect-error a step is no generator
  @step()
  async *generator(): AsyncGenerator<number> {
    yield 1;
  }
  // @ts-expect-error a step belongs to an instance
  @step()
  static async ofClass(): Promise<void> {}
  // @ts-expect-error a private method has no name outside
  @workflow()
  async #private(): Promise<void> {
    await this.#private();
  }
  // @ts-expect-error a field is no method
  @workflow()
  field = 1;
  // @ts-expect-error an accessor is no method
  @workflow()
  get accessor(): number {
    return 1;
  }
  // @ts-expect-error a symbol is no name
  @workflow()
  async [Symbol.asyncDispose](): Promise<void> {}
  // @ts-expect-error an unknown option
  @workflow({ retires: 1 })
  async options(): Promise<void> {}
  // @ts-expect-error parentheses are missing
  @workflow
  async bare(): Promise<void> {}
  // @ts-expect-error a name is an option
  @workflow("named")
  async text(): Promise<void> {}
}
// @ts-expect-error a class is no method
@workflow()
export class Decorated {}

const checkout = new Checkout<boolean>();
same<Parameters<typeof checkout.reserve>, [orderId: string, count?: number | undefined]>(true);
same<ReturnType<typeof checkout.reserve>, Promise<{ orderId: string; count: number | undefined }>>(true);
export const generics: Promise<Date[]> = checkout.generic(new Date());
same<typeof processMethod, () => Workflow<[orderId: string, order: boolean], number>>(true);
const processMethod = () => durable(checkout.process);
export const copiesOfMethods = (): Workflow<[orderId: string, order: boolean], number>[] => [
  durable(checkout.process).with({ queue: "q" }),
];
same<ReturnType<typeof namedCheckout>, Checkout<boolean>>(true);
const namedCheckout = () => named("eu", checkout);
export const startedMethods = async (perdure: Perdure): Promise<void> => {
  const run = await perdure.start(durable(checkout.process).with({ id: "order-42" }), "order-42", true);
  same<typeof run, RunHandle<number>>(true);
  // @ts-expect-error an argument is missing
  await perdure.start(durable(checkout.process), "order-42");
  schedule("s", { every: "1h" }, durable(checkout.process), "order-42", true);
  // @ts-expect-error a copy with an id names one particular run
  schedule("s", { every: "1h" }, durable(checkout.process).with({ id: "order-42" }), "order-42", true);
};
new Perdure({ workflows: [checkout, named("eu", checkout), processOrder, durable(checkout.process)] });
// @ts-expect-error an instance, not its class
new Perdure({ workflows: [Checkout] });
// @ts-expect-error a function that is no workflow
new Perdure({ workflows: [async () => {}] });
// @ts-expect-error a method is no workflow by its type
new Perdure({ workflows: [checkout.process] });
// @ts-expect-error a text is no instance
named("eu", "checkout");

// ---- schedules: the arguments are the workflow's, and many runs are made

same<ReturnType<typeof nightly>, Schedule>(true);
const nightly = () =>
  schedule(
    "s",
    { cron: "0 2 * * *", timezone: "Europe/Berlin", overlap: "allow", catchUp: "all" },
    twoArguments,
    "x",
    1,
  );
export const scheduled: Schedule[] = [
  schedule("s", { every: "1h" }, twoArguments, "x"),
  schedule("s", { every: { hours: 1 }, overlap: undefined }, nothing),
  schedule("s", { cron: "0 * * * *" }, processOrder.with({ queue: "q", tags: ["nightly"] }), "order"),
];
new Perdure({ schedules: scheduled, application: "shop" });
// @ts-expect-error an argument of another type
schedule("s", { every: "1h" }, twoArguments, 1);
// @ts-expect-error an argument is missing
schedule("s", { every: "1h" }, twoArguments);
// @ts-expect-error an argument too many
schedule("s", { every: "1h" }, nothing, 1);
// @ts-expect-error a cron or an interval
schedule("s", { cron: "* * * * *", every: "1h" }, nothing);
// @ts-expect-error an interval has no zone
schedule("s", { every: "1h", timezone: "UTC" }, nothing);
// @ts-expect-error neither a cron nor an interval
schedule("s", {}, nothing);
// @ts-expect-error an unknown policy
schedule("s", { every: "1h", overlap: "queue" }, nothing);
// @ts-expect-error a copy with an id names one particular run
schedule("s", { every: "1h" }, processOrder.with({ id: "order-42" }), "order");
// @ts-expect-error a copy with a delay names one particular run
schedule("s", { every: "1h" }, processOrder.with({ delay: "1h" }), "order");
// @ts-expect-error a copy with an instant names one particular run
schedule("s", { every: "1h" }, processOrder.with({ startAt: new Date() }), "order");
// @ts-expect-error a step cannot be scheduled
schedule("s", { every: "1h" }, createOrder, "order");
// @ts-expect-error a workflow, not its name
new Perdure({ schedules: ["nightly"] });
export const changes = async (perdure: Perdure): Promise<void> => {
  same<ReturnType<typeof listed>, Promise<ScheduleStatus[]>>(true);
  const listed = () => perdure.schedules.list({ prefix: "a", after: "b", limit: 5 });
  same<ReturnType<typeof triggered>, Promise<RunHandle>>(true);
  const triggered = () => perdure.schedules.trigger("s");
  await perdure.schedules.put(nightly());
  // @ts-expect-error a schedule, not its name
  await perdure.schedules.put("s");
};
same<RunInfo["scheduledFor"], Date | null>(true);
same<RunInfo["queue"], string>(true);

// ---- events: what is sent and what is received

same<typeof waits, () => Promise<void>>(true);
export const waits = async (): Promise<void> => {
  same<Awaited<ReturnType<typeof forever>>, Received<{ amount: number }>>(true);
  const forever = () => paymentReceived.wait();
  const limited = () => paymentReceived.wait({ timeout: "30m" });
  same<Awaited<ReturnType<typeof limited>>, Received<{ amount: number }> | null>(true);
  const perhaps = (timeout: Duration | undefined) => paymentReceived.wait({ timeout });
  same<Awaited<ReturnType<typeof perhaps>>, Received<{ amount: number }> | null>(true);
  const { data, id, sentAt, reference } = await paymentReceived.wait();
  same<typeof data, { amount: number }>(true);
  same<typeof id, string>(true);
  same<typeof sentAt, Date>(true);
  same<typeof reference, string | undefined>(true);
  // @ts-expect-error a wait takes a timeout only
  void paymentReceived.wait({ within: "30m" });
};

const approved = event("approved");
const optional = event<string | null>("optional");
const checked = event({
  name: "checked",
  schema: {} as { "~standard": { version: 1; vendor: "x"; validate: (value: unknown) => { value: { ok: true } } } },
});
same<Awaited<ReturnType<(typeof checked)["wait"]>> extends Received<{ ok: true }> | null ? 1 : 0, 1>(true);
same<Awaited<ReturnType<(typeof approved)["wait"]>>, Received<null> | null>(true);

export async function sends(perdure: Perdure, handle: RunHandle<number>): Promise<void> {
  const one = () => perdure.send("id", paymentReceived, { amount: 1 }, { reference: "r", ignoreFinished: true });
  same<ReturnType<typeof one>, Promise<void>>(true);
  const many = () => perdure.send(["a", "b"] as const, paymentReceived, { amount: 1 });
  same<ReturnType<typeof many>, Promise<SentMany>>(true);
  const { sent, failed } = await many();
  same<typeof sent, string[]>(true);
  same<(typeof failed)[number]["id"], string>(true);
  await perdure.send("id", approved);
  await perdure.send("id", approved, null, { reference: "r" });
  await perdure.send(["id"], approved);
  await perdure.send("id", optional, null);
  await handle.send(paymentReceived, { amount: 1 });
  await handle.send(approved);
  // @ts-expect-error data is required unless it can be null
  await perdure.send("id", paymentReceived);
  // @ts-expect-error data is required unless it can be null
  await handle.send(paymentReceived);
  // @ts-expect-error data of another type
  await perdure.send("id", paymentReceived, { amount: "1" });
  // @ts-expect-error data of another type, to many
  await perdure.send(["a"], paymentReceived, { amount: "1" });
  // @ts-expect-error an event that takes no data
  await perdure.send("id", approved, { amount: 1 });
  // @ts-expect-error an unknown option
  await perdure.send("id", paymentReceived, { amount: 1 }, { ref: "r" });
  // @ts-expect-error an event, not its name
  await perdure.send("id", "payment-received", { amount: 1 });
}

// ---- values and streams: what is published and what is read

const progress = value<{ done: number; of?: number }>("progress");
const tokens = stream<string>({ name: "tokens" });
same<typeof progress, Value<{ done: number; of?: number }>>(true);
same<typeof tokens, Stream<string>>(true);
same<ReturnType<typeof progress.set>, Promise<void>>(true);
same<ReturnType<typeof tokens.close>, Promise<void>>(true);
void progress.set({ done: 1 });
void tokens.write("a");
// @ts-expect-error a value of another type
void progress.set({ done: "1" });
// @ts-expect-error an item of another type
void tokens.write(1);
// @ts-expect-error a value is set, not written
void progress.write({ done: 1 });
// @ts-expect-error a stream needs a name
stream({});
// @ts-expect-error an unknown option
value({ name: "x", nam: "y" });

export async function reads(run: RunHandle<string>): Promise<void> {
  same<Awaited<ReturnType<typeof run.get<{ done: number }>>>, { done: number } | undefined>(true);
  const latest = await run.get(progress);
  same<typeof latest, { done: number; of?: number } | undefined>(true);
  for await (const item of run.watch(progress)) same<typeof item, { done: number; of?: number }>(true);
  for await (const item of run.read(tokens, { from: 3 })) same<typeof item, string>(true);
  // @ts-expect-error a stream is read, not watched
  run.watch(tokens);
  // @ts-expect-error a value is watched, not read
  run.read(progress);
  // @ts-expect-error an unknown option
  run.read(tokens, { form: 3 });
  // @ts-expect-error from is a number
  run.read(tokens, { from: "3" });
}

// ---- sleeps, durations, retries, what code asks about itself

same<ReturnType<typeof sleep>, Promise<Slept>>(true);
same<ReturnType<typeof sleepUntil>, Promise<Slept>>(true);
same<Slept, { readonly woken: boolean }>(true);
export const sleeps = () => [sleep(5), sleep("nap", "1h"), sleepUntil(new Date()), sleepUntil("nap", new Date())];
// @ts-expect-error an instant is a Date
void sleepUntil(Date.now());
// @ts-expect-error a name alone is no duration
void sleep("nap");

export const durations: Duration[] = [
  0,
  1500,
  "250ms",
  "1.5h",
  "1h30m",
  "1d12h30m",
  { days: 1, hours: 2, milliseconds: 3 },
  { minutes: undefined, seconds: 1 },
];
// @ts-expect-error no unit
export const noUnit: Duration = "30";
// @ts-expect-error an unknown unit
export const noSuchUnit: Duration = "30 minutes";
// @ts-expect-error an unknown field
export const noSuchField: Duration = { weeks: 1 };

export const retries: Retry[] = [
  { type: "never" },
  { type: "never", shouldRetry: () => true },
  { type: "fixed", maxAttempts: 3, delay: "1s", shouldRetry: async (error: unknown) => error instanceof TypeError },
  { type: "exponential", maxAttempts: Infinity, baseDelay: { seconds: 1 }, factor: 3, maxDelay: "1h" },
  { type: "jittered", maxAttempts: 3, baseDelay: 100 },
];
// @ts-expect-error an unknown type
export const noSuchRetry: Retry = { type: "linear", maxAttempts: 3 };
// @ts-expect-error fixed has a delay
export const noDelay: Retry = { type: "fixed", maxAttempts: 3 };
// @ts-expect-error exponential has a baseDelay
export const noBase: Retry = { type: "exponential", maxAttempts: 3, delay: "1s" };

same<ReturnType<typeof currentRun>, RunInfo>(true);
same<ReturnType<typeof currentStep>, StepInfo>(true);
same<
  Pick<RunInfo, "id" | "workflow" | "version" | "attempt" | "signal">,
  {
    readonly id: string;
    readonly workflow: string;
    readonly version: string;
    readonly attempt: number;
    readonly signal: AbortSignal;
  }
>(true);
same<
  Omit<StepInfo, "tx">,
  { readonly name: string; readonly attempt: number; readonly signal: AbortSignal; readonly idempotencyKey: string }
>(true);
same<StepInfo["tx"], TransactionClient | undefined>(true);
same<ReturnType<typeof now>, Date>(true);
same<ReturnType<typeof uuid>, string>(true);
same<ReturnType<typeof random>, number>(true);
// @ts-expect-error what code is told about its run is not its to change
currentRun().id = "x";

// ---- outside

export async function outside(perdure: Perdure): Promise<void> {
  const started = () => perdure.start(twoArguments, "x", 1);
  same<Awaited<ReturnType<typeof started>>, RunHandle<{ a: string; b: number | undefined }>>(true);
  const configured = () => perdure.start(syncWorkflow.with({ id: "x", delay: "1h" }), 1);
  same<Awaited<ReturnType<typeof configured>>, RunHandle<boolean>>(true);
  const byName = () => perdure.start("two", "x", 1);
  same<Awaited<ReturnType<typeof byName>>, RunHandle>(true);
  same<ReturnType<typeof bare>, RunHandle>(true);
  const bare = () => perdure.get("id");
  const typed = () => perdure.get(syncWorkflow, "id");
  same<ReturnType<typeof typed>, RunHandle<boolean>>(true);
  const asserted = () => perdure.get<number>("id");
  same<ReturnType<typeof asserted>, RunHandle<number>>(true);
  const result = () => asserted().result({ timeout: "1m", signal: AbortSignal.timeout(5) });
  same<ReturnType<typeof result>, Promise<number>>(true);
  await asserted().cancel("because");
  await asserted().wake();
  same<
    Awaited<ReturnType<RunHandle["status"]>>["state"],
    "pending" | "running" | "suspended" | "paused" | "blocked" | "completed" | "failed" | "cancelled"
  >(true);
  // @ts-expect-error an argument of another type
  await perdure.start(twoArguments, 1);
  // @ts-expect-error an argument is missing
  await perdure.start(processOrder);
  // @ts-expect-error a step cannot be started
  await perdure.start(createOrder, "x");
  // @ts-expect-error an unknown option
  await asserted().result({ within: "1m" });
  same<ReturnType<Perdure["migrate"]>, Promise<{ applied: string[] }>>(true);
  await perdure.shutdown({ timeout: "5s" });
  await using scoped = new Perdure();
  void scoped;
}

class Declined extends Error {}
export const engines = (pool: pg.Pool) => [
  new Perdure(),
  new Perdure({ database: pool, worker: false, shutdownOn: ["SIGTERM"], errors: [Declined], logger: console }),
  new Perdure({
    database: { host: "h", password: async () => "p", max: 3 },
    schema: "s",
    listenUrl: undefined,
    lease: "10s",
    sessionLock: false,
    notify: false,
  }),
  new Perdure({ worker: { concurrency: 5, queues: ["a"] }, migrate: false, outside: "warn" }),
];
// @ts-expect-error an unknown option
new Perdure({ concurency: 5 });
// @ts-expect-error an unknown option of the worker
new Perdure({ worker: { concurency: 5 } });
// @ts-expect-error worker is false or its settings
new Perdure({ worker: true });

// ---- children and races

export async function children(): Promise<void> {
  const count = workflow("count", async (text: string, from?: number) => text.length + (from ?? 0));
  const child = await start(count.with({ id: "one", detached: true, tags: ["a"] }), "x", 2);
  same<typeof child, ChildHandle<number>>(true);
  same<Awaited<ReturnType<typeof child.result>>, number>(true);
  same<Awaited<ReturnType<typeof count>>, number>(true);
  // @ts-expect-error the argument is a string
  await start(count, 1);
  // @ts-expect-error a step is no workflow
  await start(createOrder, "x");
  await child.send(paymentReceived, { amount: 1 });
  // @ts-expect-error the data is missing
  await child.send(paymentReceived);
  const won = await race({ paid: paymentReceived, child, late: "1h", later: { minutes: 90 } });
  if (won.winner === "paid") same<typeof won.value, Received<{ amount: number }>>(true);
  else if (won.winner === "child") same<typeof won.value, number>(true);
  else same<typeof won.value, null>(true);
  // @ts-expect-error no such racer
  won.winner === "nobody";
  // @ts-expect-error a string that is no duration
  await race({ late: "soon" });
  for await (const mail of paymentReceived) {
    same<typeof mail, Received<{ amount: number }>>(true);
    break;
  }
}

export async function control(run: RunHandle<number>): Promise<void> {
  await run.pause();
  await run.resume();
  await run.retry({ replay: "flexible" });
  // @ts-expect-error no such policy
  await run.retry({ replay: "loose" });
  const forked = await run.fork({ from: "step", id: "new", version: "2" });
  same<typeof forked, RunHandle<number>>(true);
  // @ts-expect-error it must be said from where
  await run.fork({});
}

export async function finding(perdure: Perdure, run: RunHandle<number>): Promise<void> {
  const page = await perdure.list({ workflow: processOrder, state: ["failed", "blocked"], tags: ["a"] as const });
  same<typeof page, RunPage>(true);
  await perdure.list({ workflow: "process-order", state: "failed", limit: 5, after: page.next });
  // @ts-expect-error no such state
  await perdure.list({ state: "done" });
  // @ts-expect-error an unknown option
  await perdure.list({ status: "failed" });
  same<(typeof page.runs)[0]["due"], Date | null>(true);
  const entries = await run.history();
  same<typeof entries, HistoryEntry[]>(true);
  same<(typeof entries)[0]["errors"], readonly FailedTry[]>(true);
  same<typeof patched, (change: string) => boolean>(true);
  const many = await perdure.cancel({ workflow: processOrder }, { reason: "enough" });
  same<typeof many, ControlledMany>(true);
  await perdure.retry(["a", "b"], { replay: "flexible" });
  // @ts-expect-error a page is not a filter
  await perdure.cancel({ workflow: processOrder, limit: 5 });
  // @ts-expect-error one id is a handle's
  await perdure.cancel("a");
}

// ---- schemas: what goes in is what they take, what the function gets is what they return

const orderOf = z.object({
  id: z.string(),
  at: z.string().transform((text) => new Date(text)),
  note: z.string().optional(),
});
const totalOf = v.pipe(
  v.object({ cents: v.string() }),
  v.transform(({ cents }) => Number(cents)),
);

const bySchema = workflow({ name: "checked", input: orderOf, output: totalOf }, async (order) => {
  same<typeof order, { id: string; at: Date; note?: string | undefined }>(true);
  return { cents: "1" };
});
same<Parameters<typeof bySchema>, [input: { id: string; at: string; note?: string | undefined }]>(true);
same<ReturnType<typeof bySchema>, Promise<number>>(true);
const inferred = workflow(
  { name: "inferred", input: z.string().optional() },
  async (text, more: number) => [text, more] as const,
);
same<Parameters<typeof inferred>, [input: string | undefined, more: number]>(true);
const unchecked = workflow({ name: "unchecked", output: z.object({ n: z.number() }) }, async (n: number) => ({ n }));
same<Parameters<typeof unchecked>, [n: number]>(true);
same<ReturnType<typeof unchecked>, Promise<{ n: number }>>(true);
// @ts-expect-error the function takes something else than the schema returns
workflow({ name: "x", input: z.object({ n: z.string() }) }, async (given: { n: number }) => given);

const price = step({ name: "price", input: orderOf, output: totalOf }, async (order) => ({
  cents: `${order.at.getTime()}`,
}));
same<Parameters<typeof price>, [input: { id: string; at: string; note?: string | undefined }]>(true);
same<ReturnType<typeof price>, Promise<number>>(true);
const fetched = step({ name: "fetched", output: totalOf }, async (sku: string): Promise<unknown> => JSON.parse(sku));
same<Parameters<typeof fetched>, [sku: string]>(true);
same<ReturnType<typeof fetched>, Promise<number>>(true);
// @ts-expect-error the function takes something else than the schema returns
step({ name: "x", input: z.object({ n: z.string() }) }, async (given: { n: number }) => given);

const ordered = event({ name: "ordered", schema: orderOf });
export async function checkedEvents(perdure: Perdure): Promise<void> {
  const { data } = await ordered.wait();
  same<typeof data, { id: string; at: Date; note?: string | undefined }>(true);
  await perdure.send("id", ordered, { id: "1", at: "2026-11-01" });
  await perdure.send(["id"], ordered, { id: "1", at: "2026-11-01" });
  await perdure.get("id").send(ordered, { id: "1", at: "2026-11-01" });
  // @ts-expect-error what is received is not what is sent
  await perdure.send("id", ordered, { id: "1", at: new Date() });
  const first = await race({ ordered, late: "1s" });
  if (first.winner === "ordered")
    same<typeof first.value.data, { id: string; at: Date; note?: string | undefined }>(true);
}
