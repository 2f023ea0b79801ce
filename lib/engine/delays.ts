/** How long a run waits whose context could not be made: longer each time, as long as this process remembers it. Pure: no I/O, no clock. */

const FIRST_MS = 1000;
const LONGEST_MS = 60_000;
/** So many runs are remembered at most, the ones that failed last. */
const MOST = 10_000;

export class Delays {
  readonly #failures = new Map<string, number>();

  /** In milliseconds: 1 s, 2 s, 4 s and so on, up to a minute. */
  next(run: string): number {
    const failures = this.#failures.get(run) ?? 0;
    this.#failures.delete(run);
    this.#failures.set(run, failures + 1);
    if (this.#failures.size > MOST) this.#failures.delete(this.#failures.keys().next().value!);
    return Math.min(FIRST_MS * 2 ** failures, LONGEST_MS);
  }

  /** Its context was made. */
  forget(run: string): void {
    this.#failures.delete(run);
  }
}
