/** A run as its body sees it: every call of a definition becomes a call of the pass. */
import { Ordinals } from "../core/address.ts";
import type { Body, Change, Outside, RaceEntry, Started, Until } from "../core/context.ts";
import type {
  EventDefinition,
  PublicationDefinition,
  RunInfo,
  Slept,
  StartOptions,
  StepDefinition,
  StepInfo,
  WorkflowDefinition,
} from "../core/types.ts";
import type { Pass } from "./pass.ts";
import { seededBytes, seedOf } from "./seeded.ts";
import { stepCall } from "./steps.ts";
import { childCall, startCall } from "./waits/child.ts";
import { endCall } from "./waits/end.ts";
import { eventCall } from "./waits/event.ts";
import { raceCall } from "./waits/race.ts";
import { sleepCall } from "./waits/sleep.ts";

export class PassBody implements Body {
  readonly run: RunInfo;
  readonly #pass: Pass;
  readonly #seeds = new Ordinals();

  constructor(pass: Pass, run: RunInfo) {
    this.#pass = pass;
    this.run = run;
  }

  step(definition: StepDefinition, args: unknown[]): Promise<unknown> {
    const { hooks } = this.#pass.ports;
    return stepCall(this.#pass, hooks ? hooks.step(definition, this.#pass) : definition, args);
  }

  sleep(name: string | null, until: Until): Promise<Slept> {
    return sleepCall(this.#pass, name, until) as Promise<Slept>;
  }

  event(definition: EventDefinition, timeoutMs: number | null): Promise<unknown> {
    const received = eventCall(this.#pass, definition, timeoutMs);
    this.#pass.ports.hooks?.waits(definition.name, this.#pass);
    return received;
  }

  start(
    definition: WorkflowDefinition,
    options: StartOptions,
    args: unknown[],
    toHandle: (started: Started) => unknown,
  ): Promise<unknown> {
    return startCall(this.#pass, definition, options, args, toHandle);
  }

  child(definition: WorkflowDefinition, options: StartOptions, args: unknown[]): Promise<unknown> {
    return childCall(this.#pass, definition, options, args);
  }

  end(id: string, origin: string, timeoutMs: number | null): Promise<unknown> {
    return endCall(this.#pass, id, origin, timeoutMs);
  }

  race(entries: readonly RaceEntry[]): Promise<unknown> {
    const won = raceCall(this.#pass, entries);
    for (const entry of entries)
      if (entry.kind === "event") this.#pass.ports.hooks?.waits(entry.definition.name, this.#pass);
    return won;
  }

  /** Says what strict mode has found; null outside it. */
  get warn(): ((message: string) => void) | null {
    const { strict, logger } = this.#pass.ports;
    const { id, workflow } = this.run;
    return strict ? (message) => logger.warn(`perdure: ${message}`, undefined, { runId: id, workflow }) : null;
  }

  get outside(): Outside {
    return this.#pass.ports.outside;
  }

  publish(definition: PublicationDefinition, change: Change, step: StepInfo | null): Promise<void> {
    return this.#pass.publisher.call(definition, change, step);
  }

  now(): Date {
    return new Date(this.#pass.handover.now);
  }

  patched(change: string): boolean {
    return this.#pass.patches.ask(change);
  }

  random(kind: "uuid" | "random", name: string): Uint8Array {
    const { claim, handover } = this.#pass;
    return seededBytes(seedOf(claim, handover.handed), this.#seeds.take(`${kind}:${name}`));
  }
}
