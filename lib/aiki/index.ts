/** `perdure/aiki`: the names and call shapes of Aiki over the public core. The public names, nothing else. */
export type { Duration } from "../core/duration.ts";
export { NonRetryableError, RunCancelledError, RunFailedError, RunFinishedError } from "../core/errors.ts";
export type { ChildRunHandle } from "./child.ts";
export { type Client, type ClientOptions, type ContextFactory, client, client as createClient } from "./client.ts";
export { type AikiOptions, createAiki } from "./create.ts";
export {
  ScheduleConflictError,
  SchemaValidationError,
  TaskFailedError,
  WorkflowRunReferenceConflictError,
} from "./errors.ts";
export {
  type EventDefinition,
  type EventMulticaster,
  type EventSender,
  type EventWaiter,
  event,
  type MulticastResult,
} from "./event.ts";
export type {
  ExecOptions,
  RunOptions,
  VersionOptions,
  Workflow,
  WorkflowVersion,
  WorkflowVersionStart,
} from "./forms.ts";
export type { RunRecord, WaitOptions, WorkflowRunHandle } from "./handle.ts";
export type { Logger } from "./logger.ts";
export type { ConflictPolicy, Reference, Trigger } from "./options.ts";
export { type Racer, race, type Winner } from "./race.ts";
export type { RetryStrategy } from "./retry.ts";
export type { RunFacts, WorkflowRun } from "./run.ts";
export { type ScheduleDefinition, type ScheduleHandle, type ScheduleOptions, schedule } from "./schedule.ts";
export {
  database,
  type Handler,
  inMemoryQueue,
  inMemoryTimerPriorityQueue,
  type RuntimeHandle,
  redisPublisher,
  redisSubscriber,
  redisTimerPriorityQueue,
  server,
  type Unused,
} from "./server.ts";
export type { FailedState, TerminalState, TerminalStatus, WaitResult, WorkflowRunState } from "./state.ts";
export { type Task, type TaskCall, type TaskOptions, task } from "./task.ts";
export {
  type RegistryWorker,
  type Worker,
  type WorkerConfig,
  type WorkerHandle,
  type WorkerOptions,
  worker,
} from "./worker.ts";
export { workflow } from "./workflow.ts";
