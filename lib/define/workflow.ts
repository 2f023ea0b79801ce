/** `workflow`: durable functions, and the copies of them that `.with()` makes. */
import { types } from "node:util";
import { bodyFor, scope } from "../core/context.ts";
import { type Duration, toMs } from "../core/duration.ts";
import { checkInstance, theEngine } from "../core/engines.ts";
import { PerdureError } from "../core/errors.ts";
import {
  attempt,
  checkArray,
  checkBoolean,
  checkChoice,
  checkInstant,
  checkInteger,
  checkKeys,
  checkName,
  checkNamed,
  shorten,
} from "../core/options.ts";
import { placeOf, type Stack } from "../core/place.ts";
import { checkRetry, type Retry, retryOf } from "../core/retry.ts";
import { checkSchema } from "../core/schema.ts";
import type { AnyFunction, Checked, Schema, StartOptions, WorkflowDefinition } from "../core/types.ts";
import { type DurableMethod, decorator, isDecorator } from "./decorate.ts";
import type { Maker } from "./member.ts";
import type { is, OneRunOnly, Refused } from "./refused.ts";

/** Options of a workflow. */
export interface WorkflowOptions {
  /** Names the workflow in the database: 1 to 255 bytes. */
  name: string;
  /** A run stays on the version it was started with. Default `"1"`. */
  version?: string | undefined;
  /** Checks the argument (of a workflow with one) before a run is made; the run gets what the schema returns. */
  input?: Schema | undefined;
  /** Checks the result; what the schema returns is stored. */
  output?: Schema | undefined;
  /** When a failed run is tried again as a whole, completed steps kept. Default `{ type: "never" }`. */
  retry?: Retry | undefined;
  /** How long a run may take from its first claim, waits included; then it fails with a TimeoutError. Default: no limit. */
  timeout?: Duration | undefined;
  /** The queue that runs line up in. Default `"default"`. */
  queue?: string | undefined;
  /** What happens when the code asks for something else than is recorded: `"strict"` (default) blocks the run, `"flexible"` goes on. */
  replay?: "strict" | "flexible" | undefined;
  /** What a second identical call of a step does: `"again"` (default) runs it again, `"cached"` returns the first outcome. */
  repeat?: "again" | "cached" | undefined;
}

/** Options of `@workflow()`: those of a workflow. `name` is by default that of the class and the method, `Class.method`. */
export type WorkflowMethodOptions = object &
  Omit<WorkflowOptions, "name"> & {
    /** Names the workflow in the database: 1 to 255 bytes. Default `Class.method`, or `eu.method` on an instance that is `named("eu", …)`. */
    name?: string | undefined;
    /** @internal */
    readonly [Symbol.hasInstance]?: Refused<'a function needs a name: workflow("name", fn); a decorator has parentheses: @workflow()'>;
  };

/** Options that name one particular run. */
type OneRun = "id" | "delay" | "startAt";

/** A workflow that can be started, perhaps configured for one particular run. */
export interface Startable<A extends unknown[], R> {
  /** Inside a workflow: runs a child. Outside: runs it durably on the launched engine that registered it. Returns the result. */
  (...args: A): Promise<R>;
  /** A copy configured for what it starts; the original stays as it is. */
  with(options: StartOptions): Startable<A, R>;
  /** @internal */
  readonly [is]: "a workflow" | OneRunOnly;
}

/** A workflow: call it, start it, register it. */
export interface Workflow<A extends unknown[], R> extends Startable<A, R> {
  /** @internal */
  readonly [is]: "a workflow";
  with(options: Omit<StartOptions, OneRun> & { [K in OneRun]?: never }): Workflow<A, R>;
  with(options: StartOptions): Startable<A, R>;
}

/** An instance of a class with decorated methods: any object that is neither a function nor a copy of a workflow for one run. */
export type ServiceInstance = object & {
  /** @internal */
  readonly [is]?: never;
  /** @internal */
  readonly [Symbol.hasInstance]?: Refused<"a function needs workflow(), a method durable(instance.method), a class an instance: new Class()">;
};

const DEFINITION = Symbol.for("perdure.workflow.1");
interface Internals {
  readonly definition: WorkflowDefinition;
  readonly options: StartOptions;
}

