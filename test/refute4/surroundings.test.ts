/** What a stranger found of the code around an engine, its async context, its services, its connections: each is one promise that did not hold. */
import { AsyncLocalStorage } from "node:async_hooks";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { mock } from "node:test";
import pg from "pg";
import { type Test, test } from "tap";
import {
  currentRun,
  currentStep,
  event,
  named,
  type PerdureError,
  runStep,
  type Step,
  sleep,
  step,
  workflow,
} from "../../lib/index.ts";
import { bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { reaches, rejection } from "../support/gate.ts";
import { freshDatabase, server } from "../support/postgres.ts";
import { compile, ROOT } from "../support/readme.ts";

const patient = { timeout: "20s" } as const;
const store = new AsyncLocalStorage<string>();
const seen = async (): Promise<string> => store.getStore() ?? "none";

test("a run does not see the async context of another's request", async (t) => {
  const work = workflow("work", async (_: string) => [
    await seen(),
    await runStep("s", seen),
    await sleep(5),
    await seen(),
  ]);
  const { perdure } = await bench(t, { workflows: [work], worker: { concurrency: 1 } });
  const tenants = ["A", "B", "C"];
  const runs = await Promise.all(tenants.map((tenant) => store.run(tenant, () => perdure.start(work, tenant))));
  for (const [at, run] of runs.entries()) {
    const others = tenants.filter((tenant) => tenant !== tenants[at]);
    const found = (await run.result(patient)).filter((one) => others.includes(one as string));
    t.same(found, [], `in the run of tenant ${tenants[at]}`);
  }
});

test("what a run sees of the async context is the same live and on replay", async (t) => {
  const go = event("go");
  const sights: string[] = [];
  const work = workflow("work", async () => {
    sights.push(await seen());
    await go.wait();
  });
  const { perdure, another } = await bench(t, { workflows: [work] });
  const run = await store.run("the starter's", () => perdure.start(work));
  await reaches(run, "suspended");
  await perdure.shutdown();
  const other = await another();
  await store.run("the sender's", () => other.send(run.id, go, undefined));
  await other.get(run.id).result(patient);
  t.equal(new Set(sights).size, 1, sights.join(", then "));
});

test("a step that is called in an async context of the body's own runs in it, the second one too", async (t) => {
  const look = step("look", seen);
  const work = workflow("work", () => store.run("the body's", async () => [await look(), await look(), await look()]));
  const { perdure } = await bench(t, { workflows: [work] });
  const run = await store.run("the starter's", () => perdure.start(work));
  t.same(await run.result(patient), ["the body's", "the body's", "the body's"]);
});

test("a further try of a step, and what judges it, are in the context of the call; what makes a run's context is in nobody's", async (t) => {
  const sights: string[] = [];
  const note = async (what: string): Promise<boolean> => {
    sights.push(`${what}: ${await seen()} of ${currentRun().workflow}`);
    return true;
  };
  const retry = (what: string) => ({
    type: "fixed" as const,
    maxAttempts: 2,
    delay: 1,
    shouldRetry: () => note(what),
  });
  const flaky = step({ name: "flaky", retry: retry("judged") }, async () => {
    await note(`try ${currentStep().attempt}`);
    if (currentStep().attempt === 1) throw new Error("once");
  });
  const work = workflow({ name: "work", retry: retry("run judged") }, async () => {
    await store.run("the body's", flaky);
    if (currentRun().attempt === 1) throw new Error("once");
  });
  const context = async (): Promise<object> => ({ seen: sights.push(`made: ${await seen()}`) });
  const { perdure } = await bench(t, { workflows: [work], context });
  await (await store.run("the starter's", () => perdure.start(work))).result(patient);
  t.strictSame(sights.slice(0, 5), [
    "made: none",
    "try 1: the body's of work",
    "judged: the body's of work",
    "try 2: the body's of work",
    "run judged: none of work",
  ]);
  t.notMatch(sights, /starter/);
});

test("two instances with one step name are not mistaken for each other in a run: the second one's call is refused, with both named", async (t) => {
  class Warehouse {
    readonly #place: string;
    constructor(place: string) {
      this.#place = place;
    }
    @step()
    async pack(order: string): Promise<string> {
      return `${order} in ${this.#place}`;
    }
  }
  class Shop {
    readonly eu = new Warehouse("eu");
    readonly us = new Warehouse("us");
    readonly asia = named("asia", new Warehouse("asia"));
    @workflow()
    async one(order: string): Promise<string[]> {
      return [await this.eu.pack(order), await this.eu.pack(order), await this.asia.pack(order)];
    }
    @workflow()
    async both(order: string): Promise<string[]> {
      return Promise.all([this.eu.pack(order), withTime(this.us.pack)(order)]);
    }
  }
  const withTime = (pack: Warehouse["pack"]) => (pack as Step<Warehouse["pack"]>).with({ timeout: "1m" });
  const { perdure } = await bench(t, { workflows: [new Shop()] });
  t.same(await (await perdure.start("Shop.one", "o")).result(patient), ["o in eu", "o in eu", "o in asia"]);
  const { error } = await rejection((await perdure.start("Shop.both", "o")).result(patient));
  const which = /an instance of class Warehouse at .*surroundings\.test\.[tj]s:\d+/.source;
  const cause = error.cause as PerdureError;
  t.equal(cause.code, "PERDURE_DUPLICATE");
  t.match(
    cause.message,
    new RegExp(`calls step "Warehouse\\.pack" of ${which}, and of ${which}: .*named\\("…", instance\\)`),
  );
});

test("a test puts a stand-in over a decorated method by assigning it, or as a getter", async (t) => {
  class Service {
    @step()
    async reserve(): Promise<string> {
      return "real";
    }
  }
  const [assigned, mocked] = [new Service(), new Service()];
  assigned.reserve = async () => "assigned";
  t.equal(await assigned.reserve(), "assigned");
  const getter = mock.getter(mocked, "reserve", () => async () => "mocked");
  t.equal(await mocked.reserve(), "mocked");
  t.equal(getter.mock.callCount(), 1);
  mock.restoreAll();
  t.equal(await mocked.reserve(), "real");
});

test("of the network, strict mode names the connection that a body opens, not what it sends on an open one", async (t) => {
  const pool = new pg.Pool({ connectionString: await server(), max: 1 });
  t.teardown(() => pool.end());
  const logger = collector();
  const work = workflow("work", async () => (await pool.query("select 1")).rowCount);
  const { perdure } = await bench(t, { workflows: [work], logger, strict: true });
  await (await perdure.start(work)).result(patient);
  t.match(logger.lines.join("\n"), /uses the network in the body of workflow "work"/);
  const said = logger.lines.length;
  const more = workflow("more", async () => (await pool.query("select 1")).rowCount);
  const { perdure: other } = await bench(t, { workflows: [more], logger, strict: true });
  await (await other.start(more)).result(patient);
  t.equal(logger.lines.length, said);
});

test("under strict mode Date is another function, whose instances are those of the one before, until it is off", async (t) => {
  const kept = Date;
  const { perdure } = await bench(t, { strict: true });
  t.not(Date, kept);
  t.ok(new Date() instanceof kept && new kept() instanceof Date);
  t.equal(new kept().constructor, Date);
  await perdure.shutdown();
  t.equal(Date, kept);
});

async function checkSlowClient(t: Test, program: string): Promise<void> {
  const env = { ...process.env, NODE_OPTIONS: "", PORT: "0", DATABASE_URL: await freshDatabase(t) };
  const shop = spawn(process.execPath, [`${ROOT}dist/examples/frameworks/${program}`], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.teardown(() => shop.kill("SIGKILL"));
  let printed = "";
  shop.stdout.on("data", (chunk) => {
    printed += chunk;
  });
  const port = await eventually(() => /listening on http:\S+:(\d+)/.exec(printed)?.[1], 20_000);
  const slow = connect(Number(port), "127.0.0.1").on("error", () => {});
  t.teardown(() => slow.destroy());
  await once(slow, "connect");
  slow.write("POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-length: 500\r\n\r\n{");
  // Answered after what the slow one has sent was read.
  await fetch(`http://127.0.0.1:${port}/health`, { headers: { connection: "close" } });
  const ended = once(shop, "exit");
  shop.kill("SIGTERM");
  await eventually(() => printed.includes("handing over"), 20_000);
  t.same(await ended, [0, null], program);
}

test("a client that never ends its request does not keep a program that was told to stop from handing over its runs", async (t) => {
  await compile(`${ROOT}examples/frameworks/nest`);
  await Promise.all(["http.js", "fastify.js", "nest/main.js"].map((program) => checkSlowClient(t, program)));
});
