/** A wait for the end of another run: its result, or an error that says how it ended; or a TimeoutError. */
import { nameAddress } from "../../core/address.ts";
import type { Ended, Recorded } from "../../core/claim.ts";
import { endError, openEnd } from "../../core/ended.ts";
import { TimeoutError } from "../../core/errors.ts";
import type { Call, Outcome } from "../call.ts";
import type { Pass } from "../pass.ts";
import { beginWait, opened, sealed, waited } from "./wait.ts";

/** Whose end is waited for, and how it is recorded. */
export interface Awaited {
  readonly id: string;
  /** The slots that a failure reopens when the workflow is retried: of the start, beside that of the wait. */
  readonly origins: readonly string[];
  readonly timeoutMs: number | null;
  /** Of the input, where the call names an id. */
  readonly hash: string | null;
}

/** The end of the run of a handle. `origin`: the slot that started it. */
export function endCall(pass: Pass, id: string, origin: string, timeoutMs: number | null): Promise<unknown> {
  const awaited: Awaited = { id, origins: [origin], timeoutMs, hash: null };
  return pass.enter({
    slot: pass.take(nameAddress("child", id)),
    kind: "child",
    name: id,
    hasNews: () => pass.ends.get(id) !== undefined,
    begin: (call) => beginEnd(pass, call, awaited),
    ring: (call) => ringEnd(pass, call, awaited),
    replay: (recorded) => replayEnd(pass, recorded, awaited),
  });
}

/** An end that is known is taken at once; otherwise the wait is written. */
export function beginEnd(pass: Pass, call: Call, awaited: Awaited): void | Promise<void> {
  const { id, timeoutMs } = awaited;
  if (!pass.history.wait(call.slot)) pass.ends.forgetFailure(id);
  if (pass.ends.get(id)) return ringEnd(pass, call, awaited);
  return beginWait(pass, call, { kind: "child", topics: [`child:${id}`], lengthMs: timeoutMs });
}

/** The run has ended, or the time is up. */
export function ringEnd(pass: Pass, call: Call, awaited: Awaited): void {
  const found = pass.ends.get(awaited.id);
  const end = found && openEnd(found, pass.ports.codec);
  const now = pass.ports.clock.now();
  const { row } = end
    ? waited(end.state === "completed" ? "completed" : "failed", sealed(pass, call.slot, end), now)
    : waited("timeout", null, now);
  pass.ready(call, {
    settle: end ? settleEnd(pass, end, [call.slot, ...awaited.origins]) : late(awaited),
    write: { kind: "record", row: { ...row, hash: awaited.hash } },
  });
}

export function replayEnd(pass: Pass, recorded: Recorded, awaited: Awaited): Outcome["settle"] {
  if (recorded.outcome === "timeout") return late(awaited);
  return settleEnd(pass, opened(pass, recorded) as Ended, [recorded.slot, ...awaited.origins]);
}

function late({ id, timeoutMs }: Awaited): Outcome["settle"] {
  const text = `run "${id}" had not finished after ${timeoutMs} ms; it goes on, so wait for it again, or cancel it`;
  return (deferred) => deferred.reject(new TimeoutError(text));
}

/** Hands over how a run ended, opened. An error that escapes the body is known by `slots`, which a retry of the workflow then sets aside. */
export function settleEnd(pass: Pass, end: Ended, slots: readonly string[]): Outcome["settle"] {
  const { codec } = pass.ports;
  if (end.state === "completed") {
    const result = codec.decodePlain(end.value!, `result of run "${end.id}"`);
    return (deferred) => deferred.resolve(result);
  }
  const error = endError(end, codec);
  for (const slot of slots) pass.escaped.threw(error, slot);
  return (deferred) => deferred.reject(error);
}