/**
 * Wraps an async function as a workflow: what it awaits is recorded, so that it goes on where it stopped. Its code must
 * ask for the same things in every replay: reads of the clock, of randomness or of the world belong into steps.
 *
 * @throws PERDURE_OPTION, PERDURE_NAME. A call outside a workflow: as `perdure.start` and `result()` do, and PERDURE_STATE when no launched
 * engine registers it, or several; inside: as `result()` of a child does.
 * @example const greet = workflow("greet", async (name: string) => { await sendMail(name); await sleep("1d"); await sendMail(name); });
 */
export function workflow<A extends unknown[], R, Stored = R>(
  nameOrOptions: string | (WorkflowOptions & { input?: undefined; output?: Schema<Stored> | undefined }),
  fn: (...args: A) => Promise<R> | R,
): Workflow<A, Stored>;
/**
 * The same with a schema for the argument: the function gets what the schema returns, a start takes what it takes, and has to fit before a run is made.
 *
 * @example const pay = workflow({ name: "pay", input: z.object({ cents: z.number() }) }, async (payment) => charge(payment));
 */
export function workflow<Input, Output, A extends unknown[], R, Stored = R>(
  options: WorkflowOptions & { input?: Schema<Output, Input> | undefined; output?: Schema<Stored> | undefined },
  fn: (input: Output, ...rest: A) => Promise<R> | R,
): Workflow<Checked<Input, Output, A>, Stored>;
/**
 * Decorates an async method as a workflow. On a registered instance, a call of it runs durably, and `durable(instance.method)` is the
 * workflow with `.with`; in whichever process the run goes on, `this` is the instance registered there. Named `Class.method` unless `name` is
 * given. Works under TC39 decorators and under `experimentalDecorators`; of several decorators it is the topmost.
 *
 * @throws PERDURE_OPTION for what is no async method of instances.
 * @example `class Checkout { @workflow({ timeout: "1d" }) async process(orderId: string) { … } } new Perdure({ workflows: [new Checkout()] });`
 */
export function workflow(options?: WorkflowMethodOptions): DurableMethod;
export function workflow(...given: [nameOrOptions?: string | WorkflowMethodOptions, fn?: AnyFunction]): unknown {
  if (isDecorator("workflow", given)) return decorator(METHODS, given[0], workflow);
  return callable(define(given[0] as string | WorkflowOptions, given[1]!, placeOf(workflow)), {});
}

const KNOWN = ["name", "version", "input", "output", "retry", "timeout", "queue", "replay", "repeat"];

function define(nameOrOptions: string | WorkflowOptions, fn: AnyFunction, place: Stack): WorkflowDefinition {
  const { options, where } = checkNamed<WorkflowOptions>(nameOrOptions, KNOWN, "workflow");
  const { version = "1", retry = { type: "never" }, queue = "default", replay = "strict", repeat = "again" } = options;
  if (typeof fn !== "function")
    throw new PerdureError("PERDURE_OPTION", `${where} needs a function, not ${shorten(fn)}`);
  if (options.input !== undefined) checkSchema(options.input, `input of ${where}`);
  if (options.output !== undefined) checkSchema(options.output, `output of ${where}`);
  return {
    name: checkName(options.name, "workflow name"),
    version: checkName(version, `version of ${where}`),
    fn: fn as unknown as WorkflowDefinition["fn"],
    plan: checkRetry(retry, where),
    timeoutMs: options.timeout === undefined ? null : toMs(options.timeout, `timeout of ${where}`),
    queue: checkName(queue, `queue of ${where}`),
    replay: checkChoice(replay, ["strict", "flexible"], `replay of ${where}`),
    repeat: checkChoice(repeat, ["again", "cached"], `repeat of ${where}`),
    input: options.input,
    output: options.output,
    instance: undefined,
    place,
  };
}

