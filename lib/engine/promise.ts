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
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
}

/** A durable promise with its handles. */
export function defer(): Deferred {
  let resolve!: Deferred["resolve"];
  let fail!: Deferred["reject"];
  const promise = new DurablePromise<unknown>((resolved, rejected) => {
    resolve = resolved;
    fail = rejected;
  });
  const reject = (reason: unknown): void => {
    // A rejection that nobody awaited yet is no news for the host, which does not count as awaiting.
    const { awaited } = promise;
    void Promise.prototype.then.call(promise, undefined, () => {});
    promise.awaited = awaited;
    fail(reason);
  };
  return { promise, resolve, reject };
}
