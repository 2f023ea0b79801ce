/** `standIn`: what stands in for a step, an event or a child workflow. */
import { PerdureError } from "../core/errors.ts";
import { checkName, shorten } from "../core/options.ts";
import type { RunInfo, StepDefinition, WorkflowDefinition } from "../core/types.ts";
import { stepOf } from "../define/step.ts";
import { type Event, eventOf } from "../define/waits.ts";
import { internalsOf, type Startable } from "../define/workflow.ts";

type Fn = (...args: any[]) => any;

const INSIDE = Symbol("perdure.stand-in");
/** What stands in for what. */
export type Inside =
  | { readonly kind: "step"; readonly of: StepDefinition | string; readonly fn: Fn }
  | { readonly kind: "workflow"; readonly of: WorkflowDefinition; readonly value: unknown; readonly fn: Fn }
  | { readonly kind: "event"; readonly event: Event<unknown>; readonly data: unknown };

/** What standIn() makes, for `standIns` of new TestPerdure(). */
export interface StandIn {
  /** @internal */
  readonly [INSIDE]: Inside;
}

/**
 * A function in place of that of a step, a transaction or a child workflow; all else about it stays: its retries, its timeout, its checks,
 * and that its outcome is recorded. A transaction's is called without `tx`, which is `currentStep().tx`. A name stands for every step of
 * that name, `runStep` too. For an event: what a run is sent as soon as it waits for it, or a function of the run that gives it, once for
 * each wait; undefined sends nothing.
 *
 * @throws PERDURE_OPTION for what is none of these.
 * @example new TestPerdure({ workflows: [order], standIns: [standIn(charge, async () => "ok"), standIn(paymentReceived, { amount: 99 })] })
 */
export function standIn<T>(
  event: Event<T>,
  data: NoInfer<T> | ((run: RunInfo) => NoInfer<T> | undefined | Promise<NoInfer<T> | undefined>),
): StandIn;
export function standIn<A extends unknown[], R>(workflow: Startable<A, R>, fn: (...args: A) => R | Promise<R>): StandIn;
export function standIn<F extends Fn>(
  step: F,
  fn: (...args: Parameters<F>) => Awaited<ReturnType<F>> | Promise<Awaited<ReturnType<F>>>,
): StandIn;
export function standIn(name: string, fn: Fn): StandIn;
export function standIn(of: unknown, by: unknown): StandIn {
  const event = eventOf(of);
  if (event) return { [INSIDE]: { kind: "event", event: of as Event<unknown>, data: by } };
  const [workflow, step] = [internalsOf(of)?.definition, stepOf(of)];
  if (!workflow && !step && typeof of !== "string") {
    const text = `standIn() needs a step, a transaction, a workflow, an event or the name of a step first, not ${shorten(of)}`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  const what = workflow ? `workflow "${workflow.name}"` : `step "${step?.name ?? checkName(of, "name in standIn()")}"`;
  if (typeof by !== "function")
    throw new PerdureError("PERDURE_OPTION", `standIn() of ${what} needs a function, not ${shorten(by)}`);
  const fn = by as Fn;
  if (workflow) return { [INSIDE]: { kind: "workflow", of: workflow, value: of, fn } };
  return { [INSIDE]: { kind: "step", of: step ?? (of as string), fn } };
}

/** What is behind a stand-in; undefined when `value` is none. */
export const insideOf = (value: unknown): Inside | undefined =>
  typeof value === "object" && value !== null ? (value as Partial<StandIn>)[INSIDE] : undefined;
