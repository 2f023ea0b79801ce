/** What the notifier promises: the first hint at once, the rest gathered, and no trouble for anybody. */
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import { channelOf, createNotifier, type Hint } from "../../lib/db/notifier.ts";
import { eventually } from "../support/eventually.ts";

function recorder() {
  const sent: { payload: string; at: number }[] = [];
  const send = async (payload: string) => void sent.push({ payload, at: performance.now() });
  return { sent, send, payloads: () => sent.map(({ payload }) => payload) };
}

await t.test("the first hint goes at once, the next ones together after the gap", async (t) => {
  const { send, sent, payloads } = recorder();
  const notifier = createNotifier({ send, minGapMs: 50 });
  notifier.hint("w");
  await Promise.resolve();
  t.same(payloads(), ["w"]);
  for (const kind of ["w", "d", "b", "d", "c"] as const) notifier.hint(kind);
  await eventually(() => sent.length === 2);
  t.same(payloads(), ["w", "bcdw"]);
  t.ok(sent[1]!.at - sent[0]!.at >= 49);
  await notifier.close();
});

await t.test("1,000 hints in 100 ms are a few sends, 10 ms apart", async (t) => {
  const { send, sent, payloads } = recorder();
  const notifier = createNotifier({ send });
  const kinds: Hint[] = ["w", "d"];
  for (let round = 0; round < 100; round++) {
    for (let n = 0; n < 10; n++) notifier.hint(kinds[n % 2]!);
    await sleep(1);
  }
  await notifier.close();
  t.ok(sent.length >= 2 && sent.length <= 40, `${sent.length} sends`);
  t.same([...new Set(payloads())], ["dw"]);
  const gaps = sent.slice(1, -1).map(({ at }, n) => at - sent[n]!.at);
  t.ok(Math.min(...gaps) >= 9, `least gap ${Math.min(...gaps)} ms`);
});

await t.test("hints of one moment travel in one payload, with its letters sorted and distinct", async (t) => {
  const { send, payloads } = recorder();
  const notifier = createNotifier({ send });
  for (const kind of ["w", "c", "w", "b"] as const) notifier.hint(kind);
  await notifier.close();
  t.same(payloads(), ["bcw"]);
});

await t.test("a send under way is not overtaken, and what comes meanwhile is gathered", async (t) => {
  const waiting: { payload: string; done: () => void }[] = [];
  const send = (payload: string) => new Promise<void>((done) => waiting.push({ payload, done }));
  const notifier = createNotifier({ send, minGapMs: 1 });
  notifier.hint("w");
  await eventually(() => waiting.length === 1);
  notifier.hint("d");
  notifier.hint("c");
  await sleep(30); // Nothing happens.
  t.equal(waiting.length, 1);
  waiting[0]!.done();
  await eventually(() => waiting.length === 2);
  t.equal(waiting[1]!.payload, "cd");
  waiting[1]!.done();
  await notifier.close();
});

await t.test("a failed send is dropped, thrown or rejected, and the next hint is sent", async (t) => {
  const tries: string[] = [];
  const notifier = createNotifier({
    minGapMs: 1,
    send: (payload) => {
      tries.push(payload);
      if (tries.length === 1) throw new Error("thrown");
      return Promise.reject(new Error("rejected"));
    },
  });
  for (const kind of ["w", "d", "c"] as const) {
    notifier.hint(kind);
    await eventually(() => tries.at(-1) === kind);
  }
  await notifier.close();
  t.same(tries, ["w", "d", "c"]);
});

await t.test("a send that never ends is given up after a second", async (t) => {
  const tries: string[] = [];
  const notifier = createNotifier({
    send: (payload) => (tries.push(payload) === 1 ? new Promise(() => {}) : Promise.resolve()),
  });
  notifier.hint("w");
  await eventually(() => tries.length === 1);
  notifier.hint("d");
  await eventually(() => tries.length === 2, 2000);
  t.same(tries, ["w", "d"]);
  await notifier.close();
});

await t.test("closing sends what is gathered without waiting for the gap, and nothing afterwards", async (t) => {
  const { send, payloads } = recorder();
  const notifier = createNotifier({ send, minGapMs: 10_000 });
  notifier.hint("w");
  await Promise.resolve();
  notifier.hint("d");
  await notifier.close();
  notifier.hint("c");
  await notifier.close();
  await sleep(20); // Nothing happens.
  t.same(payloads(), ["w", "d"]);
});

await t.test(
  "who sends a hint by itself takes the turn: others wait for the gap, and no longer if nobody wanted to hear it",
  async (t) => {
    const { send, sent, payloads } = recorder();
    const notifier = createNotifier({ send, minGapMs: 10_000 });
    const unsent = notifier.takeTurn();
    t.ok(unsent);
    t.equal(notifier.takeTurn(), null, "it is too soon");
    notifier.hint("w");
    await sleep(20); // Nothing happens.
    t.same(payloads(), []);
    unsent!(false);
    await eventually(() => sent.length === 1);
    t.same(payloads(), ["w"]);
    await notifier.close();
    t.equal(notifier.takeTurn(), null, "it is too late");

    const other = createNotifier({ send, minGapMs: 50 });
    const at = performance.now();
    other.takeTurn()!(true);
    other.hint("d");
    await eventually(() => sent.length === 2);
    t.ok(sent[1]!.at - at >= 49);
    await other.close();
  },
);

await t.test("a channel is a valid name of one length for any schema", (t) => {
  for (const schema of ["p", "perdure", "x".repeat(63), 'Ünïcode "quoted"'])
    t.match(channelOf(schema), /^perdure_[0-9a-f]{16}$/);
  t.not(channelOf("a"), channelOf("A"));
  t.equal(channelOf("perdure"), channelOf("perdure"));
  t.end();
});
