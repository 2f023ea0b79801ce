/** The history of a run: every slot in the order in which the body was handed it, with what it came to, and what is open. */
import { test } from "tap";
import {
  event,
  type HistoryEntry,
  patched,
  race,
  runStep,
  sleep,
  sleepUntil,
  start,
  step,
  transaction,
  workflow,
} from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate as latch, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";
import { atGate, gate } from "../support/replay.ts";

class Declined extends Error {
  static {
    Declined.prototype.name = "Declined";
  }
}

const brief = (entries: readonly HistoryEntry[]): string[] =>
  entries.map(({ slot, outcome }) => `${slot.replace(/\/[^#@]+/, "")} ${outcome}`);

test("a history shows each slot once, in the order of delivery, with values and errors as the body had them", async (t) => {
  const paid = event<{ cents: number }>("paid");
  const map = step("map", async () => new Map([[1n, new Date(7)]]));
  const fails = step("fails", async () => {
    throw new Declined("no money");
  });
  const count = transaction("count", async (tx) => (await tx.query("select 7::int as n")).rows[0].n as number);
  const w = workflow("w", async () => {
    await map();
    patched("new-way");
    await fails().catch(() => {});
    await count();
    await sleep("short nap", 5);
    await sleepUntil(new Date(0));
    await runStep("anonymous", () => undefined);
    await paid.wait({ timeout: 5 });
    return (await paid.wait()).data;
  });
  const { perdure } = await bench(t, { workflows: [w], errors: [Declined] });
  const run = await perdure.start(w);
  await eventually(async () => (await run.history()).at(-1)?.slot === "event:paid#1", PATIENCE_MS);
  await run.send(paid, { cents: 5 }, { reference: "p-1" });
  await run.result();
  const entries = await run.history();
  t.strictSame(brief(entries), [
    "step:map#0 completed",
    "patch:new-way#0 completed",
    "step:fails#0 failed",
    "transaction:count#0 completed",
    "sleep:short nap#0 completed",
    "sleep:#0 completed",
    "run:anonymous#0 completed",
    "event:paid#0 timeout",
    "event:paid#1 completed",
  ]);
  t.strictSame(
    entries.map(({ kind, name }) => `${kind} ${name}`),
    [
      "step map",
      "patch new-way",
      "step fails",
      "transaction count",
      "sleep short nap",
      "sleep ",
      "step anonymous",
      "event paid",
      "event paid",
    ],
  );
  const [first, , failed, counted, nap, , anonymous, late, mail] = entries;
  t.strictSame(first!.value, new Map([[1n, new Date(7)]]));
  t.match(failed!.error, Declined);
  t.match(failed!.errors, [{ attempt: 1, error: { message: "no money" } }]);
  t.equal(counted!.value, 7);
  t.strictSame(nap!.value, { woken: false });
  t.strictSame([anonymous!.value, late!.value], [undefined, null]);
  t.match(mail!.value, { data: { cents: 5 }, reference: "p-1", sentAt: Date });
  t.ok(entries.every((e) => e.attempts === 1 && e.runAttempt === 1 && !e.setAside && e.unreadable === undefined));
  t.ok(entries.every((e) => e.finishedAt !== null && e.startedAt.getTime() <= e.finishedAt.getTime()));
  t.ok(nap!.finishedAt!.getTime() - nap!.startedAt.getTime() >= 5, "a wait began when it began");
});

test("a step that failed for good holds the error of every try, and the workflow can catch it", async (t) => {
  let tries = 0;
  const flaky = step({ name: "flaky", retry: { type: "fixed", maxAttempts: 3, delay: 1 } }, async () => {
    tries += 1;
    throw new Declined(`try ${tries}`, { cause: new RangeError("deep") });
  });
  const w = workflow("w", () => flaky().catch((error) => `caught ${error.message}`));
  const { perdure } = await bench(t, { workflows: [w], errors: [Declined] });
  const run = await perdure.start(w);
  t.equal(await run.result(), "caught try 3");
  const [entry] = await run.history();
  t.match(entry, { outcome: "failed", attempts: 3, error: { message: "try 3" } });
  t.strictSame(
    entry!.errors.map(({ attempt, error }) => [attempt, error instanceof Declined, (error as Error).message]),
    [1, 2, 3].map((n) => [n, true, `try ${n}`]),
  );
  t.ok(entry!.errors.every(({ error }) => (error as Error).cause instanceof RangeError));
  const times = entry!.errors.flatMap(({ startedAt, failedAt }) => [startedAt.getTime(), failedAt.getTime()]);
  t.strictSame(
    times,
    [...times].sort((x, y) => x - y),
  );
});

