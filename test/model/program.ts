/** Programs at random: rounds of orders. They are data, so one that fails is printed, and played again, as it is. */
import fc from "fast-check";
import type { EventName, Op, Script, Start, Version } from "./script.ts";

/**
 * What is done in a round. `run` counts through the runs that there are, `worker` through the processes, around and around. What is said of
 * more orders of one round is done at the same time, each `after` so many milliseconds.
 */
export type Order = { readonly after: number } & (
  | ({ readonly do: "start" } & Start)
  | { readonly do: "start again"; readonly run: number; readonly same: boolean }
  | {
      readonly do: "send";
      readonly run: number;
      readonly event: EventName;
      readonly reference: string | null;
      readonly sql: boolean;
    }
  | { readonly do: "pause" | "resume" | "wake"; readonly run: number; readonly sql: boolean }
  | { readonly do: "cancel" | "retry"; readonly run: number }
  | { readonly do: "fork"; readonly run: number; readonly stage: number; readonly version: Version | null }
  | { readonly do: "open"; readonly run: number }
  | { readonly do: "advance"; readonly hours: number }
  | { readonly do: "deploy" }
  | { readonly do: "launch"; readonly versions: readonly Version[]; readonly notify: boolean; readonly warm: boolean }
  | { readonly do: "kill" | "freeze" | "thaw" | "shutdown"; readonly worker: number }
  | { readonly do: "deafen" | "restart" }
);
export type Program = readonly (readonly Order[])[];

const eventName = fc.constantFrom<EventName>("a", "b");
const hours = fc.integer({ min: 1, max: 3 });
const maybeHours = fc.option(hours, { freq: 2 });

const leaf: fc.Arbitrary<Op> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Op>({ do: "book" }) },
  { weight: 2, arbitrary: fc.constant<Op>({ do: "step" }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("hold" as const), tx: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("flaky" as const), fails: fc.integer({ min: 1, max: 2 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("sleep" as const), hours }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("wait" as const), event: eventName, hours: maybeHours }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("race" as const), hours: maybeHours }) },
);
/** What may end an attempt has its stage for itself. */
const alone: fc.Arbitrary<Op> = fc.oneof(
  fc.record({ do: fc.constant("fail" as const), attempts: fc.integer({ min: 1, max: 2 }) }),
  fc.constant<Op>({ do: "flaky", fails: 3 }),
);

function stages(ops: fc.Arbitrary<Op>, maxLength: number): fc.Arbitrary<Script> {
  const stage = fc.oneof(
    { weight: 8, arbitrary: fc.tuple(ops) },
    { weight: 4, arbitrary: fc.array(ops, { minLength: 2, maxLength: 3 }) },
    { weight: 1, arbitrary: fc.tuple(alone) },
  );
  return fc.array(stage, { minLength: 1, maxLength });
}

const child = fc.record({ do: fc.constantFrom("child" as const, "spawn" as const), script: stages(leaf, 2) });
const script = stages(fc.oneof({ weight: 6, arbitrary: leaf }, { weight: 1, arbitrary: child }), 4);

const hasChildren = (given: Script): boolean => given.flat().some((op) => op.do === "child" || op.do === "spawn");

/** A child ends within its parent's time: here only who has none has a timeout. */
const start: fc.Arbitrary<Start> = fc
  .record({
    script,
    delay: fc.option(hours, { freq: 5 }),
    timeout: fc.option(fc.integer({ min: 1, max: 4 }), { freq: 5 }),
    attempts: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.constant(2) }),
  })
  .map((given) => (hasChildren(given.script) ? { ...given, timeout: null } : given));

const run = fc.nat({ max: 7 });
const worker = fc.nat({ max: 3 });
const sql = fc.boolean();
const after = fc.nat({ max: 12 });
const version = fc.constantFrom<Version>("1", "2");
const maybeVersion: fc.Arbitrary<Version | null> = fc.option(version, { freq: 3, nil: null });
const versions = fc.constantFrom<readonly Version[]>(["1", "2"], ["1", "2"], ["1"], ["2"]);
const reference = fc.option(fc.constantFrom("x", "y"), { freq: 3 });
const word = <W extends string>(name: W): fc.Arbitrary<W> => fc.constant(name);

const calls: readonly [number, fc.Arbitrary<Order>][] = [
  [5, fc.tuple(start, after).map(([given, ms]) => ({ do: "start", ...given, after: ms }))],
  [1, fc.record({ do: word("start again"), run, same: fc.boolean(), after })],
  [7, fc.record({ do: word("send"), run, event: eventName, reference, sql, after })],
  [2, fc.record({ do: word("cancel"), run, after })],
  [3, fc.record({ do: word("pause"), run, sql, after })],
  [3, fc.record({ do: word("resume"), run, sql, after })],
  [2, fc.record({ do: word("wake"), run, sql, after })],
  [2, fc.record({ do: word("retry"), run, after })],
  [2, fc.record({ do: word("fork"), run, stage: fc.nat({ max: 2 }), version: maybeVersion, after })],
  [4, fc.record({ do: word("open"), run, after })],
  [1, fc.record({ do: word("deploy"), after })],
];
const faults: readonly [number, fc.Arbitrary<Order>][] = [
  [4, fc.record({ do: word("kill"), worker, after })],
  [3, fc.record({ do: word("freeze"), worker, after })],
  [2, fc.record({ do: word("thaw"), worker, after })],
  [2, fc.record({ do: word("shutdown"), worker, after })],
  [4, fc.record({ do: word("launch"), versions, notify: fc.boolean(), warm: fc.boolean(), after })],
  [2, fc.record({ do: word("deafen"), after })],
  [1, fc.record({ do: word("restart"), after })],
];
const time = fc.record({ do: word("advance"), hours: fc.integer({ min: 1, max: 4 }), after: fc.constant(0) });
/** Beside others an hour passes at once. */
const hour = fc.record({ do: word("advance"), hours: fc.constant(1), after });

const oneOf = (...given: readonly (readonly [number, fc.Arbitrary<Order>])[]): fc.Arbitrary<Order> =>
  fc.oneof(...given.map(([weight, arbitrary]) => ({ weight, arbitrary })));

const round = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(oneOf(...calls)) },
  { weight: 3, arbitrary: fc.tuple<[Order]>(time) },
  { weight: 2, arbitrary: fc.tuple(oneOf(...faults)) },
  { weight: 4, arbitrary: fc.array(oneOf(...calls, ...faults, [4, hour]), { minLength: 2, maxLength: 3 }) },
);

const first: fc.Arbitrary<Order> = fc.record({
  do: word("launch"),
  versions: fc.constant<readonly Version[]>(["1", "2"]),
  notify: fc.boolean(),
  warm: fc.boolean(),
  after: fc.constant(0),
});
const begin: fc.Arbitrary<Order> = fc.tuple(start, after).map(([given, ms]) => ({ do: "start", ...given, after: ms }));

/** One process and one run at least, then whatever comes. */
export const programs = (most = 14): fc.Arbitrary<Program> =>
  fc
    .tuple(
      fc.array(first, { minLength: 1, maxLength: 2 }),
      fc.tuple(begin),
      fc.array(round, { minLength: 1, maxLength: most, size: "max" }),
    )
    .map(([launches, started, rounds]) => [launches, started, ...rounds]);

/** As a test or a person reads it: a round a line. */
export const textOf = (program: Program): string =>
  `[\n${program.map((orders) => `  ${JSON.stringify(orders)}`).join(",\n")}\n]`;
