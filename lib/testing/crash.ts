/** A workflow comes to the same, wherever its process dies: tried at every write of the run, on both sides of its commit. */

import { AssertionError } from "node:assert";
import { AsyncResource } from "node:async_hooks";
import { inspect, isDeepStrictEqual } from "node:util";
import type { RunHandle } from "../client/handle.ts";
import { PerdureError, RunFailedError } from "../core/errors.ts";
import { checkArray, shorten } from "../core/options.ts";
import type { StartOptions } from "../core/types.ts";
import { connectDatabase, type Database } from "../db/connect.ts";
import { KeptConnections } from "../db/kept.ts";
import { prepare } from "../db/prepare.ts";
import { TestSchema } from "../db/testing.ts";
import { internalsOf, type Workflow } from "../define/workflow.ts";
import { engineOf } from "../launched.ts";
import { Perdure } from "../perdure.ts";
import { CrashGuard } from "./crash-guard.ts";
import { engineOptions, kitOf, newSchemaName, SHARED } from "./kit.ts";
import type { TestOptions } from "./options.ts";
import { TestPerdure } from "./test-perdure.ts";

/** How a run has ended, or where it stands when nothing is left to do. */
export type CrashEnd<R = unknown> =
  | { readonly state: "completed"; readonly value: R }
  | {
      readonly state: "failed";
      /** What its code threw. */
      readonly error: unknown;
    }
  | {
      readonly state: "cancelled" | "blocked";
      /** As `status()` has it. */
      readonly reason: string | null;
    }
  | { readonly state: "suspended" | "paused" | "pending" };

/** Where a process was killed. */
export interface CrashPoint {
  /** Which write of the run it was: 1 for the first. */
  readonly write: number;
  /** `before`: the write was lost. `after`: it was committed, and the process never learnt it. */
  readonly side: "before" | "after";
  /** What was written, such as `the outcome of step "charge"`. */
  readonly what: string;
}

/** Options of `crashEverywhere`: those of a TestPerdure, and these. */
export interface CrashOptions<A extends unknown[], R> extends Omit<TestOptions, "worker" | "schema" | "shutdownOn"> {
  /** The arguments of the run. Default: none. */
  args?: A | undefined;
  /** What `.with()` takes. The run's id is `crash-everywhere` unless it names one. */
  with?: StartOptions | undefined;
  /**
   * What happens around the run: sends, time that passes, a person's verbs. It is done anew in each go, and the process of the run may die
   * at any moment of it. Default: time passes, from one due instant to the next, until the run has ended.
   */
  drive?: ((perdure: TestPerdure, run: RunHandle<R>) => unknown) | undefined;
  /** Looks at how a run has ended, after each go, in place of the comparison with a run that did not crash; throws what is wrong. */
  check?: ((end: CrashEnd<R>, point: CrashPoint | null) => unknown) | undefined;
}

/** What `crashEverywhere` has found in order. */
export interface CrashReport<R = unknown> {
  /** How many writes the run makes: it was crashed before and after each. */
  readonly writes: number;
  /** The crashes that took place. */
  readonly points: readonly CrashPoint[];
  /** What the run comes to without a crash, and with each. */
  readonly end: CrashEnd<R>;
}

/** What a run of one go came to. */
interface Go<R> {
  readonly end: CrashEnd<R>;
  readonly guard: CrashGuard;
}

/**
 * Runs a workflow without a crash, then once for every write that its run makes and each side of its commit: there the process is killed,
 * another takes the run over, and it must come to the same; and no step may run again once it is recorded. Every go has an empty schema, a clock
 * and stand-ins of its own. What the functions themselves remember is shared, as all goes are in one process: give a function that makes the
 * workflow, and each process has one made by it.
 *
 * @throws AssertionError, naming the write, with both ends; or that two runs without a crash differ. PERDURE_OPTION. What `drive` and
 * `check` throw.
 * @example await crashEverywhere(processOrder, { args: ["order-42"], standIns: [standIn(paymentReceived, { amount: 99 })] });
 */
