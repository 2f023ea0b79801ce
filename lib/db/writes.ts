/**
 * The durable writes that travel in batches: for each kind its SQL function, what one row is, and what comes back.
 * The order here is the order in which a batch applies them; each sees the ones before.
 */

/** A write that belongs to a claim: refused, alone, when the claim is over. */
export interface Fenced {
  readonly run: string;
  readonly epoch: number;
}

/** ok: written. stale: the claim is over. mail, due: not suspended, there is news. resumed: not paused, it is to go on. */
export type Verdict = "ok" | "stale" | "mail" | "due" | "resumed";

export interface StartRow {
  readonly id: string;
  /** Nobody else can have the id: it was drawn for this start. */
  readonly isNew?: boolean;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly priority: number;
  readonly delay: number | null;
  readonly startAt: number | null;
  readonly timeout: number | null;
  readonly args: string;
  readonly hash: string;
  readonly options: string | null;
  readonly keep: boolean;
  /** A JSON array. */
  readonly tags: string | null;
  /** The claim of the parent that starts it as a child; null: it has none. */
  readonly run: string | null;
  readonly epoch: number | null;
  readonly detached: boolean;
  /** The schedule that starts it, and for which of its times, in ms since 1970. */
  readonly schedule: string | null;
  readonly scheduledFor: number | null;
  /** Whether there is a slot for it: asked when the batch is put together, as slots become free until then. */
  readonly lease: () => boolean;
}
export interface StartAnswer {
  readonly verdict: "created" | "existing" | "conflict" | "circle" | "stale";
  /** Null: it is none that its process works on, and was not asked for. */
  readonly key: string | null;
  readonly leased: boolean;
  readonly workflow: string | null;
  readonly state: string | null;
  readonly deadline_ms: number | null;
  readonly now_ms: number;
}

export interface WaitRow extends Fenced {
  readonly slot: string;
  readonly attempt: number;
  readonly kind: string;
  /** A JSON array: what raises it, beside the clock. */
  readonly topics: string;
  readonly length: number | null;
  readonly until: number | null;
  readonly tries: number;
}

export interface TryRow extends Fenced {
  readonly slot: string;
  readonly attempt: number;
  readonly try: number;
  readonly name: string;
  readonly started: number;
  readonly at: number | null;
  readonly error: string | null;
}

export interface RecordRow extends Fenced {
  readonly slot: string;
  readonly attempt: number;
  readonly no: number | null;
  readonly kind: string;
  readonly name: string;
  readonly outcome: string;
  readonly value: string | null;
  readonly hash: string | null;
  readonly tries: number;
  readonly started: number;
  readonly at: number;
  readonly mail: string | null;
}

export interface DeliverRow extends Fenced {
  readonly slot: string;
  readonly attempt: number;
  readonly no: number;
}

export interface PublishRow extends Fenced {
  /** The slot of the call in the body; null: a step writes. */
  readonly slot: string | null;
  readonly attempt: number;
  readonly no: number | null;
  readonly kind: string;
  readonly name: string;
  /** Null: the stream is closed. */
  readonly value: string | null;
  /** Grows with each write of the claim. */
  readonly seq: number;
  readonly at: number;
}

export interface SuspendRow extends Fenced {
  readonly mail: number;
  readonly slots: string;
  /** The how-manieth suspension of this process it is, if it keeps the run in memory; null: it does not. */
  readonly warm: number | null;
}

export interface RetryRow extends Fenced {
  readonly attempt: number;
  readonly error: string;
  readonly reopened: string;
  readonly delay: number;
}

export interface FinishRow extends Fenced {
  readonly state: "completed" | "failed";
  readonly value: string;
  /** Of a failure: the slots that it came from, as a JSON array. */
  readonly reopened: string | null;
}

/** What became of the runs that wait for the end of others. */
export interface Told {
  readonly woken: number | null;
  readonly working: number | null;
  /** Milliseconds until the first that is woken later; null: none. */
  readonly next_ms: number | null;
  /** Of how many ends not all have been told. */
  readonly untold: number | null;
}

export interface BlockRow extends Fenced {
  readonly reason: string;
}

export interface PostponeRow extends Fenced {
  readonly reason: string;
  readonly delay: number;
}

export interface SendRow {
  readonly id: string;
  readonly name: string;
  readonly data: string;
  readonly reference: string | null;
  readonly token: string;
}
export interface SendAnswer {
  readonly verdict: "sent" | "duplicate" | "finished" | "unknown";
  readonly key: string | null;
  readonly woken: boolean;
  readonly working: boolean;
  /** The worker that may have the woken run in memory. */
  readonly warm: string | null;
}

