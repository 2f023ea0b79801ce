/** The calls of a pass, by where they are: held, at work, waiting for something, or past that. */
import { Ordinals } from "../core/address.ts";
import type { Call } from "./call.ts";
import type { News } from "./ports.ts";

/** So many calls are kept before it is looked which of them are over. */
const SWEEP_AT = 1000;

const NONE: ReadonlySet<Call> = new Set<Call>();

export class Calls {
  /** Not begun: replay is not quiescent, or the pass begins nothing. */
  readonly held: Call[] = [];
  /** On the clock, on news, or on their next try. Most runs never wait. */
  #waiting: Set<Call> | undefined;
  readonly #ordinals = new Ordinals();
  /**
   * Without an outcome, or not awaited as far as is known: a run does not keep what it was given. A list by the calls themselves, the last
   * one of it: a set would cost each run a table, and each call a place in it.
   */
  #last: Call | null = null;
  #size = 0;
  /** By slot, those that a second call with the same address is. */
  #shared: Map<string, Call> | undefined;
  #working = 0;
  #sweepAt = SWEEP_AT;

  /** The slot of the next call of an address. */
  take(address: string): string {
    return this.#ordinals.take(address);
  }

  /** The call that a second one with the same address is. */
  shared(slot: string): Call | undefined {
    return this.#shared?.get(slot);
  }

  add(call: Call): void {
    if (this.#size >= this.#sweepAt) this.#sweep();
    call.before = this.#last;
    if (this.#last) this.#last.after = call;
    this.#last = call;
    this.#size += 1;
    if (!call.entry.shared) return;
    this.#shared ??= new Map();
    this.#shared.set(call.slot, call);
  }

  /** A call's outcome is handed over. */
  done(call: Call): void {
    call.state = "done";
    if (call.promise.awaited) this.#close(call);
  }

  /** Lets go of what was awaited only after it was handed over. */
  #sweep(): void {
    for (const call of this.#open()) if (call.state === "done" && call.promise.awaited) this.#close(call);
    this.#sweepAt = Math.max(SWEEP_AT, 2 * this.#size);
  }

  #close(call: Call): void {
    const { before, after } = call;
    if (before) before.after = after;
    if (after) after.before = before;
    else this.#last = before;
    call.before = null;
    call.after = null;
    this.#size -= 1;
  }

  /** In the order in which they were made. */
  #open(): Call[] {
    const open: Call[] = [];
    for (let call = this.#last; call; call = call.before) open.push(call);
    return open.reverse();
  }

  /** What the body has asked for and never awaited, named. */
  get floating(): string[] {
    const calls = this.#open().filter((call) => !call.promise.awaited);
    return calls.map((call) => `${call.kind} "${call.name}"`);
  }

  /** Whether the body has asked for anything that it has not been given. */
  get outstanding(): boolean {
    return this.#open().some((call) => call.state !== "done");
  }

  get waiting(): ReadonlySet<Call> {
    return this.#waiting ?? NONE;
  }

  /** Whether a step runs. */
  get working(): boolean {
    return this.#working > 0;
  }

  /** Whether a function of the application's runs for any of them. */
  get running(): boolean {
    for (let call = this.#last; call; call = call.before) if (call.entry.running) return true;
    return false;
  }

  /** A call's step begins to run. */
  work(call: Call): void {
    this.#waiting?.delete(call);
    if (call.state !== "working") this.#working += 1;
    call.state = "working";
  }

  /** A call waits. `timed`: for a timer that is known to be written. */
  wait(call: Call, timed: boolean): void {
    this.#rest(call);
    call.state = "waiting";
    call.timedAt = timed ? performance.now() : Infinity;
    this.#waiting ??= new Set();
    this.#waiting.add(call);
  }

  /** A call has its outcome. */
  end(call: Call): void {
    this.#rest(call);
    call.state = "ready";
  }

  /** Tells what runs that nobody waits for it. */
  abort(reason: unknown): void {
    for (const { entry } of this.#open()) entry.abort?.(reason);
  }

  /** Tells those that wait what a look has found: news, then timers, in the order of their instants, those of one instant as they were called. */
  hear({ due, askedAt }: Pick<News, "due" | "askedAt">): void {
    for (const call of [...this.waiting]) if (call.hasNews) call.ring(false);
    const at = (call: Call): number => due.get(call.slot)!.at;
    const rung = [...this.waiting].filter((call) => due.has(call.slot)).sort((a, b) => at(a) - at(b));
    for (const call of rung) {
      // A look that crossed with the write of a wait has found the timer before it, a failed try's for one.
      if (call.timedAt <= askedAt) call.ring(due.get(call.slot)!.woken);
    }
  }

  #rest(call: Call): void {
    if (call.state === "working") this.#working -= 1;
    this.#waiting?.delete(call);
  }
}
