/** One try at a step: what its function sees of it, with a signal of its own, and its time. */
import { TimeoutError } from "../core/errors.ts";
import type { StepInfo, TransactionClient } from "../core/types.ts";

// A longer timer would fire at once.
const LONGEST = 2 ** 31 - 1;

export class Attempt implements StepInfo {
  readonly name: string;
  readonly attempt: number;
  readonly idempotencyKey: string;
  readonly tx: TransactionClient | undefined;
  /** Until it has come to something. */
  running = true;
  #aborter: AbortController | undefined;
  #aborted: { readonly reason: unknown } | undefined;

  constructor(name: string, attempt: number, idempotencyKey: string, tx: TransactionClient | undefined) {
    this.name = name;
    this.attempt = attempt;
    this.idempotencyKey = idempotencyKey;
    this.tx = tx;
  }

  /** Made when it is asked for: few steps do. */
  get signal(): AbortSignal {
    this.#aborter ??= new AbortController();
    if (this.#aborted) this.#aborter.abort(this.#aborted.reason);
    return this.#aborter.signal;
  }

  abort(reason: unknown): void {
    this.#aborted ??= { reason };
    this.#aborter?.abort(reason);
  }

  /** What it comes to within its time. At the end of that aborts it and throws a TimeoutError, whatever it does later. */
  within(timeoutMs: number, what: string, result: Promise<unknown>): Promise<unknown> {
    // As `await` would, whatever it has made of `then`.
    const running: Promise<unknown> = Promise.prototype.then.call(result);
    // What comes after the timeout is nobody's error.
    running.catch(() => {});
    const end = performance.now() + timeoutMs;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const ring = (): void => {
        const left = end - performance.now();
        if (left > 0) {
          timer = setTimeout(ring, Math.min(left, LONGEST));
          return;
        }
        const error = new TimeoutError(`${what} took longer than its timeout of ${timeoutMs} ms`);
        this.abort(error);
        reject(error);
      };
      ring();
    });
    return Promise.race([running, late]).finally(() => clearTimeout(timer));
  }
}
