/**
 * A loan is decided by three checks side by side, and, where they do not suffice, by a person within five days. The checks are found again by their
 * name and their arguments, so code that asks for them in another order, or for one more at the end, still fits applications in flight. A second
 * applicant is checked by the same code, with records of their own.
 */
import { event, Perdure, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

interface Application {
  readonly applicants: readonly string[];
  readonly amount: number;
}
const identify = step("identify", async (name: string) => name !== "Nobody");
const income = step("income", async (name: string) => name.length * 10_000);
const debts = step("debts", async (name: string) => (name === "Bob" ? 25_000 : 0));
const decide = event<{ by: string; grant: boolean }>("decide");

async function check(name: string): Promise<{ known: boolean; free: number }> {
  const [known, earned, owed] = await Promise.all([identify(name), income(name), debts(name)]);
  return { known, free: earned - owed };
}

const apply = workflow("apply", async ({ applicants, amount }: Application) => {
  const checks = await Promise.all(applicants.map(check));
  if (!checks.every(({ known }) => known)) return "refused: an applicant is not known";
  const free = checks.reduce((sum, one) => sum + one.free, 0);
  if (free >= amount) return "granted at once";
  const decision = await decide.wait({ timeout: { days: 5 } });
  if (!decision) return "refused: not decided in time";
  return `${decision.data.grant ? "granted" : "refused"} by ${decision.data.by}`;
});

await fresh("example_51");
const perdure = new Perdure({ schema: "example_51", workflows: [apply] });
await perdure.launch();
const applications: Application[] = [
  { applicants: ["Ada", "Grace"], amount: 80_000 },
  { applicants: ["Ada", "Bob"], amount: 80_000 },
  { applicants: ["Ada", "Nobody"], amount: 1 },
];
for (const application of applications) {
  const run = await perdure.start(apply, application);
  await run.send(decide, { by: "Eve", grant: false }, { ignoreFinished: true });
  console.log(`${application.applicants.join(" and ")}: ${await run.result()}`);
}
await perdure.shutdown();

// Output:
// Ada and Grace: granted at once
// Ada and Bob: refused by Eve
// Ada and Nobody: refused: an applicant is not known
