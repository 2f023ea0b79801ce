/** Retries: which delays a policy gives, and which policies are refused. */
import t from "tap";
import { MAX_DURATION } from "../../lib/core/duration.ts";
import { checkRetry, delayAfter, type Retry } from "../../lib/core/retry.ts";
import { refusal } from "../support/refusal.ts";

const WHERE = 'step "x"';
const unasked = (): number => {
  throw new Error("random was asked");
};

await t.test("a policy becomes a plan in milliseconds with every default filled in", async (t) => {
  const shouldRetry = () => true;
  const rest = { baseDelay: 0, factor: 1, maxDelay: MAX_DURATION, shouldRetry: undefined };
  const cases: [Retry, object][] = [
    [{ type: "never" }, { type: "never", maxAttempts: 1, ...rest }],
    [
      { type: "never", shouldRetry },
      { type: "never", maxAttempts: 1, ...rest, shouldRetry },
    ],
    [
      { type: "fixed", maxAttempts: 3, delay: "1.5s" },
      { ...rest, type: "fixed", maxAttempts: 3, baseDelay: 1500 },
    ],
    [
      { type: "fixed", maxAttempts: 1, delay: 0 },
      { ...rest, type: "fixed", maxAttempts: 1 },
    ],
    [
      { type: "exponential", maxAttempts: Infinity, baseDelay: "1s" },
      { ...rest, type: "exponential", maxAttempts: Infinity, baseDelay: 1000, factor: 2 },
    ],
    [
      { type: "jittered", maxAttempts: 9, baseDelay: 5, factor: 1.5, maxDelay: { minutes: 1 }, shouldRetry },
      { type: "jittered", maxAttempts: 9, baseDelay: 5, factor: 1.5, maxDelay: 60_000, shouldRetry },
    ],
    [
      { type: "exponential", maxAttempts: 2, baseDelay: 5, factor: undefined, maxDelay: undefined },
      { ...rest, type: "exponential", maxAttempts: 2, baseDelay: 5, factor: 2 },
    ],
  ];
  for (const [retry, plan] of cases) t.strictSame(checkRetry(retry, WHERE), plan, JSON.stringify(retry));
});

await t.test("maxAttempts counts the first, and the delays between are those of the policy", async (t) => {
  const cases: [Retry, (number | null)[]][] = [
    [{ type: "never" }, [null, null]],
    [{ type: "fixed", maxAttempts: 1, delay: 7 }, [null]],
    [{ type: "fixed", maxAttempts: 3, delay: 7 }, [7, 7, null, null]],
    [{ type: "exponential", maxAttempts: 5, baseDelay: 100 }, [100, 200, 400, 800, null]],
    [{ type: "exponential", maxAttempts: 4, baseDelay: 100, factor: 1.5 }, [100, 150, 225, null]],
    [{ type: "exponential", maxAttempts: 4, baseDelay: 100, factor: 1 }, [100, 100, 100, null]],
    [{ type: "exponential", maxAttempts: 5, baseDelay: 100, maxDelay: 250 }, [100, 200, 250, 250, null]],
    [{ type: "exponential", maxAttempts: 3, baseDelay: 0 }, [0, 0, null]],
    [{ type: "exponential", maxAttempts: 3, baseDelay: 9, maxDelay: 0 }, [0, 0, null]],
  ];
  for (const [retry, delays] of cases) {
    const plan = checkRetry(retry, WHERE);
    t.strictSame(
      delays.map((_, i) => delayAfter(plan, i + 1, unasked)),
      delays,
      JSON.stringify(retry),
    );
  }
});

await t.test("a delay never passes the longest duration and is never NaN, however many attempts failed", async (t) => {
  const endless = { type: "exponential", maxAttempts: Infinity } as const;
  t.equal(delayAfter(checkRetry({ ...endless, baseDelay: "1s" }, WHERE), 100), MAX_DURATION);
  t.equal(delayAfter(checkRetry({ ...endless, baseDelay: "1s" }, WHERE), 1e9), MAX_DURATION);
  t.equal(delayAfter(checkRetry({ ...endless, baseDelay: 0 }, WHERE), 1e9), 0);
  t.equal(delayAfter(checkRetry({ ...endless, baseDelay: 0, factor: Number.MAX_VALUE }, WHERE), 3), 0);
  t.equal(delayAfter(checkRetry({ ...endless, baseDelay: "1s", maxDelay: "1h" }, WHERE), 1e9), 3_600_000);
});

