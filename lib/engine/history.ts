/** What is recorded of a run, and in which order it is handed out again. Pure: no I/O, no clock. */
import { hashIn } from "../core/address.ts";
import type { Claim, OpenWait, Recorded } from "../core/claim.ts";
import { isPlainHash } from "../core/stored.ts";

/** Of a run that has just begun nothing is recorded, and most begin and end in one go: what is empty is shared. */
const EMPTY_MAP: Map<string, never> = new Map<string, never>();
const EMPTY_SET: Set<never> = new Set<never>();

export class History {
  /** In the order of delivery; undefined: handed out. */
  readonly #recorded: (Recorded | undefined)[];
  readonly #places: Map<string, number>;
  readonly #waits: Map<string, OpenWait>;
  readonly #begun: ReadonlySet<string>;
  readonly #attempt: number;
  readonly #reopenedFrom: number;
  /** Places whose slot was called and whose outcome is not handed out, ascending. */
  readonly #called: number[] = [];
  readonly #open: Set<number>;
  readonly #patches: Set<string>;
  #required = 0;

  constructor(claim: Pick<Claim, "history" | "waits" | "begun" | "attempt" | "reopenedFrom">) {
    this.#attempt = claim.attempt;
    const isNew = claim.history.length === 0;
    this.#places = isNew ? EMPTY_MAP : new Map();
    this.#open = isNew ? EMPTY_SET : new Set();
    this.#patches = isNew ? EMPTY_SET : new Set();
    this.#begun = claim.begun.length === 0 ? EMPTY_SET : new Set(claim.begun);
    this.#waits = claim.waits.length === 0 ? EMPTY_MAP : new Map();
    this.#reopenedFrom = claim.reopenedFrom ?? Infinity;
    for (const wait of claim.waits) this.#waits.set(wait.slot, wait);
    this.#recorded = isNew ? [] : inOrder(claim.history);
    (this.#recorded as Recorded[]).forEach((recorded, place) => {
      // Nobody is handed it, and code that does not ask for it any more has not diverged.
      if (recorded.kind === "patch") {
        this.#patches.add(recorded.slot);
        return;
      }
      this.#places.set(recorded.slot, place);
      this.#open.add(place);
      if (this.#isRequired(recorded)) this.#required += 1;
    });
  }

  // What came after a failure that a retry set aside may not be asked for again, or not yet. The attempt after it asks for all of its own.
  #isRequired({ attempt, no }: Recorded): boolean {
    return attempt === this.#attempt || (no ?? Infinity) < this.#reopenedFrom || this.#reopenedFrom === Infinity;
  }

  /** True while outcomes that unchanged code must ask for are not handed out. */
  get replaying(): boolean {
    return this.#required > 0;
  }

  recorded(slot: string): Recorded | undefined {
    if (this.isEmpty) return undefined;
    const place = this.#places.get(slot);
    return place === undefined ? undefined : this.#recorded[place];
  }

  /** Whether a patch was found to be new for this run. */
  patched(slot: string): boolean {
    return this.#patches.has(slot);
  }

  /** The wait, or the count of failed tries, that an earlier claim began. */
  wait(slot: string): OpenWait | undefined {
    return this.isEmpty ? undefined : this.#waits.get(slot);
  }

  /** Whether the hashes in it were made with a key: a run keeps to how it began, so that its calls find their slots. Null: there are none. Asked before anything is handed out. */
  get isKeyed(): boolean | null {
    const recorded = this.#recorded.filter((one) => one !== undefined);
    const slots = [...recorded.map(({ slot }) => slot), ...this.#waits.keys(), ...this.#begun];
    const hashes = [...recorded.map(({ hash }) => hash), ...slots.map(hashIn)].filter((hash) => hash !== null);
    return hashes.length === 0 ? null : !hashes.some(isPlainHash);
  }

  /** Whether a try of the slot was marked as begun. */
  begun(slot: string): boolean {
    return this.#begun.has(slot);
  }

  /** True when nothing at all is known of any slot. */
  get isEmpty(): boolean {
    // Asked at every call: a look for a slot would first make one text of its parts.
    return this.#recorded.length === 0 && this.#waits.size === 0 && this.#begun.size === 0;
  }

  /** True when nothing at all is known of a slot. */
  isNew(slot: string): boolean {
    return this.isEmpty || (!this.#places.has(slot) && !this.#waits.has(slot) && !this.#begun.has(slot));
  }

  /** The body asked for a recorded slot: its outcome may be handed out, in its turn. */
  call(slot: string): void {
    const place = this.#places.get(slot)!;
    let at = this.#called.length;
    while (at > 0 && this.#called[at - 1]! > place) at -= 1;
    this.#called.splice(at, 0, place);
  }

  /** True while an outcome that the body asked for is not handed out. */
  get called(): boolean {
    return this.#called.length > 0;
  }

  /** The next outcome to hand out, the earliest among the called; undefined: none. */
  next(): Recorded | undefined {
    const place = this.#called.shift();
    if (place === undefined) return undefined;
    const recorded = this.#recorded[place]!;
    // A long history is not kept in memory beyond what is still to come.
    this.#recorded[place] = undefined;
    this.#open.delete(place);
    if (this.#isRequired(recorded)) this.#required -= 1;
    return recorded;
  }

  /** Outcomes that nobody asked for, in order. */
  unconsumed(): Recorded[] {
    return [...this.#open].map((place) => this.#recorded[place]!).filter((recorded) => this.#isRequired(recorded));
  }
}

/** Numbered outcomes by their number; then those that nobody was handed yet, as they became visible. */
function inOrder(history: readonly Recorded[]): Recorded[] {
  return [...history].sort(
    (a, b) => compare(a.no ?? Infinity, b.no ?? Infinity) || compare(a.at, b.at) || compare(a.slot, b.slot),
  );
}

const compare = <T extends number | string>(a: T, b: T): number => (a === b ? 0 : a < b ? -1 : 1);
