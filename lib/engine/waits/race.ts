/** A race of waits: the first of several that there is news for, or a timer. What loses is left as it is, for later waits. */
import { argumentsAddress } from "../../core/address.ts";
import type { Ended, Recorded } from "../../core/claim.ts";
import type { RaceEntry } from "../../core/context.ts";
import { openEnd } from "../../core/ended.ts";
import { canonicalHash } from "../../core/hash.ts";
import type { Call, Outcome } from "../call.ts";
import type { Pass } from "../pass.ts";
import type { Deferred } from "../promise.ts";
import { settleEnd } from "./end.ts";
import { consume, type Envelope, read, throwRefusal } from "./event.ts";
import { beginWait, opened, sealed, waited } from "./wait.ts";

/** A race of many has a slot that an index can hold. */
const LONGEST_NAME = 255;

/** How a race is recorded: who won, and with what. */
interface Won {
  readonly winner: string;
  readonly event?: Envelope & { readonly name: string };
  readonly end?: Ended;
}

export function raceCall(pass: Pass, entries: readonly RaceEntry[]): Promise<unknown> {
  const keys = entries.map(({ key }) => key).join(",");
  const topics = entries.map(topicOf);
  const isLong = Buffer.byteLength(keys) > LONGEST_NAME;
  const name = isLong ? `${entries[0]!.key} and ${entries.length - 1} more` : keys;
  const asked = entries.map(askedOf);
  const hash = canonicalHash(isLong ? [asked, keys] : asked, () => `race of run "${pass.run.id}"`);
  const first = timerOf(entries);
  const hasNews = (): boolean => entries.some((entry) => isReady(pass, entry));
  const ring = (call: Call): void | Promise<void> => decide(pass, call, entries);
  return pass.enter({
    slot: pass.take(argumentsAddress("race", name, hash)),
    kind: "race",
    name,
    hasNews,
    begin: (call) => {
      if (!pass.history.wait(call.slot)) forgetFailures(pass, entries);
      if (hasNews()) return ring(call);
      return beginWait(pass, call, { kind: "race", topics, lengthMs: first?.lengthMs ?? null });
    },
    ring,
    replay: (recorded) => replay(pass, recorded, entries),
  });
}

/** A timer has one for a person to read. */
function topicOf(entry: RaceEntry): string {
  if (entry.kind === "event") return `event:${entry.definition.name}`;
  return entry.kind === "child" ? `child:${entry.id}` : `sleep:${entry.key}`;
}

/** The call that started a child stays, also where a retry of the workflow starts another by it: what the race came to stays too. */
const askedOf = (entry: RaceEntry): string => (entry.kind === "child" ? `child:${entry.origin}` : topicOf(entry));

function forgetFailures({ ends }: Pass, entries: readonly RaceEntry[]): void {
  for (const entry of entries) if (entry.kind === "child") ends.forgetFailure(entry.id);
}

/** The shortest of the timers; of several, the first. */
function timerOf(entries: readonly RaceEntry[]): (RaceEntry & { kind: "timer" }) | undefined {
  const timers = entries.filter((entry) => entry.kind === "timer");
  return timers.reduce<(typeof timers)[number] | undefined>(
    (a, b) => (a && a.lengthMs <= b.lengthMs ? a : b),
    undefined,
  );
}

function isReady({ mailbox, ends }: Pass, entry: RaceEntry): boolean {
  if (entry.kind === "event") return mailbox.has(entry.definition.name);
  return entry.kind === "child" && ends.get(entry.id) !== undefined;
}

/** Of several that are ready, the first as they were given. */
function decide(pass: Pass, call: Call, entries: readonly RaceEntry[]): void | Promise<void> {
  const ready = entries.find((entry) => isReady(pass, entry)) ?? timerOf(entries)!;
  const { key: winner } = ready;
  const now = pass.ports.clock.now();
  if (ready.kind === "event") {
    const { name } = ready.definition;
    const mail = pass.mailbox.shift(name)!;
    return consume(pass, call, ready.definition, mail, (envelope) => {
      const won: Won = { winner, event: { name, ...envelope } };
      return {
        settle: settle(pass, call.slot, won, entries),
        write: waited("completed", sealed(pass, call.slot, won), now, mail.seq),
      };
    });
  }
  const won: Won =
    ready.kind === "child" ? { winner, end: openEnd(pass.ends.get(ready.id)!, pass.ports.codec) } : { winner };
  const kind = won.end && won.end.state !== "completed" ? "failed" : won.end ? "completed" : "timeout";
  const write = waited(kind, sealed(pass, call.slot, won), now);
  return pass.ready(call, { settle: settle(pass, call.slot, won, entries), write });
}

function replay(pass: Pass, recorded: Recorded, entries: readonly RaceEntry[]): Outcome["settle"] {
  const stored = opened(pass, recorded) as Won | { readonly winner?: undefined };
  // An event that its schema refused.
  if (stored.winner === undefined) return throwRefusal(pass, recorded.slot, recorded.value!, recorded.attempt);
  return settle(pass, recorded.slot, stored, entries);
}

function settle(
  pass: Pass,
  slot: string,
  { winner, event, end }: Won,
  entries: readonly RaceEntry[],
): Outcome["settle"] {
  const give = (value: unknown) => (deferred: Deferred) => deferred.resolve({ winner, value });
  if (event) return give(read(pass, event.name, event));
  if (!end) return give(null);
  const origins = entries.flatMap((entry) => (entry.kind === "child" && entry.id === end.id ? [entry.origin] : []));
  const settled = settleEnd(pass, end, [slot, ...origins]);
  return (deferred) => {
    const resolve = (value: unknown): void => deferred.resolve({ winner, value });
    settled({ promise: deferred.promise, reject: (error) => deferred.reject(error), resolve });
  };
}
