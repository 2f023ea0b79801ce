/** The stand-ins of one engine, and what its steps and workflows were called with. */
import { PerdureError } from "../core/errors.ts";
import { checkArray, shorten } from "../core/options.ts";
import type { StepDefinition, WorkflowDefinition } from "../core/types.ts";
import { currentRun } from "../define/current.ts";
import { stepOf } from "../define/step.ts";
import type { Event } from "../define/waits.ts";
import { internalsOf } from "../define/workflow.ts";
import type { Pass } from "../engine/pass.ts";
import type { PassHooks } from "../engine/ports.ts";
import { type Inside, insideOf, type StandIn } from "./stand-in.ts";

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
  /** An event was not sent, as the process was killed that was to send it. */
  onOrphan: (run: string, event: Event<unknown>, data: unknown, reference: string) => Promise<void> = async () => {};
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
    for (const value of checkArray(given, "standIns of new TestPerdure()")) this.add(value);
  }

  /** From now on; what a workflow is stood in for that runs, from its next pass. */
  add(value: StandIn): void {
    const inside = insideOf(value);
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
    const counting = (...args: unknown[]): unknown => {
      const fn = this.#workflows.find(({ of }) => of.fn === definition.fn)?.fn ?? definition.fn;
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
    let given: unknown;
    const reference = `stand-in ${ordinal}`;
    try {
      given = typeof data === "function" ? await data(pass.run) : data;
      if (given === undefined) return;
      await pass.ports.outside.send(pass.run.id, event, given, { reference, ignoreFinished: true });
    } catch (error) {
      // Its process was killed: a replay elsewhere sends it, or, where the run is suspended by now and none comes, who lives on.
      this.#sent.delete(wait);
      if (!pass.over) this.troubles.push(error);
      else if (given !== undefined) await this.onOrphan(pass.run.id, event, given, reference);
    }
  }
}

function twice(what: string): PerdureError {
  return new PerdureError("PERDURE_DUPLICATE", `${what} is stood in for twice; leave one`);
}
