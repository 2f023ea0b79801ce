/** A child as the workflow that started it sees it. Every method is a durable call. */
import type { Duration } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { checkChoice, checkKeys } from "../core/options.ts";
import { TERMINAL_STATES } from "../core/states.ts";
import { asName, type ChildHandle, start } from "../define/child.ts";
import { currentRun, currentStep } from "../define/current.ts";
import { runStep } from "../define/step.ts";
import { type Events, map, type Senders, sender } from "./event.ts";
import { mapped } from "./mapped.ts";
import { type AnyRun, hostOf, type RunHost } from "./run.ts";
import { failedOutcome, outcome, type TerminalStatus, type WaitResult } from "./state.ts";
import { configured, type Internals, startError, toArguments } from "./version.ts";

/** A child run in its parent's handler. A control that finds it as it is wanted has nothing to do: it may have run before, in a process that died. */
export interface ChildRunHandle<Output, E extends Events> {
  readonly id: string;
  readonly run: { readonly id: string; readonly name: string; readonly versionId: string };
  readonly events: Senders<E>;
  /** Waits for the child's end, however it comes. After `timeout` the child goes on. */
  waitForStatus<S extends TerminalStatus>(
    status: S,
    options?: { timeout?: Duration | undefined },
  ): Promise<WaitResult<S, Output>>;
  /** One that has ended stays as it is. */
  cancel(explanation?: string): Promise<void>;
  /** One that has ended stays as it is. PERDURE_STATE for a stalled one. */
  pause(): Promise<void>;
  /** One that is not paused stays as it is. */
  resume(): Promise<void>;
  /** Ends its sleep early. One that is not asleep stays as it is. */
  wakeup(): Promise<void>;
  /** The older name of `wakeup`. */
  awake(): Promise<void>;
}

/** Starts a child once, whatever crashes. It inherits its parent's pool. */
export function startChild(run: AnyRun, internals: Internals, input: unknown): Promise<ChildRunHandle<any, any>> {
  const host = hostOf(run, `startAsChild() of workflow "${internals.definition.name}"`);
  const started = start(configured(internals, currentRun().queue), ...toArguments(input));
  return mapped(
    started,
    (child) => childHandle(child, internals, host),
    (error) => Promise.reject(startError(internals, error)),
  );
}

function childHandle(
  child: ChildHandle<any>,
  { definition }: Internals,
  { perdure }: RunHost,
): ChildRunHandle<any, any> {
  const { id } = child;
  const control = (verb: "pause" | "resume" | "wake") =>
    runStep(asName(`${verb} ${id}`), async () => {
      const run = perdure.get(id);
      await run[verb]().catch(async (error: unknown) => {
        if (!(error instanceof PerdureError && error.code === "PERDURE_STATE")) throw error;
        if (verb === "pause" && (await run.status()).state === "blocked") throw error;
      });
    });
  // The core's handle with it, which is what a race takes.
  return Object.assign({ ...child }, {
    id,
    run: { id, name: definition.name, versionId: definition.version },
    events: map(definition.events, (event) =>
      sender(event, (_, data, options) =>
        Object.keys(options).length === 0
          ? child.send(event, data)
          : runStep(asName(`send ${event.name} to ${id}`), () =>
              perdure.get(id).send(event, data, { reference: asName(currentStep().idempotencyKey), ...options }),
            ),
      ),
    ),
    waitForStatus: <S extends TerminalStatus>(status: S, options: { timeout?: Duration | undefined } = {}) => {
      const where = `waitForStatus() of child "${id}"`;
      const { timeout } = checkKeys(options, ["timeout"], where);
      checkChoice(status as string, TERMINAL_STATES, `status in ${where}`);
      return mapped(
        child.result(timeout === undefined ? {} : { timeout }),
        (output) => outcome(status, { status: "completed", output }),
        (error) => failedOutcome(status, error),
      );
    },
    cancel: (explanation) => child.cancel(explanation),
    pause: () => control("pause"),
    resume: () => control("resume"),
    wakeup: () => control("wake"),
    awake: () => control("wake"),
  } satisfies ChildRunHandle<any, any>);
}
