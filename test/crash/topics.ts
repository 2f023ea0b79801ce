/** What a member runs of the topics that talks about durable execution come back to: an approval chain, and a saga that is rolled back. */
import { currentStep, event, step, transaction, type Workflow, workflow } from "../../lib/index.ts";

export interface Journal {
  /** Notes that a step is entered. Returns how often it has been. */
  enter(run: string, name: string): Promise<number>;
  /** Notes what an outside system was asked for, by the key that it was given. */
  outside(run: string, name: string, key: string): Promise<void>;
  readonly schema: string;
}

/** Which process is to die at which place of a saga. */
export interface Fate {
  readonly pid: number;
  readonly place: string;
}

const WEEK = { days: 7 };

export function topics({ enter, outside, schema }: Journal): Record<"approvals" | "saga", Workflow<any, unknown>> {
  const answer = event<string>("answer");
  const ask = step("ask", async (run: string, approver: string) => void (await enter(run, `ask ${approver}`)));

  /** Asks one after the other; each has a week. */
  const approvals = workflow("approvals", async (run: string, approvers: string[]) => {
    const said: string[] = [];
    for (const approver of approvers) {
      await ask(run, approver);
      const got = await answer.wait({ timeout: WEEK });
      said.push(`${approver}: ${got?.data ?? "nothing"}`);
    }
    return said;
  });

  const die = (fate: Fate, place: string): void => {
    if (fate.pid === process.pid && fate.place === place) process.kill(process.pid, "SIGKILL");
  };
  const booked = (name: string) =>
    transaction(name, async (tx, run: string, fate: Fate) => {
      await enter(run, name);
      await tx.query(`insert into "${schema}".ledger (run, step) values ($1, $2)`, [run, name]);
      die(fate, `in ${name}`);
    });
  const asked = (name: string) =>
    step(name, async (run: string, fate: Fate) => {
      await enter(run, name);
      await outside(run, name, currentStep().idempotencyKey);
      die(fate, `in ${name}`);
    });
  const [grant, revoke] = [booked("grant"), booked("revoke")];
  const [enrol, dismiss] = [asked("enrol"), asked("dismiss")];
  const refuse = step(
    { name: "refuse", retry: { type: "fixed", maxAttempts: 3, delay: 1 } },
    async (run: string, fate: Fate) => {
      if ((await enter(run, "refuse")) === 2) die(fate, "in refuse");
      throw new Error("refused");
    },
  );
  const tell = step("tell", async (run: string, fate: Fate) => {
    await enter(run, "tell");
    die(fate, "in tell");
  });

  /** Two systems are told, the third refuses three times, and the two take it back. A process may die in each step and right after each. */
  const saga = workflow("saga", async (run: string, fate: Fate) => {
    const undo: (() => Promise<void>)[] = [];
    let said = "";
    try {
      await grant(run, fate);
      die(fate, "after grant");
      undo.unshift(async () => {
        await revoke(run, fate);
        die(fate, "after revoke");
      });
      await enrol(run, fate);
      die(fate, "after enrol");
      undo.unshift(async () => {
        await dismiss(run, fate);
        die(fate, "after dismiss");
      });
      await refuse(run, fate);
    } catch (error) {
      die(fate, "after refuse");
      for (const takeBack of undo) await takeBack();
      said = (error as Error).message;
    }
    await tell(run, fate);
    die(fate, "after tell");
    return said;
  });
  return { approvals, saga };
}
