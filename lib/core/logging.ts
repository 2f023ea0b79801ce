/**
 * One logger out of two shapes. pino's and bunyan's take the fields first and the message second, and winston's the other way round: all
 * three make children that carry fields. console's takes a message and whatever belongs to it, and a prefix stands for the fields.
 */
import { attempt } from "./options.ts";
import { quietly } from "./quiet.ts";
import type { Logger } from "./types.ts";

const LEVELS = ["debug", "info", "warn", "error"] as const;
type Level = (typeof LEVELS)[number];

/** A line of a run: a message and what belongs to it, or fields and a message, whatever shape the logger has. An Error becomes `err`. */
export interface LogLine {
  (message: string, ...details: unknown[]): void;
  (fields: object, message?: string, ...details: unknown[]): void;
}

/** What `currentRun().log` is. */
export interface RunLog {
  /** What helps to follow the code. */
  readonly debug: LogLine;
  /** What the run did, in the usual course. */
  readonly info: LogLine;
  /** What works, but should not stay so. */
  readonly warn: LogLine;
  /** What a person has to look at. */
  readonly error: LogLine;
}

/** Whose lines these are: of a run, or of one try at a step of it. */
export interface Bindings {
  readonly runId: string;
  readonly workflow: string;
  readonly version: string;
  readonly attempt: number;
  readonly step?: string;
  readonly stepAttempt?: number;
}

/** What the engine itself says: a message that names what it is about, an error, and fields for whoever sorts lines by them. */
export interface EngineLog {
  debug(message: string, error?: unknown, fields?: object): void;
  info(message: string, error?: unknown, fields?: object): void;
  warn(message: string, error?: unknown, fields?: object): void;
  error(message: string, error?: unknown, fields?: object): void;
  /** A log whose lines carry the bindings. */
  bound(bindings: Bindings): RunLog;
}

/** A logger as users have it: only what all shapes have in common. */
type Given = Logger & {
  child?: (bindings: object) => Given;
  log?: unknown;
  transports?: unknown;
};
type Line = readonly unknown[];
type Shape = "fields first" | "message first" | "console";

/** The engine's log over a logger of any shape. A logger that throws loses its line, and nothing else. */
export function engineLog(logger: Logger): EngineLog {
  const given = logger as Given;
  const shape = attempt(() => shapeOf(given)) ?? "console";
  const say =
    (level: Level) =>
    (message: string, error?: unknown, fields?: object): void =>
      write(given, level, () => engineLine(shape, message, error, fields));
  return { ...byLevel(say), bound: (bindings) => boundLog(given, shape, bindings) };
}

function shapeOf(given: Given): Shape {
  if (typeof given.child !== "function") return "console";
  return typeof given.log === "function" && given.transports !== undefined ? "message first" : "fields first";
}

const byLevel = <F>(make: (level: Level) => F): Record<Level, F> => ({
  debug: make("debug"),
  info: make("info"),
  warn: make("warn"),
  error: make("error"),
});

/** Whatever is logged: making the line of it may throw as well. */
function write(logger: Given, level: Level, made: () => Line): void {
  try {
    quietly(() => (logger[level] as (...line: unknown[]) => void)(...made()));
  } catch {
    // A line more or less never decides what a run does.
  }
}

function engineLine(shape: Shape, message: string, error: unknown, fields?: object): Line {
  const failed = error !== undefined;
  if (shape === "console") return failed ? [escaped(message), error] : [message];
  const all = { ...fields, ...(failed && { err: shape === "message first" ? plain(error) : error }) };
  if (Object.keys(all).length === 0) return [message];
  return shape === "message first" ? [message, all] : [all, message];
}

/** console reads placeholders in a message that something follows. */
const escaped = (text: string): string => text.replaceAll("%", "%%");

/** An error's own fields are hidden from what winston prints. */
function plain(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  return { ...error, name: error.name, message: error.message, stack: error.stack };
}

function boundLog(given: Given, shape: Shape, bindings: Bindings): RunLog {
  if (shape === "console") {
    const prefix = prefixOf(bindings);
    return byLevel(
      (level) =>
        (...line: unknown[]) =>
          write(given, level, () => prefixed(prefix, line)),
    ) as RunLog;
  }
  let child: Given | undefined;
  const say =
    (level: Level) =>
    (...line: unknown[]): void => {
      // Made when something is said: few runs do.
      child ??= made(given, bindings);
      write(child, level, () => fielded(shape, line));
    };
  return byLevel(say) as RunLog;
}

function made(given: Given, bindings: Bindings): Given {
  try {
    return given.child!({ ...bindings });
  } catch {
    return given;
  }
}

function prefixOf({ runId, workflow, version, step, stepAttempt }: Bindings): string {
  return `[${runId} ${workflow}/${version}${step === undefined ? "" : ` ${step}#${stepAttempt}`}]`;
}

/** A line for console: the message with the prefix, then what belongs to it. */
function prefixed(prefix: string, [first, ...rest]: Line): Line {
  const follows = typeof first === "string" ? rest : [...rest.slice(typeof rest[0] === "string" ? 1 : 0), first];
  const message = typeof first === "string" ? first : rest[0];
  const begin = follows.length > 0 ? escaped(prefix) : prefix;
  return [typeof message === "string" ? `${begin} ${message}` : begin, ...follows];
}

const PLACEHOLDER = /%[sdifjoOc]/;

/** A line for a logger with fields: what follows a message becomes fields, unless the message has places for it. */
function fielded(shape: Shape, line: Line): Line {
  const [first, ...rest] = line;
  if (typeof first !== "string") {
    if (shape === "fields first") return line;
    const [message, ...more] = typeof rest[0] === "string" ? rest : [messageOf(first), ...rest];
    return [message, fieldsOf([first, ...more], plain)];
  }
  if (rest.length === 0 || PLACEHOLDER.test(first)) return line;
  return shape === "message first" ? [first, fieldsOf(rest, plain)] : [fieldsOf(rest, (error) => error), first];
}

const messageOf = (first: unknown): string => (first instanceof Error ? first.message : "");

function fieldsOf(details: Line, show: (error: unknown) => unknown): object {
  const fields: Record<string, unknown> = {};
  const others: unknown[] = [];
  for (const detail of details) {
    if (detail instanceof Error && !("err" in fields)) fields.err = show(detail);
    else if (typeof detail === "object" && detail !== null && !(detail instanceof Error) && !Array.isArray(detail))
      Object.assign(fields, detail);
    else others.push(detail);
  }
  return others.length > 0 ? { ...fields, details: others } : fields;
}
