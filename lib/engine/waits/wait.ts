/** What all waits share: a row that keeps their start, a timer, and what beside it ends them. */
import type { OpenWait, Recorded } from "../../core/claim.ts";
import type { Call } from "../call.ts";
import type { Pass } from "../pass.ts";

export interface Waiting {
  readonly kind: OpenWait["kind"];
  /** What ends it beside the clock: `event:name`, `child:id`. */
  readonly topics: readonly string[];
  /** Counts from the start of the wait, whenever that was. Null: no timer. */
  readonly lengthMs: number | null;
  /** An instant in its place, in ms since 1970. */
  readonly until?: number | null;
}

/** Goes on with a wait that an earlier claim began, or writes a new one. A changed length counts from the wait's own start. */
export async function beginWait(pass: Pass, call: Call, waiting: Waiting): Promise<void> {
  const { kind, topics, lengthMs, until = null } = waiting;
  const open = pass.history.wait(call.slot);
  if (open && (open.woken || (open.lengthMs === lengthMs && (until === null || open.due === until)))) {
    // Due at the claim, by the database's clock; what is due since, a look tells.
    if (open.woken || (open.due !== null && open.due <= pass.claim.now)) call.ring(open.woken);
    else pass.waits(call, open.due);
    return;
  }
  pass.waits(call, null);
  const { slot } = call;
  const { attempt } = pass.claim;
  const row = { slot, attempt, kind, topics: JSON.stringify(topics), length: lengthMs, until, tries: 0 };
  const answer = await pass.ledger.write("wait", row);
  if (!answer || call.state !== "waiting") return;
  if (answer.due_ms !== null) pass.waits(call, answer.due_ms);
  // It ended before anybody waited for it, so nobody was told.
  if (answer.ended) void pass.look();
}

/** What a wait came to, as a text to store: data and where it came from, whole. */
export const sealed = (pass: Pass, slot: string, won: object): string =>
  pass.ports.codec.seal(JSON.stringify(won), whatOf(pass, slot), pass.binding.placeOf(slot));

/** What was stored so. */
export const opened = (pass: Pass, { slot, value, attempt }: Recorded): unknown =>
  JSON.parse(pass.ports.codec.open(value!, whatOf(pass, slot), pass.binding.placeOf(slot, attempt)));

const whatOf = ({ run }: Pass, slot: string): string => `outcome of "${slot}" of run "${run.id}"`;

/** How the outcome of a wait is recorded: it took no try, and nothing but its value says what it was. */
export function waited(
  outcome: "completed" | "failed" | "timeout",
  value: string | null,
  started: number,
  mail: string | null = null,
) {
  return { kind: "record" as const, row: { outcome, value, hash: null, tries: 1, started, mail } };
}
