/** The ends of other runs that a run waits for, as its claim knows them. Pure. */
import type { Claim, Ended } from "../core/claim.ts";

/** As many bytes as the SQL function `ended` returns, or a little more. */
const BYTES_PER_LOOK = 4 * 1024 * 1024;

export class Ends {
  #byId: Map<string, Ended> | undefined;
  #seen = 0;
  /** More runs have ended than one look brings. */
  partial = false;

  constructor({ mail, ended }: Pick<Claim, "mail" | "ended">) {
    this.take(mail, ended);
  }

  /** `seen`: the run's mail counter as these were read. */
  take(seen: number, ended: readonly Ended[]): void {
    let bytes = 0;
    for (const end of ended) {
      bytes += Buffer.byteLength(end.value ?? "");
      this.#byId ??= new Map();
      this.#byId.set(end.id, end);
    }
    // Two looks may have crossed: the older one does not know what there is.
    if (seen < this.#seen) return;
    this.#seen = seen;
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
