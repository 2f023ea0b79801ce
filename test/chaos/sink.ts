/** The workflows of a chaos run: one that uses everything, its children, what a schedule starts, and one that kills its process. */
import { setTimeout as pause } from "node:timers/promises";
import {
  currentRun,
  currentStep,
  event,
  type Schedule,
  schedule,
  sleep,
  start,
  step,
  type TransactionClient,
  transaction,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import { KIDS, LANES, type Order, type Receipt, sha, UNDONE } from "./orders.ts";

/** The ledger, as a step sees it. */
export interface Port {
  /** Notes durably that a try begins, before it does anything. */
  enter(run: string, step: string, attempt: number, version: string): Promise<void>;
}

export interface Sinks {
  readonly sink: Workflow<[order: Order], Receipt>;
  readonly kid: Workflow<[parent: string, n: number], string>;
  readonly tick: Workflow<[], string>;
  readonly poison: Workflow<[], void>;
}

export const news = event<{ n: number }>("news");

/** Steps are this long, so that faults hit them: some are over at once. */
const LENGTHS_MS = [0, 1, 5, 20, 60, 150, 300, 700];
const work = (): Promise<void> => pause(LENGTHS_MS[Math.floor(Math.random() * LENGTHS_MS.length)]);

/** A version's workflows. Version 2 has a step more, at the end. */
export function sinks(version: string, port: Port): Sinks {
  const entered = async (): Promise<void> => {
    const { name, attempt } = currentStep();
    await port.enter(currentRun().id, name, attempt, version);
  };
  const plain = <T>(name: string) =>
    step(name, async (value: T): Promise<T> => {
      await entered();
      await work();
      return value;
    });
  const booked = (name: string) =>
    transaction(name, async (tx: TransactionClient): Promise<string> => {
      await entered();
      const run = currentRun().id;
      await tx.query("insert into chaos.effect (run, step, pid) values ($1, $2, $3)", [run, name, process.pid]);
      await work();
      return name;
    });
  const [receive, pack, close, audit] = [
    plain<number>("receive"),
    plain<number>("pack"),
    plain<string>("close"),
    plain<string>("audit"),
  ];
  const lanes = LANES.map((n) => plain<number>(`lane-${n}`));
  const [reserve, charge, ship, deliver, count] = ["reserve", "charge", "ship", "deliver", "count"].map(booked);
  const undo = Object.fromEntries(UNDONE.map((name) => [name, booked(name)]));
  const flaky = step(
    { name: "flaky", retry: { type: "fixed", maxAttempts: 4, delay: 50 } },
    async (failures: number): Promise<number> => {
      await entered();
      await work();
      if (currentStep().attempt <= failures) throw new Error("no luck");
      return failures;
    },
  );
  const refuse = step("refuse", async (): Promise<void> => {
    await entered();
    throw new RangeError("out of stock");
  });

  const kid = workflow({ name: "kid", version }, async (parent: string, n: number) => {
    await pack(n);
    await deliver!();
    return `kid ${n} of ${parent}`;
  });

  const sink = workflow({ name: "sink", version }, async (order: Order): Promise<Receipt> => {
    await receive(order.payload.length);
    await reserve!();
    await flaky(order.failures);
    const reached = await Promise.all(lanes.map((lane, at) => lane(LANES[at]!)));
    await sleep("nap", order.napMs);
    const [first, second] = [await news.wait(), await news.wait()];
    const handles = await Promise.all(Array.from({ length: KIDS }, (_, n) => start(kid, order.id, n)));
    const kids = await Promise.all(handles.map((handle) => handle.result()));
    await charge!();
    const undone: string[] = [];
    try {
      if (order.saga) await refuse();
      await ship!();
    } catch {
      for (const name of UNDONE) undone.push(await undo[name]!());
    }
    await close(order.id);
    if (version !== "1") await audit(version);
    const received = [first.data.n, second.data.n];
    return { id: order.id, version, news: received, kids, lanes: reached, undone, sha: sha(order.payload) };
  });

  const tick = workflow({ name: "tick", version }, async () => count!());

  const deadly = step("deadly", async (): Promise<void> => {
    await entered();
    process.kill(process.pid, "SIGKILL");
    await pause(60_000);
  });
  const poison = workflow({ name: "poison", version }, async () => {
    await receive(0);
    await deadly();
  });
  return { sink, kid, tick, poison };
}

export const EVERY_MS = 1000;

/** Two schedules: an interval, and a cron expression. Each slot of both is to fire, whatever happens meanwhile. */
export const schedulesOf = ({ tick }: Sinks): Schedule[] => [
  schedule("interval", { every: EVERY_MS, overlap: "allow", catchUp: "all" }, tick),
  schedule("cron", { cron: "*/5 * * * * *", timezone: "UTC", overlap: "allow", catchUp: "all" }, tick),
];
