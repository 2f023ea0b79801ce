/** The errors of this layer that code branches on. All others are those of `perdure`. */
import { NonRetryableError, PerdureError, RunConflictError } from "../core/errors.ts";
import type { SchemaIssue } from "../core/types.ts";

/**
 * A value that does not fit its schema: of a start, an event, a task or a workflow's result. Never retried.
 *
 * @example await greet.start(client, input).catch((error) => error instanceof SchemaValidationError && console.log(error.issues));
 */
export class SchemaValidationError extends NonRetryableError {
  override readonly issues: readonly { readonly path: string; readonly message: string }[];

  constructor(what: string, issues: readonly SchemaIssue[]) {
    const found = issues.map(({ path, message }) => ({ path: pathOf(path), message }));
    super(`${what} does not fit its schema: ${found.map(({ path, message }) => `${path}: ${message}`).join("; ")}`);
    this.issues = found;
  }

  static {
    SchemaValidationError.prototype.name = "SchemaValidationError";
  }
}

function pathOf(path: SchemaIssue["path"] = []): string {
  return ["$", ...path.map((part) => String(typeof part === "object" ? part.key : part))].join(".");
}

/**
 * What a task throws into its workflow once its tries are used up. `cause` is what its handler threw.
 *
 * @example await charge.start(run, input).catch((error) => error instanceof TaskFailedError && console.log(error.attempts));
 */
export class TaskFailedError extends Error {
  /** The same for all tries of one call. */
  readonly taskId: string;
  readonly attempts: number;
  /** The message of what the handler threw. */
  readonly reason: string;

  constructor(name: string, taskId: string, attempts: number, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    super(`task "${name}" failed in try ${attempts}: ${reason}`, { cause });
    this.taskId = taskId;
    this.attempts = attempts;
    this.reason = reason;
  }

  static {
    TaskFailedError.prototype.name = "TaskFailedError";
  }
}

/**
 * A reference id that another input has started a run with.
 *
 * @example await greet.start(client, input).catch((error) => error instanceof WorkflowRunReferenceConflictError && error.referenceId);
 */
export class WorkflowRunReferenceConflictError extends RunConflictError {
  readonly referenceId: string;

  constructor(referenceId: string, conflict: RunConflictError) {
    const text = `reference "${referenceId}" was used with another input; choose another, or the conflict policy "return_existing" (${conflict.message})`;
    super(conflict.runId, text);
    this.referenceId = referenceId;
  }

  static {
    WorkflowRunReferenceConflictError.prototype.name = "WorkflowRunReferenceConflictError";
  }
}

/**
 * A reference id that another schedule was activated with.
 *
 * @example await nightly.activate(client, report).catch((error) => error instanceof ScheduleConflictError && error.referenceId);
 */
export class ScheduleConflictError extends PerdureError {
  readonly referenceId: string;

  constructor(referenceId: string) {
    const text = `schedule "${referenceId}" was activated with another definition; deactivate that one, or choose another reference, or a conflict policy`;
    super("PERDURE_CONFLICT", text);
    this.referenceId = referenceId;
  }

  static {
    ScheduleConflictError.prototype.name = "ScheduleConflictError";
  }
}

/** What an engine registers, so that these come back as themselves. */
export const ERRORS = [
  SchemaValidationError,
  TaskFailedError,
  WorkflowRunReferenceConflictError,
  ScheduleConflictError,
] as const;