export async function crashEverywhere<A extends unknown[], R>(
  workflow: Workflow<A, R> | (() => Workflow<A, R>),
  options: CrashOptions<A, R> = {},
): Promise<CrashReport<R>> {
  const trial = new Trial(workflow, options);
  try {
    await trial.open();
    return await everywhere(trial);
  } finally {
    await trial.close();
  }
}

async function everywhere<A extends unknown[], R>(trial: Trial<A, R>): Promise<CrashReport<R>> {
  const first = await trial.go(null);
  await trial.check(first.end, null, first.end);
  await trial.check((await trial.go(null)).end, null, first.end);
  const points: CrashPoint[] = [];
  for (let write = 1; write <= first.guard.seen.length; write += 1) {
    for (const side of ["before", "after"] as const) {
      const { end, guard } = await trial.go({ write, side });
      // Another order of what runs side by side may take a write less.
      const point = guard.hit;
      if (!point) continue;
      points.push(point);
      await trial.check(end, point, first.end, guard.twice);
    }
  }
  return { writes: first.guard.seen.length, points, end: first.end };
}

class Trial<A extends unknown[], R> {
  readonly #make: () => Workflow<A, R>;
  readonly #options: CrashOptions<A, R>;
  readonly #test: TestOptions;
  readonly #now = new Date();
  readonly #name = newSchemaName();
  #database: Database | undefined;
  #schema: TestSchema | undefined;
  #kept: KeptConnections | undefined;

  constructor(workflow: Workflow<A, R> | (() => Workflow<A, R>), options: CrashOptions<A, R>) {
    const { args = [], with: _, drive, check, ...test } = options;
    checkArray(args, "args of crashEverywhere()");
    for (const [name, fn] of Object.entries({ drive, check }))
      if (fn !== undefined && typeof fn !== "function")
        throw new PerdureError("PERDURE_OPTION", `${name} of crashEverywhere() must be a function, not ${shorten(fn)}`);
    this.#make = internalsOf(workflow) ? () => workflow as Workflow<A, R> : made(workflow as () => Workflow<A, R>);
    this.#options = options;
    this.#test = test;
  }

