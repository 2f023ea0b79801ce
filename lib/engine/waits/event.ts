/** A wait for an event: mail of a name, consumed once, or nothing in time. */
import { nameAddress } from "../../core/address.ts";
import type { Mail, Recorded } from "../../core/claim.ts";
import { isFromSql } from "../../core/codec.ts";
import { validate } from "../../core/schema.ts";
import { mailOf } from "../../core/stored-place.ts";
import type { EventDefinition, Received, Schema } from "../../core/types.ts";
import type { Call, Outcome } from "../call.ts";
import type { Pass } from "../pass.ts";
import { beginWait, opened, sealed, waited } from "./wait.ts";

/** How a consumed event is recorded: the sender's text, so that no limit is met twice, and what the mail says of it. */
export type Envelope = Pick<Mail, "data" | "reference" | "sentAt"> & { readonly id: string };

export function eventCall(pass: Pass, definition: EventDefinition, timeoutMs: number | null): Promise<unknown> {
  const { name } = definition;
  const hasNews = (): boolean => pass.mailbox.has(name);
  return pass.enter({
    slot: pass.take(nameAddress("event", name)),
    kind: "event",
    name,
    hasNews,
    // Mail that is there is taken at once; otherwise the wait is written, so that its timeout counts from here.
    begin: (call) =>
      hasNews()
        ? ring(pass, call, definition)
        : beginWait(pass, call, { kind: "event", topics: [`event:${name}`], lengthMs: timeoutMs }),
    ring: (call) => ring(pass, call, definition),
    replay: (recorded) => replay(pass, recorded),
  });
}

/** There is mail, or the time is up. */
function ring(pass: Pass, call: Call, definition: EventDefinition): void | Promise<void> {
  const { name, slot } = call;
  const mail = pass.mailbox.shift(name);
  if (!mail) return pass.ready(call, late(pass));
  return consume(pass, call, definition, mail, (envelope) => {
    const value = read(pass, name, envelope);
    return {
      settle: (deferred) => deferred.resolve(value),
      write: waited("completed", sealed(pass, slot, envelope), mail.sentAt, mail.seq),
    };
  });
}

/** Hands a mail over. What SQL sent is checked here, once: what the schema returns is recorded, and what it refuses is thrown. */
export function consume(
  pass: Pass,
  call: Call,
  { schema }: EventDefinition,
  mail: Mail,
  toOutcome: (envelope: Envelope) => Outcome,
): void | Promise<void> {
  const { codec } = pass.ports;
  const envelope = envelopeOf(pass, mail);
  if (!schema || !isFromSql(envelope.data)) return pass.ready(call, toOutcome(envelope));
  const what = `data of ${whatOf(pass, mail.name)}, sent from SQL,`;
  // A schema may take its time: the run is not given up meanwhile.
  pass.working(call);
  return check(schema, codec.decodePlain(envelope.data, what), what).then(
    (value) => pass.ready(call, toOutcome({ ...envelope, data: codec.encodePlain(value, what) })),
    (thrown) => pass.ready(call, refused(pass, call, mail, thrown)),
  );
}

const check = async (schema: Schema, value: unknown, what: string): Promise<unknown> => validate(schema, value, what);

function refused(pass: Pass, { slot }: Call, { name, sentAt, seq }: Mail, thrown: unknown): Outcome {
  const error = pass.ports.codec.encodeError(thrown, `error of ${whatOf(pass, name)}`, pass.binding.placeOf(slot));
  return { settle: throwRefusal(pass, slot, error), write: waited("failed", error, sentAt, seq) };
}

/** Throws what a schema refused with, live and on replay. */
export function throwRefusal(pass: Pass, slot: string, text: string, attempt?: number): Outcome["settle"] {
  const place = pass.binding.placeOf(slot, attempt);
  const error = pass.ports.codec.decodeError(text, `error of "${slot}" of run "${pass.run.id}"`, place);
  pass.escaped.threw(error, slot);
  return (deferred) => deferred.reject(error);
}

function late(pass: Pass): Outcome {
  return { settle: (deferred) => deferred.resolve(null), write: waited("timeout", null, pass.ports.clock.now()) };
}

function replay(pass: Pass, recorded: Recorded): Outcome["settle"] {
  const { outcome, slot, attempt } = recorded;
  if (outcome === "timeout") return (deferred) => deferred.resolve(null);
  if (outcome === "failed") return throwRefusal(pass, slot, recorded.value!, attempt);
  const value = read(pass, recorded.name, opened(pass, recorded) as Envelope);
  return (deferred) => deferred.resolve(value);
}

/** The mail as it is recorded: its text is bound to the slot then, in place of the mailbox. */
function envelopeOf(pass: Pass, { seq, name, data, reference, sentAt, token }: Mail): Envelope {
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
