/** A worker process of the crash tests: its workflows, and what the test may tell it to do. */
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import {
  currentStep,
  event,
  Perdure,
  type PerdureOptions,
  step,
  stream,
  transaction,
  value,
  workflow,
} from "../../lib/index.ts";
import type { MemberOptions } from "../support/crew.ts";
import { without } from "../support/without.ts";
import { everything } from "./everything.ts";
import { topics } from "./topics.ts";

const {
  url,
  direct,
  schema,
  workflows: names,
  version,
  ...options
} = JSON.parse(process.argv[2]!) as MemberOptions & {
  url: string;
  direct: string;
  schema: string;
};
// The journal is written beside, straight to the server, whatever happens to the engine's connections.
const pool = new pg.Pool({ connectionString: direct, max: 4, idleTimeoutMillis: 200 });
pool.on("error", () => {});
const FOREVER = 3_600_000;

const ENTER = `with new as (insert into "${schema}".journal (run, step, pid) values ($1, $2, $3))
  select count(*)::int + 1 as times from "${schema}".journal where run = $1 and step = $2`;

/** Notes that a step is entered here, however long the server is away. Returns how often it has been, this time included. */
async function enter(run: string, name: string): Promise<number> {
  for (;;) {
    try {
      return (await pool.query(ENTER, [run, name, process.pid])).rows[0].times;
    } catch {
      await pause(20);
    }
  }
}

async function outside(run: string, name: string, key: string): Promise<void> {
  await pool.query(`insert into "${schema}".ledger (run, step) values ($1, $2)`, [run, `${name} for ${key}`]);
}

/** Enters a step; the first time in the step that is held, it stays there. */
async function pass(run: string, name: string, held: string): Promise<string> {
  const times = await enter(run, name);
  if (held === name && times === 1) await pause(FOREVER);
  return `${name} ${times}`;
}

const plain = (name: string) => step(name, (run: string, held: string) => pass(run, name, held));
const booked = (name: string) =>
  transaction(name, async (tx, run: string, held: string) => {
    await tx.query(`insert into "${schema}".ledger (run, step) values ($1, $2)`, [run, name]);
    return pass(run, name, held);
  });
const [create, charge, pack, bill, ship] = [
  plain("create"),
  booked("charge"),
  plain("pack"),
  booked("bill"),
  plain("ship"),
];

/** Five steps, two of them transactions. */
const five = workflow("five", async (run: string, held: string) => {
  const seen = [await create(run, held), await charge(run, held), await pack(run, held)];
  return [...seen, await bill(run, held), await ship(run, held)];
});

const beat = step("beat", async (_n: number) => void (await pause(250)));
/** Other runs in flight: three short steps. */
const traffic = workflow("traffic", async () => {
  for (let n = 0; n < 3; n += 1) await beat(n);
});

/** One step with a retry budget of two tries, which counts its tries. */
const tried = step(
  { name: "tried", retry: { type: "fixed", maxAttempts: 2, delay: 1 } },
  async (run: string, crashes: number, fails: number) => {
    const times = await enter(run, "tried");
    if (times <= crashes) await pause(FOREVER);
    if (times <= crashes + fails) throw new Error("no luck");
    return currentStep().attempt;
  },
);
const budget = workflow("budget", (run: string, crashes: number, fails: number) => tried(run, crashes, fails));

const once = step({ name: "once", onCrash: "fail" }, (run: string) => pass(run, "once", "once"));
/** A step that must not be run again after a crash. */
const fragile = workflow("fragile", async (run: string) => {
  try {
    return await once(run);
  } catch (error) {
    return (error as { code?: string }).code;
  }
});

const deadly = step("deadly", async (run: string) => {
  await enter(run, "deadly");
  process.kill(process.pid, "SIGKILL");
  await pause(FOREVER);
});
/** Kills every process that runs it. */
const poison = workflow("poison", async (run: string) => {
  await create(run, "");
  await deadly(run);
});

const perilous = step("perilous", async (run: string, n: number) => {
  if ((await enter(run, `perilous ${n}`)) > 1) return;
  process.kill(process.pid, "SIGKILL");
  await pause(FOREVER);
});
/** Kills a process in each of its steps, once: there is progress between. */
const stumbling = workflow("stumbling", async (run: string, steps: number) => {
  for (let n = 1; n <= steps; n += 1) await perilous(run, n);
  return "arrived";
});

const slowly = step("slowly", async (run: string, ms: number) => {
  await enter(run, "slowly");
  await pause(ms);
  return process.pid;
});
/** One step of a given length, then another. */
const slow = workflow("slow", async (run: string, ms: number) => {
  const pid = await slowly(run, ms);
  await create(run, "");
  return pid;
});

