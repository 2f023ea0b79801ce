/** Tasks: steps of the core, called with the run that they belong to. */
import { ValueCodec } from "../core/codec.ts";
import { smallerForms } from "../core/codec-fallback.ts";
import { NonRetryableError, PerdureError } from "../core/errors.ts";
import { checkKeys, checkNamed, shorten } from "../core/options.ts";
import type { Schema, StepInfo } from "../core/types.ts";
import { currentRun, currentStep } from "../define/current.ts";
import { type Step, type StepCallOptions, step } from "../define/step.ts";
import { TaskFailedError } from "./errors.ts";
import type { Argument, Payload } from "./event.ts";
import { type Options, type OptionsOf, referenceOf, short, type TaskPaths, withOptions } from "./options.ts";
import { type RetryStrategy, toRetry } from "./retry.ts";
import { type AnyRun, factsOf, hostOf, type RunFacts } from "./run.ts";
import { checks } from "./schema.ts";

interface Common<Input, Output> {
  /** 1 to 255 bytes. Names the task in the history. */
  name: string;
  /** When a failed try is tried again. Default `{ type: "never" }`. A crash of the process never counts as a try. */
  retry?: RetryStrategy | undefined;
  /** The older place of `retry`. */
  opts?: { retry?: RetryStrategy | undefined } | undefined;
  /** Checks the input before each try, and the output after it. */
  schema?: { input?: Schema<Input> | undefined; output?: Schema<Output> | undefined } | undefined;
}

/** A task: `handler`, or by its older names `exec` and, with the input in an object, `run`. */
export type TaskOptions<Input, Output> = Common<Input, Output> &
  (
    | { handler(input: Input, step: StepInfo): Promise<Output> | Output; exec?: never; run?: never }
    | { exec(input: Input, step: StepInfo): Promise<Output> | Output; handler?: never; run?: never }
    | { run(call: TaskCall<Input>): Promise<Output> | Output; handler?: never; exec?: never }
  );

/** What the older `run` of a task is given. */
export interface TaskCall<Input> {
  readonly payload: Input;
  readonly workflowRun: RunFacts;
  /** The same across retries and crashes, for external APIs. */
  readonly idempotencyKey: string;
}

/** A task. Its calls are recorded once; replay returns the record. */
export interface Task<Input, Output> {
  readonly name: string;
  with(): Task<Input, Output>;
  with(options: OptionsOf<TaskPaths>): Task<Input, Output>;
  with<P extends keyof TaskPaths>(path: P, value: TaskPaths[P]): Task<Input, Output>;
  opt<P extends keyof TaskPaths>(path: P, value: TaskPaths[P]): Task<Input, Output>;
  withOptions(options: OptionsOf<TaskPaths>): Task<Input, Output>;
  /**
   * Runs the task in a workflow.
   *
   * @throws TaskFailedError once its tries are used up; SchemaValidationError; RunConflictError for a reference with another input.
   * @example const { id } = await charge.with("reference.id", "first").start(run, { cents: 990 });
   */
  start(run: AnyRun, ...input: Argument<Input>): Promise<Output>;
  /** The older form of `start`. */
  run(run: AnyRun, ...call: Payload<Input>): Promise<Output>;
}

/**
 * Declares a task. At least once: a crash before its outcome is recorded runs it again.
 *
 * @throws PERDURE_OPTION, PERDURE_NAME.
 * @example
 * const charge = task({ name: "charge", retry: { type: "fixed", maxAttempts: 3, delayMs: 1000 }, async handler(input: { cents: number }) { … } });
 */
export function task<Input = void, Output = void>(options: TaskOptions<Input, Output>): Task<Input, Output> {
  const known = ["name", "handler", "exec", "run", "retry", "opts", "schema"];
  const { options: given, where } = checkNamed(options, known, "task");
  const fn = given.handler ?? given.exec ?? given.run;
  if (typeof fn !== "function")
    throw new PerdureError("PERDURE_OPTION", `${where} needs a handler, not ${shorten(fn)}`);
  const call = given.run
    ? (input: unknown) =>
        given.run!({
          payload: input as Input,
          workflowRun: factsOf(currentRun()),
          idempotencyKey: currentStep().idempotencyKey,
        })
    : (input: unknown) => (given.handler ?? given.exec)!(input as Input, currentStep());
  const retry = given.retry ?? checkKeys(given.opts ?? {}, ["retry"], `opts of ${where}`).retry;
  const made = step(
    { name: given.name, ...checks(given.schema, where), ...retryOptions(retry) },
    async (...args: unknown[]) => {
      try {
        return await call(args[0]);
      } catch (error) {
        throw failed(given.name, error);
      }
    },
  );
  return configured(made, given.name, {}) as Task<Input, Output>;
}

/** What handlers threw, where no more than a part of it can be stored. */
const WHOLE = new WeakMap<object, unknown>();
const VALUES = new ValueCodec();

/** The failure of this try, with as much of its cause as can be stored: the error around it is never cut. */
function failed(name: string, cause: unknown): TaskFailedError {
  const { idempotencyKey, attempt } = currentStep();
  const error = new TaskFailedError(name, idempotencyKey, attempt, cause);
  try {
    VALUES.encode(error, `failure of task "${name}"`);
    return error;
  } catch (reason) {
    const [part] = smallerForms(cause, reason, 1_048_576);
    const cut = new TaskFailedError(name, idempotencyKey, attempt, part);
    WHOLE.set(cut, cause);
    return cut;
  }
}

function configured(
  made: Step<(...args: unknown[]) => Promise<unknown>>,
  name: string,
  options: Options,
): Task<any, any> {
  const where = `task "${name}"`;
  const configure = (...given: unknown[]) => configured(made, name, withOptions(options, given, "task"));
  const start = (run: AnyRun, ...input: unknown[]): Promise<any> => {
    hostOf(run, `start() of ${where}`);
    // Without an input there is no argument, so that undefined and nothing are the same call.
    return made.with(callOptions(options, where))(...(input[0] === undefined ? [] : input.slice(0, 1)));
  };
  const task: Task<any, any> = {
    name,
    with: configure,
    opt: configure,
    withOptions: configure,
    start,
    run: (run, call = {}) => {
      const { payload, idempotencyKey } = checkKeys(call, ["payload", "idempotencyKey"], `run() of ${where}`);
      return task.with({ ...(idempotencyKey === undefined ? {} : { idempotencyKey }) }).start(run, payload);
    },
  };
  return task;
}

function callOptions(options: Options, where: string): StepCallOptions {
  const reference = referenceOf(options, where);
  return {
    ...(reference && { reference: { id: short(reference.id), onConflict: reference.conflictPolicy } }),
    ...retryOptions(options.retry as RetryStrategy | undefined),
  };
}

/** Whether another try is of use is asked of what the handler threw, not of the TaskFailedError around it. */
function retryOptions(given: RetryStrategy | undefined): { retry?: StepCallOptions["retry"] } {
  if (given === undefined) return {};
  const retry = toRetry(given);
  if (typeof retry !== "object" || retry === null) return { retry };
  const { shouldRetry } = retry;
  const ask = async (error: unknown): Promise<boolean> => {
    const thrown = error instanceof TaskFailedError ? (WHOLE.get(error) ?? error.cause) : error;
    return !(thrown instanceof NonRetryableError) && ((await shouldRetry?.(thrown)) ?? true);
  };
  return {
    retry: {
      ...retry,
      ...(typeof shouldRetry === "function" || shouldRetry === undefined ? { shouldRetry: ask } : {}),
    },
  };
}
