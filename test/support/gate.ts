/** What the tests of runs wait for: a gate that the test opens, a state that a run reaches, a call that is refused. */
import type { RunHandle, RunState } from "../../lib/index.ts";
import { eventually } from "./eventually.ts";

export const PATIENCE_MS = 60_000;

export interface Gate {
  readonly opened: Promise<void>;
  open(): void;
}

/** Code waits at `opened` until somebody calls `open`. */
export function gate(): Gate {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Resolves when the run is in the state. */
export async function reaches(run: Pick<RunHandle, "status">, state: RunState): Promise<void> {
  await eventually(async () => (await run.status()).state === state, PATIENCE_MS);
}

export interface Rejection {
  readonly name: string;
  readonly code: unknown;
  readonly message: string;
  readonly error: any;
}

/** What a promise is rejected with; an error of its own if it is not. */
export async function rejection(promise: Promise<unknown>): Promise<Rejection> {
  const error: any = await promise.then(
    (value) => new Error(`resolved with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  return { name: error.name, code: error.code, message: error.message, error };
}
