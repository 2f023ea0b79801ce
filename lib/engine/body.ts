/** A run as its body sees it: every call of a definition becomes a call of the pass. */
import { Ordinals } from "../core/address.ts";
import type { Body, Until } from "../core/context.ts";
import type { EventDefinition, RunInfo, Slept, StepDefinition } from "../core/types.ts";
import type { Pass } from "./pass.ts";
import { seededBytes } from "./seeded.ts";
import { stepCall } from "./steps.ts";
import { eventCall } from "./waits/event.ts";
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
    return stepCall(this.#pass, definition, args);
  }

  sleep(name: string | null, until: Until): Promise<Slept> {
    return sleepCall(this.#pass, name, until) as Promise<Slept>;
  }

  event(definition: EventDefinition, timeoutMs: number | null): Promise<unknown> {
    return eventCall(this.#pass, definition, timeoutMs);
  }

  now(): Date {
    return new Date(this.#pass.now);
  }

  patched(change: string): boolean {
    return this.#pass.patches.ask(change);
  }

  random(kind: "uuid" | "random", name: string): Uint8Array {
    return seededBytes(this.run.id, this.#seeds.take(`${kind}:${name}`));
  }
}
