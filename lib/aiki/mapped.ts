/** A durable call's outcome in this layer's words. */

/**
 * What a call gives, changed. The call itself is touched only once somebody awaits this, so that the engine can tell a call
 * that nobody does.
 */
export function mapped<T, R>(
  call: Promise<T>,
  change: (value: T) => R | Promise<R>,
  onError?: (error: unknown) => R | Promise<R>,
): Promise<R> {
  const changed = (): Promise<R> => call.then(change, onError);
  return {
    // biome-ignore lint/suspicious/noThenProperty: to see that somebody awaits
    then: (onFulfilled, onRejected) => changed().then(onFulfilled, onRejected),
    catch: (onRejected) => changed().catch(onRejected),
    finally: (onFinally) => changed().finally(onFinally),
    [Symbol.toStringTag]: "Promise",
  };
}
