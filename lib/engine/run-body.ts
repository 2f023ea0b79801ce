/** How a body begins: with the context that the application makes for this execution, in the scope of its run. */
import { isFromSql } from "../core/codec.ts";
import { type Scope, scope } from "../core/context.ts";
import type { Pass, Settled } from "./pass.ts";
import { sqlInput } from "./steps.ts";

/** Runs the body of a pass. `settled` is told what it came to. A context that cannot be made ends the pass: its run is tried again later. */
export function runBody(pass: Pass, args: unknown[], settled: (settled: Settled) => void): void {
  const { makeContext } = pass.ports;
  if (!makeContext) {
    enter(pass, args, settled);
    return;
  }
  // A run may be begun from within another's body: what makes the context runs in neither.
  const made = scope.run(undefined as unknown as Scope, async () => makeContext(pass.run));
  made.then(
    (context) => {
      pass.ports.delays.forget(pass.run.id);
      pass.facts.provide(context);
      if (!pass.over) enter(pass, args, settled);
    },
    (error: unknown) => pass.end({ how: "unprepared", error }),
  );
}

const call = ({ definition }: Pass, args: unknown[]): unknown => definition.fn(...args);

/** SQL started it, and the workflow has a schema. */
const isUnchecked = ({ definition, claim }: Pass): boolean => definition.input !== undefined && isFromSql(claim.args);

function enter(pass: Pass, args: unknown[], settled: (settled: Settled) => void): void {
  scope.run({ body: pass.body, step: null }, () => {
    Promise.resolve()
      .then(() => (isUnchecked(pass) ? sqlInput(pass, args).then((checked) => call(pass, checked)) : call(pass, args)))
      .then(
        (value) => settled({ value }),
        (thrown) => settled({ thrown }),
      );
  });
  pass.begun();
}
