/** Polls until something holds, with a deadline: in place of a sleep that hopes. */
import { setTimeout as sleep } from "node:timers/promises";

/** The first truthy value, or the last error once `ms` have passed. */
export async function eventually<T>(look: () => T | Promise<T>, ms = 5000): Promise<NonNullable<T>> {
  const deadline = performance.now() + ms;
  for (;;) {
    try {
      const found = await look();
      if (found) return found;
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${look}`);
    await sleep(5);
  }
}
