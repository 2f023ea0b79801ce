/** What a run shows to the outside while it goes on: values, of which the latest counts, and streams, of which every item does. */
import { type Change, scope } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkName, checkNamed } from "../core/options.ts";
import type { PublicationDefinition } from "../core/types.ts";

/** Options of a value. */
export interface ValueOptions {
  /** 1 to 255 bytes. One value of a name in each run. */
  name: string;
}

/** Options of a stream. */
export interface StreamOptions {
  /** 1 to 255 bytes. One stream of a name in each run. */
  name: string;
}

/** The latest state of something in a run, as it is seen from outside: see `handle.get` and `handle.watch`. */
export interface Value<T> {
  readonly name: string;
  /**
   * Publishes a value in place of the one before. In the workflow's own function it is written once, whatever crashes; in a step, as
   * often as the step's tries say it. Resolves when the write is under way, in its order; nothing that follows takes effect before it.
   *
   * @throws PERDURE_CONTEXT outside a workflow; PERDURE_SERIALIZE, PERDURE_TOO_LARGE (1 MiB).
   */
  set(value: T): Promise<void>;
}

/** A sequence out of a run, to which items are only ever appended: see `handle.read`. */
export interface Stream<T> {
  readonly name: string;
  /**
   * Appends an item: once from the workflow's own function, at least once from a step, which may be tried again. Resolves when the write
   * is under way, in its order, or, after 256 that are not yet committed, when they are.
   *
   * @throws PERDURE_CONTEXT outside a workflow; PERDURE_STATE when the workflow's own function has closed the stream before;
   * PERDURE_SERIALIZE, PERDURE_TOO_LARGE (1 MiB).
   */
  write(item: T): Promise<void>;
  /** Ends the stream for its readers. Throws PERDURE_CONTEXT outside a workflow. What a step writes after that is dropped. A stream that nobody closes ends with its run. */
  close(): Promise<void>;
}

const DEFINITION = Symbol.for("perdure.publication.1");

/**
 * Declares a value that runs publish. Any process reads it, also while the run is suspended and after it has ended.
 *
 * @example
 * const status = value<string>("status");
 * await status.set("asking the model"); // in a workflow or in a step
 * await perdure.get("order-42").get(status); // anywhere
 */
export function value<T>(nameOrOptions: string | ValueOptions): Value<T> {
  const definition = define("value", nameOrOptions);
  const { name } = definition;
  const set = (given: T): Promise<void> => publish(definition, `set() of value "${name}"`, { value: given });
  return { name, set, [DEFINITION]: definition } as Value<T>;
}

/**
 * Declares a stream that runs write. Any process reads it from any place on, also after the run has ended.
 *
 * @example
 * const tokens = stream<string>("tokens");
 * await tokens.write("Hel"); // in a workflow or in a step
 * for await (const token of perdure.get("chat-7").read(tokens)) process.stdout.write(token); // anywhere
 */
export function stream<T>(nameOrOptions: string | StreamOptions): Stream<T> {
  const definition = define("stream", nameOrOptions);
  const { name } = definition;
  const write = (item: T): Promise<void> => publish(definition, `write() of stream "${name}"`, { value: item });
  const close = (): Promise<void> => publish(definition, `close() of stream "${name}"`, "close");
  return { name, write, close, [DEFINITION]: definition } as Stream<T>;
}

function define(kind: "value" | "stream", nameOrOptions: string | { name: string }): PublicationDefinition {
  const { options } = checkNamed<{ name: string }>(nameOrOptions, ["name"], kind);
  return { kind, name: checkName(options.name, `${kind} name`) };
}

function publish(definition: PublicationDefinition, what: string, change: Change): Promise<void> {
  const here = scope.getStore();
  if (here) return here.body.publish(definition, change, here.step);
  throw new PerdureError(
    "PERDURE_CONTEXT",
    `${what} works only inside a workflow or a step of one; here is neither. Call it from there, and await what leads to it`,
  );
}

/** What is behind a value or a stream; undefined when `given` is neither. */
export function publicationOf(given: unknown): PublicationDefinition | undefined {
  return attempt(() => (given as { [DEFINITION]?: PublicationDefinition } | null | undefined)?.[DEFINITION]);
}
