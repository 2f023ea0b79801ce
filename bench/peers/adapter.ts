/**
 * What every contender is asked for, behind one interface. The workflows are written once, over a context that each contender fills
 * with its own steps, waits and sleeps; what they reach they tell to the process that measures.
 */

/** The workflows, by name. Each takes a mark, by which it is known to who measures. */
export const KINDS = ["one-step", "ten-steps", "told", "waiter", "sleeper", "held"] as const;
export type Kind = (typeof KINDS)[number];

/** Settings that fit a question. `default`: as the package comes, where it comes with something that works at all. */
export type Setup = "default" | "throughput" | "latency" | "recovery" | "waiting";

/** What not every contender has. */
export type Ability = "steps" | "results" | "events" | "sleeps";

/** What a running body does by the means of its library. */
export interface Context {
  /** A recorded step that returns n + 1; the `at`-th of its run. */
  addOne(n: number, at: number): Promise<number>;
  /** Another recorded step. */
  step(name: string, work: () => Promise<void>): Promise<void>;
  /** Waits until the event of this run has come. */
  event(): Promise<void>;
  sleep(ms: number): Promise<void>;
}

/** What bodies tell the process that measures. Times are those of one clock for all processes of the machine. */
export interface Teller {
  begins(): void;
  ends(): void;
  /** The body is where its mark is waited for. */
  tells(mark: string): void;
  waits(mark: string): void;
  /** The body asks to sleep: the first time that it does counts. */
  sleeps(mark: string): void;
  /** Holds the process that is meant to be killed; any other goes on. */
  holds(mark: string): Promise<void>;
}

/** How long each of the sleepers sleeps. */
export const SLEEP_MS = 1000;

type Flow = (context: Context, mark: string, teller: Teller) => Promise<number | null>;

async function steps(count: number, context: Context, teller: Teller): Promise<number> {
  teller.begins();
  let n = 1;
  for (let at = 0; at < count; at += 1) n = await context.addOne(n, at);
  teller.ends();
  return n;
}

export const FLOWS: Readonly<Record<Kind, Flow>> = {
  "one-step": (context, _mark, teller) => steps(1, context, teller),
  "ten-steps": (context, _mark, teller) => steps(10, context, teller),
  told: async (_context, mark, teller) => {
    teller.tells(mark);
    return null;
  },
  waiter: async (context, mark, teller) => {
    teller.waits(mark);
    await context.event();
    teller.tells(mark);
    return null;
  },
  sleeper: async (context, mark, teller) => {
    teller.sleeps(mark);
    await context.sleep(SLEEP_MS);
    teller.tells(mark);
    return null;
  },
  held: async (context, mark, teller) => {
    await context.step("first", async () => {});
    await context.step("second", () => teller.holds(mark));
    return null;
  },
};

/** Starts and sends, in the process that measures. */
export interface Client {
  /** So many at once, by the fastest means that the contender documents. */
  startMany(kind: Kind, count: number): Promise<void>;
  start(kind: Kind, mark: string): Promise<void>;
  /** Sends the waiter with this mark its event. */
  send(mark: string): Promise<void>;
  close(): Promise<void>;
}

/** A worker at work, in a process of its own. */
export interface Worker {
  /** Starts a one-step workflow in this process and awaits its result. */
  once(): Promise<unknown>;
  stop(): Promise<void>;
}

export interface Adapter {
  readonly can: readonly Ability[];
  /** What is set, in words; only the setups that differ are there. */
  readonly setups: Readonly<Partial<Record<Setup, string>>>;
  /** In the setup for recovery, what died is gone on with by a process started after it. */
  readonly restarts?: true;
  /** Makes the tables, and a queue that fits the setup, in a database that is empty. */
  prepare(url: string, setup: Setup): Promise<void>;
  connect(url: string): Promise<Client>;
  work(url: string, setup: Setup, teller: Teller): Promise<Worker>;
  /** A query whose only column says whether there is work that has not finished. */
  readonly left: string;
  /**
   * The tables that a workflow has rows in, and the columns that must differ between two: for row `t` and the `g`-th copy of it, in SQL.
   * Left out where nothing is kept of what has finished.
   */
  readonly kept?: readonly (readonly [table: string, differing: Readonly<Record<string, string>>])[];
}

/** Another uuid for the g-th copy, beside that of the original. */
export const otherUuid = (column: string): string => `(left(t.${column}::text, 24) || lpad(to_hex(g), 12, '0'))::uuid`;
/** Another text for the g-th copy. */
export const otherText = (column: string): string => `t.${column} || '-' || g`;

const MANY = 500;

/** Starts them one call each, so many calls under way at once. */
export async function oneByOne(count: number, start: () => Promise<unknown>, width: number = MANY): Promise<void> {
  let left = count;
  const lane = async (): Promise<void> => {
    while (left-- > 0) await start();
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, lane));
}

/** The ways of one event per waiter that know no mailbox of a run: its name holds the mark. */
export const eventOf = (mark: string): string => `news:${mark}`;
