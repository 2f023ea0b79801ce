/** The logger of this layer's shape over one of the core's. */
import type { Logger as CoreLogger } from "../core/types.ts";

/** A logger whose lines carry fields. Inside a workflow it is silent during replay. */
export interface Logger {
  trace(message: string, fields?: Record<string, unknown>): void;
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
  /** The same with more fields on every line. */
  child(fields: Record<string, unknown>): Logger;
}

/** A logger of this layer's own shape as the core takes one that has the message first. Any other is left as it is. */
export function toCoreLogger(given: CoreLogger | Logger): CoreLogger {
  const { child, trace, fatal, log } = given as unknown as Record<string, unknown>;
  if (typeof child !== "function" || typeof trace !== "function" || fatal !== undefined || log !== undefined)
    return given as CoreLogger;
  return messageFirst(given as Logger);
}

// A log() and transports are how the core knows winston's order, which is this one.
function messageFirst(given: Logger): CoreLogger & { child(fields: object): CoreLogger; log(): void; transports: [] } {
  const say =
    (level: "debug" | "info" | "warn" | "error") =>
    (message: string, ...details: any[]): void =>
      given[level](message, ...details);
  return {
    debug: say("debug"),
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    child: (fields) => messageFirst(given.child({ ...fields })),
    log: () => {},
    transports: [],
  };
}

/** How one line is written. */
export type Write = (level: "debug" | "info" | "warn" | "error", message: string, fields: object | undefined) => void;

/** A logger with these fields on every line; `trace` goes to `debug`. */
export function makeLogger(write: Write, fields: Record<string, unknown> = {}): Logger {
  const say =
    (level: Parameters<Write>[0]) =>
    (message: string, more: Record<string, unknown> = {}): void => {
      const all = { ...fields, ...more };
      write(level, message, Object.keys(all).length > 0 ? all : undefined);
    };
  return {
    trace: say("debug"),
    debug: say("debug"),
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    child: (more) => makeLogger(write, { ...fields, ...more }),
  };
}

/** Where lines go unless an application says otherwise: the console, from `info` up. */
export const infoConsole: CoreLogger = {
  debug: () => {},
  info: (message, ...details) => console.info(message, ...details),
  warn: (message, ...details) => console.warn(message, ...details),
  error: (message, ...details) => console.error(message, ...details),
};
