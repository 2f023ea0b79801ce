/**
 * The order in which outcomes reach a body: recorded ones first, by their number; then new ones, as they come, each given the next
 * number, written with it. One at a time: who calls next() leaves a turn of the event loop between.
 */

import type { Claim, Recorded } from "../core/claim.ts";
import type { DatabaseClock } from "../core/clock.ts";
import type { Call, Outcome } from "./call.ts";
import type { History } from "./history.ts";
import { type Ledger, RecordedRow } from "./ledger.ts";
import type { EnginePorts } from "./ports.ts";
import { Voice } from "./voice.ts";

/** From so many recorded outcomes on, a run is too long: every replay reads them all. */
const LONG = 10_000;
const GO_ON = 'let it start its successor and return, as the README says under "Long histories"';

export class Handover {
  readonly voice: Voice;
  readonly #history: History;
  readonly #ledger: Ledger;
  readonly #clock: DatabaseClock;
  readonly #attempt: number;
  readonly #warn: (text: string) => void;
  #recorded: Map<string, Call> | undefined;
  readonly #ready: Call[] = [];
  #no: number;
  #now: number;
  #handed = 0;
  /** The body was handed something that no replay has handed out yet. */
  fresh = false;
  /** How long all is together, as it is stored, that the body was handed. */
  characters = 0;

  constructor(
    claim: Claim,
    history: History,
    ledger: Ledger,
    { clock, logger }: Pick<EnginePorts, "clock" | "logger">,
  ) {
    const { id, workflow } = claim;
    this.voice = new Voice(claim);
    this.#history = history;
    this.#ledger = ledger;
    this.#clock = clock;
    this.#attempt = claim.attempt;
    this.#warn = (text) =>
      logger.warn(`perdure: run "${id}" of workflow "${workflow}" ${text}`, undefined, { runId: id, workflow });
    this.#no = claim.history.reduce((last, recorded) => Math.max(last, recorded.no ?? 0), claim.lastNo ?? 0);
    this.#now = Math.round(claim.fork?.startedAt ?? claim.startedAt);
  }

  /** The database's instant of the last outcome handed over; before the first, of the run's start. */
  get now(): number {
    return this.#now;
  }

  /** The number of the last outcome that has one. */
  get no(): number {
    return this.#no;
  }

  /** The place up to which the body was handed outcomes, in this pass. */
  get handed(): number {
    return this.#handed;
  }

  /** A recorded call is in line, at its number's place. */
  recorded(call: Call): void {
    this.#recorded ??= new Map();
    this.#recorded.set(call.slot, call);
    this.#history.call(call.slot);
  }

  /** A new outcome is in line, behind all others. */
  push(call: Call, outcome: Outcome): void {
    call.outcome = outcome;
    this.#ready.push(call);
  }

  /** Whether nothing is in line. */
  get empty(): boolean {
    return this.#ready.length === 0 && !this.#history.called;
  }

  /** Hands one outcome over. Returns whose it is; undefined: none is in line. */
  next(): Call | undefined {
    const recorded = this.#history.next();
    if (recorded) return this.#replay(recorded);
    const ready = this.#ready.shift();
    if (ready) this.#give(ready, ready.outcome!, instantOf(ready.outcome!) ?? this.#clock.now());
    else this.voice.rests(this.#history.replaying);
    return ready;
  }

  #replay(recorded: Recorded): Call {
    const call = this.#recorded!.get(recorded.slot)!;
    this.#recorded!.delete(recorded.slot);
    const numbered = recorded.no !== null;
    const { attempt, at } = recorded;
    const characters = recorded.value?.length ?? 0;
    if (numbered) this.characters += characters;
    const write: Outcome["write"] = numbered ? { kind: "none" } : { kind: "deliver", attempt, at, characters };
    this.#give(call, { settle: call.entry.replay(recorded), write }, at, recorded.no);
    return call;
  }

  #give(call: Call, { settle, write }: Outcome, at: number, place: number | null = null): void {
    const { slot, kind, name } = call;
    this.voice.gives(place !== null);
    // Whole milliseconds: a fraction does not survive the database's microseconds.
    this.#now = Math.max(this.#now, Math.round(at));
    if (write.kind !== "none") {
      this.#no += 1;
      this.fresh = true;
      if (this.#no === LONG)
        this.#warn(`has ${LONG} recorded outcomes, and every replay of it reads them all; ${GO_ON}`);
    }
    const no = this.#no;
    this.#handed = Math.max(this.#handed, place ?? no);
    this.characters += lengthOf(write);
    if (write.kind === "deliver") this.#ledger.send("deliver", { slot, attempt: write.attempt, no });
    if (write.kind === "record") {
      this.#ledger.send("record", new RecordedRow(call, this.#attempt, no, this.#now, write.row));
    }
    if (write.kind === "publish") {
      const row = { slot, attempt: this.#attempt, no, kind, name, value: write.value, at: this.#now };
      this.#ledger.send("publish", { ...row, seq: this.#ledger.sent });
    }
    call.outcome = null;
    settle(call);
  }
}

function lengthOf(write: Outcome["write"]): number {
  return write.kind === "deliver" ? write.characters : write.kind === "record" ? (write.row.value?.length ?? 0) : 0;
}

/** When an outcome that someone else wrote was recorded: replay knows no other instant of it. */
function instantOf({ write }: Outcome): number | undefined {
  return write.kind === "deliver" ? write.at : undefined;
}
