/** The writes of one claim: sent in order, and what must not begin before they are committed. */
import type { Claim } from "../core/claim.ts";
import type { Flusher, Told } from "../db/flusher.ts";
import type { Fenced, RecordRow, WriteKind, Writes } from "../db/writes.ts";

/** Kinds whose rows belong to a claim; a start does when it is a child's. */
export type ClaimKind = { [K in WriteKind]: Writes[K]["row"] extends Fenced ? K : never }[WriteKind] | "start";
type Unfenced<K extends ClaimKind> = Omit<Writes[K]["row"], keyof Fenced>;

export interface LedgerEvents {
  /** The claim is over: a write of it was refused. */
  lose(): void;
  /** The database cannot take a row of this run. */
  refused(error: unknown): void;
}

/** What must not begin before all that was written is committed. */
export interface Effect {
  committed(): void;
  /** It will never be committed. */
  abandoned?(): void;
}

type Then<K extends ClaimKind> = (answer: Writes[K]["answer"] | undefined) => void;

/** A checkpoint. A class, as V8 puts what a long literal or a spread makes among old objects, and those keep what they refer to. */
export class RecordedRow implements RecordRow {
  run = "";
  epoch = 0;
  readonly slot: string;
  readonly attempt: number;
  readonly no: number;
  readonly kind: string;
  readonly name: string;
  readonly outcome: string;
  readonly value: string | null;
  readonly hash: string | null;
  readonly tries: number;
  readonly started: number;
  readonly at: number;
  readonly mail: string | null;

  constructor(
    { slot, kind, name }: Pick<RecordRow, "slot" | "kind" | "name">,
    attempt: number,
    no: number,
    at: number,
    {
      outcome,
      value,
      hash,
      tries,
      started,
      mail,
    }: Pick<RecordRow, "outcome" | "value" | "hash" | "tries" | "started" | "mail">,
  ) {
    this.slot = slot;
    this.attempt = attempt;
    this.no = no;
    this.kind = kind;
    this.name = name;
    this.outcome = outcome;
    this.value = value;
    this.hash = hash;
    this.tries = tries;
    this.started = started;
    this.at = at;
    this.mail = mail;
  }
}

const nothing = (): void => {};

/** A write on its way whose answer is waited for: one object in place of a closure for each way that it may end. */
class Sent<K extends ClaimKind> implements Told<K> {
  readonly #ledger: Ledger;
  readonly #then: Then<K>;
  readonly onAside: () => void;

  constructor(ledger: Ledger, then: Then<K>, onAside: () => void) {
    this.#ledger = ledger;
    this.#then = then;
    this.onAside = onAside;
  }

  resolve(answer: Writes[K]["answer"]): void {
    this.#ledger.answered(answer, this.#then);
  }

  reject(error: unknown): void {
    this.#ledger.refused(error, this.#then);
  }
}

export class Ledger implements Told<ClaimKind> {
  readonly #flusher: Pick<Flusher, "put">;
  readonly #run: string;
  readonly #events: LedgerEvents;
  #epoch: number;
  #sent = 0;
  #committed = 0;
  /** What the database could not take of this run, if anything. */
  refusal: { readonly error: unknown } | null = null;
  #parked: { readonly after: number; readonly effect: Effect }[] = [];

  constructor(flusher: Pick<Flusher, "put">, claim: Pick<Claim, "key" | "epoch">, events: LedgerEvents) {
    this.#flusher = flusher;
    this.#run = claim.key;
    this.#epoch = claim.epoch;
    this.#events = events;
  }

  get claim(): Fenced {
    return { run: this.#run, epoch: this.#epoch };
  }

  /** How many writes have been sent: the next one's place among them. */
  get sent(): number {
    return this.#sent;
  }

  /** How many writes are on their way. */
  get ahead(): number {
    return this.#sent - this.#committed;
  }

  /** Sends a write of this claim. Undefined: it was refused, and the events have been told. */
  write<K extends ClaimKind>(
    kind: K,
    row: Unfenced<K>,
    onAside?: () => void,
  ): Promise<Writes[K]["answer"] | undefined> {
    return new Promise<Writes[K]["answer"] | undefined>((resolve) => this.send(kind, row, resolve, onAside));
  }

  /** As `write`. The row is not the caller's any more. `then` must not throw. */
  send<K extends ClaimKind>(kind: K, row: Unfenced<K>, then: Then<K> = nothing, onAside: () => void = nothing): void {
    this.#sent += 1;
    const fenced = row as { -readonly [F in keyof Fenced]?: Fenced[F] };
    fenced.run = this.#run;
    fenced.epoch = this.#epoch;
    const told = then === nothing && onAside === nothing ? this : new Sent(this, then, onAside);
    this.#flusher.put(kind, row as unknown as Writes[K]["row"], told);
  }

  /** The answer to a write that nothing waits for but what is parked. */
  resolve(answer: Writes[ClaimKind]["answer"]): void {
    this.answered(answer, nothing);
  }

  reject(error: unknown): void {
    this.refused(error, nothing);
  }

  onAside(): void {}

  answered<K extends ClaimKind>(answer: Writes[K]["answer"], then: Then<K>): void {
    const isStale = (answer as { verdict: string }).verdict === "stale";
    if (isStale) this.#events.lose();
    then(isStale ? undefined : answer);
    if (isStale) this.#giveUp();
    else this.#commit();
  }

  refused<K extends ClaimKind>(error: unknown, then: Then<K>): void {
    this.refusal ??= { error };
    this.#events.refused(error);
    then(undefined);
    this.#giveUp();
  }

  /** Tells an effect once all that was written before is committed: now, if it is. */
  afterCommit(effect: Effect): void {
    if (this.#committed === this.#sent) effect.committed();
    else this.#parked.push({ after: this.#sent, effect });
  }

  #giveUp(): void {
    for (const { effect } of this.#parked.splice(0)) effect.abandoned?.();
  }

  /** The claim was taken again in place. */
  renew(): void {
    this.#epoch += 1;
  }

  // Writes of one run are committed in the order in which they were sent, so a count is enough.
  #commit(): void {
    this.#committed += 1;
    while (this.#parked.length > 0 && this.#parked[0]!.after <= this.#committed)
      this.#parked.shift()!.effect.committed();
  }
}
