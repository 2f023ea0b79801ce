/** A sleep: a wait whose outcome the clock brings. */
import { nameAddress } from "../../core/address.ts";
import type { Until } from "../../core/context.ts";
import type { Call } from "../call.ts";
import type { Pass } from "../pass.ts";

export function sleepCall(pass: Pass, name: string | null, until: Until): Promise<unknown> {
  const slot = pass.take(nameAddress("sleep", name ?? ""));
  return pass.enter({
    slot,
    kind: "sleep",
    name: name ?? "",
    begin: (call) => begin(pass, call, until),
    ring: (call, woken) => ring(pass, call, woken),
    replay: (recorded) => (deferred) => deferred.resolve({ woken: recorded.value !== null }),
  });
}

/** An open sleep goes on where it was begun. A changed length counts from its own start. */
async function begin(pass: Pass, call: Call, until: Until): Promise<void> {
  const open = pass.history.wait(call.slot);
  const lengthMs = "lengthMs" in until ? until.lengthMs : null;
  const at = "at" in until ? until.at.getTime() : null;
  if (open && (open.woken || (open.lengthMs === lengthMs && (at === null || open.due === at)))) {
    // Due at the claim, by the database's clock; what is due since, a look tells.
    if (open.woken || open.due! <= pass.claim.now) ring(pass, call, open.woken);
    else pass.waits(call, open.due);
    return;
  }
  pass.waits(call, null);
  const { slot } = call;
  const topics = JSON.stringify([`sleep:${call.name}`]);
  const row = { slot, attempt: pass.claim.attempt, kind: "sleep", topics, length: lengthMs, until: at, tries: 0 };
  const answer = await pass.ledger.write("wait", row);
  if (answer && call.state === "waiting") pass.waits(call, pass.ports.clock.now() + answer.due_ms!);
}

function ring(pass: Pass, call: Call, woken: boolean): void {
  const now = pass.ports.clock.now();
  const row = {
    outcome: "completed",
    value: woken ? '{"json":true}' : null,
    hash: null,
    tries: 1,
    started: now,
    mail: null,
  };
  pass.ready(call, { settle: (deferred) => deferred.resolve({ woken }), write: { kind: "record", row } });
}
