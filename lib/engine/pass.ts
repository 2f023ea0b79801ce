/**
 * One go at a run's body. Calls take their slots as they are made; outcomes are handed over one at a time, each in a turn of
 * its own, recorded ones first and in their order; what is new begins when replay is quiescent; when nothing is left to do
 * but wait, the run is given up.
 */

import type { Claim } from "../core/claim.ts";
import type { Body } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import type { WorkflowDefinition } from "../core/types.ts";
import { PassAlarms } from "./alarm.ts";
import { Binding } from "./binding.ts";
import { PassBody } from "./body.ts";
import { Call, type Entry, type Outcome } from "./call.ts";
import { Calls } from "./calls.ts";
import { divergence } from "./divergence.ts";
import { Ends } from "./ends.ts";
import { Escaped } from "./escaped.ts";
import { Handover } from "./handover.ts";
import { History } from "./history.ts";
import { Hold } from "./hold.ts";
import { Ledger } from "./ledger.ts";
import { Mailbox } from "./mailbox.ts";
import { Patches } from "./patches.ts";
import type { Ending, EnginePorts, News } from "./ports.ts";
import { Handles } from "./promise.ts";
import { Publisher } from "./publish.ts";
import { runBody } from "./run-body.ts";
import { RunView } from "./run-view.ts";
import { Stall } from "./stall.ts";

/** What the body came to. */
export type Settled = { readonly value: unknown } | { readonly thrown: unknown };

/** An await of the body's own may be on its way to a recorded call: so long is waited before a divergence is called one. */
const PATIENCE = { times: 5, everyMs: 20 };

export class Pass {
  readonly run: RunView;
  readonly body: Body;
  claim: Claim;
  readonly definition: WorkflowDefinition;
  readonly ports: EnginePorts;
  readonly history: History;
  readonly binding: Binding;
  readonly ledger: Ledger;
  readonly mailbox: Mailbox;
  readonly patches: Patches;
  readonly ends: Ends;
  readonly escaped = new Escaped();
  readonly publisher: Publisher = new Publisher(this);
  /** Null outside strict mode. */
  readonly #stall: Stall | null;
  readonly handover: Handover;
  readonly #calls = new Calls();
  readonly #alarms: PassAlarms;
  readonly #flexible: boolean;
  readonly #hold: Hold;
  #settled: Settled | null = null;
  #scheduled = false;
  #flexing = false;
  #impatient = 0;
  #prepared: (() => void) | null = null;
  #onDrained: (() => void) | null = null;
  #pausing = false;

  constructor(claim: Claim, definition: WorkflowDefinition, ports: EnginePorts) {
    this.claim = claim.history.length > 0 ? { ...claim, history: [] } : claim;
    this.#flexible = definition.replay === "flexible" || claim.flexible;
    this.definition = definition;
    this.ports = ports;
    this.history = new History(claim);
    this.binding = new Binding(claim, ports.codec, this.history);
    this.mailbox = new Mailbox(claim);
    this.ends = new Ends(claim);
    this.ledger = new Ledger(ports.flusher, claim, this);
    this.#hold = new Hold(this.ledger, this);
    this.handover = new Handover(claim, this.history, this.ledger, ports);
    this.patches = new Patches(this);
    this.run = new RunView(claim, ports.logger, this.handover.voice);
    this.#stall = ports.strict ? new Stall(this, this.#calls) : null;
    this.body = new PassBody(this, this.run);
    this.#alarms = new PassAlarms(ports.clock, () => void this.look());
  }

  /** Runs the body. What becomes of it is told to the ports' onEnd. */
  start(args: unknown[]): void {
    this.#checkLimit(this.claim.now);
    if (!this.over) runBody(this, args, (settled) => this.#settle(settled));
  }

  /** What the body waited for is there, or failed: `go` is called once the run is held and not to be given up, if ever. */
  prepared(go: () => void): void {
    this.#prepared = go;
    this.#schedule();
  }

  /** The body runs. */
  begun(): void {
    this.#stall?.called();
    this.#schedule();
  }

  get over(): boolean {
    return this.#hold.over;
  }

  /** What the body has asked for and never awaited, named. */
  get floating(): string[] {
    return this.#calls.floating;
  }

  #settle(settled: Settled): void {
    this.#settled = settled;
    if (this.#hold.suspended) void this.#hold.resume();
    this.#schedule();
  }

  /** The workflow's timeout: waits included, from the first claim. */
  #checkLimit(now: number): void {
    const { deadline } = this.claim;
    if (deadline === null || this.over) return;
    if (deadline <= now) this.end({ how: "late" });
    else this.#alarms.limit(deadline);
  }