const blocked = step("blocked", async (run: string) => {
  await enter(run, "blocked");
  return process.pid;
});
/** Its body blocks the whole process between two steps: the first time that it comes there, and not where it is replayed elsewhere. */
const blocking = workflow("blocking", async (run: string, ms: number) => {
  await create(run, "");
  if (started.has(run)) block(ms);
  return blocked(run);
});
/** Runs that were started here. */
const started = new Set<string>();
const block = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

const go = event<string>("go");
/** Waits for an event between two steps. */
const waiting = workflow("waiting", async (run: string) => {
  await create(run, "");
  const { data } = await go.wait();
  await ship(run, "");
  return data;
});

const tally = step("tally", async (run: string, item: string) => void (await enter(run, `tally ${item}`)));
/** Takes one event after the other, each through a step. */
const turns = workflow("turns", async (run: string, count: number) => {
  const taken: string[] = [];
  for (let n = 0; n < count; n += 1) {
    const { data } = await go.wait();
    await tally(run, data);
    taken.push(data);
  }
  return taken;
});

const tokens = stream<[no: number, at: number]>("tokens");
const progress = value<number>("progress");
const speak = step("speak", async (run: string, from: number, count: number, gapMs: number) => {
  await enter(run, "speak");
  for (let no = from; no < from + count; no += 1) {
    await tokens.write([no, Date.now()]);
    await progress.set(no);
    if (gapMs > 0) await pause(gapMs);
  }
});
/** Writes numbers to a stream and a value, in one step or several. */
const talker = workflow("talker", async (run: string, steps: number, count: number, gapMs: number) => {
  for (let n = 0; n < steps; n += 1) await speak(run, n * count, count, gapMs);
  await progress.set(-1);
});

const versioned = workflow({ name: "versioned", version: version ?? "1" }, async (run: string) => {
  await create(run, "");
  return `version ${version ?? "1"}`;
});

const kitchen = everything({ enter, schema }, () => perdure);
const all = {
  five,
  traffic,
  budget,
  fragile,
  poison,
  stumbling,
  slow,
  blocking,
  waiting,
  turns,
  talker,
  versioned,
  ...topics({ enter, outside, schema }),
  ...kitchen.workflows,
};
const registered = Object.entries(all).filter(([name]) => names?.includes(name) ?? true);
const logged: string[] = [];
const log = (message: string, error?: unknown): void =>
  void logged.push(error === undefined ? message : `${message}: ${error}`);
const given = {
  ...(options as PerdureOptions),
  database: url,
  schema,
  workflows: registered.map(([, value]) => value),
  logger: { debug: log, info: log, warn: log, error: log },
};
const perdure: Perdure = new Perdure(without(given));

let loading = false;
/** Keeps so many runs in flight, started here one after another. */
async function load(width: number): Promise<void> {
  loading = true;
  const lane = async (): Promise<void> => {
    while (loading) await (await perdure.start(traffic)).result();
  };
  for (let n = 0; n < width; n += 1) void lane().catch((error: unknown) => log("load", error));
}

const orders: Record<string, (...args: any[]) => unknown> = {
  launch: () => perdure.launch(),
  start: async (name: keyof typeof all, id: string, ...args: unknown[]) => {
    started.add(id);
    return (await perdure.start(all[name].with({ id }) as never, ...(args as []))).id;
  },
  send: (ids: string[], name: string, data: unknown) => perdure.send(ids, event<any>(name), data),
  result: (id: string) => perdure.get(id).result(),
  play: (id: string) => kitchen.play(perdure, id),
  load,
  unload: () => {
    loading = false;
  },
  /** Nothing else happens in this process for so long. */
  block,
  shutdown: (timeout?: number) => perdure.shutdown(timeout === undefined ? {} : { timeout }),
  /** Shuts down and lets go of everything: the process ends by itself. */
  leave: async (timeout?: number) => {
    loading = false;
    await perdure.shutdown(timeout === undefined ? {} : { timeout });
    await pool.end();
    setImmediate(() => process.disconnect());
  },
  storm: async (times: number) => {
    for (let n = 0; n < times; n += 1) {
      const engine = new Perdure({ database: url, schema, workflows: [slow] });
      const launching = engine.launch();
      if (n % 2 === 0) await launching;
      await engine.shutdown();
      await launching.catch(() => {});
    }
  },
  log: () => logged,
};

interface Order {
  readonly no: number;
  readonly what: string;
  readonly args: unknown[];
}

async function carryOut({ no, what, args }: Order): Promise<void> {
  try {
    const value = await orders[what]!(...args);
    process.send?.({ no, value });
  } catch (error) {
    process.send?.({ no, error: String(error) });
  }
}

process.on("message", (order: Order) => void carryOut(order));
process.send!({ ready: true });
