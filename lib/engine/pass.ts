/**
 * One go at a run's body. Calls take their slots as they are made; outcomes are handed over one at a time, each in a turn of
 * its own, recorded ones first and in their order; what is new begins when replay is quiescent; when nothing is left to do
 * but wait, the run is given up.
 */
import { Ordinals } from "../core/address.ts";
import type { Body, Until } from "../core/context.ts";
import { scope } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import type {
  Claim,
  EventDefinition,
  Mail,
  Recorded,
  RunInfo,
  Slept,
  StepDefinition,
  WorkflowDefinition,
} from "../core/types.ts";
import { Alarm } from "./alarm.ts";
import type { Call, Outcome } from "./call.ts";
import { divergence } from "./divergence.ts";
import { History } from "./history.ts";
import { Ledger } from "./ledger.ts";
import { Mailbox } from "./mailbox.ts";
import type { Ending, EnginePorts, News } from "./ports.ts";
import { type Deferred, defer } from "./promise.ts";
import { runInfo } from "./run-info.ts";
import { seededBytes } from "./seeded.ts";
import { stepCall } from "./steps.ts";
import { eventCall } from "./waits/event.ts";
import { sleepCall } from "./waits/sleep.ts";

/** What the body came to. */
export type Settled = { readonly value: unknown } | { readonly thrown: unknown };

export class Pass implements Body {
  readonly run: RunInfo;
  readonly claim: Claim;
  readonly definition: WorkflowDefinition;
  readonly ports: EnginePorts;
  readonly history: History;
  readonly ledger: Ledger;
  readonly mailbox: Mailbox;
  readonly aborter = new AbortController();
  readonly #ordinals = new Ordinals();
  readonly #calls = new Map<string, Call>();
  readonly #ready: { call: Call; outcome: Outcome }[] = [];
  readonly #held: Call[] = [];
  readonly #waiting = new Set<Call>();
  /** Slots of steps whose failure was thrown into the body, by the thrown error. */
  readonly #thrown = new Map<unknown, string[]>();
  #working = 0;
  #settled: Settled | null = null;
  #state: "active" | "suspending" | "suspended" | "ended" = "active";
  #scheduled = false;
  #flexing = false;
  #patience = 0;
  #no: number;
  #now: number;
  readonly #alarm: Alarm;

  constructor(claim: Claim, definition: WorkflowDefinition, ports: EnginePorts) {
    this.claim = claim;
    this.definition = definition;
    this.ports = ports;
    this.history = new History(claim);
    this.mailbox = new Mailbox(claim);
    this.ledger = new Ledger(
      ports.flusher,
      { run: claim.key, epoch: claim.epoch },
      {
        lost: () => this.lose("its claim is over"),
        refused: (error) => this.end({ how: "refused", error }),
      },
    );
    this.run = runInfo(claim, this.aborter.signal, ports.logger, () => this.history.replaying);
    this.#no = Math.max(claim.lastNo ?? 0, ...claim.history.slice(-1000).map((recorded) => recorded.no ?? 0));
    this.#now = claim.startedAt;
    this.#alarm = new Alarm(ports.clock, () => void this.look());
  }

  /** Runs the body. What becomes of it is told to the ports' onEnd. */
  start(args: unknown[]): void {
    scope.run({ body: this, step: null }, () => {
      Promise.resolve()
        .then(() => this.definition.fn(...args))
        .then(
          (value) => this.#settle({ value }),
          (thrown) => this.#settle({ thrown }),
        );
    });
    this.#schedule();
  }

  get over(): boolean {
    return this.#state === "ended";
  }

  #settle(settled: Settled): void {
    this.#settled = settled;
    if (this.#state === "suspended") this.#resume();
    this.#schedule();
  }

  // ---- what the body asks for

  step(definition: StepDefinition, args: unknown[]): Promise<unknown> {
    return stepCall(this, definition, args);
  }

  sleep(name: string | null, until: Until): Promise<Slept> {
    return sleepCall(this, name, until) as Promise<Slept>;
  }

  event(definition: EventDefinition, timeoutMs: number | null): Promise<unknown> {
    return eventCall(this, definition, timeoutMs);
  }

