/** What running code may ask about itself, and what is the same on replay. */
import { bodyFor, plainTransaction, scope } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import { checkName } from "../core/options.ts";
import type { RunInfo, StepInfo } from "../core/types.ts";

/**
 * The run that this code belongs to, inside a workflow or one of its steps. Its `context` has the type that is given: what the option `context`
 * of the engine returns.
 *
 * @throws PERDURE_CONTEXT elsewhere.
 * @example currentRun().log.warn(`${currentRun().id} waits for its payment`);
 * @example const { db } = currentRun<AppContext>().context;
 */
export function currentRun<Context = unknown>(): RunInfo<Context> {
  const here = scope.getStore();
  if (here) return here.body.run as RunInfo<Context>;
  throw new PerdureError(
    "PERDURE_CONTEXT",
    "currentRun() works only inside a workflow or a step of one; here is neither. Pass on what the code needs as an argument",
  );
}

/**
 * The step that this code belongs to, or the transaction that was called outside a workflow.
 *
 * @throws PERDURE_CONTEXT outside both.
 * @example await fetch(url, { headers: { "Idempotency-Key": currentStep().idempotencyKey }, signal: currentStep().signal });
 */
export function currentStep(): StepInfo {
  const step = scope.getStore()?.step ?? plainTransaction.getStore();
  if (step) return step;
  throw new PerdureError(
    "PERDURE_CONTEXT",
    "currentStep() works only inside a step that a workflow called; here is none. Pass on what the code needs as an argument",
  );
}

/**
 * The database's instant of the last outcome that this run was handed; before the first, of its start. The same on replay.
 *
 * @throws PERDURE_CONTEXT outside a workflow and inside a step.
 * @example const late = now() > deadline;
 */
export function now(): Date {
  return bodyFor("now()").now();
}

/**
 * A UUID (version 8) derived from the run, the name and how often it was asked. The same on replay; not a secret.
 *
 * @throws PERDURE_CONTEXT outside a workflow and inside a step.
 * @example const parcel = uuid("parcel");
 */
export function uuid(name = ""): string {
  const bytes = bodyFor("uuid()").random("uuid", checkLabel(name));
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/**
 * A number from 0 to below 1, derived as `uuid()` is. The same on replay; not for secrets.
 *
 * @throws PERDURE_CONTEXT outside a workflow and inside a step.
 * @example const variant = random("variant") < 0.5 ? "a" : "b";
 */
export function random(name = ""): number {
  const bytes = bodyFor("random()").random("random", checkLabel(name));
  const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
  // 53 bits, as many as a double holds between 0 and 1.
  return (view.getUint32(0) * 2 ** 21 + (view.getUint32(4) >>> 11)) / 2 ** 53;
}

/**
 * Whether this run takes new code: true when the run had nothing recorded beyond this point as it first asked, false for one that
 * was further on with the code before. Each run keeps its answer, in every replay and attempt. Take the old branch away once no run
 * needs it; the call may go later too.
 *
 * @param change Names the change within the workflow: 1 to 255 bytes.
 * @throws PERDURE_CONTEXT outside a workflow and inside a step; PERDURE_NAME.
 * @example if (patched("charge-by-invoice")) await sendInvoice(order); else await chargeCard(order);
 */
export function patched(change: string): boolean {
  return bodyFor("patched()").patched(checkName(change, "name of a change"));
}

function checkLabel(name: string): string {
  return name === "" ? name : checkName(name, "name");
}