test("attempts of the workflow that failed, and what a retry set aside, stay in the history", async (t) => {
  const kept = step("kept", async () => "kept");
  let calls = 0;
  const breaks = step("breaks", async () => {
    calls += 1;
    if (calls === 1) throw new Error("once");
    return "mended";
  });
  let bodies = 0;
  const w = workflow({ name: "w", retry: { type: "fixed", maxAttempts: 3, delay: 0 } }, async () => {
    await kept();
    await breaks();
    bodies += 1;
    if (bodies === 1) throw new Error("the body itself");
    return breaks();
  });
  const { perdure } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await run.result();
  const entries = await run.history();
  t.strictSame(
    entries.map((e) => `${e.slot.split("/")[0]} ${e.runAttempt} ${e.outcome}${e.setAside ? " set aside" : ""}`),
    [
      "step:kept 1 completed",
      "step:breaks 1 failed set aside",
      "attempt#1 1 failed set aside",
      "step:breaks 2 completed",
      "attempt#2 2 failed set aside",
      "step:breaks 3 completed",
    ],
  );
  t.match(
    entries.filter(({ kind }) => kind === "attempt"),
    [
      { name: "w", error: { message: "once" }, errors: [] },
      { name: "w", error: { message: "the body itself" } },
    ],
  );
});

test("what is open is shown: a running step, one between two tries, waits, and a transaction not yet handed over", async (t) => {
  const open = latch();
  t.teardown(() => open.open());
  const long = step("long", async () => open.opened);
  const retried = step({ name: "retried", retry: { type: "fixed", maxAttempts: 2, delay: "1h" } }, async () => {
    throw new Error("again");
  });
  const busy = workflow("busy", () =>
    Promise.all([long(), retried().catch(() => {}), sleep("nap", "1h"), gate.wait()]),
  );
  const { perdure } = await bench(t, { workflows: [busy] });
  const run = await perdure.start(busy);
  await eventually(async () => (await run.history()).length === 4, PATIENCE_MS);
  const entries = await run.history();
  t.strictSame(brief(entries).sort(), [
    "event:gate#0 waiting",
    "sleep:nap#0 waiting",
    "step:long#0 running",
    "step:retried#0 waiting",
  ]);
  t.match(
    entries.find(({ name }) => name === "retried"),
    { kind: "step", attempts: 1, finishedAt: null, errors: [{ attempt: 1, error: { message: "again" } }] },
  );
  t.notOk("value" in entries[0]!);
  await run.cancel();
  t.strictSame(await run.history(), [], "nothing is open in a run that has ended");
});

test("a history that somebody broke is listed all the same, and says what cannot be read", async (t) => {
  const a = step("a", async () => "a");
  const b = step("b", async () => "b");
  const c = step("c", async () => {
    throw new Error("c");
  });
  const w = workflow("w", async () => [await a(), await b(), await c().catch(() => {}), await gate.wait()]);
  const { perdure, sql } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  await atGate(run);
  await sql("alter table :SCHEMA.checkpoint disable trigger check_checkpoint");
  await sql("update :SCHEMA.checkpoint set value = '7' where name in ('a', 'c')");
  const entries = await run.history();
  t.strictSame(brief(entries), ["step:a#0 completed", "step:b#0 completed", "step:c#0 failed", "event:gate#0 waiting"]);
  t.match(entries[0]!.unreadable, { code: "PERDURE_DECODE", message: /value of "step:a\/.*" of run/ });
  t.notOk("value" in entries[0]!);
  t.equal(entries[1]!.value, "b");
  t.match(entries[2]!.unreadable ?? entries[2]!.error, Error);
});

