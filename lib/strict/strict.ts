/**
 * Strict mode: names the line where a workflow's body reads the clock, draws at random, waits for a timer or uses the network outside a step.
 * The functions are replaced while a strict engine is launched, and only then; what the library itself calls, steps and packages is let be.
 */
import { syncBuiltinESMExports } from "node:module";
import { scope } from "../core/context.ts";
import { caller, isBundled, originOf, stackBelow } from "../core/place.ts";
import { isQuiet } from "../core/quiet.ts";
import { DATE, type Watched, watched } from "./watched.ts";

type Callable = (...args: never[]) => unknown;
type Finding = Pick<Watched, "call" | "does" | "why" | "instead" | "by">;

/** Frames that stand between a call and who made it, and between a package's call and the application's. */
const NEAR = 4;
const FAR = 60;

let holders = 0;
let restore: (() => void) | null = null;
/** Places that were told of. */
const told = new Set<string>();

/** Watches bodies until the function that it returns is called. False: it cannot, in a bundle. */
export function watchBodies(): (() => void) | false {
  if (isBundled) return false;
  holders += 1;
  restore ??= replaceAll();
  let held = true;
  return () => {
    if (!held) return;
    held = false;
    holders -= 1;
    if (holders > 0) return;
    restore?.();
    restore = null;
    told.clear();
  };
}

/** Replaces the functions. Returns what puts them back. */
function replaceAll(): () => void {
  const undo = watched().map((one) => (one.on ? replace(one.on, one.name, (was) => watching(was, one)) : () => {}));
  undo.push(replace(globalThis, "Date", watchingDate));
  undo.push(replace(Date.prototype, "constructor", () => Date as unknown as Callable));
  // For those who import the functions of Node's modules by name.
  syncBuiltinESMExports();
  return () => {
    for (const back of undo.reverse()) back();
    syncBuiltinESMExports();
  };
}

function replace(on: object, name: string, make: (was: Callable) => Callable): () => void {
  const own = Object.getOwnPropertyDescriptor(on, name);
  const was = (on as Record<string, unknown>)[name];
  const fixed = own ? !own.configurable : !Object.isExtensible(on);
  if (typeof was !== "function" || fixed) return () => {};
  const made = make(was as Callable);
  Object.defineProperty(on, name, {
    value: made,
    writable: true,
    configurable: true,
    enumerable: own?.enumerable ?? false,
  });
  return () => {
    // Somebody has put a function of his own over ours, and it stays.
    if ((on as Record<string, unknown>)[name] !== made) return;
    if (own) Object.defineProperty(on, name, own);
    else delete (on as Record<string, unknown>)[name];
  };
}

function watching(was: Callable, finding: Finding): Callable {
  const apply: ProxyHandler<Callable>["apply"] = (target, self, args) => {
    notice(finding, apply as Callable);
    return Reflect.apply(target, self, args);
  };
  return new Proxy(was, { apply });
}

function watchingDate(was: Callable): Callable {
  const apply: ProxyHandler<Callable>["apply"] = (target, self, args) => {
    notice({ call: "Date()", ...DATE }, apply as Callable);
    return Reflect.apply(target, self, args);
  };
  const construct: ProxyHandler<Callable>["construct"] = (target, args, made) => {
    if (args.length === 0) notice({ call: "new Date()", ...DATE }, construct as Callable);
    return Reflect.construct(target, args, made);
  };
  return new Proxy(was, { apply, construct });
}

/** Tells of the call that is being made, if a body makes it. */
function notice({ call, does, why, instead, by }: Finding, trap: Callable): void {
  const here = scope.getStore();
  if (!here || here.step || isQuiet()) return;
  const { warn, run } = here.body;
  if (!warn) return;
  const place = by === "caller" ? caller(stackBelow(trap, NEAR)) : originOf(stackBelow(trap, FAR));
  if (place === null || told.has(place)) return;
  told.add(place);
  warn(
    `${call} at ${place} ${does} in the body of workflow "${run.workflow}", outside a step (run "${run.id}"): ${why}. In its place, ${instead}`,
  );
}
