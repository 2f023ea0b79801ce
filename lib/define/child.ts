/** `start`: children of a workflow. `race`: the first of several waits. */
import { types } from "node:util";
import { bodyFor, type RaceEntry, type Started } from "../core/context.ts";
import { type Duration, toMs } from "../core/duration.ts";
import { checkInstance } from "../core/engines.ts";
import { PerdureError } from "../core/errors.ts";
import { canonicalHash } from "../core/hash.ts";
import { attempt, checkKeys, checkName, checkReason, shorten } from "../core/options.ts";
import type { Received } from "../core/types.ts";
import { currentStep } from "./current.ts";
import type { Refused } from "./refused.ts";
import { runStep } from "./step.ts";
import { type Event, eventOf, notAnEvent } from "./waits.ts";
import { internalsOf, notAWorkflow, type Startable } from "./workflow.ts";

/** A run that a workflow started, as its own code sees it. Every method is a durable call. */
export interface ChildHandle<R = unknown> {
  readonly id: string;
  /**
   * Waits for the end of the child. Throws RunFailedError (`cause` is the revived error), RunCancelledError, or a TimeoutError after
   * `timeout`; the child then goes on, and may be waited for again. Default: without end.
   */
  result(options?: { timeout?: Duration | undefined }): Promise<R>;
  /** Sends an event to the child, once, as a step. */
  send<T, S = T>(event: Event<T, S>, ...data: [S] extends [null] ? [data?: S] : [data: S]): Promise<void>;
  /** Cancels the child, as a step. One that has ended stays as it is. */
  cancel(reason?: string): Promise<void>;
}

/** The longest name, in bytes. */
const LONGEST_NAME = 255;
const HANDLE = Symbol.for("perdure.child.1");
/**
 * Starts a child and returns its handle once the child is durable: to be awaited later, in parallel with others, or not at all. Its id
 * follows from the parent and the call, unless `.with({ id })` names one; it is cancelled with its parent, unless `.with({ detached: true })`
 * lets it go on; it ends within its parent's timeout; and it may run on any worker.
 *
 * @throws PERDURE_CONTEXT outside a workflow: use `perdure.start` there. RunConflictError when the id is taken by other input.
 * @example const labels = await Promise.all(items.map((item) => start(printLabel, item)));
 */
export function start<A extends unknown[], R>(workflow: Startable<A, R>, ...args: A): Promise<ChildHandle<R>> {
  const body = bodyFor("start()");
  const internals = internalsOf(workflow);
  if (!internals) {
    throw notAWorkflow("start() needs a workflow made by workflow()", workflow);
  }
  checkInstance(internals.definition);
  return body.start(internals.definition, internals.options, args, makeChild) as Promise<ChildHandle<R>>;
}

/** The text as a name can be: what is too long by its hash, behind its first word. */
export function asName(text: string): string {
  if (Buffer.byteLength(text) <= LONGEST_NAME) return text;
  return `${/^[a-z]*/.exec(text)![0]} ${canonicalHash([text])}`.trim();
}

function makeChild<R>(started: Started): ChildHandle<R> {
  const { id, origin } = started;
  const what = `child "${id}"`;
  const handle: ChildHandle<R> = {
    id,
    result: (options = {}) => {
      const body = bodyFor(`result() of ${what}`);
      const { timeout } = checkKeys(options, ["timeout"], `result() of ${what}`);
      const timeoutMs = timeout === undefined ? null : toMs(timeout, `timeout of result() of ${what}`);
      return body.end(id, origin, timeoutMs) as Promise<R>;
    },
    send: (event, ...[data]) => {
      const { outside } = bodyFor(`send() to ${what}`);
      if (!eventOf(event)) throw notAnEvent(event);
      return runStep(asName(`send ${event.name} to ${id}`), () =>
        outside.send(id, event, data, { reference: asName(currentStep().idempotencyKey) }),
      );
    },
    cancel: (reason) => {
      const { outside } = bodyFor(`cancel() of ${what}`);
      const checked = checkReason(reason, `cancel() of ${what}`);
      return runStep(asName(`cancel ${id}`), () => outside.cancel(id, checked));
    },
  };
  return Object.assign(handle, { [HANDLE]: started });
}

/** What can run in a race: an event, a child, or a timer. */
export type Racer = Event<any, any> | ChildHandle<any> | Duration;

/** What a racer wins with: an event as it was received, a child's result, null for a timer. */
export type Prize<T> = T extends Event<infer E, any> ? Received<E> : T extends ChildHandle<infer R> ? R : null;

/** Who won a race, and with what. */
export type Winner<T extends Record<string, Racer>> = {
  [K in keyof T & string]: { readonly winner: K; readonly value: Prize<T[K]> };
}[keyof T & string];

/**
 * Waits for the first of several: events, children, and durations as timers. What loses is left as it is: its event waits for the next
 * wait, its child goes on. Of several that the run knows of already, the first as they are given wins. Throws what `result()` of a child
 * throws, when that child wins by failing.
 *
 * @example
 * const { winner } = await race({ paid: paymentReceived, shipped: parcel, late: { minutes: 30 } });
 */
export function race<T extends Record<string, Racer>>(
  racers: T & ([keyof T] extends [never] ? Refused<"race() needs events, children or durations, each with a name"> : T),
): Promise<Winner<T>> {
  const body = bodyFor("race()");
  const given = attempt(() => Object.entries(racers)) ?? [];
  if (given.length === 0) {
    const text = `race() needs an object of events, children or durations, such as { paid: paymentReceived, late: "30m" }, not ${shorten(racers)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  const entries = given.map(([key, racer]) => toEntry(checkName(key, "name in race()"), racer));
  return body.race(entries) as Promise<Winner<T>>;
}

function toEntry(key: string, racer: unknown): RaceEntry {
  const definition = eventOf(racer);
  if (definition) return { key, kind: "event", definition };
  const child = attempt(() => (racer as { [HANDLE]?: Started } | null | undefined)?.[HANDLE]);
  if (child) return { key, kind: "child", ...child };
  if (types.isPromise(racer)) {
    const text = `"${key}" in race() is a promise, which runs already; pass the event, the child's handle or the duration itself, such as { ${key}: "30m" }`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  return { key, kind: "timer", lengthMs: toMs(racer as Duration, `"${key}" in race()`) };
}
