/** A step's call: its slot, by its arguments or its reference; and the check of what SQL brought in. */
import { argumentsAddress, nameAddress, referenceAddress } from "../core/address.ts";
import { checkRetry } from "../core/retry.ts";
import { checkInput } from "../core/schema.ts";
import type { StepDefinition } from "../core/types.ts";
import type { Pass } from "./pass.ts";
import { StepRun } from "./step-run.ts";

/** Enters a step's call: its slot is taken here and now, in the order of the calls. */
export function stepCall(pass: Pass, definition: StepDefinition, args: unknown[]): Promise<unknown> {
  const { kind, name, reference } = definition;
  const hash =
    definition.addressByArguments || reference
      ? pass.binding.hash(args, () => `arguments of ${kind} "${name}" of run "${pass.run.id}"`)
      : null;
  const address = reference
    ? referenceAddress(kind, name, reference.id)
    : hash === null
      ? nameAddress("run", name)
      : argumentsAddress(kind, name, hash);
  const shared = reference !== null || pass.definition.repeat === "cached";
  const slot = shared ? `${address}#0` : pass.take(address);
  const same = shared ? pass.shared(slot) : undefined;
  const step = same
    ? (same.entry as StepRun)
    : new StepRun(pass, definition, args, slot, reference ? hash : null, shared);
  if (reference?.onConflict === "error" && same && step.hash !== hash) return step.conflict();
  return same ? same.promise : step.enter();
}

const INPUT: Omit<StepDefinition, "fn"> = {
  kind: "step",
  name: "input",
  plan: checkRetry({ type: "never" }, "input"),
  timeoutMs: null,
  onCrash: "retry",
  input: undefined,
  output: undefined,
  reference: null,
  addressByArguments: false,
};

const INPUT_ADDRESS = nameAddress("input", "");
/** The slot of the check of what SQL brought in. */
export const SQL_INPUT = `${INPUT_ADDRESS}#0`;

/**
 * The arguments of a run that SQL started, as the workflow's schema returns them: checked once, and recorded as a step before all others. A
 * run that began before there was a schema goes on without.
 */
export async function sqlInput(pass: Pass, args: unknown[]): Promise<unknown[]> {
  const { definition, history } = pass;
  const slot = pass.take(INPUT_ADDRESS);
  if (!history.isEmpty && history.isNew(slot)) return args;
  const check = async (): Promise<unknown> => (await checkInput(definition, args))[0];
  return [await new StepRun(pass, { ...INPUT, fn: check }, [], slot, null).enter(), ...args.slice(1)];
}
