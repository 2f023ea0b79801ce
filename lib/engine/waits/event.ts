/** A wait for an event: mail of a name, consumed once, or nothing in time. */
import { nameAddress } from "../../core/address.ts";
import type { EventDefinition, Mail, Received, Recorded } from "../../core/types.ts";
import type { Call, Outcome } from "../call.ts";
import type { Pass } from "../pass.ts";

/** How a consumed event is recorded: the sender's text as it came, so that no limit is met twice, and what the mail says of it. */
type Envelope = Pick<Mail, "data" | "reference" | "sentAt"> & { readonly id: string };

export function eventCall(pass: Pass, definition: EventDefinition, timeoutMs: number | null): Promise<unknown> {
  const { name } = definition;
  return pass.enter({
    slot: pass.take(nameAddress("event", name)),
    kind: "event",
    name,
    begin: (call) => begin(pass, call, timeoutMs),
    ring: (call) => ring(pass, call),
    replay: (recorded) => replay(pass, recorded),
  });
}

/** Mail that is there is taken at once; otherwise the wait is written, so that its timeout counts from here. */
async function begin(pass: Pass, call: Call, timeoutMs: number | null): Promise<void> {
  if (pass.mailbox.has(call.name)) return ring(pass, call);
  const open = pass.history.wait(call.slot);
  if (open && open.lengthMs === timeoutMs) {
    if (open.due !== null && open.due <= pass.claim.now) ring(pass, call);
    else pass.waits(call, open.due);
    return;
  }
  pass.waits(call, null);
  const { slot, name } = call;
  const row = {
    slot,
    attempt: pass.claim.attempt,
    kind: "event",
    topics: JSON.stringify([`event:${name}`]),
    length: timeoutMs,
    until: null,
    tries: 0,
  };
  const answer = await pass.ledger.write("wait", row);
  if (answer?.due_ms != null && call.state === "waiting") pass.waits(call, pass.ports.clock.now() + answer.due_ms);
}

/** There is mail, or the time is up. */
function ring(pass: Pass, call: Call): void {
  const mail = pass.mailbox.shift(call.name);
  pass.ready(call, mail ? received(pass, call, mail) : late(pass));
}

function received(pass: Pass, call: Call, mail: Mail): Outcome {
  const { data, reference, sentAt } = mail;
  const envelope: Envelope = { id: mail.seq, sentAt, reference, data };
  const value = JSON.stringify(envelope);
  const row = { outcome: "completed", value, hash: null, tries: 1, started: sentAt, mail: mail.seq };
  return { settle: gives(pass, call.name, envelope), write: { kind: "record", row } };
}

function late(pass: Pass): Outcome {
  const row = { outcome: "timeout", value: null, hash: null, tries: 1, started: pass.ports.clock.now(), mail: null };
  return { settle: (deferred) => deferred.resolve(null), write: { kind: "record", row } };
}

function replay(pass: Pass, recorded: Recorded): Outcome["settle"] {
  if (recorded.outcome === "timeout") return (deferred) => deferred.resolve(null);
  return gives(pass, recorded.name, JSON.parse(recorded.value!) as Envelope);
}

function gives(pass: Pass, name: string, { id, sentAt, reference, data }: Envelope): Outcome["settle"] {
  const received: Received<unknown> = {
    data: pass.ports.codec.decode(data, `event "${name}" of run "${pass.run.id}"`),
    id,
    sentAt: new Date(sentAt),
    ...(reference !== null && { reference }),
  };
  return (deferred) => deferred.resolve(received);
}
