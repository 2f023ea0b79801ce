/** A wait for an event: mail of a name, consumed once, or nothing in time. */
import { nameAddress } from "../../core/address.ts";
import type { Mail, Recorded } from "../../core/claim.ts";
import { mailOf } from "../../core/stored-place.ts";
import type { EventDefinition, Received } from "../../core/types.ts";
import type { Call, Outcome } from "../call.ts";
import type { Pass } from "../pass.ts";
import { beginWait, opened, sealed, waited } from "./wait.ts";

/** How a consumed event is recorded: the sender's text, so that no limit is met twice, and what the mail says of it. */
export type Envelope = Pick<Mail, "data" | "reference" | "sentAt"> & { readonly id: string };

export function eventCall(pass: Pass, { name }: EventDefinition, timeoutMs: number | null): Promise<unknown> {
  const hasNews = (): boolean => pass.mailbox.has(name);
  return pass.enter({
    slot: pass.take(nameAddress("event", name)),
    kind: "event",
    name,
    hasNews,
    // Mail that is there is taken at once; otherwise the wait is written, so that its timeout counts from here.
    begin: (call) =>
      hasNews()
        ? ring(pass, call)
        : beginWait(pass, call, { kind: "event", topics: [`event:${name}`], lengthMs: timeoutMs }),
    ring: (call) => ring(pass, call),
    replay: (recorded) => replay(pass, recorded),
  });
}

/** There is mail, or the time is up. */
function ring(pass: Pass, call: Call): void {
  const mail = pass.mailbox.shift(call.name);
  pass.ready(call, mail ? received(pass, call, mail) : late(pass));
}

function received(pass: Pass, { name, slot }: Call, mail: Mail): Outcome {
  const envelope = envelopeOf(pass, mail);
  const value = read(pass, name, envelope);
  return {
    settle: (deferred) => deferred.resolve(value),
    write: waited("completed", sealed(pass, slot, envelope), mail.sentAt, mail.seq),
  };
}

function late(pass: Pass): Outcome {
  return { settle: (deferred) => deferred.resolve(null), write: waited("timeout", null, pass.ports.clock.now()) };
}

function replay(pass: Pass, recorded: Recorded): Outcome["settle"] {
  if (recorded.outcome === "timeout") return (deferred) => deferred.resolve(null);
  const value = read(pass, recorded.name, opened(pass, recorded) as Envelope);
  return (deferred) => deferred.resolve(value);
}

/** The mail as it is recorded: its text is bound to the slot then, in place of the mailbox. */
export function envelopeOf(pass: Pass, { seq, name, data, reference, sentAt, token }: Mail): Envelope {
  const { ports, run } = pass;
  const text = ports.codec.open(data, whatOf(pass, name), mailOf(run.id, name, token));
  return { id: seq, sentAt, reference, data: text };
}

const whatOf = ({ run }: Pass, name: string): string => `event "${name}" of run "${run.id}"`;

/** A consumed event, as the body is given it. */
export function read(pass: Pass, name: string, { id, sentAt, reference, data }: Envelope): Received<unknown> {
  return {
    data: pass.ports.codec.decodePlain(data, whatOf(pass, name)),
    id,
    sentAt: new Date(sentAt),
    ...(reference !== null && { reference }),
  };
}
