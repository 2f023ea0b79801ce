/** A process that dies, or loses an answer, at any commit of a parent and its children: one child for each call, and every end arrives. */
import { type Test, test } from "tap";
import { Perdure, RunFailedError, type RunHandle, race, sleep, start, step, workflow } from "../../lib/index.ts";
import { type Bench, bench, collector } from "../support/engine.ts";
import { gate, PATIENCE_MS, rejection } from "../support/gate.ts";
import { FaultyProxy } from "../support/proxy.ts";

const MOST_COMMITS = 60;
/** So many schemas share the work of the commits. */
const LANES = 4;
const patient = { timeout: PATIENCE_MS };
const add = step("add", async (n: number) => n + 1);
const child = workflow("child", async (n: number) => {
  await sleep(1);
  return add(n);
});
const failing = workflow("failing", async () => {
  throw new Error("no");
});
const parent = workflow("parent", async () => {
  const handle = await start(child, 1);
  const [two, failed] = await Promise.all([child(2), failing().catch((e) => e instanceof RunFailedError)]);
  const won = await race({ handle, late: "1h" });
  const named = await child.with({ id: "named" })(5);
  return [won.value, two, failed, named, await handle.result()];
});
const workflows = [parent, child, failing];
const RESULT = [2, 3, true, 6, 2];
const CHILDREN = 4;

const TABLES = ["run", "input", "checkpoint", "wait", "outcome", "follower", "delivery"].map(
  (table) => `:SCHEMA.${table}`,
);

/** A process that serves all, behind a proxy of its own; `at`: the commit whose answer it does not get. */
async function victim({ url, schema }: Bench, at: number, onCommit: (proxy: FaultyProxy) => void) {
  const proxy = await FaultyProxy.open({ host: new URL(url).hostname, port: Number(new URL(url).port) });
  const database = Object.assign(new URL(url), { port: `${proxy.port}` }).href;
  const engine = new Perdure({ database, schema, workflows, logger: collector() });
  await engine.launch();
  let commits = 0;
  let struck!: () => void;
  const reached = new Promise<true>((resolve) => {
    struck = () => resolve(true);
  });
  proxy.onCommitted = () => {
    commits += 1;
    if (commits !== at) return "pass";
    onCommit(proxy);
    struck();
    return "reset";
  };
  return { engine, proxy, reached };
}

/** One child for each call of the parent, whose result is right; then the schema is empty again. */
async function checked(t: Test, { sql }: Bench, handle: RunHandle<unknown>, at: number): Promise<void> {
  t.same(await handle.result(patient), RESULT, `commit ${at}`);
  const rows = await sql("select id from :SCHEMA.run where workflow <> 'parent'");
  t.equal(rows.length, CHILDREN, `commit ${at}: ${rows.map(({ id }) => id).join(", ")}`);
  await sql(`truncate ${TABLES.join(", ")}`);
}

test("a process that dies at any commit of a parent or its children leaves one child for each call", async (t) => {
  const dead: { engine: Perdure; proxy: FaultyProxy }[] = [];
  const lane = async (first: number): Promise<number> => {
    const b = await bench(t, { workflows: [], worker: false });
    for (let at = first; at < MOST_COMMITS; at += LANES) {
      // From here on it reaches the server no more, whatever goes on in it.
      const { engine, proxy, reached } = await victim(b, at, (behind) => {
        behind.mode = "refuse";
        setImmediate(() => behind.cut());
      });
      dead.push({ engine, proxy });
      const own = parent.with({ id: `parent ${at}` });
      const whole = engine
        .start(own)
        .then((run) => run.result(patient))
        .then(() => false)
        .catch(() => reached);
      if (!(await Promise.race([reached, whole]))) return at - 1;
      const heir = await b.another({ workflows, worker: {} });
      // Where the start itself was lost, its caller starts it again.
      await checked(t, b, await heir.start(own), at);
      await heir.shutdown();
    }
    return MOST_COMMITS;
  };
  const commits = await Promise.all(Array.from({ length: LANES }, (_, n) => lane(n + 1)));
  t.comment(`${Math.min(...commits)} commits`);
  t.ok(Math.min(...commits) > 5 && Math.max(...commits) < MOST_COMMITS, "each commit was the last once");
  await Promise.all(dead.map(({ engine }) => engine.shutdown({ timeout: 0 })));
  await Promise.all(dead.map(({ proxy }) => proxy.close()));
});

test("a process that loses the answer to any commit of a parent or its children leaves one child for each call", async (t) => {
  const b = await bench(t, { workflows: [], worker: false });
  let at = 0;
  for (let more = true; more && at < MOST_COMMITS; at += 1) {
    more = false;
    const { engine, proxy } = await victim(b, at + 1, () => {
      more = true;
    });
    const own = parent.with({ id: `parent ${at}` });
    // A start is given its answer, however often its own was lost.
    await checked(t, b, await engine.start(own), at + 1);
    await engine.shutdown();
    await proxy.close();
  }
  t.comment(`${at - 1} commits`);
  t.ok(at > 5 && at < MOST_COMMITS, "each answer was lost once");
});

test("an outage that is too long for a caller outside is none for a parent: its child is started once the database is back", async (t) => {
  const inside = gate();
  const hold = gate();
  const held = step("held", async () => {
    inside.open();
    await hold.opened;
  });
  const patientParent = workflow("patient", async () => {
    await held();
    return child(1);
  });
  const { url, schema } = await bench(t, { workflows: [], worker: false });
  const proxy = await FaultyProxy.open({ host: new URL(url).hostname, port: Number(new URL(url).port) });
  t.teardown(() => proxy.close());
  const database = Object.assign(new URL(url), { port: `${proxy.port}` }).href;
  const all = [patientParent, child];
  const engine = new Perdure({ database, schema, workflows: all, lease: "1h", logger: collector() });
  await engine.launch();
  t.teardown(() => engine.shutdown());
  const run = await engine.start(patientParent);
  await inside.opened;
  proxy.mode = "refuse";
  proxy.cut();
  hold.open();
  const outside = rejection(engine.start(child.with({ id: "outside" }), 1));
  // Both have been handed in; from here on they have waited for 31 seconds.
  await new Promise((resolve) => setTimeout(resolve, 200));
  const now = performance.now.bind(performance);
  performance.now = () => now() + 31_000;
  t.teardown(() => {
    performance.now = now;
  });
  t.match(await outside, { code: "PERDURE_CONNECTION" });
  performance.now = now;
  proxy.mode = "pass";
  t.equal(await run.result(patient), 2);
});
