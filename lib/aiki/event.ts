/** Events: declared with a workflow's version, awaited in its runs, sent from outside. */
import type { Duration } from "../core/duration.ts";
import { checkArray, checkKeys } from "../core/options.ts";
import type { Schema } from "../core/types.ts";
import { event as coreEvent, type Event } from "../define/waits.ts";
import { type Client, coreOf } from "./client.ts";
import { mapped } from "./mapped.ts";
import { type EventPaths, type Options, type OptionsOf, referenceOf, short, withOptions } from "./options.ts";
import { strict } from "./schema.ts";

declare const data: unique symbol;

/** An event that a workflow's version declares; its name is its key in `events`. */
export interface EventDefinition<Data> {
  readonly schema: Schema<Data> | undefined;
  /** @internal */
  readonly [data]?: Data;
}

/** The events of a workflow's version, by their names. */
export type Events = Record<string, EventDefinition<any>>;

/** The event's data as an argument, which may be left out where there is none. */
export type Argument<Data> = undefined extends Data ? [data?: Data] : [data: Data];

/** The same in the oldest form, in an object beside a key. */
export type Payload<Input> = undefined extends Input
  ? [call?: { payload?: Input; idempotencyKey?: string | undefined }]
  : [call: { payload: Input; idempotencyKey?: string | undefined }];

export type DataOf<E> = E extends EventDefinition<infer Data> ? Data : never;

/**
 * Declares an event, perhaps with a schema that checks the data when it is sent.
 *
 * @throws PERDURE_OPTION for a bad option.
 * @example const orderV1 = workflow({ name: "order" }).v("1.0.0", { events: { paid: event<{ amount: number }>() }, handler });
 */
export function event<Data = void>(options: { schema?: Schema<Data> | undefined } = {}): EventDefinition<Data> {
  const { schema } = checkKeys(options, ["schema"], "event()");
  return { schema };
}

/** What `wait` gives: with a timeout, perhaps none. */
export type Timed<Data> = { readonly timeout: false; readonly data: Data } | { readonly timeout: true };

/** An event as a run waits for it. */
export interface EventWaiter<Data> {
  /** The next event of this name that the run has not consumed, from before the call or after it. */
  wait(options?: { timeout?: undefined }): Promise<{ readonly timeout: false; readonly data: Data }>;
  /** The same; `{ timeout: true }` when none came in time. A later one feeds the next wait. */
  wait(options: { timeout: Duration }): Promise<Timed<Data>>;
  wait(options?: { timeout?: Duration | undefined }): Promise<Timed<Data>>;
}

/** An event as it is sent to one run. */
export interface EventSender<Data> {
  with(): EventSender<Data>;
  with(options: OptionsOf<EventPaths>): EventSender<Data>;
  with<P extends keyof EventPaths>(path: P, value: EventPaths[P]): EventSender<Data>;
  opt<P extends keyof EventPaths>(path: P, value: EventPaths[P]): EventSender<Data>;
  /** @throws SchemaValidationError; RunFinishedError unless `ignoreFinished`. */
  send(...data: Argument<Data>): Promise<void>;
}

/** What became of an event that was sent. */
export interface MulticastResult {
  readonly sentIds: string[];
  readonly failedIds: string[];
}

/** An event as it is sent to any runs of a workflow's version. One target that fails is thrown; of several, each is reported. */
export interface EventMulticaster<Data> {
  with(): EventMulticaster<Data>;
  with(options: OptionsOf<EventPaths>): EventMulticaster<Data>;
  with<P extends keyof EventPaths>(path: P, value: EventPaths[P]): EventMulticaster<Data>;
  opt<P extends keyof EventPaths>(path: P, value: EventPaths[P]): EventMulticaster<Data>;
  send(client: Client<any>, runIds: string | readonly string[], ...data: Argument<Data>): Promise<MulticastResult>;
  /** The ids in the result are the references. */
  sendByReferenceId(
    client: Client<any>,
    referenceIds: string | readonly string[],
    ...data: Argument<Data>
  ): Promise<MulticastResult>;
}

export type Waiters<E extends Events> = { readonly [K in keyof E]: EventWaiter<DataOf<E[K]>> };
export type Senders<E extends Events> = { readonly [K in keyof E]: EventSender<DataOf<E[K]>> };
export type Multicasters<E extends Events> = { readonly [K in keyof E]: EventMulticaster<DataOf<E[K]>> };

/** The core's events behind those of a version. */
export function toCore(events: Events): Record<string, Event<any>> {
  return map(events, ({ schema }, name) =>
    coreEvent(schema === undefined ? { name } : { name, schema: strict(schema, `event "${name}"`) }),
  );
}

export function map<T, R>(given: Record<string, T>, change: (value: T, name: string) => R): Record<string, R> {
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, change(value, name)]));
}

export function waiter(event: Event<unknown>): EventWaiter<unknown> {
  const wait = (options: { timeout?: Duration | undefined } = {}): Promise<any> => {
    const { timeout } = checkKeys(options, ["timeout"], `wait() of event "${event.name}"`);
    return mapped(event.wait(timeout === undefined ? {} : { timeout }), (received) =>
      received ? { timeout: false, data: received.data } : { timeout: true },
    );
  };
  // With the core's event behind it, which is what a race takes.
  return Object.assign({ ...event }, { wait });
}

/** How a sender hands over an event. */
export type Deliver = (
  event: Event<unknown>,
  data: unknown,
  options: { reference?: string; ignoreFinished?: boolean },
) => Promise<void>;

export function sender(event: Event<unknown>, deliver: Deliver, options: Options = {}): EventSender<unknown> {
  const configure = (...given: unknown[]) => sender(event, deliver, withOptions(options, given, "event"));
  const send = (data: unknown): Promise<void> => {
    try {
      return deliver(event, data, sendOptions(event, options));
    } catch (error) {
      return Promise.reject(error);
    }
  };
  return { with: configure, opt: configure, send };
}

type ToId = (name: string) => string;

export function multicaster(event: Event<unknown>, toRunId: ToId, options: Options = {}): EventMulticaster<unknown> {
  const configure = (...given: unknown[]) => multicaster(event, toRunId, withOptions(options, given, "event"));
  const send = async (client: Client<any>, given: string | readonly string[], data: unknown, toId: ToId) => {
    const names = typeof given === "string" ? [given] : checkArray(given, `targets of event "${event.name}"`);
    const ids = new Map(names.map((name) => [toId(name), name]));
    const { failed } = await coreOf(client).use((perdure) =>
      perdure.send([...ids.keys()], event, data, sendOptions(event, options)),
    );
    if (failed[0] && typeof given === "string") throw failed[0].error;
    const failedIds = failed.map(({ id }) => ids.get(id)!);
    return { sentIds: [...ids.values()].filter((name) => !failedIds.includes(name)), failedIds };
  };
  return {
    with: configure,
    opt: configure,
    send: (client, runIds, data) => send(client, runIds, data, (id) => id),
    sendByReferenceId: (client, references, data) => send(client, references, data, toRunId),
  };
}

export function sendOptions(event: Event<unknown>, options: Options): { reference?: string; ignoreFinished?: boolean } {
  const reference = referenceOf(options, `event "${event.name}"`);
  return {
    ...(reference && { reference: short(reference.id) }),
    ...(options.ignoreFinished === undefined ? {} : { ignoreFinished: options.ignoreFinished as boolean }),
  };
}
