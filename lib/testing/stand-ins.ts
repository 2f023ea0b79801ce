/** What stands in for steps, events and child workflows in the runs of one engine, and what they were called with. */

import { PerdureError } from "../core/errors.ts";
import { checkArray, checkName, shorten } from "../core/options.ts";
import type { RunInfo, StepDefinition, WorkflowDefinition } from "../core/types.ts";
import { currentRun } from "../define/current.ts";
import { stepOf } from "../define/step.ts";
import { type Event, eventOf } from "../define/waits.ts";
import { internalsOf, type Startable } from "../define/workflow.ts";
import type { Pass } from "../engine/pass.ts";
import type { PassHooks } from "../engine/ports.ts";

type Fn = (...args: any[]) => any;

const INSIDE = Symbol("perdure.stand-in");
type Inside =
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

const insideOf = (value: unknown): Inside | undefined =>
  typeof value === "object" && value !== null ? (value as Partial<StandIn>)[INSIDE] : undefined;

/** A step and its copies share their function. */
const isSame = (a: StepDefinition, b: StepDefinition): boolean =>
  a.name === b.name && a.kind === b.kind && a.fn === b.fn;
const isOf = (of: StepDefinition | string, step: StepDefinition): boolean =>
  typeof of === "string" ? of === step.name : isSame(of, step);

interface Called {
  readonly of: StepDefinition | WorkflowDefinition;
  readonly args: unknown[];
}

export class StandIns implements PassHooks {
  readonly replays: boolean;
  /** Workflows that only a stand-in names. */
  readonly workflows: unknown[] = [];
  /** Errors of stand-ins themselves, which no run can show. */
  readonly troubles: unknown[] = [];
  /** Events that are on their way. */
  pending = 0;
  /** A step's function is called. */
  onCall: (pass: Pass) => void = () => {};
  readonly #steps: Extract<Inside, { kind: "step" }>[] = [];
  readonly #workflows: Extract<Inside, { kind: "workflow" }>[] = [];
  readonly #events = new Map<string, Extract<Inside, { kind: "event" }>>();
  readonly #calls: Called[] = [];
  readonly #underWay = new Set<string>();
  readonly #counted = new Set<string>();
  readonly #waits = new WeakMap<Pass, Map<string, number>>();
  readonly #sent = new Set<string>();

  constructor(given: readonly StandIn[], replays: boolean) {
    this.replays = replays;
    for (const value of checkArray(given, "standIns of new TestPerdure()")) this.#add(insideOf(value), value);
  }

  #add(inside: Inside | undefined, value: unknown): void {
    if (!inside) {
      const text = `standIns of new TestPerdure() holds ${shorten(value)}, which standIn() did not make`;
      throw new PerdureError("PERDURE_OPTION", text);
    }
    if (inside.kind === "event") {
      if (this.#events.has(inside.event.name)) throw twice(`event "${inside.event.name}"`);
      this.#events.set(inside.event.name, inside);
    } else if (inside.kind === "workflow") {
      if (this.#workflows.some(({ of }) => of.fn === inside.of.fn)) throw twice(`workflow "${inside.of.name}"`);
      this.#workflows.push(inside);
      this.workflows.push(inside.value);
    } else {
      const { of } = inside;
      const name = typeof of === "string" ? of : of.name;
      const known = this.#steps.some((other) => (typeof of === "string" ? other.of === of : isOf(other.of, of)));
      if (known) throw twice(`step "${name}"`);
      this.#steps.push(inside);
    }
  }

  /** What the functions of a step, a transaction or a workflow were called with, in order; a name: of all steps of that name. */
  calls(value: unknown): unknown[][] {
    const [step, workflow] = [stepOf(value), internalsOf(value)?.definition];
    if (!step && !workflow && typeof value !== "string") {
      const text = `calls() needs a step, a transaction, a workflow or the name of a step, not ${shorten(value)}`;
      throw new PerdureError("PERDURE_OPTION", text);
    }
    const fits = ({ of }: Called): boolean => {
      if (workflow) return of.fn === workflow.fn && of.name === workflow.name;
      return "kind" in of && isOf(step ?? (value as string), of);
    };
    return this.#calls.filter(fits).map(({ args }) => [...args]);
  }

  /** The steps whose functions run, named. */
  get underWay(): string[] {
    return [...this.#underWay];
  }

  step(definition: StepDefinition, pass: Pass): StepDefinition {
    const double = this.#steps.find(({ of }) => isOf(of, definition));
    const { kind, name } = definition;
    const fn = async (...given: unknown[]): Promise<unknown> => {
      const args = kind === "transaction" ? given.slice(1) : given;
      this.#calls.push({ of: definition, args });
      this.onCall(pass);
      const what = `${kind} "${name}" of run "${pass.run.id}"`;
      this.#underWay.add(what);
      try {
        return await (double ? double.fn(...args) : definition.fn(...given));
      } finally {
        this.#underWay.delete(what);
      }
    };
    return { ...definition, fn };
  }

  /** The workflows as they run: counted, and those that are stood in for with other functions. */
  replace(workflows: ReadonlyMap<string, WorkflowDefinition>): Map<string, WorkflowDefinition> {
    return new Map([...workflows].map(([key, definition]) => [key, this.#counting(definition)]));
  }

  #counting(definition: WorkflowDefinition): WorkflowDefinition {
    const fn = this.#workflows.find(({ of }) => of.fn === definition.fn)?.fn ?? definition.fn;
    const counting = (...args: unknown[]): unknown => {
      const { id } = currentRun();
      if (!this.#counted.has(id)) this.#calls.push({ of: definition, args });
      this.#counted.add(id);
      return fn(...args);
    };
    return { ...definition, fn: counting };
  }

  waits(name: string, pass: Pass): void {
    const double = this.#events.get(name);
    if (!double) return;
    const waits = this.#waits.get(pass) ?? new Map<string, number>();
    const ordinal = waits.get(name) ?? 0;
    this.#waits.set(pass, waits.set(name, ordinal + 1));
    const wait = JSON.stringify([pass.run.id, name, ordinal]);
    if (this.#sent.has(wait)) return;
    this.#sent.add(wait);
    this.pending += 1;
    void this.#send(double, pass, ordinal, wait).finally(() => {
      this.pending -= 1;
    });
  }

  /** The reference makes it one event for each wait, however often it is replayed, and by whom. */
  async #send(
    { event, data }: Extract<Inside, { kind: "event" }>,
    pass: Pass,
    ordinal: number,
    wait: string,
  ): Promise<void> {
    try {
      const given: unknown = typeof data === "function" ? await data(pass.run) : data;
      if (given === undefined) return;
      await pass.ports.outside.send(pass.run.id, event, given, {
        reference: `stand-in ${ordinal}`,
        ignoreFinished: true,
      });
    } catch (error) {
      // Its process was killed: a replay elsewhere sends it.
      this.#sent.delete(wait);
      if (!pass.over) this.troubles.push(error);
    }
  }
}

function twice(what: string): PerdureError {
  return new PerdureError(
    "PERDURE_DUPLICATE",
    `standIns of new TestPerdure() holds two stand-ins for ${what}; leave one`,
  );
}
