/** Waiting that always ends: for an answer, until a deadline or a signal; and for a while, unless a signal cuts it short. */

/** A timer that is later than this tells of a blocked event loop. */
const BLOCKED_MS = 50;

/** The promise's outcome, or an error once `ms` have passed or the signal is aborted. The loser's outcome is dropped. */
export async function within<T>(promise: Promise<T>, ms: number, what: string, signal?: AbortSignal): Promise<T> {
  const over = new AbortController();
  try {
    return await Promise.race([promise, lateness(ms, what, over.signal), abortion(over.signal, signal)]);
  } finally {
    over.abort();
  }
}

/** The answer of a connection, or an error like that of a broken one once `ms` have passed: a half-open socket never answers. */
export function answered<T>(answer: Promise<T>, ms: number, what: string): Promise<T> {
  // Of one answer after the other: without the signals that `within` makes, which cost more than the rest of it.
  return new Promise((resolve, reject) => {
    const stop = whenLate(ms, what, (error) => reject(Object.assign(error, { code: "ETIMEDOUT" })));
    answer.then(
      (value) => {
        stop();
        resolve(value);
      },
      (error) => {
        stop();
        reject(error);
      },
    );
  });
}

function lateness(ms: number, what: string, over: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    over.addEventListener("abort", whenLate(ms, what, reject), { once: true });
  });
}

/** Calls back once `ms` have passed. Returns what puts an end to that. */
function whenLate(ms: number, what: string, callBack: (error: Error) => void): () => void {
  let timer: NodeJS.Timeout;
  const late = () => callBack(new Error(`${what}: no answer within ${ms} ms`));
  const arm = () => {
    const due = performance.now() + ms;
    // What a blocked event loop has not sent or not read is not late: the time starts again, and sockets come before verdicts.
    timer = setTimeout(() => (performance.now() > due + BLOCKED_MS ? arm() : setImmediate(late)), ms);
  };
  arm();
  return () => clearTimeout(timer);
}

function abortion(over: AbortSignal, signal?: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true, signal: over });
  });
}

/** Resolves after `ms`, or as soon as the signal is aborted; never rejects. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
}
