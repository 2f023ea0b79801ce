/** What a body sees as its run: frozen facts, a signal, what the application's context is, a log that is silent while it replays. */

import type { Claim } from "../core/claim.ts";
import { scope } from "../core/context.ts";
import type { EngineLog, LogLine, RunLog } from "../core/logging.ts";
import type { RunInfo, StepInfo } from "../core/types.ts";

/** The run, and what its pass tells it. */
export interface RunFacts {
  readonly run: RunInfo;
  readonly abort: (reason: unknown) => void;
  /** Gives it the context of this execution. */
  readonly provide: (context: unknown) => void;
}

export function runInfo(claim: Claim, logger: EngineLog, silent: () => boolean): RunFacts {
  const { id, workflow, version, queue, attempt, scheduledFor } = claim;
  // Made when they are asked for: few bodies do.
  let aborter: AbortController | undefined;
  let aborted: { readonly reason: unknown } | undefined;
  let log: RunLog | undefined;
  let context: unknown = null;
  const run: RunInfo = {
    id,
    workflow,
    version,
    queue,
    attempt,
    get signal() {
      aborter ??= new AbortController();
      if (aborted) aborter.abort(aborted.reason);
      return aborter.signal;
    },
    get scheduledFor() {
      return scheduledFor === null ? null : new Date(scheduledFor);
    },
    get log() {
      log ??= runLog(run, logger, silent);
      return log;
    },
    get context() {
      return context;
    },
  };
  return {
    run: Object.freeze(run),
    abort: (reason) => {
      aborted ??= { reason };
      aborter?.abort(reason);
    },
    provide: (made) => {
      context = made;
    },
  };
}

/** The log of a run: each line is bound to where it is written, the body or a step, and a step's are never silent. */
function runLog({ id, workflow, version, attempt }: RunInfo, logger: EngineLog, silent: () => boolean): RunLog {
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
      else if (!silent()) ofBody[level](...line);
    };
  return { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") };
}
