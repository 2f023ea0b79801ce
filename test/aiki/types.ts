/**
 * The types of `perdure/aiki`, held by the compiler: `npm run check` fails when one of them changes. Nothing here runs.
 * `// @ts-expect-error` marks what must be refused.
 */

import {
  type Client,
  client,
  createAiki,
  event,
  type Logger,
  type RunFacts,
  race,
  schedule,
  type Task,
  type TerminalState,
  task,
  type WaitResult,
  type WorkflowRun,
  type WorkflowRunHandle,
  worker,
  workflow,
} from "perdure/aiki";
import { z } from "zod";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_equal: Equal<A, B>): void => {};

// ---- tasks: input and output are inferred, void means no argument

const charge = task({ name: "charge", handler: async (input: { cents: number }) => ({ id: `c-${input.cents}` }) });
same<typeof charge, Task<{ cents: number }, { id: string }>>(true);
const ping = task({ name: "ping", async handler() {} });
same<typeof ping, Task<void, void>>(true);
const old = task({ name: "old", exec: (input: string) => input.length });
same<typeof old, Task<string, number>>(true);
const oldest = task({ name: "oldest", run: ({ payload }: { payload: Date }) => payload.getTime() });
same<typeof oldest, Task<Date, number>>(true);
const parsed = task({
  name: "parsed",
  schema: { input: z.object({ n: z.number() }) },
  handler: async (input) => input.n,
});
same<typeof parsed, Task<{ n: number }, number>>(true);

// ---- versions: context, events and payloads

interface Context {
  readonly traceId: string;
}
const orderV1 = workflow<Context>({ name: "order" }).v("1.0.0", {
  events: { paid: event<{ amount: number }>(), ping: event(), at: event<Map<string, Date>>() },
  retry: { type: "exponential", maxAttempts: 3, baseDelayMs: 10, maxDelayMs: 100, factor: 1.5 },
  async handler(run, input: { id: string; at: Date }) {
    same<typeof run.context, Context>(true);
    const facts: RunFacts = run;
    same<typeof facts.attempts, number>(true);
    const timed = await run.events.paid.wait({ timeout: { minutes: 30 } });
    // @ts-expect-error there may be none
    void timed.data;
    if (timed.timeout) return "late" as const;
    const amount: number = timed.data.amount;
    const { data } = await run.events.at.wait();
    same<typeof data, Map<string, Date>>(true);
    const child = await plainV1.startAsChild(run);
    const won = await race({ paid: run.events.paid, child, late: "1h" });
    if (won.winner === "paid") same<typeof won.value.data, { amount: number }>(true);
    else same<typeof won.value, null>(true);
    // @ts-expect-error no promise, which runs already
    await race({ paid: run.events.paid.wait() });
    const { cancelled } = await run.sleep("nap", { hours: 1 });
    same<typeof cancelled, boolean>(true);
    await run.sleep({ days: 1 });
    await ping.start(run);
    // @ts-expect-error it takes no input
    await ping.start(run, 1);
    const { id } = await charge.with("reference.id", input.id).start(run, { cents: amount });
    // @ts-expect-error the input is missing
    await charge.start(run);
    // @ts-expect-error nobody declared it
    void run.events.shipped;
    return id;
  },
});
const plainV1 = workflow({ name: "plain" }).v("1.0.0", { handler: async (run) => run.context });
const execV1 = workflow({ name: "exec" }).v("1", { exec: async (input: number, run) => `${run.id} ${input}` });
const oldestWorkflow = workflow({
  name: "oldest",
  version: "1",
  run: async ({ payload }: { workflowRun: WorkflowRun<null, any, any>; payload: { n: bigint } }) => payload.n,
});

export async function outside(aiki: Client, traced: Client<Context>): Promise<void> {
  const order = await orderV1.start(traced, { id: "1", at: new Date() });
  const result = await order.waitForStatus("completed", { timeout: { seconds: 60 } });
  same<typeof result, WaitResult<"completed", string>>(true);
  if (result.success) same<typeof result.state.output, string>(true);
  else if (result.cause === "run_terminated") same<typeof result.state, TerminalState<string>>(true);
  await order.events.paid.send({ amount: 1 });
  await order.events.ping.send();
  // @ts-expect-error an amount is wanted
  await order.events.paid.send();
  // @ts-expect-error not an end
  await order.waitForStatus("running");
  await orderV1.events.paid.sendByReferenceId(aiki, ["a", "b"], { amount: 1 });
  // @ts-expect-error the input is missing
  await orderV1.start(aiki);
  same<Awaited<ReturnType<typeof plainV1.start>>, WorkflowRunHandle<null, Record<never, never>>>(true);
  await plainV1.start(aiki);
  const text: string = await (await execV1.start(aiki, 1)).waitForCompletion();
  const n: bigint = await (await oldestWorkflow.enqueue(aiki, { payload: { n: 1n } })).waitForCompletion();
  void [text, n];

  // A copy that names one run is none to register or to schedule.
  const once = orderV1.with("reference.id", "x");
  const pooled = orderV1.with("pool", "gpu").with().opt("retry", { type: "never" });
  worker({ workflows: [orderV1, pooled, plainV1] });
  // @ts-expect-error one particular run
  worker({ workflows: [once] });
  const daily = schedule({ type: "cron", expression: "0 9 * * *", timezone: "Europe/Berlin" });
  await daily.activate(aiki, pooled, { id: "1", at: new Date() });
  // @ts-expect-error one particular run
  await daily.activate(aiki, once, { id: "1", at: new Date() });
  // @ts-expect-error the input is another
  await daily.activate(aiki, pooled, { id: 1 });
  // @ts-expect-error a cron has an expression
  schedule({ type: "cron", every: "1h" });
}

export async function together(own: Logger): Promise<void> {
  const aiki = createAiki({ pool: "postgres://localhost", workflows: [plainV1], logger: own });
  await aiki.start();
  await (await plainV1.start(aiki)).retry({ replay: "flexible" });
  const wanting = workflow({
    name: "wanting",
    version: "1",
    run: ({ payload }: { payload: { n: bigint } }) => payload.n,
  });
  // @ts-expect-error an input is wanted
  await wanting.enqueue(aiki);
  await aiki.stop();
}

same<ReturnType<typeof makeTraced>, Client<Context>>(true);
const makeTraced = () => client({ context: (run): Context => ({ traceId: run.id }) });
