/** What a body can wait for: events, and the clock. */
import { bodyFor } from "../core/context.ts";
import { type Duration, toMs } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkInstant, checkKeys, checkName, checkNamed, shorten } from "../core/options.ts";
import { checkSchema } from "../core/schema.ts";
import type { EventDefinition, Received, Schema, Sends, Slept } from "../core/types.ts";

/** Options of an event. */
export interface EventOptions<T> {
  /** 1 to 255 bytes. */
  name: string;
  /** Checks the data when it is sent; what SQL sent, when it is consumed: a wait for it throws then. What the schema returns is stored. */
  schema?: Schema<T> | undefined;
}

/** A message into a run, with data of type `T`; `S` is what is sent, where a schema makes the one of the other. */
export interface Event<T, S = T> extends Sends<S> {
  readonly name: string;
  /**
   * The next event of this name that this run has not consumed, from before the call or after it.
   *
   * @throws PERDURE_CONTEXT outside a workflow and inside a step; PERDURE_OPTION for a bad timeout.
   */
  wait(): Promise<Received<T>>;
  /** The same; null when none came within `timeout`. An event that comes later feeds the next wait. */
  wait(options: { timeout: Duration }): Promise<Received<T> | null>;
  wait(options?: { timeout?: Duration | undefined }): Promise<Received<T> | null>;
  /**
   * The mailbox as an endless loop: each turn is a `wait()`.
   *
   * @example for await (const { data } of messageReceived) await answer(data);
   */
  [Symbol.asyncIterator](): AsyncIterator<Received<T>, never, void>;
}

const DEFINITION = Symbol.for("perdure.event.1");

/**
 * Declares an event. Send it with `perdure.send(runId, anEvent, data)` or, in SQL, `select perdure.send_event(…)`.
 *
 * @throws PERDURE_NAME; PERDURE_OPTION for a bad schema.
 * @example const paymentReceived = event<{ amount: number }>("payment-received");
 */
export function event<T, S>(options: EventOptions<T> & { schema: Schema<T, S> }): Event<T, unknown extends S ? T : S>;
export function event<T = null>(nameOrOptions: string | EventOptions<T>): Event<T>;
export function event<T>(nameOrOptions: string | EventOptions<T>): Event<T> {
  const { options, where } = checkNamed<EventOptions<T>>(nameOrOptions, ["name", "schema"], "event");
  if (options.schema !== undefined) checkSchema(options.schema, `schema of ${where}`);
  const definition: EventDefinition = { name: checkName(options.name, "event name"), schema: options.schema };
  const wait = (waitOptions: { timeout?: Duration } = {}): Promise<Received<T> | null> => {
    const body = bodyFor(`wait() of event "${definition.name}"`);
    const { timeout } = checkKeys(waitOptions, ["timeout"], `wait() of event "${definition.name}"`);
    const timeoutMs = timeout === undefined ? null : toMs(timeout, `timeout of event "${definition.name}"`);
    return body.event(definition, timeoutMs) as Promise<Received<T> | null>;
  };
  const mails: Event<T>[typeof Symbol.asyncIterator] = () => ({
    next: async () => ({ done: false, value: (await wait()) as Received<T> }),
  });
  const made = { name: definition.name, wait: wait as Event<T>["wait"], [Symbol.asyncIterator]: mails };
  return Object.assign(made, { [DEFINITION]: definition });
}

/** What is behind an event value; undefined when `value` is none. */
export function eventOf(value: unknown): EventDefinition | undefined {
  return attempt(() => (value as { [DEFINITION]?: EventDefinition } | null | undefined)?.[DEFINITION]);
}

/** What is no event where one is sent. */
export function notAnEvent(given: unknown): PerdureError {
  return new PerdureError("PERDURE_OPTION", `send() needs an event made by event(), not ${shorten(given)}`);
}

/**
 * Sleeps for a time that survives restarts and holds no worker. A changed duration counts from the sleep's own start.
 *
 * @param name Names the sleep in the history, where several stand side by side.
 * @returns `woken`: true when `wake()` ended it early.
 * @throws PERDURE_CONTEXT outside a workflow and inside a step; PERDURE_OPTION for a bad duration.
 * @example await sleep({ days: 30 });
 */
export function sleep(duration: Duration): Promise<Slept>;
export function sleep(name: string, duration: Duration): Promise<Slept>;
export function sleep(nameOrDuration: string | Duration, duration?: Duration): Promise<Slept> {
  const body = bodyFor("sleep()");
  const named = duration !== undefined;
  const name = named ? checkName(nameOrDuration, "name of a sleep") : null;
  const length = (named ? duration : nameOrDuration) as Duration;
  return body.sleep(name, { lengthMs: toMs(length, `duration of sleep(${named ? shorten(name) : ""})`) });
}

/**
 * Sleeps until an instant by the database's clock. Returns at once, and records it, when it is past.
 *
 * @throws as `sleep` does.
 * @example await sleepUntil(new Date("2027-01-01T00:00:00Z"));
 */
export function sleepUntil(instant: Date): Promise<Slept>;
export function sleepUntil(name: string, instant: Date): Promise<Slept>;
export function sleepUntil(nameOrInstant: string | Date, instant?: Date): Promise<Slept> {
  const body = bodyFor("sleepUntil()");
  const name = instant === undefined ? null : checkName(nameOrInstant, "name of a sleep");
  return body.sleep(name, { at: checkInstant(instant ?? nameOrInstant, "instant of sleepUntil()") });
}
