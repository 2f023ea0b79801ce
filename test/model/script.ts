/** What a modelled run does: a list of stages, each of operations side by side. The engine plays it in play.ts, the reference in reference.ts. */

export type Op =
  /** A transaction that writes a row of the ledger. */
  | { readonly do: "book" }
  | { readonly do: "step" }
  /** A step that stays in flight until the family's gate is opened; as a transaction it has written its row by then. */
  | { readonly do: "hold"; readonly tx: boolean }
  /** A step whose first tries fail, an hour apart; the third failure is the run's. In a later attempt of the run it succeeds. */
  | { readonly do: "flaky"; readonly fails: number }
  | { readonly do: "sleep"; readonly hours: number }
  | { readonly do: "wait"; readonly event: EventName; readonly hours: number | null }
  /** Of the events a and b the first that is there, or a timer. */
  | { readonly do: "race"; readonly hours: number | null }
  /** A child whose result is awaited. */
  | { readonly do: "child"; readonly script: Script }
  /** A child that nobody waits for. */
  | { readonly do: "spawn"; readonly script: Script }
  /** The body throws in so many attempts. Alone in its stage. */
  | { readonly do: "fail"; readonly attempts: number };

export type EventName = "a" | "b";
export type Script = readonly (readonly Op[])[];
export type Version = "1" | "2";

/** Where an operation stands: its name in the history, beside what it does. */
export const placeOf = (stage: number, op: number): string => `${stage}.${op}`;
export const stepName = (op: Op, at: string): string => `${op.do} ${at}`;

/** The tries of a flaky step. */
export const TRIES = 3;

/** What a run is started with. */
export interface Input {
  readonly family: string;
  /** Of a child: the operation that started it. */
  readonly at: string | null;
  readonly script: Script;
}

export interface Start {
  readonly script: Script;
  readonly delay: number | null;
  readonly timeout: number | null;
  /** Attempts of the whole, an hour apart. */
  readonly attempts: number;
}
