/** What a launch tells the catalogue, and what it finds there that nobody serves. Pure. */
import { nearest } from "../core/options.ts";
import type { WorkflowDefinition } from "../core/types.ts";
import type { DefinitionRow, Lane } from "../db/store.ts";
import type { Lanes } from "../db/writes.ts";

/** A definition as the catalogue keeps it. A function cannot be stored, so `shouldRetry` stays out. */
export function toDefinitionRow({ name, version, queue, timeoutMs, plan, replay }: WorkflowDefinition): DefinitionRow {
  const { shouldRetry: _, ...retry } = plan;
  const options = retry.type === "never" ? null : JSON.stringify({ retry });
  return { workflow: name, version, queue, timeout: timeoutMs, options, replay };
}

/** The warning of a launch: what has unfinished runs and is not served, and what each was perhaps meant to be. */
export function unservedText(lanes: readonly Lane[], registered: readonly WorkflowDefinition[]): string {
  const lines = lanes.map((lane) => `${shown(lane)}: ${advice(lane, registered)}`);
  return `perdure: there are unfinished runs that no process serves, and they wait until one does. ${lines.join("; ")}`;
}

const shown = ({ workflow, version, queue }: Lane): string =>
  `workflow "${workflow}" version "${version}" in queue "${queue}"`;

function advice({ workflow, version, queue }: Lane, registered: readonly WorkflowDefinition[]): string {
  const named = registered.filter(({ name }) => name === workflow);
  if (named.some((definition) => definition.version === version)) return `serve queue "${queue}" too`;
  if (named.length > 0) {
    const versions = named.map((definition) => `"${definition.version}"`).join(", ");
    return `only version ${versions} is registered here; register "${version}" beside it until its runs are done`;
  }
  const meant = nearest(
    workflow,
    registered.map(({ name }) => name),
  );
  return meant ? `the nearest that is registered here is "${meant}"` : "no workflow of that name is registered here";
}

export interface Served {
  readonly workflows: ReadonlyMap<string, WorkflowDefinition>;
  readonly queues: readonly string[];
}

/** What a process serves, as parallel arrays. */
export function lanesOf({ workflows, queues }: Served): Lanes {
  const lanes = [...workflows.values()].flatMap(({ name, version }) =>
    queues.map((queue) => ({ name, version, queue })),
  );
  return {
    workflows: lanes.map((l) => l.name),
    versions: lanes.map((l) => l.version),
    queues: lanes.map((l) => l.queue),
  };
}
