/**
 * Two operations that cross: the first is stopped at one of the places where it takes a lock, writes or commits, the second runs into it, and the
 * first goes on, or is rolled back. Where that leads must be where one after the other leads.
 */
import pg from "pg";
import type { Test } from "tap";
import { Perdure } from "../../lib/index.ts";
import { INVARIANTS } from "../support/engine.ts";
import { freshSchema } from "../support/postgres.ts";
import type { Sql } from "../support/stranger.ts";
import { type Doer, OPERATIONS } from "./operations.ts";
import { COMMIT, dump, ROWS, type Situation, STAGE, WRITES } from "./scene.ts";

export interface Crossing {
  readonly situation: Situation;
  readonly first: string;
  readonly second: string;
  /** Where the first stops. */
  readonly gate: string;
  readonly rolledBack: boolean;
}

interface Session {
  readonly sql: Sql;
  readonly pid: number;
}

interface Outcome {
  /** What the callers were told, of those that are not repeated anyway. */
  readonly told: Readonly<Record<string, unknown>>;
  readonly left: string;
}

export const nameOf = ({ situation, first, second, gate, rolledBack }: Crossing): string =>
  `${situation}: "${first}" stopped at "${gate}"${rolledBack ? " and rolled back" : ""}, crossed by "${second}"`;

const TELL = "tell of ends";
const codeOf = (error: unknown): unknown => (error as { code?: unknown } | null)?.code;

export class Stage {
  readonly schema: string;
  readonly #a: Session;
  readonly #b: Session;
  readonly #gate: Session;
  readonly #watch: Session;
  readonly #gates = new Map<string, readonly string[]>();
  readonly #serial = new Map<string, Outcome>();

  private constructor(schema: string, [a, b, gate, watch]: readonly [Session, Session, Session, Session]) {
    this.schema = schema;
    this.#a = a;
    this.#b = b;
    this.#gate = gate;
    this.#watch = watch;
  }

  static async open(t: Pick<Test, "teardown">): Promise<Stage> {
    const { url, schema } = await freshSchema(t);
    await new Perdure({ database: url, schema }).migrate();
    const connect = async (name: string): Promise<Session> => {
      const client = new pg.Client({ connectionString: url, application_name: name });
      client.on("error", () => {});
      await client.connect();
      t.teardown(() => client.end());
      // A deadlock is not waited for; the longest wait of a test is.
      await client.query("set deadlock_timeout = '50ms'; set statement_timeout = '60s'");
      const sql: Sql = async (text, values = []) =>
        (await client.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
      return { sql, pid: (client as unknown as { processID: number }).processID };
    };
    const sessions = [await connect("A"), await connect("B"), await connect("G"), await connect("W")] as const;
    await sessions[3].sql(STAGE);
    await sessions[3].sql(INVARIANTS);
    return new Stage(schema, sessions);
  }

  /** The places where an operation stops in a situation: where it writes and commits, and at rows. `sure`: of these only where it waits. */
  async gatesOf(situation: Situation, name: string, sure: boolean): Promise<readonly string[]> {
    const key = `${situation} ${name}`;
    const known = this.#gates.get(key);
    if (known) return known;
    const keys = await this.#scene(situation);
    await this.#watch.sql("delete from :SCHEMA.reached");
    await this.#watch.sql("set application_name = 'P'");
    await this.#do(this.#watch, name, keys);
    await this.#watch.sql("set application_name = 'W'");
    const found = await this.#watch.sql("select distinct gate from :SCHEMA.reached");
    const reached = new Set(found.map(({ gate }) => gate));
    const gates = [...WRITES, COMMIT].filter((gate) => reached.has(gate));
    for (const row of Object.keys(ROWS)) if (!sure || (await this.#waitsFor(row, situation, name))) gates.push(row);
    this.#gates.set(key, gates);
    return gates;
  }

  async #waitsFor(gate: string, situation: Situation, name: string): Promise<boolean> {
    const keys = await this.#scene(situation);
    await this.#hold(gate);
    const work = this.#do(this.#a, name, keys);
    const waits = await this.#isBlocked(work, this.#a);
    await this.#gate.sql("commit");
    await work;
    return waits;
  }

  /** What is wrong with where a crossing leads; null: nothing. */
  async cross(crossing: Crossing): Promise<string | null> {
    const { situation, first, second, gate, rolledBack } = crossing;
    const keys = await this.#scene(situation);
    await this.#hold(gate);
    const a = this.#do(this.#a, first, keys);
    const stopped = await this.#isBlocked(a, this.#a);
    const b = this.#do(this.#b, second, keys);
    await this.#isBlocked(b, this.#b);
    if (rolledBack && stopped) {
      await this.#watch.sql("select pg_cancel_backend($1)", [this.#a.pid]);
      await a;
    }
    await this.#gate.sql("commit");
    const answers = { a: await a, b: await b };
    const cancelled = rolledBack && codeOf(answers.a) === "57014";
    const failed = [cancelled ? null : answers.a, answers.b].find((answer) => answer instanceof Error);
    if (failed) return `${codeOf(failed)}: ${(failed as Error).message}`;
    const told = { ...(cancelled ? {} : this.#told("a", first, answers.a)), ...this.#told("b", second, answers.b) };
    await this.#again([first, second], keys);
    const seen: Outcome = { told, left: await dump(this.#watch.sql) };
    const allowed: Outcome[] = [];
    for (const order of ordersOf(first, second, cancelled)) {
      allowed.push(await this.#inOrder(crossing, order));
      if (isSame(allowed.at(-1)!, seen)) return null;
    }
    return difference(seen, allowed);
  }

  async #scene(situation: Situation): Promise<Doer["keys"]> {
    const [keys] = await this.#watch.sql("select * from :SCHEMA.scene($1)", [situation]);
    return keys;
  }

  /** An error is an answer, too. */
  async #do({ sql }: Session, name: string, keys: Doer["keys"]): Promise<unknown> {
    const { run, repeated } = OPERATIONS[name]!;
    try {
      return await run({ sql, schema: this.schema, keys });
    } catch (error) {
      // It gives up where it would wait too long, and comes again.
      if (repeated && codeOf(error) === "55P03") return undefined;
      return error;
    }
  }

  async #hold(gate: string): Promise<void> {
    await this.#gate.sql("begin");
    if (Object.hasOwn(ROWS, gate)) await this.#gate.sql(ROWS[gate as keyof typeof ROWS]);
    else await this.#gate.sql("select pg_advisory_xact_lock(hashtext(:SCHEMA.channel()), hashtext($1))", [gate]);
  }

  /** Resolves when it waits for a lock (true), or has ended. */
  async #isBlocked(work: Promise<unknown>, { pid }: Session): Promise<boolean> {
    let ended = false;
    void work.then(() => {
      ended = true;
    });
    for (;;) {
      const [row] = await this.#watch.sql(
        "select exists (select from pg_locks where pid = $1 and not granted) as waits",
        [pid],
      );
      if (ended) return false;
      if (row.waits) return true;
    }
  }

  #told(who: "a" | "b", name: string, answer: unknown): Record<string, unknown> {
    return OPERATIONS[name]!.repeated ? {} : { [who]: answer ?? null };
  }

  /** What is done again and again anyway, and telling of ends that somebody could not be told of, before and after. What was not taken back the sweep takes. */
  async #again(names: readonly string[], keys: Doer["keys"]): Promise<void> {
    const repeated = [...new Set(names)].filter((name) => OPERATIONS[name]!.repeated);
    const swept = repeated.includes("take back") ? ["sweep"] : [];
    for (const name of [TELL, ...repeated, ...swept, TELL]) {
      const answer = await this.#do(this.#watch, name, keys);
      if (answer instanceof Error) throw answer;
    }
  }

