/** Programs in the shapes of Aiki's generations, as their users wrote them: unannotated where they were. `npm run check` reads it; nothing runs. */
// Older generations await what client() and worker() return.
/* oxlint-disable typescript/await-thenable */
import { client, createClient, event, schedule, task, type WorkflowRun, worker, workflow } from "perdure/aiki";

// ---- S2: workflow({ name, version, run({ workflowRun, payload }) }), nothing annotated
const ringAlarm = task({
  name: "ring-alarm",
  run({ payload }: { payload: { song: string } }) {
    return Promise.resolve(payload.song);
  },
  retry: { type: "fixed", maxAttempts: 3, delayMs: 1000 },
});
const morning = workflow({
  name: "morning-routine",
  version: "1.0.0",
  async run({ workflowRun }) {
    const song: string = await ringAlarm.run(workflowRun, { payload: { song: "a" }, idempotencyKey: "k" });
    return song.length;
  },
});
const explicit = workflow<{ id: string }, string>({
  name: "explicit",
  version: "1.0.0",
  async run({ payload, workflowRun }) {
    await ringAlarm.run(workflowRun, { payload: { song: workflowRun.params.payload.id } });
    return payload.id;
  },
});
const helped = async (run: WorkflowRun<any, any>, song: string) => ringAlarm.run(run, { payload: { song } });

// ---- S1: exec(input, run), nothing annotated that need not be
const onboarding = workflow({ name: "onboarding" });
const onboardingV1 = onboarding.v("1.0", {
  async exec(input: { email: string }, run) {
    const verified = await run.wait({ type: "event", event: "verified" }, { maxDurationMs: 1000 });
    if (!verified.received) return { ok: false as const, email: input.email };
    await run.sleep({ days: 1 });
    return { ok: true as const, email: await helped(run, input.email) };
  },
});
const sleeperV1 = onboarding.v("2.0", {
  async exec(_input, run) {
    await run.sleep({ hours: 24 });
  },
});

// ---- S0, S3, HEAD: an arrow as handler, a union as event, events after the handler
interface Context {
  readonly traceId: string;
}
const orderV1 = workflow<Context>({ name: "order" }).v("1.0.0", {
  handler: async (run, input: { orderId: string }) => {
    run.logger.child({ orderId: input.orderId }).info(run.context.traceId, { n: 1 });
    const paid = await run.events.paid.wait({ timeout: { minutes: 30 } });
    if (paid.timeout) return "late";
    return paid.data.type === "card" ? paid.data.last4 : paid.data.iban;
  },
  events: { paid: event<{ type: "card"; last4: string } | { type: "bank"; iban: string }>(), ping: event() },
  retry: { type: "jittered", maxAttempts: 3, baseDelayMs: 10, factor: 2, maxDelayMs: 50 },
});
const parentV1 = workflow<Context>({ name: "parent" }).v("1", {
  async handler(run, ids: string[]) {
    const children = await Promise.all(ids.map((orderId) => orderV1.startAsChild(run, { orderId })));
    const ends = await Promise.all(children.map((child) => child.waitForStatus("completed")));
    return ends.map((end) => (end.success ? end.state.output : end.cause));
  },
});

export async function outside(): Promise<void> {
  const aiki = await createClient({ url: "localhost:9090", redis: { host: "localhost", port: 6379 } });
  const old = await worker(aiki, { id: "w", workflowRunSubscriber: { pollIntervalMs: 100, maxBatchSize: 10 } });
  for (const each of [morning, explicit, onboarding, onboardingV1]) old.registry.add(each);
  await old.start();
  const length: number = await (await morning.enqueue(aiki, { payload: undefined })).waitForCompletion();
  const id: string = await (await explicit.enqueue(aiki, { payload: { id: "1" } })).waitForCompletion();
  await sleeperV1.start(aiki);
  const traced = client<Context>({
    url: "http://localhost:9850",
    apiKey: "k",
    context: (run) => ({ traceId: run.id }),
  });
  const order = await orderV1
    .with()
    .opt("trigger", { type: "delayed", delayMs: 5 })
    .opt("reference.id", "x")
    .opt("reference.conflictPolicy", "return_existing")
    .start(traced, { orderId: "1" });
  await orderV1.events.paid.send(traced, [order.id], { type: "bank", iban: "1" });
  await orderV1.events.ping.sendByReferenceId(traced, ["x"]);
  const end = await order.waitForStatus("completed", { interval: { milliseconds: 5 }, timeout: { seconds: 60 } });
  if (!end.success && end.cause === "run_terminated" && end.state.status === "failed" && end.state.cause === "task")
    void end.state.taskId;
  await schedule({ type: "interval", every: { hours: 1 } })
    .with("reference.id", "x")
    .activate(traced, parentV1, ["1"]);
  void [length, id];
}