/** How a method becomes a workflow. */
const METHODS: Maker<WorkflowDefinition> = {
  kind: "workflow",
  known: KNOWN,
  define,
  bind: (template, instance, finish) => {
    const fn = (...args: unknown[]): unknown => Reflect.apply(template.fn, instance, args);
    let made: Callable | undefined;
    const make = (): Callable => (made ??= callable({ ...template, name: finish(), fn, instance }, {}));
    const call = (...args: unknown[]): unknown => make()(...args);
    const internals = (): Internals => internalsOf(make())!;
    return Object.assign(call, { [DEFINITION]: internals, with: (options: StartOptions) => make().with(options) });
  },
};

type Callable = ((...args: unknown[]) => Promise<unknown>) & { with(options: StartOptions): Callable };

function callable(definition: WorkflowDefinition, options: StartOptions): Callable {
  const what = `workflow "${definition.name}"`;
  const call = (...args: unknown[]): Promise<unknown> => {
    if (!scope.getStore()) return callOutside(args);
    const body = bodyFor(what);
    checkInstance(definition);
    return body.child(definition, options, args);
  };
  const callOutside = async (args: unknown[]): Promise<unknown> =>
    theEngine(what, definition).call(definition, options, args);
  Object.defineProperty(call, "name", { value: definition.name, configurable: true });
  const internals: Internals = { definition, options };
  return Object.assign(call, {
    [DEFINITION]: internals,
    with: (more: StartOptions) => callable(definition, { ...options, ...checkStartOptions(more, `with() of ${what}`) }),
  });
}

function checkStartOptions(options: StartOptions, where: string): StartOptions {
  const known = ["id", "onConflict", "queue", "priority", "delay", "startAt", "retry", "timeout", "tags", "detached"];
  const given = checkKeys(options, known, where) as { -readonly [K in keyof StartOptions]: StartOptions[K] };
  if (given.id !== undefined) checkName(given.id, "run id");
  if (given.queue !== undefined) checkName(given.queue, `queue in ${where}`);
  if (given.onConflict !== undefined)
    checkChoice(given.onConflict, ["error", "return_existing"], `onConflict in ${where}`);
  if (given.priority !== undefined) checkInteger(given.priority, `priority in ${where}`, -32768, 32767);
  if (given.detached !== undefined) checkBoolean(given.detached, `detached in ${where}`);
  // Copies: the caller may change afterwards what was checked here.
  if (given.delay !== undefined) given.delay = toMs(given.delay, `delay in ${where}`);
  if (given.timeout !== undefined) given.timeout = toMs(given.timeout, `timeout in ${where}`);
  if (given.startAt !== undefined) given.startAt = checkInstant(given.startAt, `startAt in ${where}`);
  if (given.tags !== undefined) given.tags = checkTags(given.tags, where);
  if (given.retry !== undefined) given.retry = checkTravellingRetry(given.retry, where);
  return given;
}

function checkTravellingRetry(given: Retry, where: string): Retry {
  const plan = checkRetry(given, where);
  if (!plan.shouldRetry) return retryOf(plan);
  throw new PerdureError(
    "PERDURE_OPTION",
    `shouldRetry in ${where} is a function, which cannot travel with a run; put it on the workflow's own retry`,
  );
}

const MOST_TAGS = 50;

/** Throws PERDURE_OPTION or PERDURE_NAME unless these are names, and not too many. */
export function checkTags(tags: unknown, where: string): readonly string[] {
  const given = checkArray(tags as string[], `tags in ${where}`);
  if (given.length <= MOST_TAGS) return given.map((tag) => checkName(tag, `tag in ${where}`));
  throw new PerdureError("PERDURE_OPTION", `tags in ${where} are ${given.length}; at most ${MOST_TAGS} are kept`);
}

/** What is behind a workflow value; undefined when `value` is none. */
export function internalsOf(value: unknown): Internals | undefined {
  if (typeof value !== "function") return undefined;
  const found = attempt(() => (value as { [DEFINITION]?: Internals | (() => Internals) })[DEFINITION]);
  // A method's is made when it is asked for: its instance may yet be named.
  return typeof found === "function" ? found() : found;
}

/** What is no workflow where one is needed; often the promise of one that was called. */
export function notAWorkflow(need: string, given: unknown): PerdureError {
  const help = types.isPromise(given) ? "; pass the workflow uncalled, and its arguments after it" : "";
  return new PerdureError("PERDURE_OPTION", `${need}, not ${shorten(given)}${help}`);
}
