/** One try at a step: its function, in a scope and with a signal of its own, within its time. */
import { type Body, scope } from "../core/context.ts";
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

  constructor(info: Pick<StepInfo, "name" | "attempt" | "idempotencyKey" | "tx">) {
    this.name = info.name;
    this.attempt = info.attempt;
    this.idempotencyKey = info.idempotencyKey;
    this.tx = info.tx;
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

  /** Runs `work`. At the end of its time aborts it and throws a TimeoutError, whatever it does later. */
  run(body: Body, timeoutMs: number | null, what: () => string, work: () => unknown): unknown {
    const result = scope.run({ body, step: this }, work);
    if (timeoutMs === null) return result;
    const running = Promise.resolve(result);
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
        const error = new TimeoutError(`${what()} took longer than its timeout of ${timeoutMs} ms`);
        this.abort(error);
        reject(error);
      };
      ring();
    });
    return Promise.race([running, late]).finally(() => clearTimeout(timer));
  }
}
