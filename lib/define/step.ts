/** `step`, `transaction` and `runStep`: functions whose result is recorded once per call. */
import { type Body, refuseInStep, scope } from "../core/context.ts";
import { type Duration, toMs } from "../core/duration.ts";
import { checkOutside, theEngine } from "../core/engines.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkChoice, checkKeys, checkName, checkNamed, shorten } from "../core/options.ts";
import { checkRetry, type Retry } from "../core/retry.ts";
import { checkSchema } from "../core/schema.ts";
import type { AnyFunction, Checked, Reference, Schema, StepDefinition, TransactionClient } from "../core/types.ts";
import { type DurableMethod, decorator, isDecorator } from "./decorate.ts";
import { hold, type Maker } from "./member.ts";
import type { is, Refused } from "./refused.ts";

const DEFINITION: unique symbol = Symbol.for("perdure.step.1");

/** Options of a step or a transaction. */
export interface StepOptions {
  /** Names the step in the history: 1 to 255 bytes. Part of every slot, so renaming a step is a change for runs in flight. */
  name: string;
  /** When a failed try is tried again. Default `{ type: "never" }`. A crash of the process never counts as a try. */
  retry?: Retry | undefined;
  /** How long one try may take; then its signal is aborted and it fails with a TimeoutError. Default: no limit. */
  timeout?: Duration | undefined;
  /** Checks the argument (of a step with one) before each try; the function gets what the schema returns. */
  input?: Schema | undefined;
  /** Checks the result after each try; what the schema returns is recorded. */
  output?: Schema | undefined;
  /** What happens after the process died in the middle: `"retry"` (default) runs it again, `"fail"` fails it. */
  onCrash?: "retry" | "fail" | undefined;
}

/** Options of `@step()` and `@transaction()`: those of a step. `name` is by default that of the class and the method, `Class.method`. */
export type StepMethodOptions = object &
  Omit<StepOptions, "name"> & {
    /** Names the step in the history: 1 to 255 bytes. Default `Class.method`, or `eu.method` on an instance that is `named("eu", …)`. */
    name?: string | undefined;
    /** @internal */
    readonly [Symbol.hasInstance]?: Refused<'a function needs a name: step("name", fn); a decorator has parentheses: @step()'>;
  };

/** What `.with()` sets for the calls of a copy of a step. */
export interface StepCallOptions {
  /** Retry policy of these calls. */
  retry?: Retry | undefined;
  /** Time limit of each try of these calls. */
  timeout?: Duration | undefined;
  /** Names the call within its run, in place of its arguments: the same reference gives the first outcome again. */
  reference?: string | { id: string; onConflict?: "error" | "return_existing" | undefined } | undefined;
}

/** A function of a step's own type: always a promise. */
export type Durable<F extends AnyFunction> =
  ReturnType<F> extends PromiseLike<unknown> ? F : (...args: Parameters<F>) => Promise<Awaited<ReturnType<F>>>;

/** A step: call it like the function it wraps. */
export type Step<F extends AnyFunction> = Durable<F> & {
  /** A copy with other options; the original stays as it is. */
  with(options: StepCallOptions): Step<F>;
  /** @internal */
  readonly [is]: "a step";
};

/** A transaction step: called without `tx`. */
export type Transaction<A extends unknown[], R> = ((...args: A) => Promise<R>) & {
  /** A copy with other options; the original stays as it is. */
  with(options: StepCallOptions): Transaction<A, R>;
  /** @internal */
  readonly [is]: "a step";
};

/**
 * Wraps a function as a step. Called inside a workflow, its result is recorded, and replay returns the record; called
 * anywhere else it is a plain call. At least once: a crash before the record runs it again.
 *
 * @throws PERDURE_OPTION, PERDURE_NAME. A call: what the function throws; PERDURE_CONTEXT inside another step; PERDURE_SERIALIZE and
 * PERDURE_TOO_LARGE (1 MiB) for its arguments and its result; TimeoutError.
 * @example const charge = step({ name: "charge", retry: { type: "fixed", maxAttempts: 3, delay: "1s" } }, async (id: string) => { … });
 */
export function step<F extends AnyFunction>(
  nameOrOptions: string | (StepOptions & { input?: undefined; output?: undefined }),
  fn: F,
): Step<F>;
/**
 * The same with schemas: the function gets what `input` returns for the first argument, and what `output` returns is recorded. Result that does not fit
 * fails the try.
 *
 * @example const price = step({ name: "price", output: z.object({ cents: z.number() }) }, async (sku: string) => (await fetch(urlOf(sku))).json());
 */