  // ---- calls

  /** The slot of the next call of an address. */
  take(address: string): string {
    return this.#calls.take(address);
  }

  /** The call of this pass that a second one with the same address is. */
  shared(slot: string): Call | undefined {
    return this.#calls.shared(slot);
  }

  /** Enters a call. One that is recorded is handed its record in its turn; another begins when it may. */
  enter(entry: Entry): Promise<unknown> {
    // A call from a pass that has ended never runs and never settles.
    if (this.over || this.#settled) return new Handles().promise;
    this.#stall?.called(entry);
    const call = new Call(this, entry, this.history.isNew(entry.slot));
    this.#calls.add(call);
    if (this.history.recorded(call.slot)) this.handover.recorded(call);
    else this.#calls.held.push(call);
    if (this.#hold.suspended) void this.#hold.resume();
    else if (this.#mayBegin()) this.#beginHeld();
    this.#schedule();
    return call.promise;
  }

  #mayBegin(): boolean {
    return this.#hold.active && !this.draining && !this.#stale && (this.#flexing || !this.history.replaying);
  }

  /** A call's step begins to run. */
  working(call: Call): void {
    this.#calls.work(call);
  }

  /** A call waits for the clock, for mail or for its next try. `due`: on the database's clock; null: no timer, or not known yet. */
  waits(call: Call, due: number | null): void {
    this.#calls.wait(call, due !== null);
    if (due !== null) this.#alarms.wait(due);
    this.#schedule();
  }

  /** A call has its outcome: it is handed over in its turn. */
  ready(call: Call, outcome: Outcome): void {
    if (this.over) return;
    this.#calls.end(call);
    this.handover.push(call, outcome);
    this.#schedule();
  }

  // ---- turns

  #schedule(): void {
    if (this.#scheduled || this.over) return;
    this.#scheduled = true;
    this.ports.turns.ask(this.#onTurn);
  }

  readonly #onTurn = (): void => {
    this.#scheduled = false;
    if (!this.#hold.active) return;
    try {
      this.#turn();
    } catch (error) {
      this.refused(error);
    }
  };

  /** One turn: whatever the turn before woke has run as far as it can. */
  #turn(): void {
    if (this.#prepared && !this.draining) {
      const go = this.#prepared;
      this.#prepared = null;
      go();
      return;
    }
    const call = this.handover.next();
    if (call) {
      this.#calls.done(call);
      this.#impatient = 0;
      this.#schedule();
    } else if (this.#stale) {
      this.#hold.stop();
      this.ledger.afterCommit({ committed: () => this.end({ how: "replayed" }) });
    } else if (this.#settled) this.end({ how: "settled", settled: this.#settled });
    else if (this.#onDrained) this.#drained();
    else if (this.#pausing) {
      // Once its steps have ended and are recorded.
      if (!this.#calls.working) void this.#hold.rest();
    } else if (this.#calls.held.length > 0) this.#quiescent();
    else if (!this.#calls.working && this.#calls.waiting.size > 0) void this.#suspend();
    else if (!this.#calls.working) this.#stall?.rests();
  }

  /** A test wants what comes next to be done by a replay. */
  get #stale(): boolean {
    const due = this.handover.fresh && !this.draining && !this.#calls.working && this.ports.hooks?.replays === true;
    return due && (this.#settled !== null || this.#calls.held.length > 0);
  }

  /** Nothing recorded can be handed over, and the body has run as far as it can: what is new may begin, unless it diverges. */
  #quiescent(): void {
    const diverges = !this.#flexible && this.history.replaying && this.#calls.held.some((call) => call.isNew);
    if (!diverges) {
      this.#flexing = this.#flexible;
      this.#beginHeld();
      this.#schedule();
    } else if (this.#impatient++ < PATIENCE.times) setTimeout(() => this.#schedule(), PATIENCE.everyMs);
    else this.end({ how: "blocked", reason: divergence(this.history.unconsumed(), this.#calls.held) });
  }

  #beginHeld(): void {
    const { held } = this.#calls;
    if (held.length === 1) held.pop()!.begin();
    else if (held.length > 1) for (const call of held.splice(0)) call.begin();
  }

  // ---- giving up, looking, going on

  async #suspend(): Promise<void> {
    // What is not read yet may be what the body waits for.
    if (this.mailbox.partial || this.ends.partial) return this.look();
    const slots = JSON.stringify([...this.#calls.waiting].map((call) => call.slot));
    return this.#hold.suspend({ mail: this.mailbox.seen, slots, warm: this.ports.warmNumber(this) });
  }

  kept(): void {
    this.decided();
    void this.look();
  }

  gaveUp(due: number | null, paused: boolean): void {
    this.#alarms.clear();
    this.ends.clear();
    this.#onDrained?.();
    this.ports.onEnd(this, { how: "suspended", due });
    // The body went on meanwhile, from an await of its own.
    if (paused) return;
    if (this.#calls.held.length > 0 || !this.handover.empty || this.#settled) void this.#hold.resume();
    else this.decided();
  }

  /** Writes what the body has decided: now, or once the run is held again. */
  decided(): void {
    if (this.#hold.active) this.patches.flush();
    else if (this.#hold.suspended && this.patches.pending) void this.#hold.resume();
  }

  /** It is being given up, until there is news for it. */
  get suspending(): boolean {
    return this.#hold.suspending;
  }

  /** Whether the run may go on here with a claim of this epoch, from where it was suspended. */
  awaits(epoch: number): boolean {
    return this.#hold.awaits(epoch);
  }

  /** The run was claimed again for this pass. */
  wake(news: News, changed: Pick<Claim, "followed" | "deadline">): void {
    this.claim = { ...this.claim, ...changed };
    this.#hold.wake(news);
  }

  heldAgain(news: News | null): void {
    this.decided();
    this.ports.onResumed(this);
    if (news) this.#takeIn(news);
    else void this.look();
    this.#schedule();
  }

  /** Looks for what is new: mail, timers, the end of the claim. A look that fails is followed by another, at the next poll. */
  async look(): Promise<void> {
    if (this.over || this.#hold.suspended) return;
    const news = await this.ports.look(this).catch(() => null);
    if (news) this.hear(news);
  }

  /** Takes in what a look has found. */
  hear(news: News): void {
    // A look from before the claim was renewed knows only that the one before is over.
    if (this.over || this.#hold.suspended || this.#hold.outdates(news.askedAt)) return;
    if (news.held) this.#takeIn(news);
    // A suspension in flight may have given the claim up by itself.
    else if (this.#hold.active) this.lose();
  }

  #takeIn(news: News): void {
    this.mailbox.take(news.mail, news.unread);
    this.ends.take(news.mail, news.ended);
    this.#checkLimit(news.now);
    // Before what is due rings: no try begins in a run that is to be paused.
    this.#pausing = news.pausing;
    this.#calls.hear(news);
    if (news.next !== null) this.#alarms.wait(news.next);
    this.#schedule();
  }

  // ---- ends

  /** Begins nothing any more. Resolves when the steps that run have ended and are recorded. */
  drain(): Promise<void> {
    return new Promise((resolve) => {
      if (this.over || this.#hold.suspended) resolve();
      this.#onDrained = resolve;
      this.#schedule();
    });
  }

  /** Nothing is begun any more, or for as long as the run is to be paused. */
  get draining(): boolean {
    return this.#onDrained !== null || this.#pausing;
  }

  #drained(): void {
    if (!this.#calls.working) this.ledger.afterCommit({ committed: this.#onDrained! });
  }

  /** Tells what still runs that nobody waits for it. */
  #abort(why: string): void {
    if (why === "settled" && !this.#calls.running) return;
    const reason = new PerdureError("PERDURE_STATE", `run "${this.run.id}" has ended in this process: ${why}`);
    RunView.abort(this.run, reason);
    this.#calls.abort(reason);
  }

  /** The database cannot take what the run has to write, or what is stored cannot be read. */
  refused(error: unknown): void {
    this.end({ how: "refused", error });
  }

  /** The claim is over: nothing of this pass is written any more, and its steps are told to stop. */
  lose(why = "its claim is over"): void {
    this.end({ how: "lost", why });
  }

  end(ending: Ending): void {
    if (this.over) return;
    this.#hold.end();
    this.#alarms.clear();
    this.#abort("why" in ending ? ending.why : ending.how);
    this.#onDrained?.();
    this.ports.onEnd(this, ending);
  }
}
