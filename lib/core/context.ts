/**
 * Where running code is: in which run's body, in which step. One AsyncLocalStorage per process, under Symbol.for, so that
 * two copies of the package agree. Body is what a definition may ask of the run that it is called in.
 */
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import { PerdureError } from "./errors.ts";
import type {
  EventDefinition,
  PublicationDefinition,
  RunInfo,
  Slept,
  StartOptions,
  StepDefinition,
  StepInfo,
  TransactionClient,
  WorkflowDefinition,
} from "./types.ts";

/** How long a sleep or a timeout takes: a length from its start, or an instant. */
export type Until = { readonly lengthMs: number } | { readonly at: Date };

/** A child that was started: the run, and the slot that started it. */
export interface Started {
  readonly id: string;
  readonly origin: string;
}

/** What a race waits for. */
export type RaceEntry = { readonly key: string } & (
  | { readonly kind: "event"; readonly definition: EventDefinition }
  | { readonly kind: "child"; readonly id: string; readonly origin: string }
  | { readonly kind: "timer"; readonly lengthMs: number }
);

/** What a body does to other runs, as a step of its own. */
export interface Outside {
  send(id: string, event: unknown, data: unknown, options: object): Promise<void>;
  cancel(id: string, reason: string | null): Promise<void>;
}
/** What is published: something new, or the end of a stream. */
export type Change = { readonly value: unknown } | "close";

/** The run that a body belongs to, as the definitions see it. Every call takes its slot before it returns. */
export interface Body {
  readonly run: RunInfo;
  /** Says what strict mode has found in the body; null outside it. */
  readonly warn: ((message: string) => void) | null;
  step(definition: StepDefinition, args: unknown[]): Promise<unknown>;
  sleep(name: string | null, until: Until): Promise<Slept>;
  event(definition: EventDefinition, timeoutMs: number | null): Promise<unknown>;
  /** `toHandle` makes what the body is given: the promise itself is the call's, so that one that nobody awaits is noticed. */
  start(
    definition: WorkflowDefinition,
    options: StartOptions,
    args: unknown[],
    toHandle: (started: Started) => unknown,
  ): Promise<unknown>;
  child(definition: WorkflowDefinition, options: StartOptions, args: unknown[]): Promise<unknown>;
  end(id: string, origin: string, timeoutMs: number | null): Promise<unknown>;
  race(entries: readonly RaceEntry[]): Promise<unknown>;
  readonly outside: Outside;
  /** Publishes from the body, or from the step that is named. */
  publish(definition: PublicationDefinition, change: Change, step: StepInfo | null): Promise<void>;
  now(): Date;
  random(kind: "uuid" | "random", name: string): Uint8Array;
  patched(change: string): boolean;
}

export interface Scope {
  readonly body: Body;
  /** Set inside a step. */
  readonly step: StepInfo | null;
}

const KEY = Symbol.for("perdure.scope.1");
const PLAIN = Symbol.for("perdure.transaction.1");
const global = globalThis as { [KEY]?: AsyncLocalStorage<Scope>; [PLAIN]?: AsyncLocalStorage<StepInfo> };
global[KEY] ??= new AsyncLocalStorage<Scope>();
global[PLAIN] ??= new AsyncLocalStorage<StepInfo>();

/** The scope of the running code, across awaits. */
export const scope: AsyncLocalStorage<Scope> = global[KEY];

const nobodys = new AsyncResource("perdure.run", { requireManualDestroy: true });

/**
 * Runs `work` in the async context of nobody: a run may be begun by any request that happens to be served, and must not see the stores of that
 * one, which it would not see on replay either.
 */
export const detached = <T>(work: () => T): T => nobodys.runInAsyncScope(work);

/** The transaction that was called outside a workflow and that this code belongs to. */
export const plainTransaction: AsyncLocalStorage<StepInfo> = global[PLAIN];

/** Runs a transaction that was called outside a workflow, once: nothing is recorded. */
export async function plainly<R>(name: string, tx: TransactionClient, work: () => R): Promise<Awaited<R>> {
  const { signal } = new AbortController();
  return plainTransaction.run(
    { name, attempt: 1, signal, idempotencyKey: randomUUID(), tx },
    async (): Promise<Awaited<R>> => await work(),
  );
}

/** The body that `what` is called in. Throws PERDURE_CONTEXT outside a workflow and inside a step, naming both. */
export function bodyFor(what: string): Body {
  const here = scope.getStore();
  if (!here) {
    throw new PerdureError(
      "PERDURE_CONTEXT",
      `${what} works only inside a workflow; here is none. Call it from a workflow's function, and await what leads to it`,
    );
  }
  refuseInStep(here, what);
  return here.body;
}

/** Throws PERDURE_CONTEXT when `what`, which nothing records, is called in a body: each replay would do it again. */
export function refuseInBody(what: string, instead: string): void {
  const here = scope.getStore();
  if (!here || here.step) return;
  const { id, workflow } = here.body.run;
  const text = `${what} is not recorded, so every replay of workflow "${workflow}" (run "${id}") would do it again; ${instead}`;
  throw new PerdureError("PERDURE_CONTEXT", text);
}

/** Throws PERDURE_CONTEXT when `what` is called inside a step. */
export function refuseInStep(here: Scope, what: string): void {
  if (here.step) {
    throw new PerdureError(
      "PERDURE_CONTEXT",
      `${what} cannot be used inside step "${here.step.name}" of run "${here.body.run.id}": a step is recorded as one. ` +
        "Call it from the workflow's own function, before or after the step",
    );
  }
}