export function step<A extends unknown[], R, Stored>(
  options: StepOptions & { input?: undefined; output: Schema<Stored> },
  fn: (...args: A) => Promise<R> | R,
): Step<(...args: A) => Promise<Stored>>;
export function step<Input, Output, A extends unknown[], R, Stored = R>(
  options: StepOptions & { input?: Schema<Output, Input> | undefined; output?: Schema<Stored> | undefined },
  fn: (input: Output, ...rest: A) => Promise<R> | R,
): Step<(...args: Checked<Input, Output, A>) => Promise<Stored>>;
/**
 * Decorates an async method as a step. It keeps its type and its `this`, and is named `Class.method` unless `name` is given. Works under TC39
 * decorators and under `experimentalDecorators`; of several decorators it is the topmost.
 *
 * @throws PERDURE_OPTION for what is no async method of instances.
 * @example `class Checkout { @step({ timeout: "10s" }) async reserve(orderId: string) { … } }`
 */
export function step(options?: StepMethodOptions): DurableMethod;
export function step(...given: [nameOrOptions?: string | StepMethodOptions, fn?: AnyFunction]): unknown {
  if (isDecorator("step", given)) return decorator(makerOf("step"), given[0], step);
  const definition = define("step", given[0] as string | StepOptions, given[1]!);
  return callable(definition, (args) => plainly(definition, args));
}

/**
 * Wraps a function as a transaction step: what it writes with `tx`, a pg client in a transaction, commits together with its
 * checkpoint, so its effect exists exactly once. Called outside a workflow it runs in a transaction of the launched engine. For an ORM
 * that wraps a pg client, say so in its type: `async (tx: pg.PoolClient, …) => drizzle(tx)…`.
 *
 * @throws as `step` does; a call with no engine launched, or with several: PERDURE_STATE.
 * @example const debit = transaction("debit", async (tx, account: string, cents: number) => { await tx.query("update …", [cents, account]); });
 */
export function transaction<A extends unknown[], R, Tx = TransactionClient>(
  nameOrOptions: string | StepOptions,
  fn: (tx: Tx, ...args: A) => Promise<R> | R,
): Transaction<A, R>;
/**
 * Decorates an async method as a transaction step: as `@step()`, in a transaction whose client is `currentStep().tx`.
 *
 * @throws as `@step()` does.
 * @example `class Accounts { @transaction() async debit(cents: number) { await currentStep().tx!.query("update …", [cents]); } }`
 */
export function transaction(options?: StepMethodOptions): DurableMethod;
export function transaction(...given: [nameOrOptions?: string | StepMethodOptions, fn?: AnyFunction]): unknown {
  if (isDecorator("transaction", given)) return decorator(makerOf("transaction"), given[0], transaction);
  const definition = define("transaction", given[0] as string | StepOptions, given[1]!);
  return callable(definition, (args) => transact(definition, args));
}

/**
 * Runs an anonymous function as a step of that name: for what is needed once. Its address is its name alone.
 *
 * @throws as a call of a step does.
 * @example const total = await runStep("sum", () => fetchTotal(orderId));
 */
export function runStep<R>(name: string, fn: () => R | Promise<R>): Promise<R> {
  const definition = { ...define("step", name, fn as AnyFunction), addressByArguments: false };
  const here = scope.getStore();
  if (here) return callIn(here.body, definition, []) as Promise<R>;
  checkOutside(`step "${definition.name}"`);
  return (async () => fn())();
}

const KNOWN = ["name", "retry", "timeout", "input", "output", "onCrash"];

function define(kind: StepDefinition["kind"], nameOrOptions: string | StepOptions, fn: AnyFunction): StepDefinition {
  const { options, where } = checkNamed<StepOptions>(nameOrOptions, KNOWN, kind);
  const { retry = { type: "never" }, onCrash = "retry" } = options;
  if (typeof fn !== "function")
    throw new PerdureError("PERDURE_OPTION", `${where} needs a function, not ${shorten(fn)}`);
  if (options.input !== undefined) checkSchema(options.input, `input of ${where}`);
  if (options.output !== undefined) checkSchema(options.output, `output of ${where}`);
  return {
    kind,
    name: checkName(options.name, `${kind} name`),
    fn: fn as unknown as StepDefinition["fn"],
    plan: checkRetry(retry, where),
    timeoutMs: options.timeout === undefined ? null : toMs(options.timeout, `timeout of ${where}`),
    onCrash: checkChoice(onCrash, ["retry", "fail"], `onCrash of ${where}`),
    input: options.input,
    output: options.output,
    reference: null,
    addressByArguments: true,
  };
}