  async open(): Promise<void> {
    // The options are checked before anything is made.
    new TestPerdure({ ...this.#test, worker: false });
    const database = await connectDatabase(this.#test.database);
    this.#database = database;
    this.#kept = new KeptConnections(database.clientConfig());
    this.#schema = new TestSchema(database.pool, this.#name);
    await this.#schema.make(
      () => prepare(database, { schema: this.#name, migrate: true, logger: { warn: () => {}, info: () => {} } }),
      0,
    );
  }

  async close(): Promise<void> {
    this.#kept?.close();
    await this.#schema?.drop().catch(() => {});
    await this.#database?.close();
  }

  /** One go, with a crash or without. */
  async go(at: { write: number; side: "before" | "after" } | null): Promise<Go<R>> {
    const { args = [] as unknown as A, with: start = {}, drive = toTheEnd } = this.#options;
    const test = { now: this.#now, ...this.#test, database: this.#kept!.config };
    const workflow = this.#make();
    const perdure = new TestPerdure({
      ...test,
      workflows: [...(test.workflows ?? []), workflow],
      worker: false,
      [SHARED]: this.#name,
    } as TestOptions);
    const kit = kitOf.get(perdure)!;
    const guard = new CrashGuard(at, kit.standIns);
    let victim: Perdure | undefined;
    try {
      await perdure.launch();
      const workflows = [...(test.workflows ?? []), ...kit.standIns.workflows, this.#make()] as NonNullable<
        TestOptions["workflows"]
      >;
      const logger = guard.until(test.logger);
      const { schedules: _, ...rest } = engineOptions(test);
      victim = new Perdure({
        ...rest,
        logger,
        workflows,
        schema: kit.schemaName,
        ...kit.seam(false, guard.guard),
      });
      await victim.launch();
      const [dying, heir] = [engineOf.get(victim)!, engineOf.get(perdure)!];
      kit.engines.add(dying);
      guard.onKill = async () => {
        kit.engines.delete(dying);
        await dying.die();
        await kit.schema.takeBack(dying.key);
        heir.takeOver();
      };
      // Outside of the body that waits for it.
      kit.standIns.onOrphan = AsyncResource.bind(async (id, event, data, reference) => {
        await perdure.send(id, event, data, { reference, ignoreFinished: true });
      });
      const run = await perdure.start(workflow.with({ id: "crash-everywhere", ...start }), ...args);
      await drive(perdure, run);
      await perdure.settled();
      return { end: await endOf(run), guard };
    } finally {
      await guard.over;
      if (!guard.hit) await victim?.shutdown({ timeout: "1s" });
      await perdure.shutdown();
    }
  }

  /** Throws unless an end is as it should be. */
  async check(
    end: CrashEnd<R>,
    point: CrashPoint | null,
    expected: CrashEnd<R>,
    twice: readonly string[] = [],
  ): Promise<void> {
    const where = point
      ? `with the process killed ${point.side} the commit of ${point.what} (write ${point.write}), the run`
      : "run twice without a crash, the workflow";
    if (twice.length > 0) throw wrong(`${where} did again what was recorded: ${twice.join(", ")}`, twice, []);
    const { check } = this.#options;
    if (check) {
      await check(end, point);
      return;
    }
    if (isDeepStrictEqual(end, expected)) return;
    const help = point
      ? "What a step has done and returned must not depend on what a process remembers, and the body must ask for the same again"
      : "Nothing of a crash can be seen in a result that changes by itself: stand in for what is random or remembered between runs, or give `check`";
    const other = point ? "without a crash it" : "the second time it";
    const [left, right] = point ? [end, expected] : [expected, end];
    throw wrong(`${where} came to ${shown(left)}; ${other} came to ${shown(right)}. ${help}`, end, expected);
  }
}

function made<W>(make: () => W): () => W {
  if (typeof make !== "function")
    throw new PerdureError(
      "PERDURE_OPTION",
      `crashEverywhere() needs a workflow, or a function that makes one, not ${shorten(make)}`,
    );
  return () => {
    const workflow = make();
    if (internalsOf(workflow)) return workflow;
    throw new PerdureError(
      "PERDURE_OPTION",
      `crashEverywhere() needs a workflow, or a function that makes one; the function gave ${shorten(workflow)}`,
    );
  };
}

function wrong(message: string, actual: unknown, expected: unknown): AssertionError {
  return new AssertionError({ message: `crashEverywhere: ${message}`, actual, expected, operator: "crashEverywhere" });
}

const shown = (end: CrashEnd): string => inspect(end, { depth: 6, breakLength: Infinity, compact: true });

/** Lets time pass until the run has ended. */
async function toTheEnd(perdure: TestPerdure, run: RunHandle): Promise<void> {
  for (;;) {
    await perdure.settled();
    const { state, waitingFor } = await run.status();
    if (state !== "suspended" && state !== "pending") return;
    const { next } = await kitOf.get(perdure)!.rest();
    if (next === null) {
      const text = `crashEverywhere: run "${run.id}" waits (${waitingFor}), and no timer is set: send it what it waits for in \`drive\`, or give a stand-in for the event`;
      throw new PerdureError("PERDURE_STATE", text);
    }
    await perdure.advanceTo(new Date(Math.ceil(next)));
  }
}

async function endOf<R>(run: RunHandle<R>): Promise<CrashEnd<R>> {
  const { state, reason } = await run.status();
  if (state === "completed") return { state, value: await run.result() };
  if (state === "failed") {
    const error: unknown = await run.result().catch((thrown: unknown) => thrown);
    return { state, error: error instanceof RunFailedError ? error.cause : error };
  }
  if (state === "cancelled" || state === "blocked") return { state, reason };
  return { state: state as "suspended" };
}