  /** Where one after the other leads. */
  async #inOrder({ situation, first, second }: Crossing, order: readonly ("a" | "b")[]): Promise<Outcome> {
    const key = [situation, first, second, ...order].join("|");
    const known = this.#serial.get(key);
    if (known) return known;
    const keys = await this.#scene(situation);
    let told = {};
    for (const who of order) {
      const name = who === "a" ? first : second;
      const answer = await this.#do(this.#watch, name, keys);
      if (answer instanceof Error) throw answer;
      told = { ...told, ...this.#told(who, name, answer) };
    }
    await this.#again([first, second], keys);
    const outcome = { told, left: await dump(this.#watch.sql) };
    this.#serial.set(key, outcome);
    return outcome;
  }
}

/** The orders in which two may have come, also where one that is repeated passed over all that was locked. */
function ordersOf(first: string, second: string, cancelled: boolean): (readonly ("a" | "b")[])[] {
  const a = cancelled ? [] : (["a"] as const);
  const orders: (readonly ("a" | "b")[])[] = [
    [...a, "b"],
    ["b", ...a],
  ];
  if (OPERATIONS[first]!.repeated) orders.push(["b"]);
  if (OPERATIONS[second]!.repeated) orders.push(a);
  if (OPERATIONS[first]!.repeated && OPERATIONS[second]!.repeated) orders.push([]);
  return orders;
}

const isSame = (one: Outcome, other: Outcome): boolean =>
  one.left === other.left &&
  ["a", "b"].every((who) => JSON.stringify(one.told[who]) === JSON.stringify(other.told[who]));

/** What a crossing has led to and no order does, by table. */
function difference(seen: Outcome, allowed: readonly Outcome[]): string {
  const is = JSON.parse(seen.left);
  const others = allowed.map(({ left }) => JSON.parse(left));
  const text = (value: unknown): string => JSON.stringify(value) ?? "nothing";
  const odd = Object.keys(is).filter((table) => !others.every((other) => text(other[table]) === text(is[table])));
  const tables = odd.map(
    (table) =>
      `${table} ${text(is[table])} instead of ${[...new Set(others.map((other) => text(other[table])))].join(" or ")}`,
  );
  return `told ${text(seen.told)} instead of ${[...new Set(allowed.map(({ told }) => text(told)))].join(" or ")}; ${tables.join("; ")}`;
}
