/** The slots of a worker: a run is in work in some, and some are kept for what is on its way. */
export class Slots {
  readonly #concurrency: number;
  /** In how many a run is in work. */
  readonly #taken: () => number;
  #reserved = 0;
  /** So many more runs may be taken. */
  #quota: number;

  constructor(concurrency: number, quota: number, taken: () => number) {
    this.#concurrency = concurrency;
    this.#quota = quota;
    this.#taken = taken;
  }

  /** In which nothing runs, and which are kept for nothing. */
  get free(): number {
    return Math.max(0, Math.min(this.#concurrency - this.#taken(), this.#quota) - this.#reserved);
  }

  get reserved(): number {
    return this.#reserved;
  }

  reserve(count: number): void {
    this.#reserved += count;
  }

  release(count: number): void {
    this.#reserved -= count;
  }

  /** Whether any run may be taken, now or when a slot is free. */
  get open(): boolean {
    return this.#quota > 0;
  }

  /** From here on so many runs may be taken. */
  allow(quota: number): void {
    this.#quota = quota;
  }

  /** A run has been taken. */
  count(): void {
    this.#quota -= 1;
  }
}
