/** What a stranger tried of logs, classes and strict mode that held. */
import { createHash, randomBytes } from "node:crypto";
import { test } from "tap";
import type { Codec } from "../../lib/codec/index.ts";
import {
  currentRun,
  durable,
  event,
  type Perdure,
  patched,
  race,
  runStep,
  sleep,
  start,
  step,
  value,
  workflow,
} from "../../lib/index.ts";
import { bench, collector } from "../support/engine.ts";

const patient = { timeout: "40s" } as const;

test("strict mode lets the application's own codec ask for the randomness that it needs", async (t) => {
  const logger = collector();
  const codec: Codec = {
    name: "own",
    encode: (data) => ({ data: Buffer.concat([randomBytes(12), data]) }),
    decode: ({ data }) => data.subarray(Date.now() > 0 ? 12 : 0),
    hash: (text) =>
      createHash("sha256")
        .update(`${text}${Date.now() > 0}`)
        .digest("base64url"),
  };
  const note = step("note", async (text: string) => text);
  const work = workflow("work", async () => note("x"));
  const { perdure } = await bench(t, { workflows: [work], logger, strict: true, codec });
  t.equal(await (await perdure.start(work)).result(patient), "x");
  t.same(
    logger.lines.filter((line) => line.includes("in the body of workflow")),
    [],
  );
});

/** Numbers from a seed, so that a run that lost a line can be run again. */
function dice(seed: number): (sides: number) => number {
  let at = seed;
  return (sides) => {
    at = (Math.imul(at, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((at / 2 ** 32) * sides);
  };
}

test("of 30 runs of any shape, handed from engine to engine and paused, each line is written once", async (t) => {
  const counts = new Map<string, number>();
  const info = (line: string): void => void counts.set(line, (counts.get(line) ?? 0) + 1);
  const logger = { ...collector(), info };
  const [mail, none, board] = [event<number>("mail"), event("none"), value<number>("board")];
  const tried = new Set<string>();
  const ok = step("ok", async (n: number) => n);
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 2, delay: 5 } }, async (at: string) => {
    const first = !tried.has(at);
    tried.add(at);
    if (first) throw new Error("not yet");
  });
  const child = workflow("child", async (n: number) => {
    currentRun().log.info("child begins");
    await sleep(20);
    currentRun().log.info("child ends");
    return n;
  });
  const work = workflow("work", async (seed: number) => {
    const roll = dice(seed);
    let said = 0;
    const say = (text: string): void => currentRun().log.info(`${text} ${said++}`);
    const branch = async (name: string, waits: number): Promise<void> => {
      currentRun().log.info(`${name} begins`);
      await (waits === 0 ? sleep(10) : waits === 1 ? mail.wait({ timeout: 15 }) : flaky(`${seed} ${name}`));
      currentRun().log.info(`${name} ends`);
    };
    const kinds: ((n: number) => unknown)[] = [
      (n) => ok(n),
      (n) => flaky(`${seed} ${n}`),
      (n) => sleep(5 + n),
      () => mail.wait({ timeout: 40 }),
      () => race({ mail, none, late: 25 }),
      (n) => child(n),
      async (n) => (await start(child, n)).result(),
      (n) => board.set(n),
      (n) => patched(`change ${n}`),
      () => runStep("fails", () => Promise.reject(new Error("no"))),
      (n) => Promise.all([0, 1, 2].map((way) => branch(`branch ${n}.${way}`, (way + n) % 3))),
    ];
    for (let n = 0; n < 8; n += 1) {
      try {
        await kinds[roll(kinds.length)]!(n);
      } catch {
        say("caught");
      } finally {
        say("finally");
      }
    }
    say("ends");
    return said;
  });
  const workflows = [work, child];
  const { perdure: client, another } = await bench(t, { workflows, logger, worker: false });
  const launch = (): Promise<Perdure> => another({ worker: {} });
  const alive = [await launch(), await launch()];
  const runs = await Promise.all(
    Array.from({ length: 30 }, (_, n) => client.start(work.with({ id: `r${n}` }), n * 7919)),
  );
  let done = false;
  const results = Promise.all(runs.map((run) => run.result(patient))).finally(() => {
    done = true;
  });
  results.catch(() => {});
  const roll = dice(42);
  while (!done) {
    const run = runs[roll(runs.length)]!;
    await run.send(mail, 1, { ignoreFinished: true });
    await run.pause().catch(() => {});
    await run.resume().catch(() => {});
    const gone = alive.shift()!;
    alive.push((await Promise.all([launch(), gone.shutdown()]))[0]);
  }
  const said = await results;
  t.same(
    [...counts].filter(([, times]) => times > 1),
    [],
    "no line twice",
  );
  const lines = [...counts.keys()];
  for (const [n, wanted] of said.entries()) {
    const own = lines.filter((line) => line.startsWith(`[r${n} work/1] `) && !line.includes("branch"));
    t.equal(own.length, wanted, `all lines of run r${n}`);
  }
  const [begun, ended] = ["begins", "ends"].map((word) => lines.filter((line) => line.endsWith(word)).length);
  t.equal(begun, ended);
});

test("a method that its own constructor binds is the step and the workflow all the same", async (t) => {
  class Service {
    constructor() {
      this.name = this.name.bind(this);
      this.process = this.process.bind(this);
    }
    @step()
    async name(): Promise<string> {
      return currentRun().workflow;
    }
    @workflow()
    async process(): Promise<string> {
      return this.name();
    }
  }
  const service = new Service();
  const { perdure } = await bench(t, { workflows: [service] });
  t.equal(await service.process(), "Service.process");
  const run = await perdure.start("Service.process");
  t.equal(await run.result(patient), "Service.process");
  t.same(
    (await run.history()).map(({ name }) => name),
    ["Service.name"],
  );
});

test("two classes of one mixin have names of their own, and one instance calls another as a child", async (t) => {
  const counting = <T extends new (...given: any[]) => object>(Base: T) =>
    class extends Base {
      @step()
      async next(n: number): Promise<number> {
        return n + 1;
      }
    };
  class Orders extends counting(Object) {
    @workflow()
    async run(): Promise<string> {
      return `${currentRun().workflow} ${await this.next(1)}`;
    }
  }
  class Bills extends counting(Object) {
    readonly #orders: Orders;
    constructor(orders: Orders) {
      super();
      this.#orders = orders;
    }
    @workflow()
    async run(): Promise<string> {
      return `${currentRun().workflow} ${await this.next(2)}, ${await this.#orders.run()}`;
    }
  }
  const orders = new Orders();
  const bills = new Bills(orders);
  const { perdure } = await bench(t, { workflows: [orders, bills] });
  const run = await perdure.start(durable(bills.run).with({ id: "b" }));
  t.equal(await run.result(patient), "Bills.run 3, Orders.run 2");
});
