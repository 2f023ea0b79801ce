/** The result of a step: what it is called in messages, and where it is stored. Few ask, so both are made when somebody does. */
import type { CodecPlace, Place } from "../core/stored-place.ts";
import type { StepRun } from "./step-run.ts";

export class StepResult implements Place {
  readonly #step: Pick<StepRun, "place" | "what">;

  constructor(step: Pick<StepRun, "place" | "what">) {
    this.#step = step;
  }

  get run(): string {
    return this.#step.place().run;
  }

  get slot(): string {
    return this.#step.place().slot;
  }

  get copiedFrom(): readonly CodecPlace[] | undefined {
    return this.#step.place().copiedFrom;
  }

  toString(): string {
    return `result of ${this.#step.what}`;
  }
}
