/** What a body sees as its run: frozen facts, a signal, what the application's context is, a log that is silent while it replays. */

import type { Claim } from "../core/claim.ts";
import { scope } from "../core/context.ts";
import type { EngineLog, LogLine, RunLog } from "../core/logging.ts";
import type { RunInfo, StepInfo } from "../core/types.ts";
import type { Voice } from "./voice.ts";

export class RunView implements RunInfo {
  readonly id: string;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly attempt: number;
  readonly #scheduledFor: number | null;
  readonly #logger: EngineLog;
  readonly #voice: Voice;
  #context: unknown = null;
  // Made when they are asked for: few bodies do.
  #aborter: AbortController | undefined;
  #aborted: { readonly reason: unknown } | undefined;
  #log: RunLog | undefined;

  constructor(claim: Claim, logger: EngineLog, voice: Voice) {
    this.id = claim.id;
    this.workflow = claim.workflow;
    this.version = claim.version;
    this.queue = claim.queue;
    this.attempt = claim.attempt;
    this.#scheduledFor = claim.scheduledFor;
    this.#logger = logger;
    this.#voice = voice;
    Object.freeze(this);
  }

  get signal(): AbortSignal {
    this.#aborter ??= new AbortController();
    if (this.#aborted) this.#aborter.abort(this.#aborted.reason);
    return this.#aborter.signal;
  }

  get scheduledFor(): Date | null {
    return this.#scheduledFor === null ? null : new Date(this.#scheduledFor);
  }

  get log(): RunLog {
    this.#log ??= runLog(this, this.#logger, this.#voice);
    return this.#log;
  }

  get context(): unknown {
    return this.#context;
  }

  /** Tells who looks at its signal. */
  static abort(view: RunView, reason: unknown): void {
    view.#aborted ??= { reason };
    view.#aborter?.abort(reason);
  }

  /** Gives it the context of this execution. */
  static provide(view: RunView, context: unknown): void {
    view.#context = context;
  }
}

/** The log of a run: each line is bound to where it is written, the body or a step, and a step's are never silent. */
function runLog({ id, workflow, version, attempt }: RunInfo, logger: EngineLog, voice: Voice): RunLog {
  const bindings = { runId: id, workflow, version, attempt };
  const ofBody = logger.bound(bindings);
  const ofSteps = new WeakMap<StepInfo, RunLog>();
  const ofStep = (step: StepInfo): RunLog => {
    const bound = ofSteps.get(step) ?? logger.bound({ ...bindings, step: step.name, stepAttempt: step.attempt });
    ofSteps.set(step, bound);
    return bound;
  };
  const say =
    (level: keyof RunLog): LogLine =>
    (...line: [any, ...any[]]) => {
      const here = scope.getStore();
      // The log may be at work in another run: of a child that this one's code was handed to.
      const step = here?.step && here.body.run.id === id ? here.step : null;
      if (step) ofStep(step)[level](...line);
      else if (!voice.silent) ofBody[level](...line);
    };
  return { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") };
}
