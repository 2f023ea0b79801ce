/** What a body must not ask the world around it: each call, what it is, and what to write in its place. */

export interface Watched {
  /** The object that holds the function; undefined: this runtime has none. */
  readonly on: object | undefined;
  readonly name: string;
  /** As a person writes it. */
  readonly call: string;
  readonly does: string;
  readonly why: string;
  readonly instead: string;
  /** `caller`: the application's own calls. `origin`: also those that a package makes for it, in the same turn. */
  readonly by: "caller" | "origin";
}

const WRAP = 'wrap it in a step: runStep("name", () => …)';
const OTHERWISE = "every replay gets another answer";
const AGAIN = "every replay does it again";
const CLOCK: Kind = {
  does: "reads the clock",
  why: OTHERWISE,
  instead: `use now() of perdure, or ${WRAP}`,
  by: "caller",
};
const DRAW: Kind = {
  does: "draws at random",
  why: OTHERWISE,
  instead: `use random() or uuid() of perdure, or ${WRAP}`,
  by: "caller",
};
const UUID: Kind = { ...DRAW, instead: `use uuid() of perdure, or ${WRAP}` };
const TIMER: Kind = {
  does: "sets a timer",
  why: "it holds the run's claim meanwhile, and every replay waits again",
  instead: "use sleep() of perdure",
  by: "caller",
};
const TURN: Kind = {
  ...TIMER,
  does: "waits for a turn of the event loop",
  why: AGAIN,
  instead: `leave it out, or ${WRAP}`,
};
const NETWORK: Kind = { does: "uses the network", why: AGAIN, instead: WRAP, by: "origin" };
const FILE: Kind = { does: "reads a file", why: OTHERWISE, instead: WRAP, by: "caller" };

type Kind = Pick<Watched, "does" | "why" | "instead" | "by">;

/** Everything but Date, which is replaced as a whole. */
export function watched(): Watched[] {
  const builtin = (name: string) => process.getBuiltinModule?.(name) as object | undefined;
  const all = (on: object | undefined, prefix: string, kind: Kind, names: string): Watched[] =>
    names.split(" ").map((name) => ({ on, name, call: `${prefix}${name}()`, ...kind }));
  const net = builtin("node:net") as { Socket: { prototype: object } } | undefined;
  const timers = builtin("node:timers/promises") as { scheduler?: object } | undefined;
  return [
    ...all(Date, "Date.", CLOCK, "now"),
    ...all(performance, "performance.", CLOCK, "now"),
    ...all(process, "process.", CLOCK, "hrtime"),
    ...all(process.hrtime, "process.hrtime.", CLOCK, "bigint"),
    ...all(Math, "Math.", DRAW, "random"),
    ...all(globalThis.crypto, "crypto.", UUID, "randomUUID"),
    ...all(globalThis.crypto, "crypto.", DRAW, "getRandomValues"),
    ...all(builtin("node:crypto"), "crypto.", UUID, "randomUUID"),
    ...all(builtin("node:crypto"), "crypto.", DRAW, "randomBytes randomInt randomFill randomFillSync getRandomValues"),
    ...all(globalThis, "", TIMER, "setTimeout setInterval"),
    ...all(globalThis, "", TURN, "setImmediate"),
    ...all(builtin("node:timers"), "", TIMER, "setTimeout setInterval"),
    ...all(builtin("node:timers"), "", TURN, "setImmediate"),
    ...all(timers, "timers/promises ", TIMER, "setTimeout setInterval"),
    ...all(timers, "timers/promises ", TURN, "setImmediate"),
    ...all(timers?.scheduler, "scheduler.", TIMER, "wait"),
    ...all(globalThis, "", NETWORK, "fetch"),
    ...all(builtin("node:http"), "http.", NETWORK, "request get"),
    ...all(builtin("node:https"), "https.", NETWORK, "request get"),
    ...all(builtin("node:http2"), "http2.", NETWORK, "connect"),
    ...all(builtin("node:net"), "net.", NETWORK, "connect createConnection"),
    // What drivers of databases use.
    ...all(net?.Socket.prototype, "socket.", NETWORK, "connect"),
    ...all(builtin("node:tls"), "tls.", NETWORK, "connect"),
    ...all(builtin("node:dns"), "dns.", NETWORK, "lookup resolve"),
    ...all(builtin("node:dns/promises"), "dns/promises ", NETWORK, "lookup resolve"),
    ...all(builtin("node:fs"), "fs.", FILE, "readFile readFileSync"),
    ...all(builtin("node:fs/promises"), "fs/promises ", FILE, "readFile"),
  ];
}

/** Date without arguments, called or constructed. */
export const DATE: Kind = CLOCK;