/** One row of `claim_runs`: see the type `loaded` in sql/schema/01-tables.sql. */
export interface LoadedRow {
  readonly key: string;
  readonly id: string;
  readonly workflow: string;
  readonly version: string;
  readonly queue: string;
  readonly epoch: number;
  readonly attempt: number;
  readonly crashes: number;
  readonly mail: number;
  readonly args: string | null;
  readonly options: string | null;
  readonly fork: string | null;
  readonly started_ms: number;
  readonly deadline_ms: number | null;
  readonly now_ms: number;
  readonly waits: string | null;
  readonly begun: string | null;
  readonly reopened_from: number | null;
  readonly last_no: number | null;
  readonly unread: string | null;
  readonly schedule: string | null;
  readonly slot_ms: number | null;
  readonly flexible: boolean;
  readonly followed: boolean;
  readonly reopened: string | null;
  readonly ended: string | null;
  readonly slot: string | null;
  readonly slot_attempt: number;
  readonly no: number | null;
  readonly kind: string;
  readonly name: string;
  readonly outcome: string;
  readonly value: string | null;
  readonly hash: string | null;
  readonly tries: number;
  readonly at_ms: number;
  readonly more: boolean;
  /** Of a claim: more runs are claimable than were asked for. */
  readonly backlog: boolean;
  /** Of a run that this process has in memory: what timers are due, and when the next one is. */
  readonly news: string | null;
}

interface Answered {
  readonly verdict: Verdict;
}
interface Timed extends Answered {
  /** When the first timer is due, in ms since 1970; null: none. */
  readonly due_ms: number | null;
}

/** Kind → its row and its answer. */
export interface Writes {
  handBack: { row: { readonly keep: () => string[] }; answer: { readonly handed: number; readonly held: number } };
  start: { row: StartRow; answer: StartAnswer };
  reclaim: { row: Fenced; answer: Answered };
  wait: { row: WaitRow; answer: Timed & { readonly ended: boolean } };
  try: { row: TryRow; answer: Answered };
  record: { row: RecordRow; answer: Answered };
  deliver: { row: DeliverRow; answer: Answered };
  publish: { row: PublishRow; answer: Answered };
  suspend: { row: SuspendRow; answer: Timed };
  retry: { row: RetryRow; answer: Timed };
  postpone: { row: PostponeRow; answer: Timed };
  block: { row: BlockRow; answer: Answered };
  rest: { row: Fenced; answer: Answered };
  finish: { row: FinishRow; answer: Answered & Told };
  tell: { row: { readonly limit: number }; answer: Told };
  send: { row: SendRow; answer: SendAnswer };
  due: {
    row: { readonly limit: number };
    answer: {
      readonly woken: number;
      readonly next_ms: number | null;
      readonly now_ms: number;
      readonly scheduled: boolean;
    };
  };
  claim: {
    /** `warmFrom`: the runs of suspensions before are not in memory any more. Both are asked when the batch is put together. */
    row: { readonly limit: () => number; readonly warmFrom: () => number };
    answer: { readonly loaded: readonly LoadedRow[] };
  };
}
export type WriteKind = keyof Writes;

/** Who is told of a write, in the midst of all the answers of its batch: none of this throws. */
export interface Hearer<K extends WriteKind> {
  /** It waits for a stranger's lock, beside the batches. */
  onAside(): void;
  resolve(answer: Writes[K]["answer"]): void;
  reject(error: unknown): void;
}

/** Where writes are handed in, for those who need no more of the flusher. Free of the driver's types, which applications may lack. */
export interface Writer {
  /** `onAside`: it is not in a batch, but waits for a stranger's lock; a start is not leased then. */
  write<K extends WriteKind>(kind: K, row: Writes[K]["row"], onAside?: () => void): Promise<Writes[K]["answer"]>;
  put<K extends WriteKind>(kind: K, row: Writes[K]["row"], hearer: Hearer<K>): void;
}

/** What a worker serves: parallel arrays of workflow, version and queue. */
export interface Lanes {
  readonly workflows: readonly string[];
  readonly versions: readonly string[];
  readonly queues: readonly string[];
}

/** What a batch's statements are told beside the rows. */
export interface BatchContext {
  readonly worker: string | null;
  readonly lanes: Lanes;
  /** Statements have names: each is prepared once in a session. */
  readonly named: boolean;
  /** The batch is issued again, as its first answer was lost. */
  readonly again: boolean;
  /** How long to wait for locks, in ms: rows of one run, written alone. Null: rows that are held are passed over. */
  readonly lockMs: number | null;
  /** A start has met a lock: each is tried by itself. */
  readonly apart: boolean;
}

