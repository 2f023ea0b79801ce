/** What a body sees as its run: frozen facts, a signal, a log that is silent while it replays. */
import type { Claim, Logger, RunInfo } from "../core/types.ts";

/** The run, and how to abort its signal. */
export function runInfo(
  claim: Claim,
  logger: Logger,
  silent: () => boolean,
): { readonly run: RunInfo; readonly abort: (reason: unknown) => void } {
  const { id, workflow, version, attempt, scheduledFor } = claim;
  const say =
    (level: keyof Logger) =>
    (message: string, ...details: unknown[]): void => {
      if (!silent()) logger[level](message, ...details, { runId: id, workflow });
    };
  // Made when they are asked for: few bodies do.
  let aborter: AbortController | undefined;
  let aborted: { readonly reason: unknown } | undefined;
  let log: Logger | undefined;
  const run: RunInfo = {
    id,
    workflow,
    version,
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
      log ??= { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") };
      return log;
    },
  };
  const abort = (reason: unknown): void => {
    aborted ??= { reason };
    aborter?.abort(reason);
  };
  return { run: Object.freeze(run), abort };
}
