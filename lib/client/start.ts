/** Starting runs. */
import { randomUUID } from "node:crypto";
import type { ValueCodec } from "../core/codec.ts";
import { toMs } from "../core/duration.ts";
import { RunConflictError } from "../core/errors.ts";
import { canonicalHash } from "../core/hash.ts";
import { validate } from "../core/schema.ts";
import type { Claim, StartOptions, WorkflowDefinition } from "../core/types.ts";
import type { Flusher } from "../db/flusher.ts";
import type { StartAnswer, StartRow } from "../db/writes.ts";

export interface StarterParts {
  readonly flusher: Flusher;
  readonly codec: ValueCodec;
  /** Takes a free slot of this process for the run, if it serves the workflow and has one. */
  readonly reserve: (definition: WorkflowDefinition, queue: string) => boolean;
  /** Fills the slot with the run, or gives it back. */
  readonly adopt: (claim: Claim | null) => void;
  /** The run is to begin in so many milliseconds: this process keeps an eye on it. */
  readonly watch: (dueMs: number) => void;
}

/** Makes a run; it is durable when the id is returned. */
export async function startRun(
  definition: WorkflowDefinition,
  options: StartOptions,
  given: unknown[],
  parts: StarterParts,
): Promise<string> {
  const what = `input of workflow "${definition.name}"`;
  const args = definition.input ? [await validate(definition.input, given[0], what), ...given.slice(1)] : given;
  const row = makeRow(definition, options, args, parts);
  let answer: StartAnswer;
  try {
    answer = await parts.flusher.write("start", row);
  } catch (error) {
    if (row.lease) parts.adopt(null);
    throw error;
  }
  if (row.lease) parts.adopt(answer.leased ? toClaim(row, answer) : null);
  if (answer.verdict === "conflict") throw conflict(row, answer);
  if (row.delay !== null || row.startAt !== null) {
    parts.watch(Math.max(row.delay ?? 0, (row.startAt ?? 0) - answer.now_ms));
  }
  return row.id;
}

function makeRow(
  definition: WorkflowDefinition,
  options: StartOptions,
  args: unknown[],
  { codec, reserve }: StarterParts,
): StartRow {
  const { name, version } = definition;
  const queue = options.queue ?? definition.queue;
  const timeout = options.timeout === undefined ? definition.timeoutMs : toMs(options.timeout, "timeout");
  const delay = options.delay === undefined ? null : toMs(options.delay, "delay");
  const startAt = options.startAt?.getTime() ?? null;
  return {
    id: options.id ?? uuidv7(),
    workflow: name,
    version,
    queue,
    priority: options.priority ?? 0,
    delay,
    startAt,
    timeout,
    args: codec.encode(args, `input of workflow "${name}"`),
    hash: canonicalHash(args),
    options: options.retry ? codec.encode({ retry: options.retry }, "retry") : null,
    keep: options.onConflict === "return_existing",
    lease: delay === null && startAt === null && reserve(definition, queue),
  };
}

function conflict(row: StartRow, answer: StartAnswer): RunConflictError {
  const why =
    answer.workflow === row.workflow ? "was started with other input" : `belongs to workflow "${answer.workflow}"`;
  const text = `cannot start workflow "${row.workflow}": run "${row.id}" is taken and ${why} (it is ${answer.state}). Choose another id, or say onConflict: "return_existing"`;
  return new RunConflictError(row.id, text);
}

/** A run that was leased at birth: the claim that it would otherwise have come with. */
function toClaim(row: StartRow, answer: StartAnswer): Claim {
  return {
    key: answer.key,
    id: row.id,
    workflow: row.workflow,
    version: row.version,
    epoch: 1,
    attempt: 1,
    crashes: 0,
    mail: 0,
    args: row.args,
    options: row.options,
    startedAt: answer.now_ms,
    deadline: row.timeout === null ? null : answer.now_ms + row.timeout,
    now: answer.now_ms,
    history: [],
    more: false,
    waits: [],
    begun: [],
    reopenedFrom: null,
    lastNo: null,
    unread: [],
  };
}

/** A UUID that grows with time, so that new runs stand side by side in the index: version 7, RFC 9562 §5.7. */
export function uuidv7(): string {
  // Random bits come from randomUUID, which draws them in bulk.
  const random = randomUUID();
  const time = Date.now().toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(15)}`;
}
