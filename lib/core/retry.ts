/** Whether a failed attempt is tried again, and how long after. Arithmetic only: who asks also keeps the clock and asks `shouldRetry`. */
import { type Duration, MAX_DURATION, toMs } from "./duration.ts";
import { NonRetryableError, PerdureError } from "./errors.ts";
import { attempt, checkKeys, isPlainObject, nearest, shorten } from "./options.ts";

/** Asked with each error that could be retried; false ends the retries at once. */
export type ShouldRetry = (error: unknown) => boolean | Promise<boolean>;

type Backoff = {
  /** How often the function is called at most, the first time included. A whole number from 1, or Infinity. */
  maxAttempts: number;
  /** The delay after the first failure. 0 is allowed. */
  baseDelay: Duration;
  /** What each further failure multiplies the delay by. Default 2; at least 1, fractions allowed. */
  factor?: number | undefined;
  /** The longest delay. Default: none but the longest duration, 365,000 days. */
  maxDelay?: Duration | undefined;
  /** Asked with each error; false ends the tries at once. */
  shouldRetry?: ShouldRetry | undefined;
};

/**
 * When a failed step or workflow is tried again: `never`; `fixed`, after the same delay each time; `exponential`, after
 * baseDelay · factor^(failures − 1); `jittered`, after a random part of that, so that many failures do not come back at once.
 */
export type Retry =
  | {
      type: "never";
      /** Nothing asks it. */
      shouldRetry?: ShouldRetry | undefined;
    }
  | {
      type: "fixed";
      /** How often the function is called at most, the first time included. A whole number from 1, or Infinity. */
      maxAttempts: number;
      /** The time between two tries. 0 is allowed. */
      delay: Duration;
      /** Asked with each error; false ends the tries at once. */
      shouldRetry?: ShouldRetry | undefined;
    }
  | ({ type: "exponential" } & Backoff)
  | ({ type: "jittered" } & Backoff);

/** A checked `Retry`: delays in milliseconds, every default filled in. */
export type RetryPlan = {
  readonly type: Retry["type"];
  readonly maxAttempts: number;
  readonly baseDelay: number;
  readonly factor: number;
  readonly maxDelay: number;
  readonly shouldRetry: ShouldRetry | undefined;
};

const BACKOFF_KEYS = ["type", "maxAttempts", "baseDelay", "factor", "maxDelay", "shouldRetry"];
const KEYS: Record<Retry["type"], readonly string[]> = {
  never: ["type", "shouldRetry"],
  fixed: ["type", "maxAttempts", "delay", "shouldRetry"],
  exponential: BACKOFF_KEYS,
  jittered: BACKOFF_KEYS,
};
const TYPES = Object.keys(KEYS);

/** The plan for `retry`. `where` is whose it is: `step "reserve"`. Throws PERDURE_OPTION for what is unknown, missing or out of range. */
export function checkRetry(given: Retry, where: string): RetryPlan {
  const what = `retry of ${where}`;
  const retry = checkKeys(given, KEYS[typeOf(given, what)], what);
  const shouldRetry = checkShouldRetry(retry.shouldRetry, what);
  const once = { type: retry.type, maxAttempts: 1, baseDelay: 0, factor: 1, maxDelay: MAX_DURATION, shouldRetry };
  if (retry.type === "never") return once;
  const plan = { ...once, maxAttempts: checkMaxAttempts(retry.maxAttempts, what) };
  if (retry.type === "fixed") return { ...plan, baseDelay: toMs(retry.delay, `delay in ${what}`) };
  return {
    ...plan,
    baseDelay: toMs(retry.baseDelay, `baseDelay in ${what}`),
    factor: checkFactor(retry.factor, what),
    maxDelay: retry.maxDelay === undefined ? MAX_DURATION : toMs(retry.maxDelay, `maxDelay in ${what}`),
  };
}

/** The policy that a plan was made of, without its function. */
export function retryOf({ type, maxAttempts, baseDelay, factor, maxDelay }: RetryPlan): Retry {
  if (type === "never") return { type };
  return type === "fixed"
    ? { type, maxAttempts, delay: baseDelay }
    : { type, maxAttempts, baseDelay, factor, maxDelay };
}

/**
 * Milliseconds from the failure to the next attempt, or null to give up. `failedAttempts` counts from 1; `random` gives 0 to 1,
 * as Math.random does, and is asked for a jittered delay only.
 */
export function delayAfter(plan: RetryPlan, failedAttempts: number, random: () => number = Math.random): number | null {
  if (failedAttempts >= plan.maxAttempts) return null;
  // The power may overflow to Infinity, and 0 · Infinity is NaN.
  const grown = plan.baseDelay === 0 ? 0 : plan.baseDelay * plan.factor ** (failedAttempts - 1);
  const delay = Math.min(grown, plan.maxDelay);
  // "Full jitter": M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
  return plan.type === "jittered" ? random() * delay : delay;
}

/** Whether an error ends the tries. A Proxy that refuses to be asked is an error like others. */
export function isNonRetryable(error: unknown): boolean {
  return attempt(() => error instanceof NonRetryableError) ?? false;
}

function typeOf(retry: unknown, what: string): Retry["type"] {
  const given = attempt(() => isPlainObject(retry) && { type: retry.type });
  if (!given) {
    const help = 'write { type: "fixed", maxAttempts: 3, delay: "1s" } or another type';
    throw refuse(`${what} must be a plain object, not ${shorten(retry)}; ${help}`);
  }
  const { type } = given;
  if (typeof type === "string" && TYPES.includes(type)) return type as Retry["type"];
  const meant = typeof type === "string" ? nearest(type, TYPES) : undefined;
  const help = meant ? `did you mean "${meant}"?` : `it must be one of ${TYPES.join(", ")}`;
  throw refuse(`unknown type ${shorten(type)} in ${what}; ${help}`);
}

function checkMaxAttempts(value: unknown, what: string): number {
  if (value === Infinity || (Number.isSafeInteger(value) && (value as number) >= 1)) return value as number;
  const rule = "must be a whole number of at least 1, which counts the first attempt, or Infinity";
  throw refuse(`maxAttempts in ${what} ${rule}, not ${shorten(value)}`);
}

function checkFactor(value: unknown, what: string): number {
  if (value === undefined) return 2;
  if (typeof value === "number" && Number.isFinite(value) && value >= 1) return value;
  throw refuse(`factor in ${what} must be a finite number of at least 1, not ${shorten(value)}`);
}

function checkShouldRetry(value: unknown, what: string): ShouldRetry | undefined {
  if (value === undefined || typeof value === "function") return value as ShouldRetry | undefined;
  throw refuse(`shouldRetry in ${what} must be a function, not ${shorten(value)}`);
}

function refuse(message: string): PerdureError {
  return new PerdureError("PERDURE_OPTION", message);
}
