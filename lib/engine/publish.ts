/**
 * What a run publishes. A write of the body is a call like any other: its checkpoint goes along with it, so it is written once. A write of
 * a step is a row and nothing else: each try writes anew. Both travel in the order of the run's writes, ahead of the calls' own code.
 */
import { nameAddress } from "../core/address.ts";
import type { Change } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import { publishedIn } from "../core/stored-place.ts";
import type { PublicationDefinition, StepInfo } from "../core/types.ts";
import type { Attempt } from "./attempt.ts";
import type { Call } from "./call.ts";
import type { Pass } from "./pass.ts";

/** More writes than this on their way, and a call waits until they are committed. */
const AHEAD = 256;
/** A transaction that waits for its writes may itself hold the row that they wait for. */
const PATIENCE_MS = 5000;

export class Publisher {
  readonly #pass: Pass;
  /** Streams that the body has closed: what replay sees as well. */
  #closed: Set<string> | undefined;
  /** Writes of steps that are not committed. */
  #loose = 0;
  #room: Promise<void> | undefined;

  constructor(pass: Pass) {
    this.#pass = pass;
  }

  call(definition: PublicationDefinition, change: Change, step: StepInfo | null): Promise<void> {
    const { kind, name } = definition;
    const pass = this.#pass;
    const what = `${kind} "${name}" of run "${pass.run.id}"`;
    if (step) this.#checkRunning(step, what);
    else if (kind === "stream") this.#checkOpen(name, change, what);
    const subject = kind === "stream" ? `item of ${what}` : what;
    const text =
      change === "close" ? null : pass.ports.codec.encode(change.value, subject, publishedIn(pass.run.id, kind, name));
    return step ? this.#fromStep(definition, text, step) : this.#fromBody(definition, text);
  }

  #checkOpen(name: string, change: Change, what: string): void {
    if (change === "close") {
      this.#closed ??= new Set();
      this.#closed.add(name);
    } else if (this.#closed?.has(name)) {
      throw new PerdureError("PERDURE_STATE", `${what} is closed, so nothing can be written to it; close it last`);
    }
  }

  #checkRunning(step: StepInfo, what: string): void {
    const pass = this.#pass;
    if (!pass.over && (step as Attempt).running) return;
    const why = pass.over ? "the run is not in work here any more" : "the step's try has ended";
    const text = `step "${step.name}" published nothing to ${what}: ${why}; watch currentStep().signal, and await what the step begins`;
    throw new PerdureError("PERDURE_STATE", text);
  }

  #fromBody({ kind, name }: PublicationDefinition, value: string | null): Promise<void> {
    const entered = this.#pass.enter({
      slot: this.#pass.take(nameAddress(kind, name)),
      kind,
      name,
      begin: (call) => this.#begin(call, value),
      ring: () => {},
      replay: () => (deferred) => deferred.resolve(undefined),
    });
    return entered as Promise<void>;
  }

  #begin(call: Call, value: string | null): void {
    const pass = this.#pass;
    const ready = (): void =>
      pass.ready(call, { settle: (deferred) => deferred.resolve(undefined), write: { kind: "publish", value } });
    if (pass.ledger.ahead > AHEAD) {
      pass.working(call);
      pass.ledger.afterCommit({ committed: ready });
    } else ready();
  }

  #fromStep({ kind, name }: PublicationDefinition, value: string | null, step: StepInfo): Promise<void> {
    const { ledger, claim, ports } = this.#pass;
    const row = {
      slot: null,
      attempt: claim.attempt,
      no: null,
      kind,
      name,
      value,
      seq: ledger.sent,
      at: ports.clock.now(),
    };
    this.#loose += 1;
    ledger.send("publish", row, () => {
      this.#loose -= 1;
    });
    if (ledger.ahead <= AHEAD) return Promise.resolve();
    this.#room ??= this.#commit(step.tx !== undefined).finally(() => {
      this.#room = undefined;
    });
    return this.#room;
  }

  /** Resolves when what steps have published is committed: before a transaction, whose own commit does not wait for these writes. */
  async committed(): Promise<void> {
    if (this.#loose > 0) await this.#commit(true);
  }

  #commit(bounded: boolean): Promise<void> {
    const { ledger, run } = this.#pass;
    const done = new Promise<void>((resolve, reject) => {
      const timer = bounded ? setTimeout(resolve, PATIENCE_MS) : undefined;
      const settle = (end: () => void) => (): void => {
        clearTimeout(timer);
        end();
      };
      const text = `run "${run.id}" is not in work here any more, so its step can publish nothing`;
      const lost = (): void => reject(new PerdureError("PERDURE_STATE", text));
      ledger.afterCommit({ committed: settle(resolve), abandoned: settle(lost) });
    });
    // Nobody need await a write.
    done.catch(() => {});
    return done;
  }
}