/** How a kind becomes a statement. */
export interface WriteShape {
  readonly fn: string;
  /** The fields of a row that travel as arrays, in the order of the function's parameters. */
  readonly columns: readonly string[];
  /** Those of which the function takes one element for all rows, where all have the same. None of them is ever null. */
  readonly alike?: ReadonlySet<string>;
  /** The parameters after the arrays. */
  readonly rest: (context: BatchContext) => unknown[];
  /** One row only: its parameters in all. */
  readonly single?: (row: never, context: BatchContext) => unknown[];
}

const wait = ({ lockMs }: BatchContext): unknown[] => [lockMs !== null];
/** Whether some of the rows may be there already; also where they are written alone, as another statement that waits may have written them. */
const again = (c: BatchContext): unknown[] => [...wait(c), c.again || c.lockMs !== null];
const lanes = (c: BatchContext): unknown[] => [c.lanes.workflows, c.lanes.versions, c.lanes.queues];
const none = (): unknown[] => [];
const fenced = ["run", "epoch"];
const slotted = [...fenced, "slot", "attempt"];
/** What most checkpoints of a batch have the same of. */
const alike: ReadonlySet<string> = new Set(["epoch", "attempt", "kind", "name", "outcome", "tries", "state"]);

export const SHAPES: { readonly [K in WriteKind]: WriteShape } = {
  handBack: {
    fn: "hand_back",
    columns: [],
    rest: none,
    single: (row: Writes["handBack"]["row"], c) => [c.worker, row.keep()],
  },
  start: {
    fn: "start_runs",
    columns: [
      "id",
      "workflow",
      "version",
      "queue",
      "priority",
      "delay",
      "startAt",
      "timeout",
      "args",
      "hash",
      "options",
      "keep",
      "tags",
      "run",
      "epoch",
      "detached",
      "schedule",
      "scheduledFor",
      "lease",
    ],
    // Written alone it is not leased: no slot is kept for it.
    rest: (c) => [c.lockMs === null ? c.worker : null, ...lanes(c), ...wait(c)],
  },
  reclaim: { fn: "reclaim_runs", columns: fenced, rest: (c) => [c.worker, ...wait(c)] },
  wait: { fn: "begin_waits", columns: [...slotted, "kind", "topics", "length", "until", "tries"], rest: wait },
  try: { fn: "record_tries", columns: [...slotted, "try", "name", "started", "at", "error"], rest: wait },
  record: {
    fn: "record_steps",
    columns: [...slotted, "no", "kind", "name", "outcome", "value", "hash", "tries", "started", "at", "mail"],
    alike,
    rest: again,
  },
  deliver: { fn: "record_deliveries", columns: [...slotted, "no"], rest: wait },
  publish: { fn: "publish", columns: [...slotted, "no", "kind", "name", "value", "seq", "at"], rest: wait },
  suspend: { fn: "suspend_runs", columns: [...fenced, "mail", "slots", "warm"], rest: (c) => [c.worker, ...wait(c)] },
  retry: { fn: "next_attempts", columns: [...fenced, "attempt", "error", "reopened", "delay"], rest: wait },
  postpone: { fn: "postpone_runs", columns: [...fenced, "reason", "delay"], rest: wait },
  block: { fn: "block_runs", columns: [...fenced, "reason"], rest: wait },
  rest: { fn: "rest_runs", columns: fenced, rest: wait },
  finish: { fn: "finish_runs", columns: [...fenced, "state", "value", "reopened"], rest: wait },
  tell: { fn: "tell_untold", columns: [], rest: none, single: (row: Writes["tell"]["row"]) => [row.limit] },
  send: {
    fn: "send_events",
    columns: ["id", "name", "data", "reference", "token"],
    rest: (c) => [c.again, ...wait(c)],
  },
  due: { fn: "wake_due", columns: [], rest: none, single: (row: Writes["due"]["row"]) => [row.limit] },
  claim: {
    fn: "claim_runs",
    columns: [],
    rest: none,
    single: (row: Writes["claim"]["row"], c) => [c.worker, ...lanes(c), row.limit(), row.warmFrom()],
  },
};

/** The last step of runs and their end, in one statement. */
export const ENDS = {
  fn: "end_runs",
  step: [...slotted, "no", "name", "outcome", "value", "hash", "started", "at"],
  end: ["state", "value", "reopened"],
  alike,
  rest: again,
} as const;

/** The order in which a batch applies its kinds. */
export const WRITE_ORDER = Object.keys(SHAPES) as WriteKind[];
