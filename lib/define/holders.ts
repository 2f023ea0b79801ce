/** Which instance has which step in a run: steps are found by their names, and two instances that share one would be mistaken for each other. */
import type { Body } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import type { Source } from "../core/place.ts";
import { instanceText } from "./member.ts";

/** Whose step each name is in a body's pass. */
const holders = new WeakMap<Body, Map<string, Source>>();

/** Throws PERDURE_DUPLICATE when a body calls the step of one instance that has called another's of that name. */
export function hold(body: Body, kind: string, name: string, one: Source): void {
  const held = holders.get(body) ?? new Map<string, Source>();
  holders.set(body, held);
  const other = held.get(name);
  if (!other) return void held.set(name, one);
  if (other.instance === one.instance) return;
  const both = [other, one].map(({ instance, place }) => instanceText(instance!, place)).join(", and of ");
  const text = `run "${body.run.id}" calls ${kind} "${name}" of ${both}: the result of one could be taken for the other's on replay; give one of the instances a name of its own: named("…", instance)`;
  throw new PerdureError("PERDURE_DUPLICATE", text);
}
