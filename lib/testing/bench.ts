/** `testPerdure`: an engine for tests, with its time, its steps and its crashes in the hands of the test. */
import type { RunHandle } from "../client/handle.ts";
import type { Duration } from "../core/duration.ts";
import type { RunInfo } from "../core/types.ts";
import type { Event } from "../define/waits.ts";
import type { Startable, Workflow } from "../define/workflow.ts";
import type { Perdure } from "../perdure.ts";
import { type CrashReport, crashEverywhere } from "./crash.ts";
import { kitOf } from "./kit.ts";
import type { TestOptions } from "./options.ts";
import { type StandIn, standIn } from "./stand-in.ts";
import { type SettleOptions, TestPerdure } from "./test-perdure.ts";

type Fn = (...args: any[]) => any;

/** Options of `testPerdure`: those of `new Perdure`, and these. */
export interface TestPerdureOptions extends Omit<TestOptions, "standIns"> {
  /**
   * What happens around a run in each go of `crashEverywhere`: sends, time that passes, a person's verbs. The process of the run may die at
   * any moment of it. Default: time passes, from one due instant to the next, until the run has ended.
   */
  drive?: ((t: Pick<TestBench, "perdure" | "advance" | "settled">, run: RunHandle) => unknown) | undefined;
}

/** What `testPerdure` gives: an engine in a schema of its own, and what a test does with it. */
export interface TestBench extends AsyncDisposable {
  /** The engine, launched: starts, sends and waits as any other. */
  readonly perdure: Perdure;
  /** The instant at which the clock stands. */
  now(): Date;
  /**
   * Resolves when nothing is left to do at this instant: every run has ended, is blocked or paused, or waits for an event or a time.
   *
   * @throws TimeoutError, naming what is still at work; what a stand-in for an event threw; under `replay: "always"` PERDURE_STATE for a
   * run whose replay diverged.
   * @example await t.settled();
   */
  settled(options?: SettleOptions): Promise<void>;
  /**
   * Lets time pass: what comes due happens in its order, each at its own instant, and what follows from it too, as long as it is due by
   * then. Then it is settled.
   *
   * @throws as `settled()` does; PERDURE_OPTION for a bad duration.
   * @example await t.advance({ days: 14 });
   */
  advance(duration: Duration, options?: SettleOptions): Promise<void>;
  /**
   * Lets time pass until an instant: see `advance`.
   *
   * @throws as `advance` does; PERDURE_OPTION for an instant that is past.
   * @example await t.advanceTo(new Date("2027-01-01T00:00:00Z"));
   */
  advanceTo(instant: Date, options?: SettleOptions): Promise<void>;
  /**
   * What the function of a step, a transaction or a workflow was called with, one list of arguments for each time it ran in this process,
   * stood in for or not; a retried try counts, a replay does not. By a name: of all steps of that name.
   *
   * @example assert.deepEqual(t.calls(charge), [["u1"]]);
   */
  calls<F extends Fn>(of: F): Parameters<F>[];
  calls(name: string): unknown[][];
  /**
   * Puts a function in place of that of a step, a transaction or a child workflow, for this engine alone; all else about it stays: its
   * retries, its timeout, its checks, and that its outcome is recorded. A transaction's is called without `tx`, which is
   * `currentStep().tx`. A name stands for every step of that name, `runStep` too. For an event: what a run is sent as soon as it waits for
   * it, or a function of the run that gives it, once for each wait; undefined sends nothing.
   *
   * @throws PERDURE_OPTION for what is none of these; PERDURE_DUPLICATE for what is stood in for already.
   * @example t.stub(charge, async () => "ok"); t.stub(paymentReceived, { amount: 99 });
   */
  stub<T>(
    event: Event<T>,
    data: NoInfer<T> | ((run: RunInfo) => NoInfer<T> | undefined | Promise<NoInfer<T> | undefined>),
  ): void;
  stub<A extends unknown[], R>(workflow: Startable<A, R>, fn: (...args: A) => R | Promise<R>): void;
  stub<F extends Fn>(
    step: F,
    fn: (...args: Parameters<F>) => Awaited<ReturnType<F>> | Promise<Awaited<ReturnType<F>>>,
  ): void;
  stub(name: string, fn: Fn): void;
  /**
   * Runs a workflow without a crash, then once for every write that its run makes and each side of its commit: there the process is killed,
   * another takes the run over, and it must come to the same; and no step may run again once it is recorded. Every go has a schema and a
   * clock of its own, and what is stubbed so far. What the functions themselves remember is shared, as all goes are in one process: give a
   * function that makes the workflow, and each process has one made by it. Takes a second or so for each write.
   *
   * @throws AssertionError, naming the write, with both ends; or that two runs without a crash differ. PERDURE_OPTION. What `drive` throws.
   * @example await t.crashEverywhere(processOrder, "order-42");
   */
  crashEverywhere<A extends unknown[], R>(make: () => Workflow<A, R>, ...args: NoInfer<A>): Promise<CrashReport<R>>;
  crashEverywhere<A extends unknown[], R>(workflow: Workflow<A, R>, ...args: NoInfer<A>): Promise<CrashReport<R>>;
  /** Shuts the engine down and drops its schema. Steps that run may take 2s to end, unless `timeout` says otherwise. */
  stop(options?: { timeout?: Duration | undefined }): Promise<void>;
}

/**
 * An engine made for tests, launched: in a schema of its own in `database` or the embedded Postgres, and with a clock that stands still
 * until the test moves it. Sleeps, timeouts of waits and workflows, retries, delayed starts and schedules follow that clock; the `timeout`
 * of a step and of `result()` are real time. Works in every test runner.
 *
 * @throws as `new Perdure` and its `launch()` do; PERDURE_SCHEMA when `schema` exists.
 * @example
 * const t = await testPerdure({ workflows: [trial] });
 * t.stub(charge, async () => "ok");
 * const run = await t.perdure.start(trial, "u1");
 * await t.advance({ days: 14 });
 * await run.result();
 * await t.stop();
 */
export async function testPerdure(options: TestPerdureOptions = {}): Promise<TestBench> {
  const { drive, ...engine } = options;
  const perdure = new TestPerdure(engine);
  const standIns: StandIn[] = [];
  await perdure.launch();
  const stop: TestBench["stop"] = (given = {}) => perdure.shutdown(given);
  const crash = async (workflow: any, ...args: any[]): Promise<any> => {
    const driven = drive && { drive: (other: TestPerdure, run: RunHandle) => drive(benchOf(other), run) };
    const { schema: _, worker: __, shutdownOn: ___, ...rest } = engine;
    return crashEverywhere(workflow, { ...rest, ...driven, args, standIns });
  };
  return {
    ...benchOf(perdure),
    now: () => perdure.now(),
    advanceTo: (instant, given) => perdure.advanceTo(instant, given),
    calls: (of: any) => perdure.calls(of) as any,
    stub: (of: any, by: any) => {
      const made = standIn(of, by);
      kitOf.get(perdure)!.standIns.add(made);
      standIns.push(made);
    },
    crashEverywhere: crash,
    stop,
    [Symbol.asyncDispose]: () => stop(),
  };
}

const benchOf = (perdure: TestPerdure): Pick<TestBench, "perdure" | "advance" | "settled"> => ({
  perdure,
  advance: (duration, given) => perdure.advance(duration, given),
  settled: (given) => perdure.settled(given),
});
