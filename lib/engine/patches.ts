/** Which changes of the code this run takes: asked in the middle of its body, answered at once, and for good. */
import { nameAddress } from "../core/address.ts";
import type { RecordRow } from "../db/writes.ts";
import type { Pass } from "./pass.ts";

export class Patches {
  readonly #pass: Pass;
  #answers: Map<string, boolean> | undefined;
  /** Answers given while the run was given up, or about to be. */
  readonly #unwritten: string[] = [];

  constructor(pass: Pass) {
    this.#pass = pass;
  }

  /** True, and recorded, where nothing recorded was left as the run first asked. */
  ask(change: string): boolean {
    const known = this.#answers?.get(change);
    if (known !== undefined) return known;
    const { history, over } = this.#pass;
    const recorded = history.patched(slotOf(change));
    const answer = recorded || !history.replaying;
    this.#answers ??= new Map();
    this.#answers.set(change, answer);
    if (answer && !recorded && !over) this.#record(change);
    return answer;
  }

  get pending(): boolean {
    return this.#unwritten.length > 0;
  }

  #record(change: string): void {
    this.#unwritten.push(change);
    this.#pass.decided();
  }

  /** Writes what could not be written. Whatever follows from an answer begins after it is committed. */
  flush(): void {
    for (const change of this.#unwritten.splice(0)) this.#pass.ledger.send("record", this.#row(change));
  }

  /** Its value is its place in the order: it has no number of its own, as nobody is handed it. */
  #row(change: string): Omit<RecordRow, "run" | "epoch"> {
    const { claim, handover } = this.#pass;
    const { now: at, no: place } = handover;
    const { attempt } = claim;
    const rest = { outcome: "completed", value: `${place}`, hash: null, tries: 1, mail: null };
    return { slot: slotOf(change), attempt, no: null, kind: "patch", name: change, started: at, at, ...rest };
  }
}

const slotOf = (change: string): string => `${nameAddress("patch", change)}#0`;
