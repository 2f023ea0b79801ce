/** The unread mail of a run as its claim knows it: by name, in the order in which it became visible. */
import type { Claim, Mail } from "../core/claim.ts";

/** As many as the SQL function unread returns at most. */
const MAILS_PER_LOOK = 1000;

export class Mailbox {
  #byName: Map<string, Mail[]> | undefined;
  /** The run's mail counter up to which everything is known here. */
  seen: number;
  /** The last mail known. */
  last = "0";
  /** There is more unread mail than one look brings. */
  partial = false;

  constructor(claim: Pick<Claim, "mail" | "unread">) {
    this.seen = claim.mail;
    this.take(claim.mail, claim.unread);
  }

  take(seen: number, unread: readonly Mail[]): void {
    // Two looks may have crossed: the older one does not know what there is.
    if (seen >= this.seen) this.partial = unread.length >= MAILS_PER_LOOK;
    this.seen = Math.max(this.seen, seen);
    for (const mail of unread) {
      if (BigInt(mail.seq) <= BigInt(this.last)) continue;
      this.last = mail.seq;
      this.#byName ??= new Map();
      const queue = this.#byName.get(mail.name);
      if (queue) queue.push(mail);
      else this.#byName.set(mail.name, [mail]);
    }
  }

  has(name: string): boolean {
    return (this.#byName?.get(name)?.length ?? 0) > 0;
  }

  shift(name: string): Mail | undefined {
    return this.#byName?.get(name)?.shift();
  }
}
