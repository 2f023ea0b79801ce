/** One batch: the rows of each kind become one statement, all in one transaction, sent in one round trip. */
import type { Writable } from "node:stream";
import type { ClientBase, QueryConfig, QueryResult } from "pg";
import { type After, type HintTurn, hintBehind, NO_HINT, serves } from "./behind.ts";
import type { News, Told } from "./flusher.ts";
import { type Group, groupByKind, joinEnds } from "./groups.ts";
import type { Lane } from "./hint.ts";
import { partNew } from "./new-runs.ts";
import { TYPES } from "./reading.ts";
import { statementOf } from "./statement.ts";
import { didSwiftly, mayBeSwift, START_LOCK_MS, swift } from "./swift.ts";
import {
  type BatchContext,
  type Told as Ends,
  type Fenced,
  type SendAnswer,
  SHAPES,
  type StartRow,
  type WriteKind,
} from "./writes.ts";

/** A queued write. */
export interface Item {
  readonly kind: WriteKind;
  readonly row: unknown;
  /** Writes of the same lane keep their order; null: none. */
  readonly lane: string | null;
  /** When it was queued, in ms by the monotonic clock; of a run's own writes, which wait for as long as it takes, 0. */
  readonly since: number;
  readonly told: Told<any>;
}

export interface Batch {
  readonly answered: readonly { readonly item: Item; readonly answer: unknown }[];
  /** Rows that a stranger's transaction held. */
  readonly busy: readonly Item[];
  readonly news: News | null;
}

// Set here, in each transaction: whatever default the role or the database has, nothing of the session is relied on.
const BEGIN = "begin isolation level read committed read write";
const beginWith = (lockMs: number): string => `${BEGIN}; set local lock_timeout = ${lockMs}`;

type Answer = { ord: number | null; verdict: string; [column: string]: unknown };

/**
 * Runs a batch. Throws what the database throws; then nothing of the batch is written, or its answer was lost. A hint may follow it at once,
 * in the same packet: then it is on its way before this process knows of the commit.
 */
export async function runBatch(
  client: ClientBase,
  items: readonly Item[],
  context: BatchContext & { readonly schema: string },
  hintTurn: HintTurn,
): Promise<Batch> {
  const kinds = groupByKind(items);
  const after = isPipelined(client) ? hintBehind(kinds, context, hintTurn) : NO_HINT;
  const groups = partNew(joinEnds(kinds), context);
  const quick = quickly(client, groups, context);
  if (!quick) return readBatch(groups, await runPlain(client, groups, context, after), after.letters, context);
  const [answer] = (await sendAll(client, [quick], after)) as [QueryResult];
  const done = didSwiftly(client, groups as [Group, ...Group[]], answer);
  // The hint has been, before there is anything to hear of.
  if (!done) return readBatch(groups, await runPlain(client, groups, context, NO_HINT), "", context);
  const rest = groups.slice(done.length);
  const results = rest.length > 0 ? [...done, ...(await runPlain(client, rest, context, NO_HINT))] : done;
  return readBatch(groups, results, after.letters, context);
}

const quickly = (client: ClientBase, groups: readonly Group[], context: BatchContext & { readonly schema: string }) =>
  context.named && isPipelined(client) && mayBeSwift(client) ? swift(client, groups, context) : null;

/** By the functions, in one transaction. */
async function runPlain(
  client: ClientBase,
  groups: readonly Group[],
  context: BatchContext & { readonly schema: string },
  after: After,
): Promise<QueryResult[]> {
  if (groups.length === 1 && context.lockMs === null && isPipelined(client)) {
    const result = await runLone(client, groups[0]!, context, after);
    if (result) return [result];
  }
  const lockMs = context.lockMs ?? (!context.apart && groups.some((g) => g.kind === "start") ? START_LOCK_MS : null);
  const queries: (string | (QueryConfig & { types?: typeof TYPES }))[] = [lockMs === null ? BEGIN : beginWith(lockMs)];
  for (const group of groups) queries.push({ ...statementOf(group, context), types: TYPES });
  queries.push("commit");
  const results = await (isPipelined(client) ? sendAll(client, queries, after) : sendOneByOne(client, queries));
  if (results.at(-1)!.command !== "COMMIT") throw new Error("the batch was rolled back");
  return results.slice(1);
}