/** How a method becomes a step. Called plainly, outside a workflow, it leaves the instance's name open. */
function makerOf(kind: StepDefinition["kind"]): Maker<StepDefinition> {
  return {
    kind,
    known: KNOWN,
    define: (options, method, place) => ({ ...define(kind, options, method), place }),
    bind: (template, instance, finish) => {
      const method = (args: unknown[]): unknown => Reflect.apply(template.fn, instance, args);
      const fn =
        kind === "step" ? (...args: unknown[]) => method(args) : (_tx: unknown, ...args: unknown[]) => method(args);
      const outside = (args: unknown[]): unknown =>
        kind === "step" ? plainly({ ...template, fn }, args) : transact({ ...template, fn }, args);
      let made: Callable | undefined;
      const make = (): Callable => (made ??= callable({ ...template, name: finish(), fn, instance }, outside));
      const call = (...args: unknown[]): unknown => (scope.getStore() ? make()(...args) : outside(args));
      const bound = Object.assign(call, { with: (options: StepCallOptions) => make().with(options) });
      return Object.defineProperty(bound, DEFINITION, { get: () => make()[DEFINITION] });
    },
  };
}

/** A step called outside a workflow. */
function plainly(definition: StepDefinition, args: unknown[]): unknown {
  checkOutside(`step "${definition.name}"`);
  return definition.fn(...args);
}

/** A transaction called outside a workflow. */
async function transact(definition: StepDefinition, args: unknown[]): Promise<unknown> {
  return theEngine(`transaction "${definition.name}"`).transact(definition, args);
}

type Callable = ((...args: unknown[]) => unknown) & {
  readonly [DEFINITION]: StepDefinition;
  with(options: StepCallOptions): Callable;
};

function callable(definition: StepDefinition, outside: (args: unknown[]) => unknown): Callable {
  const call = (...args: unknown[]): unknown => {
    const here = scope.getStore();
    return here ? callIn(here.body, definition, args) : outside(args);
  };
  Object.defineProperty(call, "name", { value: definition.name, configurable: true });
  // Not to be seen where a step is printed.
  Object.defineProperty(call, DEFINITION, { value: definition });
  return Object.assign(call, {
    with: (options: StepCallOptions) => callable(configure(definition, options), outside),
  }) as Callable;
}

/** The definition behind a step or a transaction; undefined when `value` is none. */
export function stepOf(value: unknown): StepDefinition | undefined {
  return typeof value === "function"
    ? attempt(() => (value as { [DEFINITION]?: StepDefinition })[DEFINITION])
    : undefined;
}

function callIn(body: Body, definition: StepDefinition, args: unknown[]): Promise<unknown> {
  const here = scope.getStore()!;
  const { kind, name, instance, place } = definition;
  refuseInStep(here, `${kind} "${name}"`);
  if (instance) hold(body, kind, name, { instance, place: place! });
  return body.step(definition, args);
}

function configure(definition: StepDefinition, given: StepCallOptions): StepDefinition {
  const where = `with() of ${definition.kind} "${definition.name}"`;
  const options = checkKeys(given, ["retry", "timeout", "reference"], where);
  return {
    ...definition,
    ...(options.retry === undefined ? {} : { plan: checkRetry(options.retry, where) }),
    ...(options.timeout === undefined ? {} : { timeoutMs: toMs(options.timeout, `timeout in ${where}`) }),
    ...(options.reference === undefined ? {} : { reference: checkReference(options.reference, where) }),
  };
}

function checkReference(given: NonNullable<StepCallOptions["reference"]>, where: string): Reference {
  const what = `reference in ${where}`;
  const { id, onConflict = "error" } = checkKeys(
    typeof given === "string" ? { id: given } : given,
    ["id", "onConflict"],
    what,
  ) as Partial<Reference>;
  return {
    id: checkName(id, what),
    onConflict: checkChoice(onConflict, ["error", "return_existing"], `onConflict in ${where}`),
  };
}
