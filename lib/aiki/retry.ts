/** Retry strategies with their older names, as policies of the core. */
import type { Duration } from "../core/duration.ts";
import type { Retry } from "../core/retry.ts";

type Rename<T> = T extends { type: "fixed" }
  ? Omit<T, "delay"> & ({ delay: Duration; delayMs?: never } | { delayMs: number; delay?: never })
  : T extends { baseDelay: Duration }
    ? Omit<T, "baseDelay" | "maxDelay"> &
        ({ baseDelay: Duration; baseDelayMs?: never } | { baseDelayMs: number; baseDelay?: never }) &
        (
          | { maxDelay?: Duration | undefined; maxDelayMs?: never }
          | { maxDelayMs?: number | undefined; maxDelay?: never }
        )
    : T;

/** When a failed task or workflow is tried again: a `Retry` of the core, or the same with `delayMs`, `baseDelayMs` and `maxDelayMs`. */
export type RetryStrategy = Rename<Retry>;

const NAMES = { delayMs: "delay", baseDelayMs: "baseDelay", maxDelayMs: "maxDelay" } as const;

/** The core's name for each. What is no strategy at all is left to the core, which says so. */
export function toRetry(given: RetryStrategy): Retry {
  if (typeof given !== "object" || given === null) return given;
  const named = Object.entries(given).map(([key, value]) => [NAMES[key as keyof typeof NAMES] ?? key, value]);
  return Object.fromEntries(named.filter(([, value]) => value !== undefined)) as Retry;
}
