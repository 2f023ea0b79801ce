/**
 * The promise that a durable call returns: it knows whether anybody awaited it, and is never an unhandled rejection. What `then` makes is an
 * ordinary promise.
 */
export class DurablePromise<T> extends Promise<T> {
  awaited = false;

  // biome-ignore lint/suspicious/noThenProperty: to see that somebody awaits
  override then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.awaited = true;
    return super.then(onFulfilled, onRejected);
  }
}

// `await` asks a promise for its constructor. It takes one of Promise's own as it is, and wraps any other in promises of its own, three times as slow.
Reflect.defineProperty(DurablePromise.prototype, "constructor", {
  get(this: DurablePromise<unknown>) {
    this.awaited = true;
    return Promise;
  },
});

export interface Deferred {
  readonly promise: DurablePromise<unknown>;
  resolve(value: unknown): void;
  reject(reason: unknown): void;
}

type Settle = (given: unknown) => void;

// One for all: each promise asks it at once for where its handles go.
let resolveLast: Settle;
let rejectLast: Settle;
const give = (resolve: Settle, reject: Settle): void => {
  resolveLast = resolve;
  rejectLast = reject;
};

/** A durable promise with its handles. */
export class Handles implements Deferred {
  readonly promise: DurablePromise<unknown> = new DurablePromise<unknown>(give);
  readonly #resolve: Settle = resolveLast;
  readonly #reject: Settle = rejectLast;

  resolve(value: unknown): void {
    this.#resolve(value);
  }

  reject(reason: unknown): void {
    const { promise } = this;
    // A rejection that nobody awaited yet is no news for the host, which does not count as awaiting.
    const { awaited } = promise;
    void Promise.prototype.then.call(promise, undefined, () => {});
    promise.awaited = awaited;
    this.#reject(reason);
  }
}
