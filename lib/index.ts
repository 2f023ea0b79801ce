/** The public names, nothing else. */
// For the declarations: a compiler that includes no package's types by itself finds Node's.
/// <reference types="node" preserve="true" />
export type { ControlledMany } from "./client/bulk.ts";
export type { ForkOptions, RetryOptions } from "./client/control.ts";
export type { ResultOptions, RunHandle } from "./client/handle.ts";
export type { ListOptions, RunPage } from "./client/list.ts";
export type { ReadOptions, StreamLike, ValueLike, WatchOptions } from "./client/reader.ts";
export type { ScheduleListOptions, ScheduleStatus } from "./client/schedules.ts";
export type { EventLike, SendArguments, SendOptions, SentMany } from "./client/send.ts";
export type { ErrorClass } from "./core/codec.ts";
export type { Duration } from "./core/duration.ts";
export {
  ERROR_CODES,
  type ErrorCode,
  NonRetryableError,
  PerdureError,
  RunCancelledError,
  RunConflictError,
  RunFailedError,
  RunFinishedError,
  TimeoutError,
} from "./core/errors.ts";
export type { LogLine, RunLog } from "./core/logging.ts";
export type { Retry } from "./core/retry.ts";
export type { RunState } from "./core/states.ts";
export type {
  CallerClient,
  CatchUp,
  FailedTry,
  HistoryEntry,
  Logger,
  Overlap,
  Received,
  RunFilter,
  RunInfo,
  RunStatus,
  Schema,
  Slept,
  StartOptions,
  StepInfo,
  TransactionClient,
} from "./core/types.ts";
export type { DatabaseConfig, DatabaseOption, DatabasePool } from "./db/database-option.ts";
export { type ChildHandle, type Prize, type Racer, race, start, type Winner } from "./define/child.ts";
export { currentRun, currentStep, now, patched, random, uuid } from "./define/current.ts";
export type { AsyncMethod, DurableMethod } from "./define/decorate.ts";
export { durable, named } from "./define/instances.ts";
export { type Stream, type StreamOptions, stream, type Value, type ValueOptions, value } from "./define/publish.ts";
export { type Schedule, type ScheduleSpec, schedule } from "./define/schedule.ts";
export {
  runStep,
  type Step,
  type StepCallOptions,
  type StepMethodOptions,
  type StepOptions,
  step,
  type Transaction,
  transaction,
} from "./define/step.ts";
export { type Event, type EventOptions, event, sleep, sleepUntil } from "./define/waits.ts";
export {
  type ServiceInstance,
  type Startable,
  type Workflow,
  type WorkflowMethodOptions,
  type WorkflowOptions,
  workflow,
} from "./define/workflow.ts";
export { type CallerTransaction, type DrainOptions, Perdure, type Schedules } from "./perdure.ts";
export type { PerdureOptions, WorkerSettings } from "./settings.ts";
