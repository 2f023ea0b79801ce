/** A sleep: a wait whose outcome the clock brings. */
import { nameAddress } from "../../core/address.ts";
import type { Until } from "../../core/context.ts";
import type { Call } from "../call.ts";
import type { Pass } from "../pass.ts";
import { beginWait, waited } from "./wait.ts";

const WOKEN = '{"json":true}';

export function sleepCall(pass: Pass, name: string | null, until: Until): Promise<unknown> {
  const waiting = {
    kind: "sleep" as const,
    topics: [`sleep:${name ?? ""}`],
    lengthMs: "lengthMs" in until ? until.lengthMs : null,
    until: "at" in until ? until.at.getTime() : null,
  };
  return pass.enter({
    slot: pass.take(nameAddress("sleep", name ?? "")),
    kind: "sleep",
    name: name ?? "",
    begin: (call) => beginWait(pass, call, waiting),
    ring: (call, woken) => ring(pass, call, woken),
    replay: (recorded) => (deferred) => deferred.resolve({ woken: recorded.value !== null }),
  });
}

function ring(pass: Pass, call: Call, woken: boolean): void {
  pass.ready(call, {
    settle: (deferred) => deferred.resolve({ woken }),
    write: waited("completed", woken ? WOKEN : null, pass.ports.clock.now()),
  });
}
