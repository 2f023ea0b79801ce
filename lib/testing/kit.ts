/** What a TestPerdure is made of: a schema and a clock of its own, the stand-ins, and the engines that work on it. */
import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { PerdureError, TimeoutError } from "../core/errors.ts";
import { checkChoice, checkInstant, isPlainObject, shorten } from "../core/options.ts";
import { SEAM } from "../core/seam.ts";
import { type Rest, TestSchema } from "../db/testing.ts";
import type { Engine } from "../launched.ts";
import type { Seam } from "../seam.ts";
import type { PerdureOptions } from "../settings.ts";
import { TestClock } from "./clock.ts";
import type { TestOptions } from "./options.ts";
import { StandIns } from "./stand-ins.ts";

/** The key of a schema that one test after the other has for itself: it is emptied, and whoever has made it drops it. */
export const SHARED: unique symbol = Symbol("perdure.shared");

export const newSchemaName = (): string => `perdure_test_${randomBytes(6).toString("hex")}`;

const WHERE = "new TestPerdure()";
const OWN = ["standIns", "replay", "now"] as const;
/** Between two looks at what is left to do: short at first, as most is done in no time. */
const LOOK_MS = { first: 1, last: 10 };
/** After so many looks in vain, all is looked for anew: a hint may be lost. */
const NUDGE_AFTER = 10;

/** The kit behind a TestPerdure. */
export const kitOf = new WeakMap<object, Kit>();

export class Kit {
  readonly clock: TestClock;
  readonly standIns: StandIns;
  readonly schemaName: string;
  /** For new Perdure(). */
  readonly options: PerdureOptions;
  readonly engines = new Set<Engine>();
  readonly #shared: boolean;
  #schema: TestSchema | null = null;
  #moving: Promise<unknown> = Promise.resolve();

  constructor(given: TestOptions & { readonly [SHARED]?: string }) {
    if (!isPlainObject(given as unknown))
      throw new PerdureError("PERDURE_OPTION", `options of ${WHERE} must be a plain object, not ${shorten(given)}`);
    const { standIns = [], replay = "usual", now, ...rest }: TestOptions = { ...given };
    const instant = now === undefined ? Date.now() : checkInstant(now, `now of ${WHERE}`).getTime();
    this.clock = new TestClock(instant);
    this.standIns = new StandIns(standIns, checkChoice(replay, ["usual", "always"], `replay of ${WHERE}`) === "always");
    this.#shared = given[SHARED] !== undefined;
    this.schemaName = given[SHARED] ?? rest.schema ?? newSchemaName();
    const workflows = [...(rest.workflows ?? []), ...this.standIns.workflows] as PerdureOptions["workflows"];
    // A run that goes on is replayed here, so that code shows itself which does not ask for the same again.
    const worker = rest.worker === false ? rest.worker : { warm: 0, ...rest.worker };
    // Whoever lets years pass in a test looks at what came of its runs after.
    const { retention = "forever" } = rest;
    const schema = this.schemaName;
    this.options = { ...rest, worker, retention, workflows, schema, migrate: true, ...this.seam(true) };
  }

  /** What ties an engine to this schema and clock. `owner`: it makes the schema, and drops it. */
  seam(owner: boolean, guard: Seam["guard"] = null): { readonly [SEAM]: Seam } {
    const seam: Seam = {
      clock: this.clock,
      hooks: this.standIns,
      replace: (workflows) => this.standIns.replace(workflows),
      guard,
      prepare: async (database, prepare) => {
        if (!owner) return;
        const schema = new TestSchema(database.pool, this.schemaName);
        if (this.#shared) await schema.empty(this.clock.now());
        else await schema.make(prepare, this.clock.now());
        this.#schema = schema;
      },
      close: async () => {
        if (owner && !this.#shared) await this.#schema?.drop();
      },
    };
    return { [SEAM]: seam };
  }

  get schema(): TestSchema {
    if (this.#schema && this.engines.size > 0) return this.#schema;
    throw new PerdureError("PERDURE_STATE", "this engine is not launched; call launch() and await it first");
  }

  get #lanes(): Parameters<TestSchema["rest"]>[0] {
    return [...this.engines][0]!.lanes;
  }

  rest(): Promise<Rest> {
    return this.schema.rest(this.#lanes);
  }

  /** Resolves when nothing is left to do at this instant. */
  async settled(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (let looks = 1; ; looks += 1) {
      const quiet = this.standIns.pending === 0;
      // Where somebody is at work, there is no need to ask the database, and it has less to do.
      const busy = [...this.engines].some((engine) => engine.isBusy()) || (await this.rest()).busy;
      if (quiet && !busy && this.standIns.pending === 0) break;
      if (performance.now() > deadline) throw await this.#stillAtWork(timeoutMs);
      if (looks % NUDGE_AFTER === 0) for (const engine of this.engines) engine.moved();
      await pause(Math.min(LOOK_MS.first * looks, LOOK_MS.last));
    }
    const [trouble] = this.standIns.troubles.splice(0);
    if (trouble !== undefined) throw trouble;
    if (this.standIns.replays) await this.#checkDiverged();
  }

  async #stillAtWork(timeoutMs: number): Promise<TimeoutError> {
    const runs = (await this.schema.atWork()).map(
      ({ id, workflow, state }) => `run "${id}" of workflow "${workflow}" (${state})`,
    );
    const steps = this.standIns.underWay;
    const more = steps.length > 0 ? `; under way: ${steps.slice(0, 5).join(", ")}` : "";
    return new TimeoutError(
      `settled() has waited ${timeoutMs} ms, and there is still work: ${runs.join(", ") || "a schedule that is due"}${more}. ` +
        "A step that waits for a timer of its own takes real time; stand in for it, or give settled() a longer timeout",
    );
  }

  async #checkDiverged(): Promise<void> {
    const [run] = await this.schema.diverged();
    if (run) throw new PerdureError("PERDURE_STATE", `run "${run.id}" is blocked: ${run.reason}`);
  }

  /** Moves the clock from one instant at which something is due to the next. `target`: from where it stands when it is this call's turn. */
  move(target: (now: number) => number, timeoutMs: number): Promise<void> {
    const moved = this.#moving.then(() => this.#moveTo(target(this.clock.now()), timeoutMs));
    this.#moving = moved.catch(() => {});
    return moved;
  }

  async #moveTo(target: number, timeoutMs: number): Promise<void> {
    await this.settled(timeoutMs);
    for (let now = Number.NEGATIVE_INFINITY; now < target; ) {
      now = await this.schema.move(target);
      this.clock.set(now);
      for (const engine of this.engines) engine.moved();
      await this.settled(timeoutMs);
    }
  }
}

/** What is left of options of a TestPerdure for another engine on its schema. */
export function engineOptions(options: TestOptions): PerdureOptions {
  return Object.fromEntries(Object.entries(options).filter(([key]) => !(OWN as readonly string[]).includes(key)));
}
