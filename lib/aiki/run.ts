/** A run as its own code sees it. */
import type { Duration } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkKeys, checkName, isPlainObject, shorten } from "../core/options.ts";
import type { RunInfo } from "../core/types.ts";
import { currentRun } from "../define/current.ts";
import { event as coreEvent, sleep as coreSleep, type Event } from "../define/waits.ts";
import type { Perdure } from "../perdure.ts";
import { type Events, map, type Waiters, waiter } from "./event.ts";
import { type Logger, makeLogger } from "./logger.ts";
import { mapped } from "./mapped.ts";

/** What is known of a run before its code begins. */
export interface RunFacts {
  readonly id: string;
  readonly name: string;
  readonly versionId: string;
  /** 1 for the first attempt of the workflow, +1 for every retry of the whole. */
  readonly attempts: number;
}

/** What a handler is given as `run`. */
export interface WorkflowRun<Context, E extends Events, Input = unknown> extends RunFacts {
  /** What the client's `context` made for this execution; null without one. */
  readonly context: Context;
  /** Silent during replay. */
  readonly logger: Logger;
  readonly events: Waiters<E>;
  /** The older name of the input. */
  readonly params: { readonly payload: Input };
  /** Sleeps for a time that survives restarts and holds no worker. `cancelled`: woken early. */
  sleep(duration: Duration): Promise<{ readonly cancelled: boolean }>;
  sleep(name: string, duration: Duration): Promise<{ readonly cancelled: boolean }>;
  /** The older form of `events.x.wait()`, for any name. */
  wait<T = unknown>(
    what: { type: "event"; event: string },
    options?: { maxDurationMs?: number | undefined; maxDuration?: Duration | undefined },
  ): Promise<{ readonly received: true; readonly data: T } | { readonly received: false }>;
  /** @internal */
  readonly [HOST]: RunHost;
}

/** What a worker lends to the runs that it executes. */
export interface RunHost {
  readonly perdure: Perdure;
}

const HOST: unique symbol = Symbol.for("perdure.aiki.run.1");

/** The run of the body that is running. */
export function makeRun(host: RunHost, events: Record<string, Event<any>>, input: unknown): AnyRun {
  const { log, context } = currentRun();
  return {
    ...factsOf(currentRun()),
    context,
    logger: makeLogger((level, message, fields) => log[level](message, ...(fields ? [fields] : []))),
    events: map(events, waiter) as Waiters<Events>,
    params: { payload: input },
    sleep,
    wait,
    [HOST]: host,
  };
}

export function factsOf({ id, workflow: name, version: versionId, attempt: attempts }: RunInfo): RunFacts {
  return { id, name, versionId, attempts };
}

export type AnyRun = WorkflowRun<any, any, any>;

/** What is behind a run. Throws PERDURE_OPTION for anything else, PERDURE_CONTEXT outside a workflow. */
export function hostOf(run: unknown, where: string): RunHost {
  const host = attempt(() => (run as AnyRun)[HOST]);
  if (!host) {
    const text = `${where} needs the run that the handler was given, not ${shorten(run)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  currentRun();
  return host;
}

function sleep(...given: [Duration] | [string, Duration]): Promise<{ readonly cancelled: boolean }> {
  const slept = given.length === 1 ? coreSleep(given[0]) : coreSleep(...given);
  return mapped(slept, ({ woken }) => ({ cancelled: woken }));
}

const wait: AnyRun["wait"] = (what, options = {}) => {
  if (!isPlainObject(what) || what.type !== "event") {
    const text = `wait() of a run waits for an event, { type: "event", event: "paid" }, not for ${shorten(what)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  const event = coreEvent<any>(checkName(what.event, "event name"));
  const given = checkKeys(options, ["maxDurationMs", "maxDuration"], `wait() for event "${event.name}"`);
  const timeout = given.maxDuration ?? given.maxDurationMs;
  return mapped(event.wait(timeout === undefined ? {} : { timeout }), (received) =>
    received ? { received: true, data: received.data } : { received: false },
  );
};
