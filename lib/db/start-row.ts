/** From a workflow and the options of one start to the row that is written: the same for a start from outside, a child and a schedule. */
import { randomUUID } from "node:crypto";
import type { ValueCodec } from "../core/codec.ts";
import { toMs } from "../core/duration.ts";
import { canonicalHash } from "../core/hash.ts";
import type { Claim, StartOptions, WorkflowDefinition } from "../core/types.ts";
import type { StartAnswer, StartRow } from "./writes.ts";

/** The row of a start, not leased. */
export function toStartRow(
  definition: WorkflowDefinition,
  options: StartOptions,
  args: unknown[],
  codec: ValueCodec,
): StartRow {
  const { name, version } = definition;
  return {
    id: options.id ?? uuidv7(),
    workflow: name,
    version,
    queue: options.queue ?? definition.queue,
    priority: options.priority ?? 0,
    delay: options.delay === undefined ? null : toMs(options.delay, "delay"),
    startAt: options.startAt?.getTime() ?? null,
    timeout: options.timeout === undefined ? definition.timeoutMs : toMs(options.timeout, "timeout"),
    args: codec.encode(args, `input of workflow "${name}"`),
    hash: canonicalHash(args),
    options: options.retry ? codec.encode({ retry: options.retry }, "retry") : null,
    keep: options.onConflict === "return_existing",
    tags: options.tags === undefined ? null : JSON.stringify(options.tags),
    run: null,
    epoch: null,
    detached: options.detached ?? false,
    schedule: null,
    scheduledFor: null,
    lease: () => false,
  };
}

/** True: it begins as soon as there is a slot for it. */
export const isDue = ({ delay, startAt }: StartRow): boolean => delay === null && startAt === null;

/** A run that was leased at birth: the claim that it would otherwise have come with. */
export function toClaim(row: StartRow, answer: StartAnswer, followed: boolean): Claim {
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
    fork: null,
    startedAt: answer.now_ms,
    deadline: answer.deadline_ms,
    now: answer.now_ms,
    history: [],
    more: false,
    waits: [],
    begun: [],
    reopenedFrom: null,
    lastNo: null,
    unread: [],
    schedule: row.schedule,
    scheduledFor: row.scheduledFor,
    flexible: false,
    followed,
    reopened: [],
    ended: [],
  };
}

/** A UUID that grows with time, so that new runs stand side by side in the index: version 7, RFC 9562 §5.7. */
export function uuidv7(): string {
  // Random bits come from randomUUID, which draws them in bulk.
  const random = randomUUID();
  const time = Date.now().toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(15)}`;
}