/** Connections: whether their transactions are by default what BEGIN asks for. */
const asBegun = new WeakMap<ClientBase, boolean>();
const IS_AS_BEGUN =
  "current_setting('transaction_isolation') = 'read committed' and current_setting('transaction_read_only') = 'off'";

/**
 * A statement that is a transaction of its own: two messages less than between BEGIN and COMMIT. Null: nothing was executed, as by default
 * this session's transactions are of another kind.
 */
async function runLone(
  client: ClientBase,
  group: Group,
  context: BatchContext & { readonly schema: string },
  after: After,
): Promise<QueryResult | null> {
  if (asBegun.get(client) === false) return null;
  const { name, text, values } = statementOf(group, context);
  const wait = `$${values.length})`;
  // An argument is evaluated before the function.
  const withTimeout = `set_config('lock_timeout', '${START_LOCK_MS}ms', true) is null or ${wait}`;
  const timed = group.kind === "start" && !group.isNew && !context.apart ? text.replace(wait, withTimeout) : text;
  const query = { name: name && `${name}:lone`, text: `${timed} where ${IS_AS_BEGUN}`, values, types: TYPES };
  const [result] = (await sendAll(client, [query], after)) as [QueryResult];
  if (result.rows.length > 0) asBegun.set(client, true);
  else if (group.kind !== "claim" && group.kind !== "tell") asBegun.set(client, false);
  // A claim that found nothing has no rows either: without another statement before it, the session is asked.
  else if (!asBegun.has(client)) {
    const [asked] = (await sendAll(client, [`select ${IS_AS_BEGUN} as "is"`], NO_HINT)) as [QueryResult];
    asBegun.set(client, asked.rows[0].is);
  }
  return asBegun.get(client) ? result : null;
}

const isPipelined = (client: ClientBase): boolean => (client as { pipeline?: boolean }).pipeline === true;

/**
 * One round trip. All results, or the first error once every answer is in: the connection is quiet then. What comes `after` goes in the same
 * packet, is a transaction of its own, and nobody waits for it.
 */
function sendAll(
  client: ClientBase,
  queries: readonly (string | QueryConfig)[],
  { query, told }: After,
): Promise<QueryResult[]> {
  const { stream } = (client as unknown as { connection: { stream: Writable } }).connection;
  // One packet: the driver would send one for each statement.
  stream.cork();
  const answers = new Promise<QueryResult[]>((resolve, reject) => {
    const results: QueryResult[] = [];
    let failure: unknown;
    let left = queries.length;
    queries.forEach((query, at) => {
      client.query(query as QueryConfig, (error: unknown, result) => {
        if (error) failure ??= error;
        else results[at] = result;
        left -= 1;
        if (left > 0) return;
        if (failure) reject(failure);
        else resolve(results);
      });
    });
  });
  if (query) client.query(query, (error: unknown, result) => told(!error && result.rows.length > 0));
  stream.uncork();
  return answers;
}

