/**
 * An agent that shows what it is doing while it does it, and asks a person before it acts. Its status is a value: any process reads the latest,
 * also while the run waits and holds no process. The person here is a few lines at the end; it could be a page that polls, or one that is
 * pushed to.
 */
import { event, Perdure, step, value, workflow } from "perdure";
import { fresh } from "./fresh.ts";

interface Status {
  readonly phase: "thinking" | "asking" | "acting" | "done";
  /** What a person is to decide. */
  readonly question?: string;
}
const status = value<Status>("status");
const decision = event<{ approve: boolean; remark?: string }>("decision");

// Stands for the model, which thinks for a while.
const think = step(
  "think",
  async (goal: string, remarks: string[]) => `${goal}${remarks.map((r) => `, ${r}`).join("")}`,
);
const act = step("act", async (plan: string) => {
  await status.set({ phase: "acting" }); // a step may publish too
  return `did: ${plan}`;
});

const agent = workflow("agent", async (goal: string) => {
  const remarks: string[] = [];
  for (;;) {
    await status.set({ phase: "thinking" });
    const plan = await think(goal, remarks);
    await status.set({ phase: "asking", question: `May I ${plan}?` });
    const { data } = await decision.wait();
    if (data.approve) {
      const result = await act(plan);
      await status.set({ phase: "done" });
      return result;
    }
    remarks.push(data.remark ?? "differently");
  }
});

await fresh("example_09");
const worker = new Perdure({ schema: "example_09", workflows: [agent] });
const website = new Perdure({ schema: "example_09", worker: false });
await Promise.all([worker.launch(), website.launch()]);
await worker.start(agent.with({ id: "agent-1" }), "refund order 42");

// The website knows the run by its id. Statuses that came and went between two looks may be missed, the latest never is.
const run = website.get("agent-1");
let answers = 0;
for await (const { question } of run.watch(status)) {
  if (!question) continue;
  console.log(`the agent asks: ${question}`);
  answers += 1;
  await run.send(decision, answers === 1 ? { approve: false, remark: "but only half of it" } : { approve: true });
}
console.log(await run.get(status));
console.log(await run.result());
await Promise.all([website.shutdown(), worker.shutdown()]);

// Output:
// the agent asks: May I refund order 42?
// the agent asks: May I refund order 42, but only half of it?
// { phase: 'done' }
// did: refund order 42, but only half of it
