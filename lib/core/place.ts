/** Where in the application's own code something was called, read from a stack: not Node's code, not a package's, not this library's. */
import { fileURLToPath } from "node:url";
import { attempt } from "./options.ts";

const SELF = /^(.*\/)core\/place\.[cm]?[jt]s$/.exec(import.meta.url);

/** In a bundle all code is in one file, so that the application's cannot be told from the library's. */
export const isBundled = SELF === null;

const built = SELF ? pathOf(SELF[1]!) : "";
// With source maps a stack names the sources.
const OWN = [built, built.replace(/([\\/])dist[\\/](lib[\\/])$/, "$1$2")].filter((folder) => folder !== "");

/** The frames below the call of a function, as far as they are synchronous; read once they are asked for. */
export interface Stack {
  readonly stack?: unknown;
}

/** Takes the stack below `callee`, which is on it. */
export function stackBelow(callee: (...args: never[]) => unknown, frames: number): Stack {
  const holder: Stack = {};
  const limit = Error.stackTraceLimit;
  // Where the intrinsics are frozen, other frames are taken than are asked for, or none.
  attempt(() => {
    Error.stackTraceLimit = frames;
  });
  attempt(() => Error.captureStackTrace(holder, callee));
  attempt(() => {
    Error.stackTraceLimit = limit;
  });
  return holder;
}

/** Where a definition comes from. */
export interface Source {
  /** Whose method it is; undefined: it is a function. */
  readonly instance: object | undefined;
  readonly place: Stack;
}

/** The place that called `called`, for errors that name two places. One frame, and no text before somebody asks. */
export const placeOf = (called: (...args: never[]) => unknown): Stack => stackBelow(called, 1);

/** The place as a text begins with it: ` at /app/order.ts:12`; empty where it is not known. */
export function placeText(place: Stack): string {
  const [location] = attempt(() => locationsIn(place)) ?? [];
  return location === undefined ? "" : ` at ${location.replace(/:\d+$/, "")}`;
}

type Owner = "application" | "library" | "package" | "node" | "engine";

/** The place of the caller, if it is the application's code. */
export function caller(stack: Stack): string | null {
  for (const location of locationsIn(stack)) {
    const owner = ownerOf(location);
    if (owner === "application") return location;
    // What calls back from within the language, map or the constructor of a promise, stands between.
    if (owner !== "engine") return null;
  }
  return null;
}

/** The first place of the application's code below packages and Node's own code; null where the library's comes first. */
export function originOf(stack: Stack): string | null {
  for (const location of locationsIn(stack)) {
    const owner = ownerOf(location);
    if (owner === "application") return location;
    if (owner === "library") return null;
  }
  return null;
}

/** The first place of the application's code at all. */
export function firstPlace(stack: Stack): string | null {
  return locationsIn(stack).find((location) => ownerOf(location) === "application") ?? null;
}

/** `path:line:column` of each frame, the innermost first. */
function locationsIn({ stack }: Stack): string[] {
  if (typeof stack !== "string") return [];
  const frames = stack.split("\n").filter((line) => /^\s+at /.test(line));
  return frames.map((frame) => {
    const at = frame.endsWith(")")
      ? frame.slice(frame.lastIndexOf(" (") + 2, -1)
      : frame.replace(/^\s+at (async )?/, "");
    return at.startsWith("file://") ? pathOf(at) : at;
  });
}

function ownerOf(location: string): Owner {
  if (location.startsWith("node:")) return "node";
  if (!/:\d+:\d+$/.test(location) || location.startsWith("<anonymous>")) return "engine";
  if (OWN.some((folder) => location.startsWith(folder)) || /[\\/]node_modules[\\/]perdure[\\/]/.test(location))
    return "library";
  return /[\\/]node_modules[\\/]/.test(location) ? "package" : "application";
}

function pathOf(url: string): string {
  try {
    return fileURLToPath(url);
  } catch {
    return url;
  }
}
