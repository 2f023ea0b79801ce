/**
 * An agent works with tools. Those that only read run at once; those that change something need a person's consent. The owner has an hour, then
 * the question goes to the lead, who has seven days; without an answer it counts as a no, and the agent is told so. A question has its own event
 * name, so that an answer to an old one is never taken for a new one.
 */
import { type Duration, event, Perdure, step, value, workflow } from "perdure";
import { fresh } from "./fresh.ts";

interface Call {
  readonly tool: "look-up" | "refund";
  readonly argument: string;
}
interface Question {
  readonly id: string;
  readonly to: string;
  readonly text: string;
}
const question = value<Question | null>("question");
const answerTo = (id: string) => event<{ allow: boolean; by: string }>(`answer to ${id}`);

// Stands for the model: what it does next follows from what it has seen.
const think = step("think", async (_goal: string, seen: string[]): Promise<Call | null> => {
  const plan: Call[] = [
    { tool: "look-up", argument: "order-42" },
    { tool: "refund", argument: "order-42" },
    { tool: "refund", argument: "order-43" },
  ];
  return plan[seen.length] ?? null;
});
const useTool = step("use-tool", async ({ tool, argument }: Call) => `${tool} of ${argument}: done`);

async function isAllowed(call: Call, id: string, patience: readonly Duration[]): Promise<string | null> {
  for (const [i, to] of ["owner", "lead"].entries()) {
    await question.set({ id, to, text: `May I ${call.tool} ${call.argument}?` });
    const answer = await answerTo(id).wait({ timeout: patience[i]! });
    await question.set(null);
    if (answer) return answer.data.allow ? null : `${answer.data.by} said no`;
  }
  return "nobody answered";
}

const agent = workflow("agent", async (goal: string, patience: Duration[] = [{ hours: 1 }, { days: 7 }]) => {
  const seen: string[] = [];
  for (;;) {
    const call = await think(goal, seen);
    if (!call) return seen;
    const refusal = call.tool === "look-up" ? null : await isAllowed(call, `question-${seen.length}`, patience);
    seen.push(refusal ? `${call.tool} of ${call.argument}: ${refusal}` : await useTool(call));
  }
});

await fresh("example_50");
const perdure = new Perdure({ schema: "example_50", workflows: [agent] });
await perdure.launch();

// The owner never answers; after 30 ms in place of an hour, the lead is asked, who answers the first question with yes and the second with no.
const run = await perdure.start(agent, "make the customer happy", ["30ms", { days: 7 }]);
for await (const asked of run.watch(question)) {
  if (asked?.to !== "lead") continue;
  console.log(`the ${asked.to} is asked: ${asked.text}`);
  await run.send(answerTo(asked.id), { allow: asked.id === "question-1", by: "Ada" });
}
for (const line of await run.result()) console.log(line);

const silent = await perdure.start(agent, "make the customer happy", ["5ms", "5ms"]);
console.log((await silent.result()).at(-1));
await perdure.shutdown();

// Output:
// the lead is asked: May I refund order-42?
// the lead is asked: May I refund order-43?
// look-up of order-42: done
// refund of order-42: done
// refund of order-43: Ada said no
// refund of order-43: nobody answered