async function sendOneByOne(client: ClientBase, queries: readonly (string | QueryConfig)[]): Promise<QueryResult[]> {
  const results: QueryResult[] = [];
  try {
    for (const query of queries) results.push(await client.query(query as QueryConfig));
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
  return results;
}

function readBatch(
  groups: readonly Group[],
  results: readonly QueryResult[],
  hinted: string,
  context: BatchContext,
): Batch {
  const answered: { item: Item; answer: unknown }[] = [];
  const busy: Item[] = [];
  const news: News = {
    work: 0,
    foreign: 0,
    hintedWork: 0,
    done: 0,
    change: 0,
    hintedChange: 0,
    laterMs: null,
    untold: false,
    published: 0,
    touched: new Set(),
    hinted,
  };
  groups.forEach((group, at) => {
    const rows = group.isNew ? (results[at]!.rows as Answer[]) : ofEach(results[at]!.rows as Answer[], group);
    if (group.isNew) for (const item of group.items) answered.push({ item, answer: rows[0] });
    else if (group.kind === "claim") answered.push({ item: group.items[0]!, answer: { loaded: rows } });
    else if (SHAPES[group.kind].single) answered.push({ item: group.items[0]!, answer: rows[0] ?? {} });
    else {
      rows.forEach((row, index) => {
        const place = placeOf(row, index);
        const item = group.items[place]!;
        const step = group.steps?.[place];
        if (step) {
          if (row.recorded === "busy") busy.push(step);
          else answered.push({ item: step, answer: row.recorded === row.verdict ? row : { verdict: row.recorded } });
        }
        if (row.verdict === "busy") busy.push(item);
        else answered.push({ item, answer: row });
      });
    }
    addNews(news, group, rows, context);
  });
  return { ...behind(answered, busy), news };
}

/** The answers to the rows of a group: one without a number is the answer to each, as all are well. */
function ofEach(rows: Answer[], { items }: Group): Answer[] {
  const [first] = rows;
  return first?.ord === null ? items.map(() => first) : rows;
}

/** Of which item an answer is. */
const placeOf = ({ ord }: Answer, index: number): number => (ord === null ? index : ord - 1);

/** Events for runs whose start waits for a lock: they wait behind it. */
function behind(answered: Batch["answered"], busy: readonly Item[]): Pick<Batch, "answered" | "busy"> {
  if (busy.length === 0) return { answered, busy };
  const lanes = new Set(busy.map(({ lane }) => lane));
  const waits = ({ item, answer }: Batch["answered"][number]): boolean =>
    lanes.has(item.lane) && (answer as Partial<SendAnswer>).verdict === "unknown";
  return {
    answered: answered.filter((one) => !waits(one)),
    busy: [...busy, ...answered.filter(waits).map(({ item }) => item)],
  };
}

function addNews(
  news: News,
  { kind, items, isNew }: Group,
  rows: readonly Answer[],
  { lanes, worker }: BatchContext,
): void {
  const ok = (): number => rows.filter((row) => row.verdict === "ok").length;
  if (isNew) addWork(news, items.length, () => items.filter(({ row }) => !serves(lanes, row as StartRow)).length);
  else if (kind === "start") {
    const started = rows
      .filter((row) => row.verdict === "created" && !row.leased)
      .map((row) => items[row.ord! - 1]!.row as StartRow);
    addWork(news, started.length, () => started.filter((row) => !serves(lanes, row)).length);
  } else if (kind === "send") {
    const woken = rows.filter((row) => row.woken);
    const isForeign = (row: Answer): boolean => !serves(lanes, row as unknown as Lane) || isWarmElsewhere(row, worker);
    addWork(news, woken.length, () => woken.filter(isForeign).length);
    const working = rows.filter((row) => row.working).length;
    news.change += working;
    if (news.hinted.includes("c")) news.hintedChange += working;
  } else if (kind === "due") {
    const left = Number(rows[0]!.left ?? rows[0]!.woken);
    news.work += left;
    news.foreign += left;
  } else if (kind === "claim") {
    // The last kind: a claim that left nothing behind has taken what this process may take of all that. Else it would ask again, and who asks
    // leases no start at birth until it has its answer.
    if (rows.length > 0 && !rows[0]!.backlog) {
      news.work = news.foreign;
      news.hintedWork = 0;
    }
  } else if (kind === "handBack") news.work += Number(rows[0]!.handed);
  else if (kind === "retry") news.work += ok();
  else if (kind === "finish") {
    news.done += ok();
    touch(news, items, rows);
    addTold(news, rows[0] as Ends | undefined);
  } else if (kind === "tell") addTold(news, rows[0] as Ends | undefined);
  else if (kind === "publish") {
    news.published += ok();
    touch(news, items, rows);
  }
}

function addWork(news: News, count: number, foreign: () => number): void {
  news.work += count;
  if (news.hinted.includes("w")) news.hintedWork += count;
  else news.foreign += foreign();
}

function touch({ touched }: News, items: readonly Item[], rows: readonly Answer[]): void {
  rows.forEach((row, index) => {
    if (row.verdict === "ok") touched.add((items[placeOf(row, index)]!.row as Fenced).run);
  });
}

/** Runs that were told of ends: whose they are is not known here. */
function addTold(news: News, told: Partial<Ends> | undefined): void {
  const woken = told?.woken ?? 0;
  news.work += woken;
  news.foreign += woken;
  news.change += told?.working ?? 0;
  news.laterMs = told?.next_ms ?? null;
  news.untold = (told?.untold ?? 0) > 0;
}

/** Another process has the run in memory, and is to take it. */
const isWarmElsewhere = ({ warm }: Answer, worker: string | null): boolean => warm !== null && warm !== worker;
