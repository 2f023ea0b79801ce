/** What runs for a step's call: its tries, its retries, and the transaction kind of it. */
import { AsyncResource } from "node:async_hooks";
import type { Recorded } from "../core/claim.ts";
import { scope } from "../core/context.ts";
import { PerdureError, RunConflictError } from "../core/errors.ts";
import { quietly } from "../core/quiet.ts";
import { delayAfter, isNonRetryable } from "../core/retry.ts";
import { validate } from "../core/schema.ts";
import { type Place, tryIn } from "../core/stored-place.ts";
import type { Schema, StepDefinition, TransactionClient } from "../core/types.ts";
import type { RecordRow } from "../db/writes.ts";
import { Attempt } from "./attempt.ts";
import type { Call, Entry, Outcome } from "./call.ts";
import type { Lasts } from "./lasting.ts";
import type { Effect } from "./ledger.ts";
import type { Pass } from "./pass.ts";
import { Handles } from "./promise.ts";
import { StepResult } from "./step-result.ts";

/** Nothing that a function can throw. */
const NOTHING = Symbol("nothing");

// The same functions for all: a closure for each try would be one more to collect.
// A query builder begins when it is awaited: within the scope.
const plainCall = (step: StepRun, attempt: Attempt): Promise<unknown> => Promise.resolve(step.call(attempt));
const checkedCall = (step: StepRun, attempt: Attempt): Promise<unknown> => step.checkedCall(attempt);

const UNTRACKED = { requireManualDestroy: true };

/** The tries of one call of a step, in the async context of that call. */
export class StepRun extends AsyncResource implements Entry, Effect, Lasts {
  readonly slot: string;
  readonly kind: StepDefinition["kind"];
  readonly name: string;
  readonly hash: string | null;
  readonly shared: boolean;
  readonly #pass: Pass;
  readonly #definition: StepDefinition;
  readonly #args: unknown[];
  #failed: number;
  /** The call that its tries are made for, once there is one. */
  #call: Call | null = null;
  #current: Attempt | undefined;
  /** When its last try began, by the database's clock. */
  #started = 0;
  /** An error that no further try would mend. */
  #final: unknown = NOTHING;
  since: number | null = null;
  earlier: Lasts | null = null;
  later: Lasts | null = null;

  constructor(
    pass: Pass,
    definition: StepDefinition,
    args: unknown[],
    slot: string,
    hash: string | null,
    shared = false,
  ) {
    super("perdure.step", UNTRACKED);
    this.#pass = pass;
    this.shared = shared;
    this.#definition = definition;
    this.#args = args;
    this.slot = slot;
    this.kind = definition.kind;
    this.name = definition.name;
    this.hash = hash;
    this.#failed = pass.history.wait(slot)?.tries ?? 0;
  }

  enter(): Promise<unknown> {
    return this.#pass.enter(this);
  }

  /** What it is called in messages. */
  get what(): string {
    return `${this.kind} "${this.name}" of run "${this.#pass.run.id}"`;
  }

  /** The same reference with another input. */
  conflict(): Promise<unknown> {
    const { name, reference } = this.#definition;
    const id = this.#pass.run.id;
    const text = `step "${name}" of run "${id}": reference "${reference!.id}" was used with another input. Give each input a reference of its own, or say onConflict: "return_existing"`;
    const refused = new Handles();
    refused.reject(new RunConflictError(id, text));
    return refused.promise;
  }

  /** Where its outcome is stored. */
  place(attempt?: number): Place {
    return this.#pass.binding.placeOf(this.slot, attempt);
  }

  /** A recorded outcome, for the body. */
  replay(recorded: Recorded): Outcome["settle"] {
    const { reference } = this.#definition;
    if (reference?.onConflict === "error" && recorded.hash !== this.hash) {
      return (deferred) => void this.conflict().catch((error) => deferred.reject(error));
    }
    const { value: text, attempt } = recorded;
    if (recorded.outcome === "failed") return this.#throws(text!, attempt);
    const value = this.#pass.ports.codec.decode(text!, `result of ${this.what}`, this.place(attempt));
    return (deferred) => deferred.resolve(value);
  }

