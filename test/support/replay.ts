/** What tests of replay share: a gate to suspend at, latches, a lost claim, a person who frees a blocked run. */
import { event, type RunHandle, type RunState } from "../../lib/index.ts";
import type { Bench } from "./engine.ts";
import { eventually } from "./eventually.ts";

/** A body that waits here is given up; the next pass replays all that stands before. */
export const gate = event("gate");

export const DEADLINE_MS = 60_000;

/** Waits until a run is in one of the states. */
export async function reached(run: RunHandle<unknown>, ...states: RunState[]): Promise<void> {
  await eventually(async () => states.includes((await run.status()).state), DEADLINE_MS).catch(async (error) => {
    throw new Error(`${(error as Error).message}; it is ${JSON.stringify(await run.status())}`);
  });
}

/** Waits until a run is suspended, and on nothing but the gate. */
export async function atGate(run: RunHandle<unknown>): Promise<void> {
  await eventually(async () => {
    const { state, waitingFor } = await run.status();
    if (state === "blocked" || state === "failed") throw new Error(`it is ${JSON.stringify(await run.status())}`);
    return state === "suspended" && waitingFor === "event";
  }, DEADLINE_MS);
}

export interface Latch {
  readonly opened: Promise<void>;
  readonly open: () => void;
}

export function latch(): Latch {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Takes running runs from their claims, as a watcher does that found their process dead. */
export async function loseClaims({ sql }: Bench): Promise<void> {
  await sql(
    "update :SCHEMA.run set state = 'pending', worker = null, crashes = crashes + 1, ready_at = :SCHEMA.clock() where state = 'running'",
  );
  await sql("select :SCHEMA.hint('cw')");
}

/** Lets a blocked or suspended run be claimed again, as a person does after a deploy. */
export async function free({ sql }: Bench, id: string): Promise<void> {
  const text =
    "update :SCHEMA.run set state = 'pending', reason = null, due = null, topics = null, ready_at = :SCHEMA.clock() where id = $1 returning 1";
  if ((await sql(text, [id])).length === 0) throw new Error(`no run ${id}`);
  await sql("select :SCHEMA.hint('w')");
}

/** What a promise came to, as data. */
export const settled = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    (value) => ({ value }),
    (error) => ({ error }),
  );

/** Collects unhandled rejections of this process while a test runs. */
export function unhandled(t: { teardown(work: () => void): void }): unknown[] {
  const found: unknown[] = [];
  const note = (reason: unknown): void => void found.push(reason);
  process.on("unhandledRejection", note);
  t.teardown(() => process.off("unhandledRejection", note));
  return found;
}