await t.test("a jittered delay is a random part of the exponential one, its cap included", async (t) => {
  const plan = checkRetry({ type: "jittered", maxAttempts: 6, baseDelay: 100, maxDelay: 300 }, WHERE);
  const delays = (random: number) => [1, 2, 3, 4, 5, 6].map((failed) => delayAfter(plan, failed, () => random));
  t.strictSame(delays(0), [0, 0, 0, 0, 0, null]);
  t.strictSame(delays(0.5), [50, 100, 150, 150, 150, null]);
  for (let i = 0; i < 200; i++) {
    const delay = delayAfter(plan, 2);
    t.ok(delay !== null && delay >= 0 && delay < 200, "Math.random is the default");
  }
});

await t.test("a policy that is wrong is refused, with whose it is and what to write", async (t) => {
  const fixed = { type: "fixed", maxAttempts: 3, delay: 1 };
  const backoff = { type: "exponential", maxAttempts: 3, baseDelay: 1 };
  const attempts =
    'maxAttempts in retry of step "x" must be a whole number of at least 1, which counts the first attempt, or Infinity, not';
  const factor = 'factor in retry of step "x" must be a finite number of at least 1, not';
  const object = 'write { type: "fixed", maxAttempts: 3, delay: "1s" } or another type';
  const duration =
    'write milliseconds, a string such as "250ms", "30m" or "1h30m", or an object such as { minutes: 30 }';
  const cases: [unknown, string][] = [
    ["never", `retry of step "x" must be a plain object, not "never"; ${object}`],
    [undefined, `retry of step "x" must be a plain object, not undefined; ${object}`],
    [3, `retry of step "x" must be a plain object, not 3; ${object}`],
    [{}, 'unknown type undefined in retry of step "x"; it must be one of never, fixed, exponential, jittered'],
    [
      { type: "linear" },
      'unknown type "linear" in retry of step "x"; it must be one of never, fixed, exponential, jittered',
    ],
    [{ type: "exponental" }, 'unknown type "exponental" in retry of step "x"; did you mean "exponential"?'],
    [
      { type: "never", maxAttempts: 3 },
      'unknown option "maxAttempts" of retry of step "x"; it takes type, shouldRetry',
    ],
    [{ ...fixed, maxAttemps: 3 }, 'unknown option "maxAttemps" of retry of step "x"; did you mean "maxAttempts"?'],
    [{ ...backoff, delay: 1 }, 'unknown option "delay" of retry of step "x"; did you mean "baseDelay"?'],
    [{ ...fixed, maxAttempts: 0 }, `${attempts} 0`],
    [{ ...fixed, maxAttempts: 1.5 }, `${attempts} 1.5`],
    [{ ...fixed, maxAttempts: -Infinity }, `${attempts} -Infinity`],
    [{ ...fixed, maxAttempts: "3" }, `${attempts} "3"`],
    [{ type: "fixed", delay: 1 }, `${attempts} undefined`],
    [{ ...backoff, factor: 0.5 }, `${factor} 0.5`],
    [{ ...backoff, factor: Infinity }, `${factor} Infinity`],
    [{ ...backoff, factor: Number.NaN }, `${factor} NaN`],
    [{ ...backoff, factor: null }, `${factor} null`],
    [{ ...fixed, shouldRetry: true }, 'shouldRetry in retry of step "x" must be a function, not true'],
    [
      { type: "fixed", maxAttempts: 3 },
      `delay in retry of step "x" is undefined, which is not a duration; ${duration}`,
    ],
    [{ ...backoff, baseDelay: -1 }, `baseDelay in retry of step "x" is -1, which is negative; ${duration}`],
    [{ ...backoff, maxDelay: "1 h" }, `maxDelay in retry of step "x" is "1 h", which is not a duration; ${duration}`],
  ];
  for (const [retry, message] of cases) {
    t.strictSame(
      refusal(() => checkRetry(retry as Retry, WHERE)),
      { name: "PerdureError", code: "PERDURE_OPTION", message },
      message,
    );
  }
});
