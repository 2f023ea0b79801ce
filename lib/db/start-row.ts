/** From a workflow and the options of one start to the row that is written: the same for a start from outside, a child and a schedule. */
import { randomFillSync } from "node:crypto";
import type { Claim } from "../core/claim.ts";
import { toMs } from "../core/duration.ts";
import type { StoredCodec } from "../core/stored.ts";
import { inputOf, type Place } from "../core/stored-place.ts";
import type { StartOptions, WorkflowDefinition } from "../core/types.ts";
import type { StartAnswer, StartRow } from "./writes.ts";

/** The row of a start, for which a slot may be found. */
export type LeasableRow = Omit<StartRow, "lease"> & { lease: StartRow["lease"] };

/** There will be no slot for it here. */
export const UNLEASED = (): boolean => false;

/** The row of a start, not leased. `place`: where the arguments are to stand, if not in a run. */
export function toStartRow(
  definition: WorkflowDefinition,
  options: StartOptions,
  args: unknown[],
  codec: StoredCodec,
  place?: Place,
): LeasableRow {
  const { name, version } = definition;
  const id = options.id ?? uuidv7();
  return {
    id,
    isNew: options.id === undefined,
    workflow: name,
    version,
    queue: options.queue ?? definition.queue,
    priority: options.priority ?? 0,
    delay: options.delay === undefined ? null : toMs(options.delay, "delay"),
    startAt: options.startAt?.getTime() ?? null,
    timeout: options.timeout === undefined ? definition.timeoutMs : toMs(options.timeout, "timeout"),
    args: codec.encodeList(args, `input of workflow "${name}"`, place ?? inputOf(id)),
    hash: codec.hash(args),
    options: options.retry ? codec.encodePlain({ retry: options.retry }, "retry") : null,
    keep: options.onConflict === "return_existing",
    tags: options.tags === undefined ? null : JSON.stringify(options.tags),
    run: null,
    epoch: null,
    detached: options.detached ?? false,
    schedule: null,
    scheduledFor: null,
    lease: UNLEASED,
  };
}

/** The start again, as processes make it that key hashes, or do not yet, where that may be why the id counts as taken; null: it is not. */
export function madeBefore(
  answer: StartAnswer | undefined,
  row: StartRow,
  args: unknown[],
  codec: StoredCodec,
): StartRow | null {
  if (answer?.verdict !== "conflict" || !codec.hasKey) return null;
  return { ...row, hash: codec.hash(args, undefined, !codec.writesKeyed), lease: UNLEASED };
}

/** True: it begins as soon as there is a slot for it. */
export const isDue = ({ delay, startAt }: StartRow): boolean => delay === null && startAt === null;

/** A run that was leased at birth: the claim that it would otherwise have come with. */
export function toClaim(row: StartRow, answer: StartAnswer): Claim {
  return {
    key: answer.key!,
    id: row.id,
    workflow: row.workflow,
    version: row.version,
    queue: row.queue,
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
    followed: row.run !== null,
    reopened: [],
    ended: [],
  };
}

/** Random bytes, drawn in bulk: ten for each id. */
const random = Buffer.alloc(4000);
let drawn = random.length;

const HEX = Buffer.from("0123456789abcdef");
/** Where random digits stand in a UUID of version 7, but for the one with the variant. */
const PLACES = [15, 16, 17, 20, 21, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35] as const;
const VARIANT = 19;

/** The last id, written over by the next. */
const written = Buffer.alloc(36, "-");
let writtenAt = 0;

/** A UUID that grows with time, so that new runs stand side by side in the index: version 7, RFC 9562 §5.7. */
export function uuidv7(): string {
  const now = Date.now();
  if (now !== writtenAt) {
    const time = now.toString(16).padStart(12, "0");
    written.write(`${time.slice(0, 8)}-${time.slice(8)}-7`, "latin1");
    writtenAt = now;
  }
  if (drawn === random.length) {
    randomFillSync(random);
    drawn = 0;
  }
  for (let at = 0; at < PLACES.length; at += 2) {
    const byte = random[drawn++]!;
    written[PLACES[at]!] = HEX[byte >> 4]!;
    written[PLACES[at + 1]!] = HEX[byte & 15]!;
  }
  written[VARIANT] = HEX[8 + (random[drawn++]! & 3)]!;
  return written.toString("latin1");
}
