/** Starting runs. */
import { RunConflictError } from "../core/errors.ts";
import { checkInput } from "../core/schema.ts";
import type { StoredCodec } from "../core/stored.ts";
import type { StartOptions, WorkflowDefinition } from "../core/types.ts";
import { leased, type Slots } from "../db/leased.ts";
import { madeBefore, toStartRow } from "../db/start-row.ts";
import type { StartAnswer, StartRow, Writer } from "../db/writes.ts";

export interface StarterParts {
  readonly flusher: Writer;
  readonly codec: StoredCodec;
  readonly slots: Slots;
}

/** Makes a run; it is durable when the id is returned. */
export async function startRun(
  definition: WorkflowDefinition,
  options: StartOptions,
  given: unknown[],
  parts: StarterParts,
): Promise<string> {
  const args = await checkInput(definition, given);
  const row = toStartRow(definition, options, args, parts.codec);
  const answer = await leased(row, parts.slots, (leasable, onAside) => parts.flusher.write("start", leasable, onAside));
  const before = madeBefore(answer, row, args, parts.codec);
  const last = before ? await parts.flusher.write("start", before) : answer;
  if (last.verdict === "conflict") throw conflict(row, last);
  return row.id;
}

function conflict(row: StartRow, answer: StartAnswer): RunConflictError {
  const why =
    answer.workflow === row.workflow ? "was started with other input" : `belongs to workflow "${answer.workflow}"`;
  const text = `cannot start workflow "${row.workflow}": run "${row.id}" is taken and ${why} (it is ${answer.state}). Choose another id, or say onConflict: "return_existing"`;
  return new RunConflictError(row.id, text);
}
