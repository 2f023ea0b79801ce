/**
 * A template: a function that makes workflows. This one makes an approval of anything: it asks, waits, reminds, and acts or does not. Each
 * use gives it a name, types and steps of its own; the runs of each are told apart by that name. Nothing of this is special to Perdure:
 * workflows are values, so a function can return one.
 */
import { type Duration, event, Perdure, step, type Workflow, workflow } from "perdure";
import { fresh } from "./fresh.ts";

interface ApprovalOptions<T, R> {
  /** Part of the names in the database: unique, and not to be changed while runs are in flight. */
  readonly name: string;
  readonly question: (subject: T) => string;
  readonly act: (subject: T) => Promise<R>;
  readonly patience?: Duration;
}
const decision = event<{ approve: boolean }>("decision");

function approval<T, R>(options: ApprovalOptions<T, R>): Workflow<[subject: T], R | null> {
  const { name, question, patience = { days: 2 } } = options;
  const ask = step(`${name}/ask`, async (text: string) => console.log(`[${name}] ${text}`));
  const act = step({ name: `${name}/act`, retry: { type: "fixed", maxAttempts: 3, delay: "1s" } }, options.act);
  return workflow(`approve-${name}`, async (subject: T) => {
    for (const prefix of ["", "once more: "]) {
      await ask(prefix + question(subject));
      const answer = await decision.wait({ timeout: patience });
      if (answer) return answer.data.approve ? act(subject) : null;
    }
    return null;
  });
}

const approveHoliday = approval({
  name: "holiday",
  question: (who: string) => `may ${who} take the week off?`,
  act: async (who) => `${who} is off`,
});
const approveExpense = approval({
  name: "expense",
  question: ({ cents }: { cents: number }) => `is a lunch for ${cents} all right?`,
  act: async ({ cents }) => cents,
  patience: "20ms",
});

await fresh("example_53");
const perdure = new Perdure({ schema: "example_53", workflows: [approveHoliday, approveExpense] });
await perdure.launch();

const holiday = await perdure.start(approveHoliday, "Ada");
await holiday.send(decision, { approve: true });
console.log((await holiday.result())?.toUpperCase()); // a string
const expense = await perdure.start(approveExpense, { cents: 4200 });
console.log((await expense.result())?.toFixed(2)); // a number
await perdure.shutdown();

// Output:
// [holiday] may Ada take the week off?
// ADA IS OFF
// [expense] is a lunch for 4200 all right?
// [expense] once more: is a lunch for 4200 all right?
// undefined
