/** An engine for tests: in a schema of its own, with its time under control. */
import type { Duration } from "../core/duration.ts";
import { toMs } from "../core/duration.ts";
import { PerdureError } from "../core/errors.ts";
import { checkInstant, checkKeys } from "../core/options.ts";
import { engineOf } from "../launched.ts";
import { Perdure } from "../perdure.ts";
import { Kit, kitOf } from "./kit.ts";
import type { TestOptions } from "./options.ts";

/** How long what is at work at one instant may take, in real time. */
const PATIENCE_MS = 10_000;
const SHUTDOWN_TIMEOUT = "2s";

/** What `settled()`, `advance()` and `advanceTo()` may be told. */
export interface SettleOptions {
  /** How long the work of one instant may take, in real time; then a TimeoutError that names it. Default 10s. */
  timeout?: Duration | undefined;
}

/**
 * An engine as `Perdure` is one, made for tests: `launch()` makes a schema of its own, in `database` or the embedded Postgres, which
 * `shutdown()` drops; and its clock stands still until the test moves it. Sleeps, timeouts of waits and workflows, retries, delayed starts
 * and schedules follow that clock; the `timeout` of a step and of `result()` are real time.
 *
 * @throws as `new Perdure` does; PERDURE_OPTION and PERDURE_DUPLICATE for stand-ins; launch(): PERDURE_SCHEMA when `schema` exists.
 * @example
 * await using perdure = new TestPerdure({ workflows: [trial], standIns: [standIn(charge, async () => "ok")] });
 * await perdure.launch();
 * const run = await perdure.start(trial, "u1");
 * await perdure.advance({ days: 14 });
 * assert.equal(await run.result(), "charged");
 */
export class TestPerdure extends Perdure {
  readonly #kit: Kit;

  constructor(options: TestOptions = {}) {
    const kit = new Kit(options);
    super(kit.options);
    this.#kit = kit;
    kitOf.set(this, kit);
  }

  override async launch(): Promise<void> {
    await super.launch();
    this.#kit.engines.add(engineOf.get(this)!);
  }

  /** The instant at which the clock stands. */
  now(): Date {
    return new Date(this.#kit.clock.now());
  }

  /**
   * Resolves when nothing is left to do at this instant: every run has ended, is blocked or paused, or waits for an event or a time.
   *
   * @throws TimeoutError, naming what is still at work; what a stand-in for an event threw; under `replay: "always"` PERDURE_STATE for a
   * run whose replay diverged.
   * @example await perdure.settled();
   */
  async settled(options: SettleOptions = {}): Promise<void> {
    await this.#kit.settled(patience(options, "settled()"));
  }

  /**
   * Lets time pass: what comes due happens in its order, each at its own instant, and what follows from it too, as long as it is due by
   * then. Then it is settled.
   *
   * @throws as `settled()` does; PERDURE_OPTION for a bad duration.
   * @example await perdure.advance({ days: 14 });
   */
  async advance(duration: Duration, options: SettleOptions = {}): Promise<void> {
    const ms = toMs(duration, "advance()");
    await this.#kit.move((now) => Math.ceil(now + ms), patience(options, "advance()"));
  }

  /**
   * Lets time pass until an instant: see `advance`.
   *
   * @throws as `advance` does; PERDURE_OPTION for an instant that is past.
   * @example await perdure.advanceTo(new Date("2027-01-01T00:00:00Z"));
   */
  async advanceTo(instant: Date, options: SettleOptions = {}): Promise<void> {
    const target = checkInstant(instant, "instant of advanceTo()").getTime();
    if (target < Math.floor(this.#kit.clock.now())) {
      const text = `advanceTo() cannot go back: the clock stands at ${this.now().toISOString()}, after ${instant.toISOString()}`;
      throw new PerdureError("PERDURE_OPTION", text);
    }
    await this.#kit.move(() => target, patience(options, "advanceTo()"));
  }

  /**
   * What the function of a step, a transaction or a workflow was called with, one list of arguments for each time it ran in this process,
   * stood in for or not; a retried try counts, a replay does not. By a name: of all steps of that name.
   *
   * @example assert.deepEqual(perdure.calls(charge), [["u1"]]);
   */
  calls<F extends (...args: any[]) => unknown>(of: F): Parameters<F>[];
  calls(name: string): unknown[][];
  calls(of: unknown): unknown[][] {
    return this.#kit.standIns.calls(of);
  }

  /** As that of `Perdure`, and drops the schema. Steps that run may take 2s to end, unless `timeout` says otherwise. */
  override async shutdown(options: { timeout?: Duration | undefined } = {}): Promise<void> {
    await super.shutdown({ timeout: SHUTDOWN_TIMEOUT, ...options });
    this.#kit.engines.clear();
  }
}

function patience(options: SettleOptions, where: string): number {
  const { timeout } = checkKeys(options, ["timeout"], where);
  return timeout === undefined ? PATIENCE_MS : toMs(timeout, `timeout of ${where}`);
}
