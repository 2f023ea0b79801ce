/** What a compiler prints where a type refuses: names that say what is wrong, in place of structures. Types only; nothing here runs. */

declare const says: unique symbol;

/** What nothing can be assigned to: the text is what the compiler shows. */
export interface Refused<Text extends string> {
  /** @internal */
  readonly [says]: Text;
}

/** @internal What a value is, to tell a step from a workflow, and a workflow from a copy for one run. */
export declare const is: unique symbol;

/** A copy that names one particular run is not what makes many. */
export type OneRunOnly = "a copy of a workflow that names one particular run, by id, delay or startAt";

type AnyWorkflow = { (...args: any): unknown; readonly [is]: "a workflow" | OneRunOnly };

/** What `perdure.start` says of what is neither a workflow nor the name of one. */
export type Started<W> = W extends string | AnyWorkflow
  ? unknown
  : W extends { readonly [is]: "a step" }
    ? Refused<"a step is called in a workflow; start() needs a workflow">
    : W extends PromiseLike<unknown>
      ? Refused<"this call runs already; pass the workflow itself, and its arguments after it">
      : Refused<"start() needs a workflow made by workflow(), or durable(instance.method) of a decorated method">;

/** The same, and what it says of a workflow with too few arguments or too many. */
export type StartedByName<W> = W extends AnyWorkflow
  ? Refused<"the arguments after the workflow are not as many as its own">
  : Started<W>;

/** The arguments of a workflow; any, for what is none. */
export type ArgumentsOf<W> = W extends AnyWorkflow ? Parameters<W> : unknown[];
