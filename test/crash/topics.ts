/**
 * What a member runs of the topics that talks about durable execution come back to: an approval chain, a saga that is rolled back, and a
 * parent with its children.
 */
import { currentStep, event, race, start, step, transaction, type Workflow, workflow } from "../../lib/index.ts";

export interface Journal {
  /** Notes that a step is entered. Returns how often it has been. */
  enter(run: string, name: string): Promise<number>;
  /** Notes what an outside system was asked for, by the key that it was given. */
  outside(run: string, name: string, key: string): Promise<void>;
  readonly schema: string;
}

/** Which process is to die at which place of a run. */
export interface Fate {
  readonly pid: number;
  readonly place: string;
}

const WEEK = { days: 7 };

export function topics({
  enter,
  outside,
  schema,
}: Journal): Record<"approvals" | "saga" | "family" | "kid", Workflow<any, unknown>> {
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

  const play = step("play", async (run: string, name: string, fate: Fate) => {
    await enter(run, `play ${name}`);
    die(fate, `in ${name}`);
    return name;
  });
  const kid = workflow("kid", async (run: string, name: string, fate: Fate) => {
    const played = await play(run, name, fate);
    die(fate, `at the end of ${name}`);
    return played;
  });

  /** One child is started and awaited later, one is called, one runs in a race. A process may die around and inside each. */
  const family = workflow("family", async (run: string, fate: Fate) => {
    const ann = await start(kid, run, "ann", fate);
    die(fate, "after the start of ann");
    const ben = await kid(run, "ben", fate);
    die(fate, "after ben");
    const cleo = await start(kid, run, "cleo", fate);
    const { winner, value } = await race({ cleo, late: "1h" });
    die(fate, "after the race");
    const said = [await ann.result(), ben, winner, value];
    die(fate, "after ann");
    return said;
  });
  return { approvals, saga, family, kid };
}