test("a long history is read in pages, whole and in order, while the run goes on", async (t) => {
  const add = step("add", async (n: number) => n);
  const w = workflow("w", async () => {
    for (let n = 0; n < 1600; n += 4) {
      await Promise.all([0, 1, 2, 3].map((more) => add(n + more)));
      patched(`at ${n % 100}`);
    }
    await gate.wait();
  });
  const { perdure } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  const counts: number[] = [];
  await eventually(async () => {
    const entries = await run.history();
    const steps = entries.filter(({ kind }) => kind === "step");
    counts.push(steps.length);
    t.equal(new Set(entries.map(({ slot }) => slot)).size, entries.length, "no slot twice");
    t.strictSame(
      steps.map(({ value }) => value),
      steps.map((_, n) => n),
      "without a gap",
    );
    return entries.at(-1)?.outcome === "waiting" && entries.length === 1600 + 25 + 1;
  }, PATIENCE_MS);
  t.ok(counts.length > 1);
});

test("the history of a run that is not there, not begun, or another's", async (t) => {
  const w = workflow("w", async () => 1);
  const { perdure } = await bench(t, { workflows: [w], worker: false });
  t.match(await rejection(perdure.get("nobody").history()), {
    code: "PERDURE_NOT_FOUND",
    message: /there is no run "nobody"/,
  });
  const run = await perdure.start(w);
  t.strictSame(await run.history(), []);
  await run.cancel();
  await reaches(run, "cancelled");
  t.strictSame(await run.history(), []);
});

test("children, races and their ends are shown as the body had them", async (t) => {
  const child = workflow("child", async (how: string) => {
    if (how === "fails") throw new Declined("as told");
    return how === "nothing" ? null : { how };
  });
  const slow = workflow("slow", async () => void (await sleep("1h")));
  const parent = workflow("parent", async () => {
    const handle = await start(child, "well");
    await handle.result();
    await child("nothing");
    await child("fails").catch(() => {});
    await race({ mail: gate, late: 1 });
    await race({ mail: gate, end: handle });
    const lazy = await start(slow);
    await lazy.result({ timeout: 1 }).catch(() => {});
    await race({ mail: gate, lazy });
    await slow();
  });
  const { perdure } = await bench(t, { workflows: [parent, child, slow], errors: [Declined] });
  const run = await perdure.start(parent);
  const races = async () => (await run.history()).filter(({ kind }) => kind === "race");
  await eventually(async () => (await races())[2]?.outcome === "waiting", PATIENCE_MS);
  await run.send(gate, null);
  await eventually(async () => (await run.history()).at(-1)?.slot.startsWith("child:slow"), PATIENCE_MS);
  const entries = await run.history();
  t.strictSame(
    entries.map(({ kind, outcome }) => `${kind} ${outcome}`),
    [
      "start completed",
      "child completed",
      "child completed",
      "child failed",
      "race timeout",
      "race completed",
      "start completed",
      "child timeout",
      "race completed",
      "child waiting",
    ],
  );
  t.strictSame(
    entries.filter(({ unreadable }) => unreadable),
    [],
  );
  const [started, first, none, failed, late, ended, , , mail, open] = entries;
  t.match(started!.value, { id: String });
  t.strictSame([first!.value, none!.value], [{ how: "well" }, null]);
  t.match(failed!.error, { code: "PERDURE_FAILED", cause: { message: "as told" } });
  t.ok((failed!.error as Error).cause instanceof Declined);
  t.strictSame(
    [late!.value, ended!.value],
    [
      { winner: "late", value: null },
      { winner: "end", value: { how: "well" } },
    ],
  );
  t.match(mail!.value, { winner: "mail", value: { data: null, id: String, sentAt: Date } });
  t.strictSame(Object.keys((mail!.value as { value: object }).value).sort(), ["data", "id", "sentAt"]);
  t.equal(open!.name, (await perdure.list({ workflow: slow })).runs[0]!.id);
});
