/** Strict mode: names the line of what a body must not ask the world for, leaves everything else alone, and takes itself away again. */
import { execFileSync } from "node:child_process";
import cryptoModule, { randomBytes, randomUUID } from "node:crypto";
import dns from "node:dns";
import { readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import type { AddressInfo } from "node:net";
import net from "node:net";
import { join } from "node:path";
import { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { pino } from "pino";
import { type Test, test } from "tap";
import {
  currentRun,
  event,
  now,
  type PerdureOptions,
  random,
  runStep,
  sleep,
  start,
  step,
  transaction,
  uuid,
  value,
  workflow,
} from "../../lib/index.ts";
import { engineOf } from "../../lib/launched.ts";
import { bench, collector } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, rejection } from "../support/gate.ts";
import { server } from "../support/postgres.ts";

const patient = { timeout: "20s" } as const;
const SOURCE = readFileSync(fileURLToPath(import.meta.url), "utf8").split("\n");

interface Report {
  readonly call: string;
  readonly line: string;
  readonly text: string;
}

/** What strict mode said, with the source line that each report names. */
function reports(lines: readonly string[]): Report[] {
  return lines.flatMap((text) => {
    const found = /^perdure: (.*) at (.*):(\d+):(\d+) (reads|draws|sets|waits|uses)/.exec(text);
    if (!found || found[2] !== fileURLToPath(import.meta.url)) return [];
    return [{ call: found[1]!, line: SOURCE[Number(found[3]) - 1]!, text }];
  });
}

/** Runs a body once in a strict engine. Returns what was said. */
async function said(t: Test, fn: () => unknown, options: PerdureOptions = {}): Promise<string[]> {
  const logger = collector();
  const one = workflow("one", async () => void (await fn()));
  const { perdure } = await bench(t, { workflows: [one], logger, strict: true, ...options });
  await (await perdure.start(one)).result(patient);
  await perdure.shutdown();
  return logger.lines;
}

test("each read of the clock, of randomness, of the network and of timers is named, with its line and the fix", async (t) => {
  const listener = http.createServer((_, response) => response.end("hello"));
  await new Promise<void>((resolve) => void listener.listen(0, "127.0.0.1", resolve));
  t.teardown(() => void listener.close());
  const url = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`;
  const said_ = await said(t, async () => {
    Date.now();
    new Date();
    Date();
    performance.now();
    process.hrtime();
    process.hrtime.bigint();
    Math.random();
    crypto.randomUUID();
    crypto.getRandomValues(new Uint8Array(2));
    cryptoModule.randomInt(7);
    randomUUID();
    randomBytes(3);
    await new Promise((resolve) => setTimeout(resolve, 1));
    await delay(1);
    clearInterval(setInterval(() => {}, 1000));
    await new Promise((resolve) => setImmediate(resolve));
    await (await fetch(url)).text();
    await new Promise((resolve) => http.get(url, (response) => response.resume().on("end", resolve)));
    net.connect(new URL(url).port as unknown as number, "127.0.0.1").destroy();
    await dns.promises.lookup("localhost");
    readFileSync(fileURLToPath(import.meta.url));
  });
  const found = reports(said_);
  const calls = `Date.now() | new Date() | Date() | performance.now() | process.hrtime() | process.hrtime.bigint() | Math.random() | crypto.randomUUID() |
    crypto.getRandomValues() | crypto.randomInt() | crypto.randomUUID() | crypto.randomBytes() | setTimeout() | timers/promises setTimeout() | setInterval() |
    setImmediate() | fetch() | http.get() | net.connect() | dns/promises lookup() | fs.readFileSync()`;
  t.same(
    found.map(({ call }) => call),
    calls.split("|").map((call) => call.trim()),
  );
  const written = `Date.now | new Date | Date() | performance.now | process.hrtime | hrtime.bigint | Math.random | crypto.randomUUID | crypto.getRandomValues | randomInt |
    randomUUID | randomBytes | setTimeout | delay(1) | setInterval | setImmediate | fetch(url) | http.get | net.connect | lookup( | readFileSync`;
  for (const [at, text] of written.split("|").entries()) t.ok(found[at]?.line.includes(text.trim()), text.trim());
  const fixes: [RegExp, RegExp][] = [
    [/^(Date|new Date|performance|process)/, /use now\(\) of perdure/],
    [/randomUUID/, /use uuid\(\) of perdure/],
    [/Math/, /use random\(\)/],
    [/setTimeout/, /use sleep\(\) of perdure/],
    [/fetch|http|net|dns|fs/, /wrap it in a step: runStep\("name", \(\) => …\)/],
  ];
  for (const [which, fix] of fixes) {
    const those = found.filter(({ call }) => which.test(call));
    t.ok(those.length > 0 && those.every(({ text }) => fix.test(text)), String(fix));
  }
  t.ok(found.every(({ text }) => /workflow "one", outside a step \(run "[^"]+"\)/.test(text)));
});

test("a place is told of once, however many runs and replays come by, and another line of its own", async (t) => {
  const logger = collector();
  const go = event("go");
  const one = workflow("one", async () => {
    for (let n = 0; n < 3; n++) Math.random();
    Math.random();
    await go.wait();
  });
  const { perdure, another } = await bench(t, { workflows: [one], logger, strict: true });
  const beside = await another();
  const runs = [await perdure.start(one), await beside.start(one)];
  for (const run of runs) await run.send(go);
  for (const run of runs) await run.result(patient);
  t.equal(reports(logger.lines).length, 2);
});

test("what steps, packages, loggers, policies and the library itself ask is not the body's", async (t) => {
  const lines: string[] = [];
  const sink = new Writable({
    write: (chunk, _, done) => {
      lines.push(String(chunk));
      done();
    },
  });
  const logger = pino({ level: "debug" }, sink);
  const tx = transaction("tx", async (client) => [Date.now(), (await client.query("select 1")).rowCount]);
  const flaky = step(
    {
      name: "flaky",
      timeout: "1m",
      retry: { type: "fixed", maxAttempts: 2, delay: 1, shouldRetry: () => Date.now() > 0 },
    },
    async (tries: number[]) => {
      await delay(Math.random());
      if (tries.length === 0) return new Date();
      throw new Error("no");
    },
  );
  const child = workflow("child", async () => now());
  const board = value<string>("board");
  const body = async () => {
    logger.info("pino asks the clock");
    currentRun().log.warn("so does the logger");
    currentRun().log.warn({ also: "here" });
    await flaky([]);
    await flaky([1]).catch(() => {});
    await tx();
    await runStep("in step", async () => [Math.random(), randomUUID(), await delay(1)]);
    await sleep(1);
    await child();
    await (await start(child)).result();
    await board.set("x");
    [now(), uuid(), random(), currentRun().signal];
    new Date(0);
    new Date(now());
    Date.parse("2026-01-01");
  };
  const own = workflow("own", body);
  const userLogger = {
    ...collector(),
    // A logger of the application's own asks the clock in the application's own code.
    warn: (message: string) => void lines.push(`${new Date().toISOString()} ${message}`),
  };
  const { perdure } = await bench(t, { workflows: [own, child], logger: userLogger, strict: true });
  await (await perdure.start(own)).result(patient);
  await perdure.shutdown();
  t.ok(lines.some((line) => line.includes("so does the logger")));
  t.same(
    lines.filter((line) => line.includes("perdure:")),
    [],
  );
});

test("the network that a package uses for a body is named at the body's own line", async (t) => {
  const connectionString = await server();
  const lines = await said(t, async () => {
    const client = new pg.Client({ connectionString });
    await client.connect();
    await client.end();
  });
  t.match(reports(lines), [{ call: "socket.connect()", line: /client\.connect/ }]);
});

test("a body that waits for what is not durable is told of, with the call before it, and one that waits for durable things is not", async (t) => {
  const held = gate();
  const logger = collector();
  const charge = step("charge", async () => delay(600));
  const stuck = workflow("stuck", async (after: boolean) => {
    if (after) await charge();
    await held.opened;
  });
  const { perdure } = await bench(t, { workflows: [stuck], logger, strict: true });
  const runs = [
    await perdure.start(stuck.with({ id: "s-1" }), true),
    await perdure.start(stuck.with({ id: "s-2" }), false),
  ];
  const told = () => logger.lines.filter((line) => line.includes("waits for something that is not durable"));
  await eventually(() => told().length === 2, 20_000);
  held.open();
  for (const run of runs) await run.result(patient);
  const [first, second] = told();
  t.match(first, /run "s-2" of workflow "stuck" .*, before its first call/);
  t.match(second, /run "s-1" of workflow "stuck" .*, after step "charge", called at .*strict\.test\.[jt]s:(\d+)/);
  const line = Number(/strict\.test\.[jt]s:(\d+)/.exec(second!)![1]);
  t.match(SOURCE[line - 1], "await charge()");
});

/** The functions that strict mode replaces. */
const globals = () => [
  [Date, Date.now, Date.prototype.constructor, performance.now, process.hrtime, process.hrtime.bigint, Math.random],
  [globalThis.crypto.randomUUID, cryptoModule.randomUUID, randomUUID, randomBytes, delay],
  [setTimeout, setInterval, setImmediate, fetch, http.get, net.connect, dns.lookup, dns.promises.lookup, readFileSync],
];
const descriptors = () =>
  [Date, performance, process, Math, globalThis.crypto, cryptoModule, http, net, dns].map(
    Object.getOwnPropertyDescriptors,
  );

test("without strict nothing is replaced; with it, until the last strict engine is shut down", async (t) => {
  const [before, shapes] = [globals(), descriptors()];
  const same = () => globals().every((group, at) => group.every((one, n) => one === before[at]![n]));
  const { perdure, another } = await bench(t, { strict: false });
  t.ok(same(), "an engine that is not strict");
  const first = await another({ strict: true });
  t.not(globalThis.Date, before[0]![0]);
  t.not(randomUUID, before[1]![2], "named imports too");
  const second = await another({ strict: true });
  await Promise.all([first.shutdown(), perdure.shutdown()]);
  t.notOk(same());
  t.ok(new Date(0) instanceof Date && new Date(0).constructor === Date, "what is replaced works as before");
  t.equal(Object.prototype.toString.call(new Date()), "[object Date]");
  t.ok(new (class Day extends Date {})().getTime() > 0);
  await second.shutdown();
  t.ok(same());
  t.same(descriptors(), shapes);
});

test("an engine that a test kills leaves nothing replaced", async (t) => {
  const [date, draw] = [Date, Math.random];
  const { perdure } = await bench(t, { strict: true });
  t.not(Date, date);
  await engineOf.get(perdure)!.die();
  t.equal(Date, date);
  t.equal(Math.random, draw);
});

test("what somebody put over a replaced function stays, and works on", async (t) => {
  const { perdure } = await bench(t, { strict: true });
  const [ours, random_] = [Math.random, 0.25];
  Math.random = () => random_;
  await perdure.shutdown();
  t.equal(Math.random(), 0.25);
  Math.random = ours;
  t.ok(Math.random() < 1);
  delete (Math as { random?: unknown }).random;
  Object.defineProperty(Math, "random", { value: ours, writable: true, configurable: true });
});

test("a launch that fails leaves nothing replaced", async (t) => {
  const before = globals();
  const { url, schema, perdure } = await bench(t, {});
  const { Perdure } = await import("../../lib/index.ts");
  const broken = new Perdure({ database: url, schema, strict: true, listenUrl: "postgres://nobody:x@127.0.0.1:1/x" });
  t.match(await rejection(broken.launch()), { code: /^PERDURE_/ });
  t.same(globals(), before);
  await perdure.shutdown();
});

const PROGRAM = `
  import { randomUUID } from "node:crypto";
  import { Perdure, step, workflow } from "LIBRARY";
  const before = [Date, Math.random, setTimeout, randomUUID, fetch];
  const alone = step("alone", async () => {});
  const logger = { debug() {}, info() {}, warn: (m) => console.log(m), error: console.error };
  const perdure = new Perdure({ schema: process.env.SCHEMA, logger });
  await perdure.launch();
  console.log(before.every((one, at) => one === [Date, Math.random, setTimeout, randomUUID, fetch][at]));
  await alone();
  await perdure.shutdown();`;

test("it is on where NODE_ENV is development, and warns of steps called outside there; else off", async (t) => {
  const { url, schema, perdure } = await bench(t, {});
  const library = new URL("../../lib/index.js", import.meta.url).href;
  const program = PROGRAM.replace("LIBRARY", library);
  const run = (mode: string): string => {
    const { NODE_OPTIONS: _, ...env } = process.env;
    const given = { ...env, DATABASE_URL: url, SCHEMA: schema, NODE_ENV: mode };
    return execFileSync(process.execPath, ["--input-type=module", "-e", program], { env: given, encoding: "utf8" });
  };
  t.equal(run("production").trim(), "true");
  t.equal(run("").trim(), "true");
  t.match(run("development"), /^false\nperdure: step "alone" was called outside a workflow/);
  await perdure.shutdown();
});

const SOURCE_PROGRAM = `import { Perdure, workflow } from "LIBRARY";

interface Nothing {
  readonly of: "this";
  readonly stays: "in JavaScript";
}
const hasty = workflow("hasty", async (_: Nothing | null): Promise<number> => Date.now());
const logger = { debug() {}, info: console.log, warn: console.log, error: console.error };
const perdure = new Perdure({ schema: process.env.SCHEMA!, workflows: [hasty], strict: true, logger });
await perdure.launch();
await (await perdure.start(hasty, null)).result();
await perdure.shutdown();
`;

test("TypeScript that runs as it is has its own lines named; in a bundle none are, and that is said", async (t) => {
  const { url, schema, perdure } = await bench(t, {});
  await perdure.shutdown();
  const folder = await mkdtemp(fileURLToPath(new URL("../../strict-", import.meta.url)));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "program.ts");
  writeFileSync(file, SOURCE_PROGRAM.replace("LIBRARY", fileURLToPath(new URL("../../lib/index.js", import.meta.url))));
  const { NODE_OPTIONS: _, ...env } = process.env;
  const run = (...args: string[]): string =>
    execFileSync(process.execPath, args, { env: { ...env, DATABASE_URL: url, SCHEMA: schema }, encoding: "utf8" });
  const tsx = fileURLToPath(import.meta.resolve("tsx/cli"));
  t.match(run(tsx, file), /^perdure: Date\.now\(\) at .*program\.ts:7:\d+ reads the clock/);
  const bundle = join(folder, "bundle.mjs");
  const { buildSync } = await import("esbuild");
  buildSync({
    entryPoints: [file],
    outfile: bundle,
    bundle: true,
    platform: "node",
    format: "esm",
    packages: "external",
  });
  t.equal(run(bundle).trim(), "perdure: strict mode sees no lines in a bundle; run the sources");
});
