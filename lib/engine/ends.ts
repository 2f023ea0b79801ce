/** The ends of other runs that a run waits for, as its claim knows them. Pure. */
import type { Ended } from "../core/claim.ts";

/** As many bytes as the SQL function `ended` returns, or a little more. */
const BYTES_PER_LOOK = 4 * 1024 * 1024;

export class Ends {
  #byId: Map<string, Ended> | undefined;
  /** More runs have ended than one look brings. */
  partial = false;

  constructor(ended: readonly Ended[]) {
    this.take(ended);
  }

  take(ended: readonly Ended[]): void {
    let bytes = 0;
    for (const end of ended) {
      bytes += Buffer.byteLength(end.value ?? "");
      this.#byId ??= new Map();
      this.#byId.set(end.id, end);
    }
    this.partial = bytes >= BYTES_PER_LOOK;
  }

  get(id: string): Ended | undefined {
    return this.#byId?.get(id);
  }

  /** All that were waited for are handed over. Who waits for one of them again asks again. */
  clear(): void {
    this.#byId = undefined;
  }

  /** A new wait asks anew for a run that had failed: it may have been retried since. Any other end stands. */
  forgetFailure(id: string): void {
    if (this.get(id)?.state === "failed") this.#byId!.delete(id);
  }
}
