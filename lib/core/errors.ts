/**
 * Every error a user can meet: a class to test with `instanceof`, a stable code, and a text that says what happened
 * to which run and step, and what to do. The README's table of codes is checked against ERROR_CODES.
 */

/**
 * Code → what it means. The order is that of a run's life.
 *
 * @example console.error(error.code, ERROR_CODES[error.code]);
 */
export const ERROR_CODES = {
  PERDURE_OPTION: "An option or argument is unknown, of the wrong type or out of range.",
  PERDURE_NAME: "A name, run id, reference or schema name breaks the rules for it.",
  PERDURE_INVALID: "A value does not fit the schema that its definition gives; `issues` says where.",
  PERDURE_DUPLICATE: "Two definitions given to one engine have the same name and version.",
  PERDURE_STATE: "The call does not fit the state that the engine or the run is in.",
  PERDURE_CONNECTION: "The database cannot be reached, or the connection broke.",
  PERDURE_AUTH: "The database refused the user, the password or the database name.",
  PERDURE_PRIVILEGE: "The database role lacks a right that Perdure needs.",
  PERDURE_READ_ONLY: "The server is a standby or read-only.",
  PERDURE_SERVER_VERSION: "The server is older than PostgreSQL 14.",
  PERDURE_SCHEMA: "The schema in the database does not fit this version of Perdure.",
  PERDURE_DATABASE: "The database refused a statement for another reason; `cause` has the details.",
  PERDURE_BUSY: "Too much waits to be written, as the database does not keep up; nothing was written.",
  PERDURE_SERIALIZE: "A value cannot be stored so that it comes back equal.",
  PERDURE_TOO_LARGE: "A value is larger than the limit.",
  PERDURE_DECODE: "A stored value cannot be read back.",
  PERDURE_UNKNOWN_WORKFLOW: "No workflow of that name and version is registered.",
  PERDURE_CONFLICT:
    "The run id, or the step's reference, was used with another input; or code declares a schedule of that name.",
  PERDURE_NOT_FOUND: "No run has that id, or no schedule that name.",
  PERDURE_FINISHED: "The run has finished, so it takes no more events.",
  PERDURE_CONTEXT: "A durable call stands where it cannot work, such as a wait outside a workflow or inside a step.",
  PERDURE_FLOATING: "The workflow returned while a step that nobody awaited was unfinished.",
  PERDURE_NON_RETRYABLE: "A step or workflow said that trying again is of no use.",
  PERDURE_STEP_LOST: 'The process died during a step whose `onCrash` is "fail".',
  PERDURE_TIMEOUT: "A step, a workflow or a wait for a result took longer than it may.",
  PERDURE_FAILED: "The run failed; `cause` is the error that its code threw.",
  PERDURE_CANCELLED: "The run was cancelled.",
} as const;

/** The codes, as `error.code` has them. */
export type ErrorCode = keyof typeof ERROR_CODES;

/**
 * The base of all errors of this library. Two copies of the package agree on `code`, not on the class.
 *
 * @example if (error instanceof PerdureError && error.code === "PERDURE_CONFLICT") return conflict();
 */
export class PerdureError extends Error {
  readonly code: ErrorCode;
  /** Of PERDURE_INVALID: what the schema found, as it said it. */
  declare readonly issues?: readonly unknown[];

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  static {
    PerdureError.prototype.name = "PerdureError";
  }
}

/**
 * Throw it from a step or a workflow to end its retries at once. `cause` is kept.
 *
 * @example if (response.status === 404) throw new NonRetryableError(`no account ${id}`);
 */
export class NonRetryableError extends PerdureError {
  constructor(message: string, options?: ErrorOptions) {
    super("PERDURE_NON_RETRYABLE", message, options);
  }

  static {
    NonRetryableError.prototype.name = "NonRetryableError";
  }
}

/**
 * `result()` of a run that failed. `cause` is the error that the workflow threw, revived.
 *
 * @example await run.result().catch((error) => error instanceof RunFailedError && error.cause instanceof PaymentDeclined);
 */
export class RunFailedError extends PerdureError {
  readonly runId: string;

  constructor(runId: string, message: string, options?: ErrorOptions) {
    super("PERDURE_FAILED", message, options);
    this.runId = runId;
  }

  static {
    RunFailedError.prototype.name = "RunFailedError";
  }
}

/**
 * `result()` of a run that was cancelled.
 *
 * @example await run.result().catch((error) => error instanceof RunCancelledError && error.reason === "too old");
 */
export class RunCancelledError extends PerdureError {
  readonly runId: string;
  /** What `cancel(reason)` was given; null: nothing. */
  readonly reason: string | null;

  constructor(runId: string, reason: string | null) {
    super("PERDURE_CANCELLED", `run "${runId}" was cancelled${reason ? `: ${reason}` : ""}`);
    this.runId = runId;
    this.reason = reason;
  }

  static {
    RunCancelledError.prototype.name = "RunCancelledError";
  }
}

/**
 * A run id, or a step's reference, that is taken by another workflow or another input.
 *
 * @example
 * await perdure.start(bill.with({ id: "bill-1" }), 200).catch((error) => {
 *   if (!(error instanceof RunConflictError)) throw error;
 *   return perdure.get(bill, error.runId);
 * });
 */
export class RunConflictError extends PerdureError {
  readonly runId: string;

  constructor(runId: string, message: string) {
    super("PERDURE_CONFLICT", message);
    this.runId = runId;
  }

  static {
    RunConflictError.prototype.name = "RunConflictError";
  }
}

/**
 * An event sent to a run that has finished. With `ignoreFinished: true` it is dropped in silence.
 *
 * @example await run.send(paid, { amount: 1 }).catch((error) => error instanceof RunFinishedError && refund());
 */
export class RunFinishedError extends PerdureError {
  readonly runId: string;

  constructor(runId: string, message: string) {
    super("PERDURE_FINISHED", message);
    this.runId = runId;
  }

  static {
    RunFinishedError.prototype.name = "RunFinishedError";
  }
}

/**
 * A step, a workflow or a `result({ timeout })` that took too long.
 *
 * @example await run.result({ timeout: "10s" }).catch((error) => error instanceof TimeoutError ? "still at work" : "failed");
 */
export class TimeoutError extends PerdureError {
  constructor(message: string) {
    super("PERDURE_TIMEOUT", message);
  }

  static {
    TimeoutError.prototype.name = "TimeoutError";
  }
}
