/** How a body begins: with the context that the application makes for this execution, in the scope of its run. */
import { isFromSql } from "../core/codec.ts";
import { detached, scope } from "../core/context.ts";
import type { Pass, Settled } from "./pass.ts";
import { RunView } from "./run-view.ts";
import { SQL_INPUT, sqlInput } from "./steps.ts";

/** Runs the body of a pass. `settled` is told what it came to. A context that cannot be made ends the pass: its run is tried again later. */
export function runBody(pass: Pass, args: unknown[], settled: (settled: Settled) => void): void {
  const { makeContext } = pass.ports;
  if (!makeContext) {
    enter(pass, args, settled);
    return;
  }
  const made = detached(async () => makeContext(pass.run));
  made.then(
    (context) => {
      pass.ports.delays.forget(pass.run.id);
      RunView.provide(pass.run, context);
      pass.prepared(() => enter(pass, args, settled));
    },
    (error: unknown) => pass.prepared(() => pass.end({ how: "unprepared", error })),
  );
}

const call = ({ definition }: Pass, args: unknown[]): unknown => definition.fn(...args);

/** SQL started it, and the workflow has a schema, or had one when the run began. */
const isUnchecked = ({ definition, claim, history }: Pass): boolean =>
  isFromSql(claim.args) && (definition.input !== undefined || !history.isNew(SQL_INPUT));

/** Runs `work` in the scope of a run, and in no other async context. */
export const inBody = <T>(pass: Pass, work: () => T): T =>
  detached(() => scope.run({ body: pass.body, step: null }, work));

function enter(pass: Pass, args: unknown[], settled: (settled: Settled) => void): void {
  // Before its first call.
  pass.begun();
  void inBody(pass, async () => {
    let end: Settled;
    try {
      end = { value: await call(pass, isUnchecked(pass) ? await sqlInput(pass, args) : args) };
    } catch (thrown) {
      end = { thrown };
    }
    settled(end);
  });
}
