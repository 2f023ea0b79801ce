/** The workflow that plays a script, in two versions. What its steps do to the world they are given: a member has one, a client needs none. */
import {
  type ChildHandle,
  currentRun,
  currentStep,
  event,
  race,
  sleep,
  start,
  step,
  transaction,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import { type Input, type Op, placeOf, stepName, TRIES, type Version } from "./script.ts";

/** What steps do outside. */
export interface Outside {
  /** A row of the ledger in the transaction's own client. */
  book(run: string, at: string): Promise<void>;
  /** Notes that a step is entered. */
  enter(run: string, at: string): Promise<void>;
  /** Resolves when the family's gate is open, rejects when the step is told to stop. */
  opened(family: string, signal: AbortSignal): Promise<void>;
}

export const EVENTS = { a: event<number>("a"), b: event<number>("b") };
const hours = (n: number): { hours: number } => ({ hours: n });

export interface Result {
  readonly version: Version;
  readonly values: readonly (readonly unknown[])[];
}
export type Scripted = Workflow<[Input], Result>;

/** The workflow of a version. Version 2 says so in all that it returns, so a run that changes versions is found out. */
export function scripted(version: Version, outside: Outside): Scripted {
  const said = (op: Op, at: string): string => `${stepName(op, at)} by ${version}`;
  const player: Scripted = workflow({ name: "scripted", version }, async (input: Input): Promise<Result> => {
    const values: unknown[][] = [];
    for (const [n, stage] of input.script.entries()) {
      if (stage[0]?.do === "fail" && currentRun().attempt <= stage[0].attempts) throw new Error("boom");
      values.push(await Promise.all(stage.map((op, i) => perform(input, op, placeOf(n, i)))));
    }
    return { version, values };
  });

  function perform(input: Input, op: Op, at: string): Promise<unknown> {
    const name = stepName(op, at);
    switch (op.do) {
      case "book":
        return booked(name, at, async () => said(op, at));
      case "step":
        return step(name, async () => {
          await outside.enter(currentRun().id, at);
          return said(op, at);
        })();
      case "hold":
        return held(input, op, at);
      case "flaky":
        return step({ name, retry: { type: "fixed", maxAttempts: TRIES, delay: hours(1) } }, async () => {
          if (currentRun().attempt === 1 && currentStep().attempt <= op.fails) throw new Error("no luck");
          return "in the end";
        })();
      case "sleep":
        return sleep(name, hours(op.hours));
      case "wait":
        return waited(op);
      case "race":
        return raced(op);
      case "child":
        return player({ family: input.family, at, script: op.script });
      case "spawn":
        return start(player, { family: input.family, at, script: op.script }).then((_: ChildHandle) => "spawned");
      case "fail":
        return Promise.resolve(null);
      default:
        return op satisfies never;
    }
  }

  const booked = (name: string, at: string, then: () => Promise<string>): Promise<string> =>
    transaction(name, async () => {
      await outside.book(currentRun().id, at);
      return then();
    })();

  function held(input: Input, op: Op & { do: "hold" }, at: string): Promise<unknown> {
    const hold = async (): Promise<string> => {
      const { signal } = currentStep();
      await outside.enter(currentRun().id, at);
      await outside.opened(input.family, signal);
      return said(op, at);
    };
    return op.tx ? booked(stepName(op, at), at, hold) : step(stepName(op, at), hold)();
  }

  return player;
}

async function waited({ event: name, hours: timeout }: Op & { do: "wait" }): Promise<number | null> {
  const received = await EVENTS[name].wait(timeout === null ? {} : { timeout: hours(timeout) });
  return received === null ? null : received.data;
}

async function raced({ hours: timeout }: Op & { do: "race" }): Promise<[string, number | null]> {
  const { winner, value } = await race({ ...EVENTS, ...(timeout !== null && { late: hours(timeout) }) });
  return [winner, value === null ? null : (value as { data: number }).data];
}
