/** What a body sees as its run: frozen facts, a signal, a log that is silent while it replays. */
import type { Claim, Logger, RunInfo } from "../core/types.ts";

export function runInfo(claim: Claim, signal: AbortSignal, logger: Logger, silent: () => boolean): RunInfo {
  const { id, workflow, version, attempt } = claim;
  const say =
    (level: keyof Logger) =>
    (message: string, ...details: unknown[]): void => {
      if (!silent()) logger[level](message, ...details, { runId: id, workflow });
    };
  const log = { debug: say("debug"), info: say("info"), warn: say("warn"), error: say("error") };
  return Object.freeze({ id, workflow, version, attempt, signal, log });
}
