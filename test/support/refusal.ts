/** What a refused call says, whole: tap's `throws` would accept a message of which the expected text is only a part. */

/** The name, code and message of the error that `call` throws; undefined if it returns. */
export function refusal(call: () => unknown): { name: unknown; code: unknown; message: unknown } | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    const { name, code, message } = error as Record<string, unknown>;
    return { name, code, message };
  }
}