  /** Throws a stored error into the body, and remembers where it came from. */
  #throws(text: string, attempt?: number): Outcome["settle"] {
    const error = this.#pass.ports.codec.decodeError(text, `error of ${this.what}`, this.place(attempt));
    this.#pass.escaped.threw(error, this.slot);
    return (deferred) => deferred.reject(error);
  }

  begin(call: Call): void {
    const wait = this.#pass.history.wait(this.slot);
    if (wait?.due && wait.due > this.#pass.claim.now) this.#pass.waits(call, wait.due);
    else this.ring(call);
  }

  /** A try begins once all that the body knows is committed. */
  ring(call: Call): void {
    const pass = this.#pass;
    if (pass.draining) return;
    pass.working(call);
    this.#call = call;
    pass.ledger.afterCommit(this);
  }

  /** What goes wrong around it, a stored value that cannot be read for one, ends the pass and not the process. */
  committed(): void {
    try {
      this.#begin(this.#call!)?.catch((error) => this.#pass.refused(error));
    } catch (error) {
      this.#pass.refused(error);
    }
  }

  #begin(call: Call): void | Promise<void> {
    const { over, ports, history, claim } = this.#pass;
    if (over) return;
    // As whole as the instants of outcomes.
    this.#started = Math.round(ports.clock.now());
    const { onCrash } = this.#definition;
    if (onCrash === "fail" && history.begun(this.slot)) return this.#fail(call, this.#lost(), false);
    if (onCrash === "fail" || claim.crashes > 0) return this.#runMarked(call);
    ports.lasting.watch(this);
    return this.#run(call);
  }

  #lost(): PerdureError {
    const text = `the process died during ${this.what}, whose onCrash is "fail"; whether it took effect is not known`;
    return new PerdureError("PERDURE_STEP_LOST", text);
  }

  async #runMarked(call: Call): Promise<void> {
    if (await this.#mark()) await this.#run(call);
  }

  async #mark(): Promise<boolean> {
    const { attempt } = this.#pass.claim;
    const row = { slot: this.slot, attempt, try: this.#failed + 1, name: this.name, started: this.#started };
    return (await this.#pass.ledger.write("try", { ...row, at: null, error: null })) !== undefined && !this.#pass.over;
  }

  /** It has run for long. */
  lasts(): void {
    if (!this.#pass.over) void this.#mark();
  }

  #run(call: Call): void | Promise<void> {
    if (this.kind === "transaction") return this.#transact(call);
    let result: Promise<unknown>;
    try {
      result = this.#attempt(undefined);
    } catch (error) {
      return this.#threw(call, error);
    }
    // As `await` would, whatever the function's promise has made of `then`.
    void Promise.prototype.then.call(
      result,
      (value) => this.#ended(call, value, NOTHING),
      (error) => this.#ended(call, undefined, error),
    );
  }

  #ended(call: Call, value: unknown, thrown: unknown): void {
    try {
      const work = thrown === NOTHING ? this.#worked(call, value) : this.#threw(call, thrown);
      work?.catch((error) => this.#pass.refused(error));
    } catch (error) {
      this.#pass.refused(error);
    }
  }

  #worked(call: Call, result: unknown): void | Promise<void> {
    this.#end();
    if (this.#pass.over) return;
    const stored = new StepResult(this);
    let text: string;
    try {
      text = this.#encode(result, stored);
    } catch (error) {
      return this.#threw(call, error);
    }
    const row = this.#row("completed", text);
    this.#pass.ready(call, { settle: this.#gives(result, text, stored), write: { kind: "record", row } });
  }

  #threw(call: Call, error: unknown): void | Promise<void> {
    this.#end();
    if (!this.#pass.over) return this.#fail(call, error, true);
  }

  #end(): void {
    this.#leave();
    this.#pass.ports.lasting.leave(this);
  }

  #row(outcome: "completed" | "failed", value: string) {
    return { outcome, value, hash: this.hash, tries: this.#failed + 1, started: this.#started, mail: null };
  }

  /** What the body gets is what replay will get: the value as it was stored. One that cannot be read back is no failure of the step's. */
  #gives(result: unknown, text: string, stored: StepResult): Outcome["settle"] {
    const copy = this.#pass.ports.codec.copy(result, text, stored, stored);
    return (deferred) => deferred.resolve(copy);
  }

  #encode(result: unknown, stored: StepResult): string {
    try {
      return this.#pass.ports.codec.encode(result, stored, stored);
    } catch (error) {
      // The same value would be refused again.
      this.#final = error;
      throw error;
    }
  }

  async #transact(call: Call): Promise<void> {
    const pass = this.#pass;
    const { attempt } = pass.claim;
    const stored = new StepResult(this);
    let value: unknown;
    let text = "";
    let at = 0;
    const record = (result: unknown): RecordRow => {
      value = result;
      text = this.#encode(result, stored);
      at = pass.ports.clock.now();
      const { slot, kind, name } = this;
      return { ...pass.ledger.claim, slot, attempt, no: null, kind, name, at, ...this.#row("completed", text) };
    };
    const work = async (tx: TransactionClient): Promise<unknown> => {
      const result = await this.#attempt(tx);
      this.#leave();
      await pass.publisher.committed();
      return result;
    };
    let verdict: string;
    try {
      ({ verdict } = await pass.ports.transactor.run(work, record, () => pass.over));
    } catch (error) {
      return this.#threw(call, error);
    }
    this.#end();
    if (verdict === "stale") return pass.lose("its claim is over");
    pass.ready(call, {
      settle: this.#gives(value, text, stored),
      write: { kind: "deliver", attempt, at, characters: text.length },
    });
  }

  /** One try: the function, told of by its signal when the pass ends. `#leave` ends it. */
  #attempt(tx: TransactionClient | undefined): Promise<unknown> {
    const pass = this.#pass;
    this.#leave();
    const idempotencyKey = `${pass.run.id}/${this.slot}${pass.claim.attempt > 1 ? `/${pass.claim.attempt}` : ""}`;
    this.#current = new Attempt(this.name, this.#failed + 1, idempotencyKey, tx);
    return this.runInAsyncScope(this.#try, this);
  }

  #try(): Promise<unknown> {
    const { timeoutMs, input, output } = this.#definition;
    const attempt = this.#current!;
    const result = scope.run(
      { body: this.#pass.body, step: attempt },
      input || output ? checkedCall : plainCall,
      this,
      attempt,
    );
    return timeoutMs === null ? result : attempt.within(timeoutMs, this.what, result);
  }

  /** The function of the step itself. */
  call({ tx }: Attempt, args: unknown[] = this.#args): unknown {
    const { fn } = this.#definition;
    return this.kind === "transaction" ? fn(tx, ...args) : fn(...args);
  }

  #leave(): void {
    if (this.#current) this.#current.running = false;
    this.#current = undefined;
  }

  get running(): boolean {
    return this.#current !== undefined;
  }

  abort(reason: unknown): void {
    this.#current?.abort(reason);
  }

  /** The same between the checks of its schemas. */
  async checkedCall(attempt: Attempt): Promise<unknown> {
    const { input, output } = this.#definition;
    const result = await this.call(attempt, input ? await this.#checked(input) : this.#args);
    return validate(output, result, `result of ${this.what}`);
  }

  /** The arguments as the schema returns them. What it refuses, it would refuse again. */
  async #checked(input: Schema): Promise<unknown[]> {
    const [first, ...rest] = this.#args;
    try {
      return [await validate(input, first, `input of ${this.what}`), ...rest];
    } catch (error) {
      this.#final = error;
      throw error;
    }
  }

  /** Records a failed try: with the time of the next, or as the outcome. */
  async #fail(call: Call, thrown: unknown, mayRetry: boolean): Promise<void> {
    const pass = this.#pass;
    const what = `error of ${this.what}`;
    const { delay, thrown: last } = mayRetry
      ? await this.runInAsyncScope(() => this.#judge(thrown))
      : { delay: null, thrown };
    const error = pass.ports.codec.encodeError(last, what, this.place());
    if (pass.over) return;
    const outcome = this.#row("failed", error);
    this.#failed += 1;
    const { attempt } = pass.claim;
    const at = pass.ports.clock.now();
    const { name } = this;
    if (this.#failed > 1 || delay !== null) {
      const place = { run: pass.run.id, slot: tryIn(this.slot, attempt, this.#failed) };
      const failure = pass.ports.codec.encodeError(last, what, place);
      const row = { slot: this.slot, attempt, try: this.#failed, name, started: this.#started, at, error: failure };
      pass.ledger.send("try", row);
    }
    if (delay === null)
      return pass.ready(call, { settle: this.#throws(error), write: { kind: "record", row: outcome } });
    pass.waits(call, null);
    const row = {
      slot: this.slot,
      attempt,
      kind: "retry",
      topics: JSON.stringify([`retry:${name}`]),
      length: delay,
      until: null,
      tries: this.#failed,
    };
    const answer = await pass.ledger.write("wait", row);
    if (answer && call.state === "waiting") pass.waits(call, answer.due_ms!);
  }

  /** The delay until the next try, null: none. What shouldRetry throws takes the place of the error. */
  async #judge(thrown: unknown): Promise<{ delay: number | null; thrown: unknown }> {
    const { plan } = this.#definition;
    const delay = delayAfter(plan, this.#failed + 1);
    if (delay === null || thrown === this.#final || isNonRetryable(thrown)) return { delay: null, thrown };
    try {
      return { delay: plan.shouldRetry && !(await quietly(() => plan.shouldRetry!(thrown))) ? null : delay, thrown };
    } catch (error) {
      return { delay: null, thrown: error };
    }
  }
}