  now(): Date {
    return new Date(this.#now);
  }

  random(kind: "uuid" | "random", name: string): Uint8Array {
    return seededBytes(this.run.id, this.#ordinals.take(`${kind}:${name}`));
  }

  /** The slot of the next call of an address. */
  take(address: string): string {
    return this.#ordinals.take(address);
  }

  /** The call that holds a slot in this pass. */
  existing(slot: string): Call | undefined {
    return this.#calls.get(slot);
  }

  /** Enters a call. One that is recorded is handed its record in its turn; another begins when it may. */
  enter(
    fields: Pick<Call, "slot" | "kind" | "name"> & {
      step?: unknown;
      begin: (call: Call) => void;
      ring?: (call: Call, woken: boolean) => void;
      replay: (recorded: Recorded) => Outcome["settle"];
    },
  ): Deferred["promise"] {
    const { slot, kind, name } = fields;
    const deferred = defer();
    if (this.over || this.#settled) return deferred.promise;
    const call: Call = {
      slot,
      kind,
      name,
      deferred,
      state: "held",
      step: fields.step,
      isNew: this.history.isNew(slot),
      begin: () => fields.begin(call),
      ring: (woken) => fields.ring?.(call, woken),
    };
    this.#calls.set(slot, call);
    const recorded = this.history.recorded(slot);
    if (recorded) {
      this.#replays.set(slot, fields.replay);
      this.history.call(slot);
    } else this.#held.push(call);
    if (this.#state === "suspended") this.#resume();
    else if (!recorded && this.#mayBegin()) this.#beginHeld();
    this.#schedule();
    return deferred.promise;
  }
  readonly #replays = new Map<string, (recorded: Recorded) => Outcome["settle"]>();

  #mayBegin(): boolean {
    return this.#state === "active" && !this.draining && (this.#flexing || !this.history.replaying);
  }

  // ---- what calls report

  /** A call's step begins or ends to run. */
  working(call: Call): void {
    this.#waiting.delete(call);
    if (call.state !== "working") this.#working += 1;
    call.state = "working";
  }

  /** A call waits for the clock, for mail or for its next try. `dueMs`: on the database's clock; null: no timer. */
  waits(call: Call, due: number | null): void {
    this.#rest(call);
    call.state = "waiting";
    this.#waiting.add(call);
    if (due !== null) this.#alarm.at(due);
    this.#schedule();
  }

  /** A call has its outcome: it is handed over in its turn. */
  ready(call: Call, outcome: Outcome): void {
    if (this.over) return;
    this.#rest(call);
    call.state = "ready";
    this.#ready.push({ call, outcome });
    this.#schedule();
  }

  #rest(call: Call): void {
    if (call.state === "working") this.#working -= 1;
    this.#waiting.delete(call);
  }

  /** Remembers which slot an error that the body was thrown came from. */
  threw(error: unknown, slot: string): void {
    const slots = this.#thrown.get(error);
    if (slots) slots.push(slot);
    else this.#thrown.set(error, [slot]);
  }

  /** The slots whose failure an error carries: itself, its cause, its errors. */
  slotsOf(error: unknown, seen = new Set<unknown>()): string[] {
    if (seen.has(error)) return [];
    seen.add(error);
    const own = this.#thrown.get(error) ?? [];
    if (typeof error !== "object" || error === null) return own;
    const { cause, errors } = error as { cause?: unknown; errors?: unknown };
    const within = [...(cause === undefined ? [] : [cause]), ...(Array.isArray(errors) ? errors : [])];
    return [...own, ...within.flatMap((inner) => this.slotsOf(inner, seen))];
  }

  // ---- the turns

  #schedule(): void {
    if (this.#scheduled || this.over) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#state === "active") this.#turn();
    });
  }

  /** One turn: whatever the turn before woke has run as far as it can. */
  #turn(): void {
    if (this.#handOver()) this.#schedule();
    else if (this.#settled) this.end({ how: "settled", settled: this.#settled });
    else if (this.#onDrained) this.#drained();
    else if (this.#held.length > 0) this.#quiescent();
    else if (this.#working === 0 && this.#waiting.size > 0) void this.#suspend();
  }

  #drained(): void {
    if (this.#working === 0) this.ledger.afterCommit(this.#onDrained!);
  }

  #handOver(): boolean {
    const recorded = this.history.next();
    if (recorded) {
      const call = this.#calls.get(recorded.slot)!;
      this.#give(
        call,
        {
          settle: this.#replays.get(recorded.slot)!(recorded),
          write:
            recorded.no === null ? { kind: "deliver", attempt: recorded.attempt } : { kind: "none", at: recorded.at },
        },
        recorded.at,
      );
      return true;
    }
    const next = this.#ready.shift();
    if (next) this.#give(next.call, next.outcome, this.ports.clock.now());
    return next !== undefined;
  }

  #give(call: Call, outcome: Outcome, at: number): void {
    this.#patience = 0;
    call.state = "done";
    this.#now = Math.max(this.#now, at);
    const { write } = outcome;
    const { slot, kind, name } = call;
    if (write.kind !== "none") this.#no += 1;
    const attempt = this.claim.attempt;
    if (write.kind === "record")
      void this.ledger.write("record", { slot, attempt, no: this.#no, kind, name, at: this.#now, ...write.row });
    if (write.kind === "deliver") void this.ledger.write("deliver", { slot, attempt: write.attempt, no: this.#no });
    outcome.settle(call.deferred);
  }

  /** Nothing recorded can be handed over, and the body has run as far as it can: what is new may begin, unless it diverges. */
  #quiescent(): void {
    if (this.#diverges()) {
      // An await of the body's own may still be on its way to a recorded call.
      if (this.#patience++ < 5) setTimeout(() => this.#schedule(), 20);
      else this.end({ how: "blocked", reason: divergence(this.history.unconsumed(), this.#held) });
      return;
    }
    this.#flexing = this.definition.replay === "flexible";
    this.#beginHeld();
    this.#schedule();
  }

  #diverges(): boolean {
    return this.definition.replay === "strict" && this.history.replaying && this.#held.some((call) => call.isNew);
  }

  #beginHeld(): void {
    for (const call of this.#held.splice(0)) call.begin();
  }

  // ---- giving up and going on

  async #suspend(): Promise<void> {
    this.#state = "suspending";
    const slots = JSON.stringify([...this.#waiting].map((call) => call.slot));
    const answer = await this.ledger.write("suspend", { mail: this.mailbox.seen, slots });
    if (!answer || this.over) return;
    if (answer.verdict !== "ok") {
      this.#state = "active";
      return this.look();
    }
    this.#state = "suspended";
    this.#alarm.clear();
    this.#onDrained?.();
    this.ports.onEnd(this, { how: "suspended", dueMs: answer.due_ms });
    // The body went on meanwhile, from an await of its own.
    if (this.#held.length > 0 || this.#settled) this.#resume();
  }

  /** A durable call from a body that was suspended: it goes on here if nobody has claimed the run meanwhile. */
  #resume(): void {
    this.#state = "suspending";
    void this.ledger.write("resume", {}).then((answer) => {
      if (!answer || this.over) return;
      this.ledger.renew();
      this.#state = "active";
      this.ports.onResumed(this);
      this.#schedule();
    });
  }

  /** Looks for what is new: mail, timers, the end of the claim. */
  async look(): Promise<void> {
    if (this.over || this.#state === "suspended") return;
    const news = await this.ports.look(this).catch(() => null);
    if (news) this.hear(news);
  }

  /** Takes in what a look has found. */
  hear(news: News): void {
    if (this.over || this.#state === "suspended") return;
    // A suspension in flight asks again if it is refused.
    if (!news.held && this.#state === "suspending") return;
    if (!news.held) return this.lose("its claim is over");
    this.mailbox.take(news.mail, news.unread);
    for (const call of [...this.#waiting]) this.#tell(call, news.due);
    if (news.next !== null) this.#alarm.at(news.next);
    this.#schedule();
  }

  #tell(call: Call, due: ReadonlyMap<string, boolean>): void {
    if (call.kind === "event" && this.mailbox.has(call.name)) call.ring(false);
    else if (due.has(call.slot)) call.ring(due.get(call.slot)!);
  }

  /** Mail that nobody has taken, for a wait of its name. */
  mail(name: string): Mail | undefined {
    return this.mailbox.shift(name);
  }

  /** Begins no step any more. Resolves when those that run have ended and are recorded. */
  drain(): Promise<void> {
    return new Promise((resolve) => {
      this.#onDrained = resolve;
      this.#schedule();
    });
  }
  #onDrained: (() => void) | null = null;

  get draining(): boolean {
    return this.#onDrained !== null;
  }

  /** The claim is over: nothing of this pass is written any more, and its steps are told to stop. */
  lose(why: string): void {
    this.end({ how: "lost", why });
  }

  end(ending: Ending): void {
    if (this.over) return;
    this.#state = "ended";
    this.#alarm.clear();
    const unfinished = [...this.#calls.values()].filter((call) => !call.deferred.promise.awaited);
    this.floating = unfinished.map((call) => `${call.kind} "${call.name}"`);
    this.aborter.abort(
      new PerdureError("PERDURE_STATE", `run "${this.run.id}" has ended in this process: ${ending.how}`),
    );
    this.#onDrained?.();
    this.ports.onEnd(this, ending);
  }

  /** What the body never awaited, named; known at the end. */
  floating: string[] = [];
}
